"""The contract with the user: one YAML, checked once, frozen, and travelling with every result.

Every setting has its default and its help text here and nowhere else. Unknown keys are refused with the file,
the line, the key and the nearest known key. Relative paths count from the YAML's folder.

Longer than other files, because the contract is one list that is read, and looked up, in one place.
"""

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from thawmap.errors import ConfigError
from thawmap.layers import PAPER_LAYERS, Layer, layer


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None or path.is_absolute() else Path(os.path.normpath(folder / path))


def _weights(name: str, info: ValidationInfo) -> str:
    return str(_from_folder(Path(name), info)) if name.endswith(".safetensors") else name


RelativePath = Annotated[Path, AfterValidator(_from_folder)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Place = tuple[str | int, ...]
"""A key of the YAML, from the outermost section inwards; numbers count the items of a list."""
DEEPEST = 20
"""Levels of a YAML; more means that it contains itself."""


class Settings(BaseModel):
    """Base of every section: frozen, unknown keys refused, help text from the docstrings of the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Band(Settings):
    """One band of a file: how its stored numbers become physical values (stored * scale + offset)."""

    band: Positive = 1
    """Number of the band in the file, from 1."""
    scale: float = 1.0
    """Factor from stored numbers to physical units."""
    offset: float = 0.0
    """Added after scaling, in physical units."""
    nodata: float | None = None
    """Stored number that means missing, beside the one that the file names itself."""
    resampling: Literal["nearest", "bilinear", "cubic", "average"] | None = None
    """How values come onto another grid; unset: average when coarsening, else cubic."""


class ValidMask(Settings):
    """A raster that says which pixels the sensor could use."""

    file: str
    """The file, named as in `files`."""
    band: Positive = 1
    """Number of the band in the file, from 1."""
    usable: tuple[int, ...] = (1,)
    """Values that mean usable; everything else is not."""


class SceneSettings(Settings):
    """Which scenes there are, and which files hold their layers."""

    kind: Literal["rasters"]
    """Kind of delivery: `rasters` is any files, by pattern or table."""
    path: RelativePath | None = None
    """Pattern of the scenes' folders or files, such as "scenes/*" or "scenes/*.tif"."""
    table: RelativePath | None = None
    """CSV with the columns id, region, path (from the CSV's folder) and acquired (UTC); the last two may be
    empty."""
    files: dict[str, dict[str, Band]] = Field(min_length=1)
    """File to the layers in it. A name counts from the scene's folder, may be a pattern, and `{name}` stands
    for the scene's name."""
    valid: ValidMask | None = None
    """Mask of usable pixels, where there is one."""
    grid: str | None = None
    """The file whose grid is the scene's; unset: the first of `files`."""
    region: str | None = None
    """Region of scenes found by `path`; `{parent}` stands for the name of the folder above the scene."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is None) == (self.table is None):
            msg = "scenes are found by either 'path' or 'table'; give exactly one of them"
            raise ValueError(msg)
        if self.grid is not None and self.grid not in self.files:
            msg = f"grid is {self.grid!r}, which is not one of the files: {', '.join(self.files)}"
            raise ValueError(msg)
        bands = [name for file in self.files.values() for name in file]
        twice = sorted({name for name in bands if bands.count(name) > 1})
        if twice:
            msg = f"layer {twice[0]!r} is mapped twice in 'files'; keep one"
            raise ValueError(msg)
        return self


class LayerSettings(Settings):
    """An input layer with a range of its own."""

    name: str
    """Name of the layer."""
    low: float | None = None
    """Value that the network sees as 0; unset: the layer's own."""
    high: float | None = None
    """Value that the network sees as 1; unset: the layer's own."""
    clip: bool = True
    """Whether values outside the range are clipped to 0..1."""


_OF_POLYGONS = ("layer", "scene", "region", "target", "extent")
_OF_RASTERS = ("band", "positive", "negative", "ignore")


class LabelSettings(Settings):
    """Where the digitised objects are: polygons in one vector file, or one raster per scene."""

    path: RelativePath | None = None
    """Vector file of polygons."""
    layer: str | None = None
    """Layer of the vector file; unset: its first."""
    scene: str | None = None
    """Column that names the scene a polygon was digitised on; unset: every polygon counts for every scene."""
    region: str | None = None
    """Column that names the region; it is given to scenes that have none."""
    target: str | None = None
    """Column with 1 = object, 0 = no object, anything else = ignore; unset: every polygon is an object."""
    extent: RelativePath | None = None
    """Vector file that says where people looked: outside is ignored, inside and unlabelled is negative."""
    raster: str | None = None
    """Raster of each scene, named as in `scenes.files`."""
    band: Positive = 1
    """Number of the raster's band, from 1."""
    positive: tuple[int, ...] = (1,)
    """Raster values that mean object."""
    negative: tuple[int, ...] = (0,)
    """Raster values that mean no object."""
    ignore: tuple[int, ...] | int = (255,)
    """Raster values that are neither trained on nor scored."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is None) == (self.raster is None):
            msg = "labels are in either 'path' (polygons) or 'raster'; give exactly one of them"
            raise ValueError(msg)
        kind, foreign = ("raster", _OF_POLYGONS) if self.raster else ("path", _OF_RASTERS)
        wrong = [key for key in foreign if getattr(self, key) != type(self).model_fields[key].default]
        if wrong:
            msg = f"'{wrong[0]}' has no meaning beside '{kind}'; leave it out"
            raise ValueError(msg)
        ignore = (self.ignore,) if isinstance(self.ignore, int) else self.ignore
        values = [*set(self.positive), *set(self.negative), *set(ignore)]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            msg = f"value {twice[0]} is in two of 'positive', 'negative' and 'ignore'; keep it in one"
            raise ValueError(msg)
        return self


class TileSettings(Settings):
    """How labelled scenes are cut for training."""

    size: int = Field(default=256, ge=32, multiple_of=32)
    """Side of a tile in pixels."""
    overlap: int = Field(default=25, ge=0)
    """Pixels that neighbouring tiles share at least."""
    min_valid: Probability = 0.5
    """Share of a tile that must be usable."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlap >= self.size:
            msg = f"overlap is {self.overlap} px; it must be smaller than the tile's {self.size} px"
            raise ValueError(msg)
        return self


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


class TrainingSettings(Settings):
    """How the network learns."""

    loss: Literal["focal", "bce", "dice"] = "focal"
    """Loss on logits, over usable and labelled pixels only."""
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
        """The model's inputs with their ranges, in order."""
        return tuple(
            layer(item) if isinstance(item, str) else layer(item.name, low=item.low, high=item.high, clip=item.clip)
            for item in self.layers
        )

    def as_json(self) -> dict[str, Any]:
        """The resolved configuration as plain JSON values."""
        resolved: dict[str, Any] = self.model_dump(mode="json")
        return resolved

    def as_yaml(self) -> str:
        """The resolved configuration as a YAML that gives it again."""
        return yaml.safe_dump(self.as_json(), sort_keys=False, allow_unicode=True)


def load(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with ``KEY=VALUE`` overrides.

    Raises:
        ConfigError: If the file is missing or not YAML, or a key or value is not allowed; the message names
            file, line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); name a YAML file, or make one with 'thawmap init'"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not text; a configuration is a YAML file in UTF-8"
        raise ConfigError(msg) from error
    return parse(text, name=str(path), folder=path.resolve().parent, overrides=overrides)


def parse(text: str, *, name: str, folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML text.

    Args:
        text: The YAML.
        name: What stands for it in messages.
        folder: Where relative paths count from.
        overrides: ``KEY=VALUE`` each, such as ``training.batch_size=8``.

    Raises:
        ConfigError: As `load`.
    """
    raw, places = _read_yaml(text, name)
    for override in overrides:
        _override(raw, places, override)
    try:
        return Config.model_validate(raw, context={"folder": folder})
    except ConfigError as error:
        msg = f"{places.get(('layers',), name)}: {error}"
        raise ConfigError(msg) from error
    except ValidationError as error:
        raise ConfigError(_sentence(error, raw, places)) from error


def json_schema() -> str:
    """The JSON schema of the YAML, for editors that complete it."""
    return json.dumps(Config.model_json_schema(), indent=2)


def _read_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """The YAML's content, and where each of its keys stands as ``file:line``."""
    places: dict[Place, str] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            msg = f"{name}: a configuration has keys such as 'scenes' and 'labels'; see 'thawmap init'"
            raise ConfigError(msg)
        _note_lines(node, (), places, name)
        return yaml.safe_load(text), places
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        reason = " ".join(str(getattr(error, "problem", error)).split())
        msg = f"{place}: not valid YAML ({reason}); check indentation, colons and quotes"
        raise ConfigError(msg) from error


def _note_lines(node: yaml.Node, path: Place, places: dict[Place, str], name: str) -> None:
    here = f"{name}:{node.start_mark.line + 1}"
    places.setdefault(path, here)
    if len(path) > DEEPEST:
        msg = f"{here}: '{path[0]}' is nested more than {DEEPEST} levels deep; an alias must not contain itself"
        raise ConfigError(msg)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), places, name)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = f"{name}:{key.start_mark.line + 1}"
            if inner in places:
                msg = f"{line}: key '{_dotted(inner)}' stands twice; keep one"
                raise ConfigError(msg)
            places[inner] = line
            _note_lines(value, inner, places, name)


