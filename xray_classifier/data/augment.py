"""Random changes of training images, a whole batch at a time, on the device where it lies.

What happens to an image is a function of (seed, epoch, place of the image in the training split)
and of its pixels, to the last bit: never of its place in the batch, nor of the batch's size. So an
epoch may be cut into batches, micro-batches and shares of several processes in any way. For this,
what works on pixels is either one rounding per pixel (sums, products, comparisons), or `exp` and
`log`, which on contiguous tensors give a number the same result at any place. `pow` does not, nor
do matrix products, nor `mean`, which several threads share when an image is large and alone.

Order of the steps, of which those that are off cost nothing:

1. mirror; 2. one affine warp, see `inverse_matrices`; 3. blur; 4. gamma; 5. contrast;
6. brightness; 7. noise; 8. clipping to 0..255; 9. the hole.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xray_classifier.counter import folded, random_bits, uniform
from xray_classifier.devices import sent

_WHITE = 255.0
_ABOVE = {
    "rotate_degrees": 180.0,
    "scale": 1.0,
    "aspect": 1.0,
    "gamma": 1.0,
    "contrast": 1.0,
    "blur": 10.0,
}
_BELOW = {"shear_degrees": 45.0, "translate": 1.0, "brightness": 1.0, "noise": 1.0, "cutout": 1.0}
_KERNEL_SIGMAS = 3.0
_DIGIT_SUM_MEAN, _DIGIT_SUM_STD = 30.0, 85.0**0.5  # of four hexadecimal digits
_NOISE_COUNTER = 1 << 16  # apart from the rows of the table of `draw`


@dataclass(frozen=True)
class Augmentation:
    """How far training images are changed at most; 0 leaves a step out.

    Attributes:
        rotate_degrees: Rotation about the centre, uniform within plus and minus this; to 180.
        scale: Zoom by e^u, u uniform within plus and minus this; to 1.
        aspect: Width against height by e^u, u uniform within plus and minus this; to 1.
        shear_degrees: Lean of vertical lines, uniform within plus and minus this; below 45.
        translate: Shift along each axis, uniform within plus and minus this fraction of the side;
            below 1.
        gamma: Exponent e^u of the grey levels, u uniform within plus and minus this; to 1.
        contrast: Factor e^u about the image's mean, u uniform within plus and minus this; to 1.
        brightness: Grey levels added, uniform within plus and minus this fraction of white;
            below 1.
        noise: Standard deviation of noise as a fraction of white, uniform from 0 to this; below 1.
        blur: Standard deviation of a Gaussian in pixels, uniform from 0 to this; to 10.
        cutout: Side of one square hole per image, as a fraction of the image's side; below 1.
        flip: Mirror left and right with chance one half. Off: the heart has a side.

    Raises:
        ValueError: A number lies outside its range.
    """

    rotate_degrees: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    shear_degrees: float = 0.0
    translate: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, limit in _ABOVE.items():
            if not 0.0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}: want 0 to {limit:g}, got {getattr(self, name)}")
        for name, limit in _BELOW.items():
            if not 0.0 <= getattr(self, name) < limit:
                raise ValueError(f"{name}: want 0 to below {limit:g}, got {getattr(self, name)}")

    @property
    def warps(self) -> bool:
        """True if pixels are resampled."""
        return any(
            (self.rotate_degrees, self.scale, self.aspect, self.shear_degrees, self.translate)
        )


@dataclass(frozen=True)
class Draws:
    """What chance has chosen for each image; (B,) float32 unless said.

    Attributes:
        angle: Rotation in radians, clockwise as seen.
        zoom: Factor of both axes; above 1 the film grows.
        aspect: Factor of the width divided by that of the height.
        shear: Lean of vertical lines in radians; above 0 their lower end goes to the right.
        shift_x: Shift to the right, as a fraction of the side.
        shift_y: Shift down, as a fraction of the side.
        gamma: Exponent of the grey levels as fractions of white.
        contrast: Factor of each level's distance from the image's mean.
        brightness: Added to each level, as a fraction of white.
        noise: Standard deviation as a fraction of white.
        blur: Standard deviation in pixels.
        hole_x: Place of the hole from the leftmost, 0, to the rightmost that fits, below 1.
        hole_y: Place of the hole from the highest, 0, to the lowest that fits, below 1.
        mirrored: Whether left and right are swapped, bool.
    """

    angle: Tensor
    zoom: Tensor
    aspect: Tensor
    shear: Tensor
    shift_x: Tensor
    shift_y: Tensor
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor
    blur: Tensor
    hole_x: Tensor
    hole_y: Tensor
    mirrored: Tensor


@torch.no_grad()
def augmented(
    images: Tensor, samples: Tensor, *, settings: Augmentation, seed: int, epoch: int
) -> Tensor:
    """Training images changed at random, each by its own numbers.

    Args:
        images: (B, S, S) grey levels in 0..255, uint8 or float, on any device; left as they are.
        samples: (B,) int64, the place of each image in the training split, on the same device.
        settings: How far images are changed.
        seed: Whole number from 0 to 2^63 - 1.
        epoch: Whole number from 0; the same image is changed otherwise in another epoch.

    Returns:
        (B, S, S) float32 in 0..255, contiguous; the images themselves if everything is off.

    Raises:
        ValueError: The images are not square, or there is not one sample per image.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2] or samples.shape != images.shape[:1]:
        raise ValueError(
            f"want images (B, S, S) and samples (B,), got {tuple(images.shape)} "
            f"and {tuple(samples.shape)}"
        )
    levels = torch.empty(images.shape, dtype=torch.float32, device=images.device).copy_(images)
    if settings == Augmentation():
        return levels
    draws = draw(samples, settings=settings, seed=seed, epoch=epoch)
    if settings.flip:
        levels = torch.where(_each(draws.mirrored), levels.flip(2), levels)
    if settings.warps:
        levels = warped(levels, inverse_matrices(draws))
    if settings.blur:
        levels = _blurred(levels, draws.blur, math.ceil(_KERNEL_SIGMAS * settings.blur))
    _change_levels(levels, draws, settings)
    if settings.noise:
        step = draws.noise * (_WHITE / _DIGIT_SUM_STD)
        levels += _digit_sums(samples, levels.shape[1], seed, epoch).mul_(_each(step))
    levels.clamp_(0.0, _WHITE)
    if settings.cutout:
        _fill_hole(levels, draws, round(settings.cutout * levels.shape[1]))
    return levels


