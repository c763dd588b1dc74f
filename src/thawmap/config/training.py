"""Settings of training: augmentation, losses, optimiser, schedule and phases."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from thawmap.config.inputs import Positive, Probability, Seed, Settings

Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(gt=0, le=1e6)]


class BrightnessSettings(Settings):
    """Brightness: one offset for all optical layers of a tile, as by haze or sun."""

    probability: Probability = 0.5
    """Probability that a tile is changed."""
    offset: float = Field(default=0.02, gt=0)
    """Largest offset, in reflectance; drawn evenly from minus to plus it."""


class ContrastSettings(Settings):
    """Contrast: one factor on how far a tile's optical layers are from their mean."""

    probability: Probability = 0.5
    """Probability that a tile is changed."""
    change: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest change of the distance from the mean, as a share of it; drawn evenly from minus to plus it."""


class NoiseSettings(Settings):
    """White noise on the optical layers, drawn for every pixel."""

    probability: Probability = 0.5
    """Probability that a tile is changed."""
    deviation: float = Field(default=0.005, gt=0)
    """Largest standard deviation, in reflectance; drawn evenly from 0, for each tile."""


class RadiometrySettings(Settings):
    """Radiometry: a gain and an offset of its own for every optical layer.

    Another sensor or atmosphere has such. They are drawn for every tile, as if each were from a scene of its own.
    """

    probability: Probability = 0.5
    """Probability that a tile is changed."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest change of the values, as a share of them; drawn evenly from minus to plus it."""
    offset: float = Field(default=0.01, ge=0)
    """Largest offset, in reflectance; drawn evenly from minus to plus it."""


LayerGroup = Annotated[tuple[str, ...], Field(min_length=1)]


class DropSettings(Settings):
    """Layers that are made missing in some tiles.

    So the model learns to do without them, and scenes may lack them.
    """

    probability: Probability = 0.2
    """Probability of each group to be missing in a tile."""
    layers: Annotated[tuple[str | LayerGroup, ...], Field(min_length=1)] | None = None
    """Which: layers, and lists of layers that are missing together, such as [[tc_brightness, tc_greenness, tc_wetness],
    [relative_elevation, slope]]; unset: all that are neither optical nor made from such, together."""


class GapSettings(Settings):
    """Gaps that are made in tiles, as clouds and ends of swaths leave them.

    So the model learns that their borders are nothing. Their pixels are not valid then, and count in no loss.
    """

    probability: Probability = 0.25
    """Probability that a tile gets gaps."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest share of a tile that they cover; drawn evenly from 0."""


class AugmentSettings(Settings):
    """Random changes of training tiles, drawn for each tile.

    By default they are the paper's (section 2.3.2). In this order: mirrored and turned, pasted, blurred; then gaps are
    laid over them; then changes of value, of optical layers alone (reflectances whose names are known), in physical
    units and never clipped; then layers are dropped. NDVI and its like follow.
    """

    flip: Probability = 0.5
    """Probability of each mirroring, left-right and top-bottom."""
    rotate90: Probability = 0.5
    """Probability of a turn by one, two or three quarters."""
    paste: Probability = 0.0
    """Probability that a tile gets the objects of another of its batch, where they lie there: all layers of their
    pixels, with target and mask."""
    blur: Probability = 0.5
    """Probability of a slight blur of all layers."""
    gaps: GapSettings | None = None
    """Gaps as of clouds; unset: only those that the scenes have."""
    contrast: ContrastSettings | None = None
    """Contrast; unset: as it is."""
    brightness: BrightnessSettings | None = None
    """Brightness; unset: as it is."""
    radiometry: RadiometrySettings | None = None
    """Gain and offset of each layer; unset: as they are."""
    noise: NoiseSettings | None = None
    """Noise; unset: none."""
    drop: DropSettings | None = None
    """Layers that are missing now and then; unset: none is."""

    @property
    def changes_values(self) -> tuple[str, ...]:
        """Names of the augmentations of optical values that are switched on."""
        return tuple(name for name in _OF_VALUES if getattr(self, name) is not None)


_OF_VALUES = ("contrast", "brightness", "radiometry", "noise")
_OF_ADAM = ("betas", "eps")
_OF_SGD = ("momentum", "nesterov")


