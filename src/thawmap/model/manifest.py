"""Types and ranges of every value that is read from `bundle.json`.

A bundle comes from strangers, and whoever edits one can make its checksums agree again (`thawmap.model.bundle`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thawmap.config import Fill
from thawmap.files.records import Record

_Share = Annotated[float, Field(ge=0, le=1)]
_Side = Annotated[int, Field(ge=1, le=65536)]
_Name = Annotated[str, Field(min_length=1)]


class LayerRecord(Record, extra="forbid"):
    """An input of the network, as a `thawmap.layers.Layer`."""

    name: _Name
    units: str
    low: float
    high: float
    clip: bool = True
    optical: bool = False
    directional: bool = False
    code_low: float
    code_step: float = Field(gt=0)
    recipe: str = ""


class TrainingRecord(Record):
    """Keys of the section `training` that are shown."""

    seed: int | None = None


class SplitRecord(Record):
    """Keys of the section `split` that say which regions the model has seen."""

    by: str = ""


class ConfigRecord(Record):
    """The configuration that a model was trained with.

    Its other sections are compared, and otherwise not read.
    """

    training: TrainingRecord = TrainingRecord()
    split: SplitRecord = SplitRecord()


class BeginningRecord(Record):
    """The bundle that a training began from."""

    bundle: str = ""
    regions: list[str] = Field(default_factory=list)


class ProvenanceRecord(Record):
    """The record of what a bundle was made from."""

    made_by: str = ""
    origin: str = Field(default="", alias="from")
    config: ConfigRecord = ConfigRecord()
    tile_store: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    regions: dict[str, list[str]] = Field(default_factory=dict)
    tiles: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    begun_from: BeginningRecord = BeginningRecord()


class DecisionRecord(Record, extra="forbid"):
    """How objects are made, as a `thawmap.model.decision.Decision`."""

    smoothing_px: Annotated[float, Field(ge=0, le=5)]
    threshold: _Share
    peak: _Share
    min_area_m2: Annotated[float, Field(ge=0, le=1e9)]
    views: Annotated[float, Field(ge=1, le=1e6)]


class Manifest(Record):
    """All of `bundle.json` but the format, which is checked before."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    architecture: _Name
    encoder: str
    tile: _Side
    stride: _Side
    fixed_tile: bool
    fill: Fill = "zero"  # bundles of before 2026-12 do not say so
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    thresholds: dict[str, _Share]
    decisions: dict[Literal["tile", "overlap", "dates"], DecisionRecord] = Field(default_factory=dict)
    metrics: dict[str, float]
    provenance: ProvenanceRecord
    layers: Annotated[list[LayerRecord], Field(min_length=1)]
    optional: list[str]
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse two layers of one name, and optional names that no layer has."""
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            msg = "two layers have one name"
            raise ValueError(msg)
        if strange := sorted(set(self.optional) - set(names)):
            msg = f"'optional' names {strange[0]!r}, which is no layer of it"
            raise ValueError(msg)
        return self
