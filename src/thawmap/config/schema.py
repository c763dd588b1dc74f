"""The whole of the YAML: the inputs, the network, its training, and what comes out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from thawmap.config.inputs import (
    LabelSettings,
    LayerSettings,
    Positive,
    Probability,
    SceneSettings,
    Settings,
    SourceSettings,
    TileSettings,
    from_folder,
)
from thawmap.errors import ConfigError
from thawmap.layers import PAPER_LAYERS, Layer, layer

Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(gt=0)]


def _weights(name: str, info: ValidationInfo) -> str:
    return str(from_folder(Path(name), info)) if name.endswith(".safetensors") else name


class ModelSettings(Settings):
    """The network."""

    architecture: str = "unetplusplus"
    """Any architecture of segmentation_models.pytorch, such as unet, unetplusplus, deeplabv3; or `pixel`."""
    encoder: str = "resnet34"
    """Any encoder of segmentation_models.pytorch."""
    weights: Annotated[str, AfterValidator(_weights)] | None = None
    """Pre-trained encoder weights: a .safetensors file, or a name such as imagenet, which the library fetches;
    unset: random, as in the paper."""


class AugmentSettings(Settings):
    """Random changes of training tiles, each with its probability (the paper's, section 2.3.2)."""

    flip: Probability = 0.5
    """Probability of each mirroring, left-right and top-bottom."""
    rotate90: Probability = 0.5
    """Probability of a turn by one, two or three quarters."""
    blur: Probability = 0.5
    """Probability of a slight blur of all layers."""


class OptimiserSettings(Settings):
    """The optimiser (the paper's: Adam as its authors suggest)."""

    name: Literal["adam", "adamw"] = "adam"
    """Name of the optimiser."""
    lr: float = Field(default=0.001, gt=0)
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the weights."""


class Phase(Settings):
    """A stretch of training over one choice of tiles; it starts from the best model of the phase before."""

    name: str
    """Name in the log."""
    epochs: Positive
    """Passes over the tiles."""
    tiles: Literal["positive", "all"] = "all"
    """Tiles with an object in them (the paper's sparse training), or all."""
    lr: float | None = Field(default=None, gt=0)
    """Learning rate of this phase; unset: the optimiser's."""


class BceLoss(Settings):
    """Mean binary cross-entropy."""

    name: Literal["bce"] = "bce"
    """Name of the loss."""
    positive_weight: float = Field(default=1.0, gt=0)
    """How many other pixels a pixel of an object counts for."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class FocalLoss(Settings):
    """Mean focal loss: cross-entropy that looks away from what is easy (the paper's, Lin et al. 2017)."""

    name: Literal["focal"] = "focal"
    """Name of the loss."""
    gamma: float = Field(default=2.0, ge=0)
    """Power of the probability given to the wrong class; 0: plain cross-entropy."""
    alpha: Probability | None = None
    """Factor of the pixels of objects, one minus it that of all others; unset: no such factors, as in the paper."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class TverskyLoss(Settings):
    """One minus the soft Tversky index of the batch: Dice with a choice of what is worse (Salehi et al. 2017)."""

    name: Literal["tversky"] = "tversky"
    """Name of the loss."""
    alpha: float = Field(default=0.3, gt=0)
    """Cost of a pixel that is predicted only."""
    beta: float = Field(default=0.7, gt=0)
    """Cost of a pixel that is labelled only."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


class OverlapLoss(Settings):
    """One minus an overlap of the batch: soft Dice, soft Jaccard (IoU), or IoU by its Lovasz extension."""

    name: Literal["dice", "jaccard", "lovasz"]
    """Name of the loss."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""


LossName = Literal["bce", "dice", "focal", "jaccard", "lovasz", "tversky"]
LossTerm = Annotated[BceLoss | FocalLoss | OverlapLoss | TverskyLoss, Field(discriminator="name")]


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    if value in ([], ()):
        msg = "must name at least one loss"
        raise ValueError(msg)
    return value if isinstance(value, list | tuple) else (value,)


LossItem = Annotated[LossTerm, BeforeValidator(_named, json_schema_input_type=LossName | LossTerm)]
LossSum = Annotated[
    tuple[LossItem, ...],
    BeforeValidator(_listed, json_schema_input_type=LossName | LossTerm | tuple[LossName | LossTerm, ...]),
]
"""A name, a name with its settings, or a list of either, whose weighted sum is the loss."""


class TrainingSettings(Settings):
    """How the network learns."""

    loss: LossSum = (FocalLoss(),)
    """Loss over usable and labelled pixels only: a name, {name: tversky, alpha: 0.3}, or a list to be summed."""
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate within a phase."""
    batch_size: Positive = 6
    """Tiles per step."""
    phases: tuple[Phase, ...] = Field(
        default=(Phase(name="sparse", epochs=100, tiles="positive"), Phase(name="full", epochs=20)),
        min_length=1,
    )
    """Phases in order."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto: bfloat16 on a GPU that has it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU where there is one."""
    seed: int = 0
    """Seed of everything random."""


class SplitSettings(Settings):
    """What is left out of training: epoch and threshold are chosen on validation, never on test."""

    by: Literal["region", "scene"] = "region"
    """What the names below are."""
    validation: tuple[str, ...] = ()
    """Names that choose epoch and threshold."""
    test: tuple[str, ...] = ()
    """Names that are left out completely."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = sorted(set(self.validation) & set(self.test))
        if both:
            msg = f"{both[0]!r} is both validation and test; keep it in one"
            raise ValueError(msg)
        return self


class InferenceSettings(Settings):
    """How maps are made."""

    tile: Literal["auto"] | Annotated[int, Field(ge=32)] = "auto"
    """Side of the squares that the network sees, in pixels; auto: the cheapest cut that memory allows."""
    overlap: int = Field(default=128, ge=0)
    """Pixels that neighbouring squares share at least."""
    blend: Literal["linear"] = "linear"
    """Weights where squares overlap."""
    memory_gb: float = Field(default=3.0, gt=0)
    """Memory that `tile: auto` plans for."""
    batch_size: Positive = 1
    """Squares per forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to predict; auto: a GPU where there is one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tile != "auto" and self.overlap >= self.tile:
            msg = f"overlap is {self.overlap} px; it must be smaller than the tile's {self.tile} px"
            raise ValueError(msg)
        return self


class PolygonSettings(Settings):
    """How probabilities become objects."""

    threshold: Literal["bundle"] | Probability = "bundle"
    """Objects are where the probability is above it; bundle: the one chosen on validation, else 0.5."""
    min_area_m2: float = Field(default=0.0, ge=0)
    """Smaller objects are left out of the polygons; the mask keeps their pixels."""


class OutputSettings(Settings):
    """Which files are written."""

    probability: Literal["uint8", "float32"] = "uint8"
    """Storage of probabilities: hundredths in one byte, or full."""
    vectors: tuple[Literal["gpkg", "shp", "parquet"], ...] = ("gpkg",)
    """Formats of the polygons."""


class EngineSettings(Settings):
    """What runs the work over many scenes."""

    kind: Literal["local"] = "local"
    """local: this machine."""
    workers: Positive = 1
    """Processes side by side."""


class Config(Settings):
    """Everything that decides a result."""

    project: str = "thawmap"
    """Name of the project, kept with every result."""
    scenes: SceneSettings
    """Which scenes there are, and how they are read."""
    sources: SourceSettings = SourceSettings()
    layers: tuple[str | LayerSettings, ...] = Field(default=PAPER_LAYERS, min_length=1)
    """Inputs of the model, in order."""
    labels: LabelSettings | None = None
    tiles: TileSettings = TileSettings()
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    training: TrainingSettings = TrainingSettings()
    split: SplitSettings = SplitSettings()
    inference: InferenceSettings = InferenceSettings()
    polygons: PolygonSettings = PolygonSettings()
    outputs: OutputSettings = OutputSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [item.name for item in self.input_layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"layer {twice[0]!r} is listed twice in 'layers'; keep one"
            raise ConfigError(msg)
        return self

    @property
    def input_layers(self) -> tuple[Layer, ...]:
        """The model's inputs with their ranges and how they are made, in order."""
        return tuple(
            replace(one, recipe=self.recipe(one.name))
            for one in (
                layer(item) if isinstance(item, str) else layer(item.name, low=item.low, high=item.high, clip=item.clip)
                for item in self.layers
            )
        )

    def recipe(self, name: str) -> str:
        """How a layer is made from elevation, such as "circle of 100 m"; "" where nothing is known of it."""
        elevation = self.sources.elevation
        if elevation is None or elevation.path is None or elevation.made_before(name):
            return ""
        recipes = {"relative_elevation": f"circle of {elevation.window_m:g} m", "slope": elevation.slope}
        return recipes.get(name, "")

    def as_json(self) -> dict[str, Any]:
        """The resolved configuration as plain JSON values."""
        resolved: dict[str, Any] = self.model_dump(mode="json")
        return resolved

    def as_yaml(self) -> str:
        """The resolved configuration as a YAML that gives it again."""
        return yaml.safe_dump(self.as_json(), sort_keys=False, allow_unicode=True)