def _override(raw: dict[str, Any], places: dict[Place, str], override: str) -> None:
    """Put one ``a.b=value`` into the raw mapping, and note where it came from; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        msg = f"--set {override}: not of the form KEY=VALUE, such as training.batch_size=8"
        raise ConfigError(msg)
    parts = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    place: Any = raw
    try:
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        place[parts[-1]] = yaml.safe_load(value)
    except (TypeError, IndexError, AttributeError) as error:
        msg = f"--set {override}: the configuration has no place {key!r}; see 'thawmap config' for its keys"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, ValueError) as error:
        msg = f"--set {override}: the value is not valid YAML; put it in quotes"
        raise ConfigError(msg) from error
    for known in [known for known in places if known[: len(parts)] == parts]:
        del places[known]
    for end in range(1, len(parts) + 1):
        places.setdefault(parts[:end], f"--set {override}")


def _sentence(error: ValidationError, raw: Mapping[str, Any], places: Mapping[Place, str]) -> str:
    """The most telling fault as one sentence, and how many others there are."""
    faults = [(_path(fault, raw), fault) for fault in error.errors()]
    first = faults[0][0]
    unknown = [path for path, fault in faults if fault["type"] == "extra_forbidden"]
    within = [path for path, _ in faults if path[: len(first)] == first]
    chosen = unknown[0] if unknown else max(within, key=len)
    said = _said(chosen, [fault for path, fault in faults if path == chosen])
    others = {path for path, _ in faults if path != chosen[: len(path)]}
    more = f" (and {len(others)} more)" if others else ""
    known = next(chosen[:end] for end in range(len(chosen), -1, -1) if chosen[:end] in places)
    return f"{places[known]}: {said}{more}"


def _path(fault: ErrorDetails, raw: Mapping[str, Any]) -> Place:
    """The keys of a fault as they stand in the YAML, without the names of the types that were tried."""
    path: list[str | int] = []
    value: Any = raw
    for part in fault["loc"]:
        inside = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if part in inside:
            value = value[part]
            path.append(part)
    return (*path, fault["loc"][-1]) if fault["type"] == "missing" else tuple(path)


def _said(path: Place, faults: Sequence[ErrorDetails]) -> str:
    """What is wrong with the value at ``path``; several faults are what each of several types found."""
    key, fault = _dotted(path) or "the configuration", faults[0]
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {_nearest(str(path[-1]), _keys_at(path[:-1]))}"
    if fault["type"] == "missing":
        return f"key '{key}' is missing; add it"
    if fault["type"] == "model_type":
        return f"'{key}' must have keys of its own: {', '.join(_keys_at(path))}; give one, or leave it out"
    allowed = " or ".join(dict.fromkeys(_plain(fault["msg"]) for fault in faults)).replace(" or must be ", " or ")
    got = f" is {fault['input']!r}" if isinstance(fault["input"], str | int | float | bool) else ""
    return f"'{key}'{got}: {allowed}"


def _plain(message: str) -> str:
    """A message of pydantic in the words of a YAML."""
    for theirs, ours in (
        ("Value error, ", ""),
        ("Input should be", "must be"),
        (" after validation", ""),
        ("a valid tuple", "a list such as [a, b]"),
        ("a valid dictionary or instance of LayerSettings", "a section of keys"),
        ("a valid dictionary", "a section of keys"),
    ):
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def _dotted(path: Place) -> str:
    return ".".join(str(part) for part in path)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"


def _keys_at(path: Place) -> list[str]:
    """Keys that the section at ``path`` knows."""
    schema = Config.model_json_schema()
    place: Any = schema
    for part in path:
        place = _section(place, schema["$defs"])
        below = place.get("properties", {}).get(part) or place.get("items")
        place = below or place.get("additionalProperties") or {}
    return list(_section(place, schema["$defs"]).get("properties", {}))


def _section(place: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A place of the schema, or what it refers to; of several types the section."""
    options = [option for option in (place, *place.get("anyOf", ())) if "$ref" in option]
    return definitions[options[0]["$ref"].rsplit("/", 1)[-1]] if options else place
