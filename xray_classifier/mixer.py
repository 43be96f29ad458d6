"""A mixer: perceptrons that look at patches of a film instead of all its pixels at once.

The film is cut into square patches and each patch becomes a list of numbers, its channels. Small
stacks of perceptrons then mix in turn one channel over all patches (what lies where) and all
channels of one patch (what it looks like). The same perceptrons serve every channel, or every
patch, so that a larger film needs far fewer weights than in a stack that weighs each pixel.

Source: Tolstikhin et al. 2021, "MLP-Mixer: an all-MLP architecture for vision", arXiv:2105.01601,
with the dropout after the activation and no pretrained weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xray_classifier.dense import Dense


class PerceptronMixer(nn.Module):
    """Patches, blocks that mix them, and one output perceptron over their mean.

    The global random state is neither read nor changed.

    Args:
        size_px: Side of the square images.
        patch_px: Side of a patch; divides `size_px`.
        channels: Numbers that describe a patch.
        blocks: How often patches and channels are mixed.
        token_units: Hidden perceptrons over the patches, in each block.
        channel_units: Hidden perceptrons over the channels, in each block.
        activation: Makes one activation, such as `nn.GELU`, the paper's choice.
        dropout: Chance in [0, 1) that a hidden unit is silenced in a training step.
        initialise: Draws the weights of all linear layers of the module that it is given.
        image_channels: Planes of an image; 1 is grey.
        make_dropout: Makes the module that silences units with the given chance. It is called
            2 * `blocks` times in the order of the forward pass (patches, then channels, of each
            block); its modules see (B, channels, token_units) and (B, patches, channel_units).

    Raises:
        ValueError: `size_px` is no multiple of `patch_px`.

    Source:
        Tolstikhin et al. 2021, arXiv:2105.01601, figure 1 and equation 1.
    """

    def __init__(
        self,
        *,
        size_px: int,
        patch_px: int,
        channels: int,
        blocks: int,
        token_units: int,
        channel_units: int,
        activation: Callable[[], nn.Module],
        dropout: float,
        initialise: Callable[[nn.Module], None],
        image_channels: int = 1,
        make_dropout: Callable[[float], nn.Module] = nn.Dropout,
    ) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.patches = patches_per_side(size_px, patch_px) ** 2

        def pair(features: int, units: int) -> PerceptronPair:
            return PerceptronPair(features, units, activation(), make_dropout(dropout))

        with torch.random.fork_rng(devices=[]):
            self.embedding = Dense(image_channels * patch_px**2, channels)
            self.blocks = nn.Sequential(
                *(
                    MixerBlock(
                        channels, pair(self.patches, token_units), pair(channels, channel_units)
                    )
                    for _ in range(blocks)
                )
            )
            self.norm = nn.LayerNorm(channels)
            self.output = nn.Linear(channels, 1)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map standardised images (B, image_channels, S, S) to logits (B,); above 0 means sick."""
        patches: Tensor = self.embedding(cut_patches(images, self.patch_px))
        described: Tensor = self.norm(self.blocks(patches)).mean(1)
        logits: Tensor = self.output(described)
        return logits.squeeze(1)


class MixerBlock(nn.Module):
    """Mix over patches, then over channels; each adds to what came in.

    Args:
        channels: Numbers that describe a patch.
        token_mixing: Over the patches, the same for each channel.
        channel_mixing: Over the channels, the same for each patch.
    """

    def __init__(
        self, channels: int, token_mixing: "PerceptronPair", channel_mixing: "PerceptronPair"
    ) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.token_mixing = token_mixing
        self.channel_norm = nn.LayerNorm(channels)
        self.channel_mixing = channel_mixing

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, patches, channels) to the same shape."""
        x = x + self.token_mixing(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.channel_mixing(self.channel_norm(x))
        return mixed


class PerceptronPair(nn.Module):
    """One hidden layer of perceptrons and a linear layer back to the width that came in.

    Args:
        features: Length of the last axis, in and out.
        units: Perceptrons between.
        activation: After the hidden layer.
        dropout: After the activation.
    """

    def __init__(
        self, features: int, units: int, activation: nn.Module, dropout: nn.Module
    ) -> None:
        super().__init__()
        self.hidden = Dense(features, units)
        self.activation = activation
        self.dropout = dropout
        self.output = Dense(units, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., features) to the same shape."""
        out: Tensor = self.output(self.dropout(self.activation(self.hidden(x))))
        return out


def patches_per_side(size_px: int, patch_px: int) -> int:
    """How many patches lie side by side.

    Raises:
        ValueError: They do not fill the image; the message names sizes and patches that fit.
    """
    if size_px < patch_px or size_px % patch_px:
        below = size_px // patch_px * patch_px
        sizes = [f"{size}" for size in (below, below + patch_px) if size]
        divisors = [f"{side}" for side in range(1, size_px + 1) if size_px % side == 0]
        raise ValueError(
            f"size_px {size_px} is no multiple of patch_px {patch_px}; use size_px "
            f"{' or '.join(sizes)}, or a patch_px of {', '.join(divisors)}"
        )
    return size_px // patch_px


def cut_patches(images: Tensor, patch_px: int) -> Tensor:
    """Cut images (B, C, S, S) into patches (B, (S/p)^2, C*p^2), row by row, pixels as they are.

    A patch lists its pixels plane by plane, and within a plane row by row.
    """
    columns = torch.unflatten(images, 3, (-1, patch_px))
    grid = torch.unflatten(columns, 2, (-1, patch_px))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