def draw(samples: Tensor, *, settings: Augmentation, seed: int, epoch: int) -> Draws:
    """The numbers that decide what happens to each image; arguments as in `augmented`.

    Each number has a counter of its own, so no setting changes what another one leads to.
    """
    turn, lean = math.radians(settings.rotate_degrees), math.radians(settings.shear_degrees)
    either_way = [turn, settings.scale, settings.aspect, lean, *[settings.translate] * 2]
    either_way += [settings.gamma, settings.contrast, settings.brightness]
    upward = [settings.noise, settings.blur, 1.0, 1.0, 1.0]
    lowest = torch.tensor([-most for most in either_way] + [0.0] * len(upward))
    spans = torch.tensor([2.0 * most for most in either_way] + upward)
    counters = torch.arange(len(spans), device=samples.device)
    start, epochs = _seed_on(samples.device, seed), torch.full((), epoch, device=samples.device)
    chance = uniform(start, epochs, counters[:, None], samples)
    ends = sent(torch.stack([lowest, spans])[:, :, None], samples.device)
    numbers = ends[0] + ends[1] * chance
    angle, scale, aspect, shear, shift_x, shift_y, gamma, contrast, *others = numbers.unbind()
    brightness, noise, blur, hole_x, hole_y, coin = others
    return Draws(
        angle=angle,
        zoom=scale.exp(),
        aspect=aspect.exp(),
        shear=shear,
        shift_x=shift_x,
        shift_y=shift_y,
        gamma=gamma.exp(),
        contrast=contrast.exp(),
        brightness=brightness,
        noise=noise,
        blur=blur,
        hole_x=hole_x,
        hole_y=hole_y,
        mirrored=(coin < 0.5) if settings.flip else torch.zeros_like(coin, dtype=torch.bool),
    )


def inverse_matrices(draws: Draws) -> Tensor:
    """Where in the image each place of the result comes from.

    Forward, a film is zoomed and stretched, then sheared, then rotated, then shifted; here is the
    inverse of that, so that every pixel of the result is interpolated once.

    Returns:
        (B, 2, 3) float32: to (x, y, 1), x to the right and y down from the centre in sides of the
        image, belongs the place (x, y) in the image.
    """
    cos, sin = draws.angle.cos(), draws.angle.sin()
    slope = draws.shear.sin() / draws.shear.cos()
    stretch = draws.aspect.sqrt()
    width, height = draws.zoom * stretch, draws.zoom / stretch
    xx, xy = (cos + slope * sin) / width, (sin - slope * cos) / width
    yx, yy = -sin / height, cos / height
    from_x = -(xx * draws.shift_x + xy * draws.shift_y)
    from_y = -(yx * draws.shift_x + yy * draws.shift_y)
    return torch.stack([xx, xy, from_x, yx, yy, from_y], dim=1).view(-1, 2, 3)