class OptimiserSettings(Settings):
    """The optimiser (the paper's: Adam as its authors suggest)."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Name of the optimiser."""
    lr: float = Field(default=0.001, gt=0)
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the first and second moment; of adam and adamw."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator; of adam and adamw."""
    momentum: Decay = 0.9
    """Share of the step before that is gone again; of sgd."""
    nesterov: bool = False
    """Whether the gradient is taken where the momentum leads (Nesterov); of sgd."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the weights."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Refuse settings of another optimiser, and Nesterov without momentum."""
        foreign = _OF_ADAM if self.name == "sgd" else _OF_SGD
        misplaced = [key for key in foreign if getattr(self, key) != type(self).model_fields[key].default]
        if misplaced:
            msg = f"'{misplaced[0]}' is no setting of {self.name}; leave it out"
            raise ValueError(msg)
        if self.nesterov and not self.momentum:
            msg = "'nesterov' needs a 'momentum' above 0; give one"
            raise ValueError(msg)
        return self


class ConstantSchedule(Settings):
    """Always the phase's learning rate."""

    name: Literal["constant"] = "constant"
    """Name of the schedule."""


class StepSchedule(Settings):
    """Lower at once after every so many epochs."""

    name: Literal["step"] = "step"
    """Name of the schedule."""
    every: Positive = 10
    """Epochs between two steps."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """Factor of the learning rate at each step."""


class ExponentialSchedule(Settings):
    """Lower by a factor with every epoch."""

    name: Literal["exponential"] = "exponential"
    """Name of the schedule."""
    factor: float = Field(default=0.95, gt=0, lt=1)
    """Factor of the learning rate from one epoch to the next."""


class CosineSchedule(Settings):
    """Down along half a cosine, after a warm-up."""

    name: Literal["cosine"] = "cosine"
    """Name of the schedule."""
    warmup: Share = 0.0
    """Share of the phase in which the learning rate rises in a line, from a hundredth."""
    final: Probability = 0.0
    """Share of the learning rate that is left at the end."""


class OneCycleSchedule(Settings):
    """Up along half a cosine and down along another; momentum stays.

    Source: Smith and Topin 2018, arXiv 1708.07120.
    """

    name: Literal["one_cycle"] = "one_cycle"
    """Name of the schedule."""
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the phase in which the learning rate rises."""
    start: Probability = 0.04
    """Share of the learning rate at the begin."""
    final: Probability = 4e-6
    """Share of the learning rate that is left at the end."""


class PlateauSchedule(Settings):
    """Lower where the validation no longer gets better."""

    name: Literal["plateau"] = "plateau"
    """Name of the schedule."""
    patience: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Epochs without a better one that are waited for; with one more the learning rate falls."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """Factor of the learning rate each time."""


ScheduleName = Literal["constant", "step", "exponential", "cosine", "one_cycle", "plateau"]
ScheduleTerm = Annotated[
    ConstantSchedule | StepSchedule | ExponentialSchedule | CosineSchedule | OneCycleSchedule | PlateauSchedule,
    Field(discriminator="name"),
]


class BceLoss(Settings):
    """Mean binary cross-entropy."""

    name: Literal["bce"] = "bce"
    """Name of the loss."""
    positive_weight: float = Field(default=1.0, gt=0)
    """How many other pixels a pixel of an object counts for."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class FocalLoss(Settings):
    """Mean focal loss: cross-entropy that weighs easy pixels less.

    It is the paper's (Lin et al. 2017).
    """

    name: Literal["focal"] = "focal"
    """Name of the loss."""
    gamma: float = Field(default=2.0, ge=0)
    """Power of the probability given to the wrong class; 0: plain cross-entropy."""
    alpha: Probability | None = None
    """Factor of the pixels of objects, one minus it that of all others; unset: no such factors, as in the paper."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class TverskyLoss(Settings):
    """One minus the soft Tversky index of the batch.

    It is Dice with a choice of which mistake is worse (Salehi et al. 2017).
    """

    name: Literal["tversky"] = "tversky"
    """Name of the loss."""
    alpha: float = Field(default=0.3, gt=0)
    """Cost of a pixel that is predicted only."""
    beta: float = Field(default=0.7, gt=0)
    """Cost of a pixel that is labelled only."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class OverlapLoss(Settings):
    """One minus an overlap of the batch.

    The overlap is soft Dice, soft Jaccard (IoU), or IoU by its Lovasz extension.
    """

    name: Literal["dice", "jaccard", "lovasz"]
    """Name of the loss."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


LossName = Literal["bce", "dice", "focal", "jaccard", "lovasz", "tversky"]
LossTerm = Annotated[BceLoss | FocalLoss | OverlapLoss | TverskyLoss, Field(discriminator="name")]


def _as_settings(value: object) -> object:
    """Return a text as {"name": text}; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def _as_list(value: object) -> object:
    """Return one loss as a tuple of it, a list as it is; refuse an empty list.

    Raises:
        ValueError: If the list is empty.
    """
    if value in ([], ()):
        msg = "must name at least one loss"
        raise ValueError(msg)
    return value if isinstance(value, list | tuple) else (value,)


