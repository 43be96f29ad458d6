"""Every key a user can set, its type, its range, its default and what it does.

The sections are frozen and strict: an unknown key, a wrong type or an impossible combination is
refused before anything runs. `config_file.py` turns YAML and overrides into a `Config`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xray_classifier.errors import UsageError
from xray_classifier.policies import parse_threshold

Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
UpToOne = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
UserPath = Annotated[Path, Field(strict=False)]
Names = Annotated[
    tuple[str, ...],
    Field(
        strict=False,
        json_schema_extra={
            "type": ["array", "string", "integer"],
            "items": {"type": ["string", "integer"]},
        },
    ),
]


class Section(BaseModel):
    """A frozen group of keys; the docstring under a field is what `config show` prints."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class LabelsConfig(Section):
    """Which class names of the data mean healthy (0) and which mean sick (1, positive)."""

    healthy: Annotated[Names, Field(min_length=1)] = ("healthy",)
    """Class folders, CSV values or NPZ codes that mean healthy; compared as text, so 0 is "0"."""
    sick: Annotated[Names, Field(min_length=1)] = ("sick",)
    """Class names that mean sick. Always the positive class, whatever sorts last."""
    ignore: Names = ()
    """Class names to leave out on purpose; any other unknown name stops the run."""

    @field_validator("healthy", "sick", "ignore", mode="before")
    @classmethod
    def _as_texts(cls, value: object) -> object:
        """Accept one name, or a list of names and whole numbers, since `0` in YAML is a number."""
        names = value if isinstance(value, (list, tuple)) else [value]
        return tuple(str(n) if type(n) is int else n for n in names)

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        everything = [*self.healthy, *self.sick, *self.ignore]
        twice = sorted({name for name in everything if everything.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands more than once; a class has one meaning")
        return self


class ColumnsConfig(Section):
    """Names of the columns of a CSV file."""

    path: str = "path"
    """Column with the image file, relative to the CSV file's folder or `data.root`."""
    label: str = "label"
    """Column with the class name, or with the number to predict for `task: regress`."""
    patient: str | None = None
    """Column with the patient id; null: with `data.patient: auto` a column called patient or
    patient_id where there is one, else `data.patient` on the path."""
    split: str | None = None
    """Column with train, val or test; null: take a column called `split` where there is one."""


class SplitConfig(Section):
    """How images are shared out where the data bring no split of their own."""

    val: Fraction | None = 0.15
    """Fraction of the training patients to carve out for validation; null: none is carved."""
    test: Fraction | None = 0.15
    """Fraction of the training patients to carve out for test; null: none is carved."""
    calibrate: Fraction | None = None
    """Fraction of the training patients to carve out for calibration, threshold and refer band
    alone; null: these are chosen on the validation split, which stopping has used already, and the
    operating point's own figures are cross-fitted there."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split. Apart from `seed`, so that repeated runs share one split."""
    fold: Annotated[tuple[Count, ...], Field(strict=False, min_length=2, max_length=2)] | None = (
        None
    )
    """One round of cross-validation: [2, 5] pools train and validation and lets fold 2 of 5
    validate; null: the split as above. `train.folds` sets it for each of its models."""

    @field_validator("fold")
    @classmethod
    def _is_a_fold(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (value[1] < 2 or value[0] > value[1]):
            raise ValueError(f"must be [number, of] such as [2, 5], got {list(value)}")
        return value

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if (self.val or 0.0) + (self.test or 0.0) + (self.calibrate or 0.0) >= 1.0:
            raise ValueError("val, test and calibrate together leave nothing to train on")
        return self


class ImageConfig(Section):
    """What happens to every image between the file and the (size, size) uint8 cache."""

    size: Annotated[int, Field(ge=4, le=1024)] = 64
    """Side of the square that the model sees, in pixels."""
    crop: Literal["center", "pad", "stretch"] = "center"
    """How a film becomes square: cut the longer side, pad the shorter one, or stretch.
    `stretch` turns the aspect ratio into distortion, which a model can read as a label."""
    intensity: Literal["equalize", "zscore", "minmax", "dataset"] = "equalize"
    """`equalize` replaces each pixel by its rank in its own image: blind to any monotone change of
    exposure or window, and to nothing else. `zscore` and `minmax` remove offset and gain only;
    `dataset` keeps the film's own levels."""
    for_processing: Literal["reject", "accept"] = "reject"
    """DICOM images marked FOR PROCESSING are raw detector data that no viewer shows as they are:
    count them as unreadable, or take them."""


class PhantomsConfig(Section):
    """The embedded synthetic radiographs (`data.source: phantoms`)."""

    n_images: Annotated[int, Field(ge=16)] = 1600
    """How many films to draw."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Which films: the same seed draws the same films on every machine."""
    leak: Fraction | None = None
    """Share of the validation films that are training films once more: a leak made on purpose, to
    see what the audit says and what a leak is worth. The films then bring their splits (15 % for
    validation, 15 % for test); null: none."""


class DataConfig(Section):
    """Where the radiographs come from and how they become arrays."""

    source: Literal["auto", "folder", "csv", "npz", "phantoms"] = "auto"
    """What `path` is; `auto` tells a folder, a .csv and an .npz apart by looking."""
    path: UserPath | None = None
    """The folder, CSV or NPZ. In a YAML file relative to that file, on the command line to the
    working directory. null only for phantoms."""
    root: UserPath | None = None
    """Folder that the paths in a CSV are relative to, and outside of which nothing is read; null:
    the folder of the CSV."""
    labels: LabelsConfig = LabelsConfig()
    """Which class names mean healthy and which mean sick."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names, for CSV only."""
    patient: str | None = "auto"
    """Patient of an image: `auto` recognises the file names of Kermany and NIH, else takes DICOM
    Patient IDs where there are any; `dicom` takes those alone; a regular expression takes its first
    group, searched in the relative path; null: each image its own. DICOM Patient IDs are kept as
    keyed hashes only."""
    split: SplitConfig = SplitConfig()
    """How to carve validation and test where the data bring none."""
    image: ImageConfig = ImageConfig()
    """Size, crop and intensity of what the model sees."""
    phantoms: PhantomsConfig = PhantomsConfig()
    """The embedded synthetic films."""
    unreadable: Literal["stop", "exclude"] = "stop"
    """What an unreadable training image does: stop with exit code 3, or be left out and listed."""
    audit: Literal["strict", "warn", "off"] = "strict"
    """The same patient, the same picture or a near copy of it on both sides of a split: stop with
    exit code 3 (strict), leave the later split's images out and say so (warn), or do not look
    (off). Labels, shortcuts and odd images are looked at too; see `xray-classifier check`."""
    limit: Count | None = None
    """Use only this many images, drawn evenly over classes, for a quick look; null: all."""
    cache: UserPath | None = None
    """Folder of the decoded images; null: xray_classifier in the user's cache directory."""
    workers: Count | None = None
    """Threads that decode; null: one per core."""

    @field_validator("path", "root", "cache", mode="before")
    @classmethod
    def _is_a_path(cls, value: object) -> object:
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ValueError(f"must be a path, got {value!r}")
        return value

    @field_validator("patient")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value in (None, "auto", "dicom"):
            return value
        try:
            groups = re.compile(str(value)).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError("needs a group in parentheses that holds the patient id")
        return value

    @model_validator(mode="after")
    def _path_given(self) -> Self:
        if self.path is None and self.source != "phantoms":
            raise ValueError("path: is missing; name a folder, a CSV or an NPZ file")
        return self


Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "elu", "selu"]


class MixerConfig(Section):
    """Shape of the mixer: perceptrons over patches, then over channels, block after block."""

    patch_px: Count = 8
    """Side of a patch in pixels; the image size must be a multiple of it."""
    channels: Count = 128
    """Numbers that describe a patch."""
    blocks: Annotated[int, Field(gt=0, le=64)] = 4
    """Pairs of one mixing over patches and one over channels."""
    token_units: Count = 64
    """Hidden perceptrons that mix patches, channel by channel."""
    channel_units: Count = 256
    """Hidden perceptrons that mix channels, patch by patch."""


class ModelConfig(Section):
    """The stack of perceptrons."""

    type: Literal["perceptron", "mlp", "mixer"] = "mlp"
    """`perceptron`: one linear unit, the floor that others must beat. `mlp`: a stack of layers.
    `mixer`: perceptrons over patches and channels, for larger images; it has few weights and needs
    many times the time of an mlp for an epoch."""
    hidden: Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=32)] = (
        512,
        256,
    )
    """Units of each hidden layer, from the image to the logit."""
    activation: Activation = "relu"
    """What bends the line between two layers."""
    dropout: Rate | Annotated[tuple[Rate, ...], Field(strict=False, min_length=1)] = 0.3
    """Chance that a hidden unit is silenced in a training step; one rate, or one per layer."""
    norm: Literal["none", "layer", "batch"] = "none"
    """Normalisation of each hidden layer before its activation."""
    residual: bool = False
    """Add a layer's input to its output wherever both have the same width."""
    init: Literal["kaiming", "xavier", "normal", "zero"] = "kaiming"
    """How the weights start: normal with variance 2/fan_in, 2/(fan_in+fan_out), or 0.01 squared.
    `zero` starts all at 0, which breaks a stack on purpose: its units stay alike for good."""
    mixer: MixerConfig = MixerConfig()
    """Only for type mixer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        mlp = self.type == "mlp"
        if mlp and isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden):
            raise ValueError(
                f"dropout lists {len(self.dropout)} rates for {len(self.hidden)} hidden layers"
            )
        others = {
            "perceptron": ("hidden", "activation", "dropout", "norm", "residual", "mixer"),
            "mlp": ("mixer",),
            "mixer": ("hidden", "norm", "residual"),
        }[self.type]
        fields = type(self).model_fields
        odd = [key for key in others if getattr(self, key) != fields[key].default]
        if odd:
            raise ValueError(f"{', '.join(odd)}: not for type {self.type}")
        if self.type == "mixer" and isinstance(self.dropout, tuple):
            raise ValueError("dropout: one rate for type mixer")
        return self


OptimizerName = Literal[
    "sgd", "adagrad", "adadelta", "rmsprop", "adam", "adamax", "adamw", "nadam", "radam"
]


class OptimizerConfig(Section):
    """The rule that turns gradients into steps."""

    name: OptimizerName = "adamw"
    """sgd is plain gradient descent; the others adapt the step of each weight."""
    lr: Positive = 1e-3
    """Learning rate: the size of a step."""
    weight_decay: NonNegative = 0.0
    """Pull of the weights towards zero; biases and norms are spared. Decoupled from the gradient in
    adamw (0.01 is usual), an L2 term added to the gradient in the others (1e-4 is usual)."""
    momentum: Rate | None = None
    """Share of the last step kept (sgd, rmsprop); null: none."""
    nesterov: bool = False
    """Look ahead along the momentum before taking the gradient (sgd with momentum)."""
    amsgrad: bool = False
    """Never let the second-moment estimate shrink (adam, adamw)."""

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if self.momentum is not None and self.name not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum: only for sgd and rmsprop, not {self.name}")
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ValueError("nesterov: only for sgd with a momentum above 0")
        if self.amsgrad and self.name not in ("adam", "adamw"):
            raise ValueError(f"amsgrad: only for adam and adamw, not {self.name}")
        return self


class ScheduleConfig(Section):
    """How the learning rate moves over the run."""

    name: Literal["constant", "cosine", "onecycle", "plateau", "exponential"] = "cosine"
    """`cosine` falls to `final_fraction` of lr over the run; `onecycle` rises to lr over the first
    30 % of it, then falls; `plateau` multiplies lr by `factor` after `patience` epochs in which the
    validation loss did not improve; `exponential` multiplies lr by `factor` each epoch."""
    warmup_epochs: NonNegative = 0.0
    """Epochs (fractions allowed) over which lr rises linearly from 0 before the schedule starts."""
    final_fraction: Rate = 0.01
    """Learning rate at the end of cosine and onecycle, as a fraction of lr."""
    factor: Fraction = 0.5
    """Multiplier of plateau (at each drop) and exponential (each epoch)."""
    patience: Count = 5
    """Epochs without improvement before plateau drops the rate."""


class EarlyStoppingConfig(Section):
    """When to stop, and which weights are the best."""

    monitor: str | None = "val_loss"
    """Column of history.csv that decides; null: the last weights are the best. Test values are
    refused: a paper that stops on the test set fools itself."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether smaller or larger is better; auto: losses and errors down, scores up."""
    patience: Count | None = 10
    """Epochs without improvement before stopping; null: never stop early, but keep the best."""
    min_delta: NonNegative = 0.0
    """A change of this size or smaller is no improvement."""
    start_from_epoch: Annotated[int, Field(ge=0)] = 0
    """Epochs to let pass before any is judged."""
    restore_best: bool = True
    """Evaluate and predict with the best epoch's weights; false: with the last epoch's."""

    @field_validator("monitor")
    @classmethod
    def _never_the_test_set(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.startswith("test"):
            raise ValueError(
                f"{value} cannot be monitored: choosing on the test set makes its result too good; "
                "use val_loss"
            )
        if value not in MONITORS:
            raise ValueError(f"must be one of {', '.join(MONITORS)} or null, got {value!r}")
        return value


MONITORS = ("val_loss", "val_auroc", "val_r2", "train_loss")


class CheckpointEveryConfig(Section):
    """When the state that `--resume` takes is saved; the end and an interruption always save it."""

    steps: Count | None = None
    """Save after this many steps; null: not by steps."""
    minutes: Positive | None = 0.25
    """Save at the first step after this many minutes; null: not by time."""


class AugmentConfig(Section):
    """Random changes of the training images, anew in each epoch; 0 switches one off.

    Each image's change is a function of (seed, epoch, image), whatever batch it stands in.
    """

    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotation by up to this many degrees either way; 10 is usual."""
    scale: UpToOne = 0.0
    """Zoom by a factor of up to e to this power, either way; 0.1 is usual."""
    aspect: UpToOne = 0.0
    """Stretch of one axis against the other by a factor of up to e to this power."""
    shear_degrees: Annotated[float, Field(ge=0, lt=45)] = 0.0
    """Shear by up to this many degrees either way."""
    translate: Rate = 0.0
    """Shift along each axis by up to this fraction of the side; 0.05 is usual."""
    gamma: UpToOne = 0.0
    """Exponent of the grey levels, up to e to this power either way."""
    contrast: UpToOne = 0.0
    """Contrast about the image's mean, a factor of up to e to this power either way."""
    brightness: Rate = 0.0
    """Shift of all grey levels by up to this fraction of white."""
    noise: Rate = 0.0
    """Standard deviation of added noise, up to this fraction of white."""
    blur: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of a Gaussian blur, up to this many pixels."""
    cutout: Rate = 0.0
    """Side of a square hole, as a fraction of the image's side."""
    flip: bool = False
    """Mirror left and right half of the time. Off: the heart has a side."""


DEVICE = "auto|cpu|mps|cuda(:[0-9]+)?"


class TrainConfig(Section):
    """The loop: loss, optimizer, schedule, stopping, device."""

    epochs: Count = 100
    """Passes over the training images, at most."""
    batch_size: Count | Literal["full"] = 64
    """Images per step; 1 is stochastic gradient descent, `full` plain gradient descent."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The rule that turns gradients into steps."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate moves."""
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    """When to stop; null: run all epochs and keep the last weights."""
    pos_weight: Positive | Literal["auto"] | None = None
    """Weight of a sick image in the loss; auto: healthy count / sick count; null: 1."""
    label_smoothing: Rate = 0.0
    """Move the targets 0 and 1 towards one half by half of this."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training images; none unless asked for."""
    mixup: Positive | None = None
    """Blend each training image, and its target, with another one of the batch; the share is drawn
    from a Beta(a, a) distribution with this a (0.2 is usual); null: no blending."""
    ema: Rate | None = None
    """Evaluate and keep a running mean of the weights instead of the weights of the last step; this
    is the share that stays at each step (0.995 is usual); null: no mean."""
    grad_clip: Positive | None = None
    """Largest Euclidean norm of the gradient; null: no limit."""
    test_curve: Literal["sealed", "live", "off"] = "sealed"
    """The test loss of each epoch: kept out of sight until `evaluate --split test` (sealed), drawn
    at once for teaching (live), or not computed (off). Nothing can select on it."""
    lesson: bool = False
    """Keep for `xray-classifier explain` what cannot be measured afterwards: once an epoch the
    norms of weights, gradients and steps of each layer, and the weights themselves, in all at most
    128 MB in RUN/lesson. Nothing of the training changes."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Cross-validation: share the training and validation patients out into this many folds, train
    a model for each, judge it on its own fold, and keep the ensemble; null: one split."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Train this many models, from seed upwards, report mean and spread, and keep the ensemble."""
    track: Literal["tensorboard"] | None = None
    """Follow the run live: tensorboard writes event files into `track` of the run folder, which
    `tensorboard --logdir RUN/track` shows (extra `[track]`; nothing is sent anywhere). Other
    trackers are passed from Python, see `xray_classifier.train`; null: none."""
    checkpoint_every: CheckpointEveryConfig = CheckpointEveryConfig()
    """How often `last.safetensors` is saved between the first and the last step."""
    device: Annotated[str, Field(json_schema_extra={"pattern": f"^({DEVICE})$"})] = "auto"
    """auto takes CUDA, else MPS, else the CPU."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products; auto: bf16 on a CUDA device that has it, else fp32."""
    tf32: bool = False
    """Let CUDA round the factors of fp32 products to 10 bits of mantissa, which is faster."""
    torch_compile: bool = False
    """Compile the network with torch.compile: slow to start, and faster after that on a GPU."""
    micro_batch: Count | None = None
    """Images that go through the network at once; the gradients of a batch are added up over its
    parts. Halved by itself when memory runs out; null: the whole batch."""
    threads: Count | None = None
    """CPU threads; null: PyTorch's default. Another number gives slightly different weights."""
    timeout_minutes: Positive = 10.0
    """With several processes: how long one waits for the others before the job ends."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(DEVICE, value):
            raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, got {value!r}")
        return value


class EvaluateConfig(Section):
    """What is fixed on the validation split after training and stored in the checkpoint."""

    threshold: float | str = "youden"
    """Operating point, solved on the validation split: `sens=0.95`, `spec=0.90` (behind either,
    `@lower95` asks it of the lower end of the 95 % interval), `cost=10` (a missed sick image counts
    as 10 false alarms), `youden`, or a probability. Called sick is what has p_sick >= threshold."""
    calibration: Literal["platt", "temperature", "off"] = "platt"
    """How logits become probabilities: fitted on validation, stored, never re-fitted on test."""
    refer: Rate | None = None
    """Largest share of wrong answers wanted: probabilities around the threshold get the answer
    `refer`, in a band as narrow as this error allows on validation; null: none is referred."""
    subgroups: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Columns of the CSV to give the metrics by, such as [sex, view]; null: each column with a few
    values, numbers such as an age in bands."""

    @field_validator("threshold")
    @classmethod
    def _known_policy(cls, value: float | str) -> float | str:
        try:
            parse_threshold(value)
        except UsageError as error:
            raise ValueError(
                f"must be a probability, sens=0.95, spec=0.90 (with @lower95 behind), cost=10 or "
                f"youden, got {value!r}"
            ) from error
        return value


class IntendedUseConfig(Section):
    """What the model is for, in the author's words; carried into checkpoint, report and card."""

    purpose: str | None = None
    """What the answer is used for: the decision that it may change; null: not said."""
    users: str | None = None
    """Who reads the answer, and what they must know; null: not said."""
    population: str | None = None
    """The patients it is meant for: symptoms, referral, country; null: not said."""
    min_age_years: NonNegative | None = None
    """Youngest patients it is meant for; null: not said."""
    max_age_years: NonNegative | None = None
    """Oldest patients it is meant for; null: not said."""
    sex: str | None = None
    """Sexes it is meant for; null: not said."""
    body_part: str | None = None
    """What the films show, such as chest or wrist; null: not said."""
    view: str | None = None
    """Projections, such as PA or lateral; null: not said."""
    modality: str | None = None
    """How the films are taken, such as digital radiography; null: not said."""
    setting: str | None = None
    """Where it is to be used: screening, emergency ward, teaching; null: not said."""
    reference_standard: str | None = None
    """Who called an image sick, and how: readers, laboratory, follow-up; null: not said."""
    out_of_scope: Names = ()
    """Uses that it is not meant for, one text each."""

    @field_validator("out_of_scope", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _says_something(cls, value: object) -> object:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise ValueError("must say something; null where nothing is known")
        return value

    @model_validator(mode="after")
    def _ages_in_order(self) -> Self:
        low, high = self.min_age_years, self.max_age_years
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_age_years {low:g} is above max_age_years {high:g}")
        return self


RUN_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(json_schema_extra={"pattern": f"^{RUN_NAME}$"})] | None = None
    """Name of the run folder; null: the name of the config file."""
    task: Literal["classify", "regress"] = "classify"
    """classify: sick against healthy, BCE loss. regress: a number from a CSV column, MSE loss."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the weights, the sample order and dropout."""
    data: DataConfig
    """Where the radiographs come from."""
    model: ModelConfig = ModelConfig()
    """The stack of perceptrons."""
    train: TrainConfig = TrainConfig()
    """The loop."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What is fixed on validation."""
    intended_use: IntendedUseConfig = IntendedUseConfig()
    """What the model is for; the run never reads it, its readers do."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(RUN_NAME, value):
            raise ValueError(
                "must be 1 to 64 letters, digits, dots, dashes or underscores, "
                f"a letter or digit first, got {value[:60]!r}"
            )
        return value

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        if self.task == "regress" and self.data.source in ("folder", "npz", "phantoms"):
            raise ValueError("task: regress takes numbers from a CSV column; set data.source: csv")
        stopping = self.train.early_stopping
        wrong = {"classify": "val_r2", "regress": "val_auroc"}[self.task]
        if stopping is not None and stopping.monitor == wrong:
            raise ValueError(
                f"train.early_stopping.monitor: {wrong} does not exist for {self.task}"
            )
        if self.task == "regress" and (self.train.pos_weight or self.train.label_smoothing):
            raise ValueError("train.pos_weight and train.label_smoothing are for task: classify")
        return self