def warped(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample images by one bilinear interpolation.

    Beyond its border an image goes on as the pixels of the border do. Black there would tell how
    far an image was turned, and on an equalised film black means something.

    Args:
        images: (B, S, S) float32.
        matrices: (B, 2, 3) as in `inverse_matrices`.

    Returns:
        (B, S, S) float32.
    """
    side = images.shape[2]
    # `grid_sample` counts from the centre in half sides; so do pixel centres here.
    centres = (torch.arange(side, device=images.device) * 2 + (1 - side)) * (1.0 / side)
    along, down, shift = matrices[:, :, :, None, None].unbind(2)
    # x and y in planes of their own: interleaved, this sum takes ten times as long.
    grid = along * centres + (down * centres[:, None] + shift * 2.0)
    last = 1.0 - 1.0 / side
    # Not `padding_mode="border"`, which torch before 2.13 lacks on MPS.
    places = grid.clamp_(-last, last).permute(0, 2, 3, 1)
    return F.grid_sample(images[:, None], places, mode="bilinear", align_corners=False)[:, 0]


def _blurred(images: Tensor, sigma_px: Tensor, reach_px: int) -> Tensor:
    """Separable Gaussian of `2 * reach_px + 1` taps, its own width for each image."""
    side = images.shape[2]
    taps = [(-0.5 * tap * tap / (sigma_px * sigma_px)).exp() for tap in range(1, reach_px + 1)]
    total = torch.ones_like(sigma_px)
    for weight in taps:
        total = total + weight * 2.0
    for axis, padding in ((1, (0, 0, reach_px, reach_px)), (2, (reach_px, reach_px, 0, 0))):
        padded = F.pad(images[:, None], padding, mode="replicate")[:, 0]
        images = padded.narrow(axis, reach_px, side) * _each(1.0 / total)
        for tap, weight in enumerate(taps, start=1):
            before = padded.narrow(axis, reach_px - tap, side)
            both = before + padded.narrow(axis, reach_px + tap, side)
            images += both.mul_(_each(weight / total))
    return images


def _change_levels(levels: Tensor, draws: Draws, settings: Augmentation) -> None:
    """Gamma, contrast and brightness, in place."""
    if settings.gamma:
        # White * (level / white)^gamma, by way of logarithms; black is exp(-inf).
        shift = (1.0 - draws.gamma) * math.log(_WHITE)
        levels.log_().mul_(_each(draws.gamma)).add_(_each(shift)).exp_()
    if settings.contrast:
        means = _each(_means(levels))
        levels.sub_(means).mul_(_each(draws.contrast)).add_(means)
    if settings.brightness:
        levels.add_(_each(draws.brightness * _WHITE))


def _digit_sums(samples: Tensor, side: int, seed: int, epoch: int) -> Tensor:
    """Noise about 0, (B, S, S) float32 with a standard deviation of `_DIGIT_SUM_STD`.

    Each is the sum of four hexadecimal digits less its mean: near to normal (excess kurtosis -0.3,
    at most 3.3 standard deviations), exact on every device, and 32 random bits make two of them.
    """
    words = torch.arange((side * side + 1) // 2, device=samples.device)
    start, epochs = _seed_on(samples.device, seed), torch.full((), epoch, device=samples.device)
    stream = torch.full((), _NOISE_COUNTER, device=samples.device)
    bits = random_bits(start, epochs, stream, samples[:, None], words)
    twos = (bits & 0x0F0F0F0F).add_((bits >> 4).bitwise_and_(0x0F0F0F0F))
    fours = (twos & 0x00FF00FF).add_((twos >> 8).bitwise_and_(0x00FF00FF))
    sums = fours.view(torch.int16)[:, : side * side].to(torch.float32)
    return sums.sub_(_DIGIT_SUM_MEAN).view(-1, side, side)


def _fill_hole(levels: Tensor, draws: Draws, hole_px: int) -> None:
    """Put the image's mean into a square that lies wholly within the image, in place."""
    side = levels.shape[1]
    n_places = side - hole_px + 1
    left, top = (draws.hole_x * n_places).long(), (draws.hole_y * n_places).long()
    steps = torch.arange(hole_px, device=levels.device)
    rows, columns = top[:, None] + steps, left[:, None] + steps
    pixels = (rows[:, :, None] * side + columns[:, None, :]).flatten(1)
    levels.view(-1, side * side).scatter_(1, pixels, _means(levels)[:, None].expand_as(pixels))


def _means(images: Tensor) -> Tensor:
    """Mean of each image, (B,), added up in an order that no batch changes: half upon half."""
    sums = images.flatten(1).clone()
    n_pixels = sums.shape[1]
    width = n_pixels
    while width > 1:
        half = (width + 1) // 2
        sums[:, : width - half].add_(sums[:, half:width])
        width = half
    return sums[:, 0] / n_pixels


def _seed_on(device: torch.device, seed: int) -> Tensor:
    """A seed for `random_bits`, () int32, made on the device: a GPU waits for what is brought."""
    return torch.full((), folded(seed), dtype=torch.int32, device=device)


def _each(values: Tensor) -> Tensor:
    """One number per image, in a shape that goes with the pixels."""
    return values[:, None, None]
