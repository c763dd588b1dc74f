"""The whole configuration, and its sections on network, split, maps and engine."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from thawmap.config import recipes
from thawmap.config.acquire import AcquireSettings, fill_inputs
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
    expand_context,
    from_folder,
)
from thawmap.config.outputs import OutputSettings, PolygonSettings
from thawmap.config.training import AugmentSettings, TrainingSettings
from thawmap.config.trees import TreeSettings
from thawmap.config.tune import TuneSettings
from thawmap.errors import ConfigError
from thawmap.layers import PAPER_LAYERS, Layer
from thawmap.layers import layer as known_layer

Fill = Literal["near", "zero"]


def _resolve_weights(name: str, info: ValidationInfo) -> str:
    """Join weights with "/" or .safetensors to the YAML file's folder; leave others."""
    return str(from_folder(Path(name), info)) if name.endswith(".safetensors") or "/" in name else name


class ModelSettings(Settings):
    """The network: architecture, encoder, first weights, and missing pixels."""

    architecture: str = "unetplusplus"
    """Any architecture of segmentation_models.pytorch, such as unet, unetplusplus, deeplabv3; or `pixel`, or
    `boosting`: trees on the layers of a pixel, which see what is around it by context layers."""
    encoder: str = "resnet34"
    """Any encoder of segmentation_models.pytorch."""
    weights: Annotated[str, AfterValidator(_resolve_weights)] | None = None
    """What training begins from: a bundle's folder such as models/first, whose whole network is trained on; or for the
    encoder alone a .safetensors file, or a name such as imagenet, which the library fetches; unset: random numbers, as
    in the paper."""

    fill: Fill = "near"
    """What missing pixels look like to the network: near, like the pixels near them, so that clouds and borders make no
    edges; or zero, 0 in every layer, as in the paper's code."""
    trees: TreeSettings | None = None
    """The trees of `boosting`; unset: as the defaults below say."""

    @model_validator(mode="after")
    def _check_trees(self) -> Self:
        """Refuse settings of trees beside a network that has none."""
        if self.trees is not None and not self.has_trees:
            msg = f"'trees' has no meaning for architecture {self.architecture}, but for boosting; leave it out"
            raise ValueError(msg)
        return self

    @property
    def has_trees(self) -> bool:
        """True if the architecture is boosting, which learns trees in place of weights."""
        return self.architecture.lower() == "boosting"

    @property
    def begins_from_a_bundle(self) -> bool:
        """True if ``weights`` is the folder of a bundle: names of weights have no slash."""
        return self.weights is not None and "/" in self.weights and not self.weights.endswith(".safetensors")


class SplitSettings(Settings):
    """Split: regions or scenes that are left out of training.

    Epoch and threshold are chosen on validation, never on test.
    """

    by: Literal["region", "scene"] = "region"
    """What the names below are."""
    validation: tuple[str, ...] = ()
    """Names that choose epoch and threshold."""
    test: tuple[str, ...] = ()
    """Names that are left out completely."""

    @model_validator(mode="after")
    def _check_apart(self) -> Self:
        """Refuse a name that is both validation and test."""
        both = sorted(set(self.validation) & set(self.test))
        if both:
            msg = f"{both[0]!r} is both validation and test; keep it in one"
            raise ValueError(msg)
        return self


class InferenceSettings(Settings):
    """Mapping: tiles, device, backend and arithmetic."""

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
    def _check_overlap(self) -> Self:
        """Refuse tiles that overlap by their whole side."""
        if self.tile != "auto" and self.overlap >= self.tile:
            msg = f"overlap is {self.overlap} px; it must be smaller than the tile's {self.tile} px"
            raise ValueError(msg)
        return self


class EngineSettings(Settings):
    """Engine: the processes or the cluster that work on many scenes."""

    kind: Literal["local", "dask"] = "local"
    """local: processes of this machine; dask: a running Dask cluster, whose workers see the same folders."""
    workers: Positive = 1
    """Processes side by side; for a cluster, scenes or trainings that it is given at once."""
    address: str | None = None
    """Address of the Dask cluster's scheduler, such as tcp://node1:8786."""

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        """Refuse an address without Dask, and Dask without one."""
        if (self.kind == "dask") != (self.address is not None):
            msg = "'address' belongs to kind dask, which needs one; give both or neither"
            raise ValueError(msg)
        return self


def _input_layer(setting: str | LayerSettings) -> Layer:
    """Return a known layer by its name, or with the range that settings give it."""
    if isinstance(setting, str):
        return known_layer(setting)
    return known_layer(setting.name, low=setting.low, high=setting.high, clip=setting.clip)


class Config(Settings):
    """Configuration: everything that decides a result."""

    project: str = "thawmap"
    """Name of the project, kept with every result."""
    recipe: recipes.Name = recipes.DEFAULT
    """How a network learns where keys of `training` and `augment` are not given: nitze2021 is the paper's way, and the
    defaults shown here; thawmap2026 has another loss and schedule, and did better on regions that were left out."""
    scenes: SceneSettings
    """Which scenes there are, and how they are read."""
    sources: SourceSettings = SourceSettings()
    layers: Annotated[tuple[str | LayerSettings, ...], BeforeValidator(expand_context)] = Field(
        default=PAPER_LAYERS, min_length=1
    )
    """Inputs of the model, in order; {of: [ndvi, nir], context: [mean_40m]} stands for ndvi_mean_40m, nir_mean_40m."""
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
    acquire: AcquireSettings | None = None
    """Data to fetch: where `scenes` and `sources` are not given, they are what is fetched."""

    @model_validator(mode="before")
    @classmethod
    def _fill_raw(cls, raw: Any) -> Any:
        """Return the content of a YAML with what its recipe and acquisition imply."""
        return fill_inputs(recipes.under(raw)) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        """Refuse a layer that is listed twice."""
        names = [layer.name for layer in self.input_layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"layer {twice[0]!r} is listed twice in 'layers'; keep one"
            raise ConfigError(msg)
        return self

    @property
    def input_layers(self) -> tuple[Layer, ...]:
        """Layers that the network sees, in order, with their ranges and recipes."""
        return tuple(replace(layer, recipe=self.made_as(layer.name)) for layer in map(_input_layer, self.layers))

    def made_as(self, name: str) -> str:
        """Return how a layer is made from elevation, such as "circle of 100 m"; else ""."""
        elevation = self.sources.elevation
        if elevation is None or elevation.path is None or elevation.made_before(name):
            return ""
        formulas = {"relative_elevation": f"circle of {elevation.window_m:g} m", "slope": elevation.slope}
        return formulas.get(name, "")

    def as_json(self) -> dict[str, Any]:
        """Return the configuration with all defaults filled in, as JSON values."""
        resolved: dict[str, Any] = self.model_dump(mode="json")
        return resolved

    def as_yaml(self) -> str:
        """Return the configuration as the text of a YAML, with all defaults filled in."""
        return yaml.safe_dump(self.as_json(), sort_keys=False, allow_unicode=True)