OneLoss = Annotated[LossTerm, BeforeValidator(_as_settings, json_schema_input_type=LossName | LossTerm)]
LossSum = Annotated[
    tuple[OneLoss, ...],
    BeforeValidator(_as_list, json_schema_input_type=LossName | LossTerm | tuple[LossName | LossTerm, ...]),
]
"""A loss by name or with settings, or a list of such, whose weighted sum is taken."""


Schedule = Annotated[ScheduleTerm, BeforeValidator(_as_settings, json_schema_input_type=ScheduleName | ScheduleTerm)]
"""A name, or a name with its settings."""


class SamplerSettings(Settings):
    """Sampling: how often a tile is drawn, by its objects and its region.

    An epoch draws as many tiles as there are, some twice, some not at all.
    """

    positive: Weight = 1.0
    """Weight of a tile with an object in it."""
    negative: Weight = 1.0
    """Weight of a tile without."""
    regions: Literal["as_they_are", "equal"] = "as_they_are"
    """equal: every region is drawn as often as any other, however many tiles it has."""


class Phase(Settings):
    """Phase: a stretch of training over one choice of tiles.

    It starts from the best model of the phase before.
    """

    name: str
    """Name in the log."""
    epochs: Positive
    """Passes over the tiles."""
    tiles: Literal["positive", "all", "mined"] = "all"
    """Tiles with an object in them (the paper's sparse training), all, or mined: those with an object and as many of
    the others, which the model gets most wrong when the phase begins."""
    lr: float | None = Field(default=None, gt=0)
    """Learning rate of this phase; unset: the optimiser's."""
    loss: LossSum | None = None
    """Loss of this phase; unset: that of `training.loss`."""
    sampler: SamplerSettings | None = None
    """How often tiles are drawn; unset: every tile once in an epoch."""


class TrainingSettings(Settings):
    """Training: loss, optimiser, schedule, batches, phases and device."""

    loss: LossSum = (FocalLoss(),)
    """Loss over usable and labelled pixels only: a name, {name: tversky, alpha: 0.3}, or a list to be summed; where it
    is not given, that of `recipe`."""
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: Schedule = ConstantSchedule()
    """Learning rate within a phase: a name, or {name: cosine, warmup: 0.1}; where it is not given, that of `recipe`."""
    batch_size: Positive = 6
    """Tiles in a batch, on all devices together."""
    accumulate: Positive = 1
    """Batches whose gradients make one step together, where memory does not hold them at once."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Longest gradient of a step; a longer one is made as short; unset: none is."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, such as 0.999, which is validated and kept in place of the weights
    themselves; unset: none."""
    stop_after: Positive | None = None
    """Epochs without a better one after which a phase ends early; unset: it never does."""
    phases: tuple[Phase, ...] = Field(
        default=(Phase(name="sparse", epochs=100, tiles="positive"), Phase(name="full", epochs=20)),
        min_length=1,
    )
    """Phases in order."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto: bfloat16 on a GPU or CPU that multiplies it itself, else float32."""
    compile: bool = False
    """Whether PyTorch compiles the network first: minutes at the begin, faster steps after."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU where there is one."""
    devices: Positive = 1
    """GPUs that share every batch, or processes of this machine on a CPU. A step is the mean of their parts, each with
    a loss and batch norm of its own, as with `accumulate`; counts are summed."""
    seed: Seed = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _check_phases(self) -> Self:
        """Refuse mined tiles in the first phase, and more devices than tiles in a batch."""
        if self.phases[0].tiles == "mined":
            msg = "the first of 'phases' cannot have mined tiles, as nothing is learnt yet; put a phase before it"
            raise ValueError(msg)
        if self.devices > self.batch_size:
            msg = f"devices is {self.devices} and batch_size {self.batch_size}: each needs a tile; raise batch_size"
            raise ValueError(msg)
        return self
