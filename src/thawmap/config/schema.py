"""The whole of the YAML: the inputs, the network, its training, and what comes out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from thawmap.config import recipes
from thawmap.config.crossval import CrossvalSettings
from thawmap.config.inputs import (
    LabelSettings,
    LayerSettings,
    Positive,
    SceneSettings,
    Settings,
    Side,
    SourceSettings,
    TileSettings,
    from_folder,
)
from thawmap.config.outputs import OutputSettings, PolygonSettings
from thawmap.config.training import AugmentSettings, TrainingSettings
from thawmap.config.tune import TuneSettings
from thawmap.errors import ConfigError
from thawmap.layers import PAPER_LAYERS, Layer, layer

Fill = Literal["near", "zero"]


def _weights(name: str, info: ValidationInfo) -> str:
    return str(from_folder(Path(name), info)) if name.endswith(".safetensors") or "/" in name else name


class ModelSettings(Settings):
    """The network."""

    architecture: str = "unetplusplus"
    """Any architecture of segmentation_models.pytorch, such as unet, unetplusplus, deeplabv3; or `pixel`."""
    encoder: str = "resnet34"
    """Any encoder of segmentation_models.pytorch."""
    weights: Annotated[str, AfterValidator(_weights)] | None = None
    """What training begins from: a bundle's folder such as models/first, whose whole network is trained on; or for the
    encoder alone a .safetensors file, or a name such as imagenet, which the library fetches; unset: random numbers, as
    in the paper."""

    fill: Fill = "near"
    """What missing pixels look like to the network: near, like the pixels near them, so that clouds and borders make no
    edges; or zero, 0 in every layer, as in the paper's code."""

    @property
    def begins_from_a_bundle(self) -> bool:
        """Whether ``weights`` is the folder of a bundle: it has a slash, as names of weights have none."""
        return self.weights is not None and "/" in self.weights and not self.weights.endswith(".safetensors")


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

    tile: Literal["auto"] | Annotated[Side, Field(ge=32)] = "auto"
    """Side of the squares that the network sees, in pixels; auto: the cheapest cut that memory allows."""
    overlap: Side = Field(default=128, ge=0)
    """Pixels that neighbouring squares share at least."""
    margin: int = Field(default=32, ge=0, le=512)
    """Pixels beyond a scene's border, and around what is valid, that the network sees too, mirrored and filled, so that
    its own border lies outside; where its answer depends on the whole square, only as many as cost no square more."""
    blend: Literal["linear", "cosine"] = "linear"
    """Weights where squares overlap; linear as in the paper."""
    symmetries: Literal[1, 8] = 1
    """8: the mean of what the network says of each square as it is, turned and mirrored; takes eight times as long."""
    memory_gb: float = Field(default=3.0, gt=0)
    """Memory that `tile: auto` plans for."""
    batch_size: Positive = 1
    """Squares per forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to predict; auto: a GPU where there is one."""
    backend: Literal["auto", "eager", "compile", "openvino"] = "auto"
    """What computes: PyTorch as it is or compiled, or OpenVINO; auto: the fastest, measured where that pays."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's multiplications; bfloat16 is faster where the machine knows it, and refused where it shows."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tile != "auto" and self.overlap >= self.tile:
            msg = f"overlap is {self.overlap} px; it must be smaller than the tile's {self.tile} px"
            raise ValueError(msg)
        return self


class EngineSettings(Settings):
    """What runs the work over many scenes."""

    kind: Literal["local", "dask"] = "local"
    """local: processes of this machine; dask: a running Dask cluster, whose workers see the same folders."""
    workers: Positive = 1
    """Processes side by side; for a cluster, scenes or trainings that it is given at once."""
    address: str | None = None
    """Address of the Dask cluster's scheduler, such as tcp://node1:8786."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "dask") != (self.address is not None):
            msg = "'address' belongs to kind dask, which needs one; give both or neither"
            raise ValueError(msg)
        return self


class Config(Settings):
    """Everything that decides a result."""

    project: str = "thawmap"
    """Name of the project, kept with every result."""
    recipe: recipes.Name = recipes.DEFAULT
    """How a network learns where keys of `training` and `augment` are not given: nitze2021 is the paper's way, and the
    defaults shown here; thawmap2026 has another loss and schedule, and did better on regions that were left out."""
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
    crossval: CrossvalSettings = CrossvalSettings()
    tune: TuneSettings = TuneSettings()
    inference: InferenceSettings = InferenceSettings()
    polygons: PolygonSettings = PolygonSettings()
    outputs: OutputSettings = OutputSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="before")
    @classmethod
    def _lie_on_recipe(cls, raw: Any) -> Any:
        return recipes.under(raw) if isinstance(raw, dict) else raw

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
            replace(one, recipe=self.made_as(one.name))
            for one in (
                layer(item) if isinstance(item, str) else layer(item.name, low=item.low, high=item.high, clip=item.clip)
                for item in self.layers
            )
        )

    def made_as(self, name: str) -> str:
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
