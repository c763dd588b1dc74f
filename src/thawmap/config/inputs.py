"""Settings of the inputs: scenes, other sources, layers, labels and tiles."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """Return a path; a relative one is joined to the YAML file's folder, if known."""
    folder = (info.context or {}).get("folder")
    return path if folder is None or path.is_absolute() else Path(os.path.normpath(folder / path))


RelativePath = Annotated[Path, AfterValidator(from_folder)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=100_000)]
"""A number of things; as many as that of none of them fit into a machine."""
Side = Annotated[int, Field(le=16_384)]
"""Side of a square of pixels; a larger one takes more memory than machines have."""
Metres = Annotated[float, Field(ge=0, le=1e7)]
"""A distance on the ground; none is longer than from a pole to the equator."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
"""A number from which all that is random follows."""


class Settings(BaseModel):
    """Base of every section: frozen, and refusing unknown keys.

    The string below a field is its help text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Band(Settings):
    """One band of a file, and the encoding of its stored numbers.

    The physical value is stored * scale + offset.
    """

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


class Delivery(Settings):
    """Scenes as a provider delivers them: a folder that is searched, however deep."""

    path: RelativePath
    """Folder with the delivered scenes, in any order of folders below it; or a pattern of such folders."""
    table: RelativePath | None = None
    """CSV with the columns id and region: the regions of the scenes; others of the folder are left out."""
    region: str | None = None
    """Region of the scenes; `{folder}` stands for the name of the folder directly below `path`."""

    @model_validator(mode="after")
    def _check_regions(self) -> Self:
        """Refuse regions that come from both a table and a setting."""
        if self.table is not None and self.region is not None:
            msg = "regions come from either 'table' or 'region'; give one of them"
            raise ValueError(msg)
        return self


class PlanetScopeScenes(Delivery):
    """PlanetScope scenes as the Orders API and Explorer deliver them.

    These are PSScene and PSOrthoTile, with their masks.
    """

    kind: Literal["planetscope"]
    """Kind of delivery: planetscope, sentinel2, or rasters (any files)."""
    unusable: tuple[Literal["cloud", "shadow", "snow", "haze"], ...] = ("cloud", "shadow", "snow", "haze")
    """Classes of udm2 that are not used; haze is light and heavy, because Planet tells them no longer apart since
    29 November 2023. An old udm has no classes: all that it flags is not used."""
    top_of_atmosphere: bool = False
    """Whether scenes without surface reflectance are used, as top-of-atmosphere reflectance; else they are
    refused."""


class Sentinel2Scenes(Delivery):
    """Sentinel-2 Level-2A scenes: SAFE folders, or folders with a file for each band."""

    kind: Literal["sentinel2"]
    """Kind of delivery: planetscope, sentinel2, or rasters (any files)."""
    unusable: tuple[
        Literal[
            "saturated", "dark", "cloud_shadow", "vegetation", "bare", "water", "unclassified",
            "cloud_medium", "cloud_high", "cirrus", "snow",
        ], ...
    ] = ("saturated", "cloud_shadow", "cloud_medium", "cloud_high", "cirrus", "snow")  # fmt: skip
    """Classes of the scene classification (SCL) that are not used; its "no data" never is."""
    offset: float | None = None
    """Added to the stored numbers (-1000 since processing baseline 04.00); unset: as the metadata say."""


class RasterScenes(Settings):
    """Scenes of any sensor, found by pattern or table, and the files of their layers."""

    kind: Literal["rasters"]
    """Kind of delivery: planetscope, sentinel2, or rasters (any files, by pattern or table)."""
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
    def _check_files(self) -> Self:
        """Refuse both or neither of path and table, an unknown grid, and repeated layers."""
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


SceneSettings = Annotated[PlanetScopeScenes | Sentinel2Scenes | RasterScenes, Field(discriminator="kind")]
"""The scenes and how they are read, by the kind of their delivery."""


class Precomputed(Settings):
    """A layer that was made from elevation before, in files."""

    path: RelativePath
    """Folder of rasters, a pattern, or one file (a VRT too)."""
    band: Positive = 1
    """Number of the band, from 1."""
    scale: float | None = None
    """Factor from stored numbers to physical units; unset: the published encoding, such as (m + 50) x 300."""
    offset: float | None = None
    """Added after scaling; unset: the published encoding."""
    nodata: float | None = None
    """Stored number that means missing, beside the one that the files name themselves."""


class ElevationSettings(Settings):
    """Elevation and the layers made from it on its own grid, or such layers as files."""

    path: RelativePath | None = None
    """Folder of DEM rasters, a pattern, or one file (a VRT too), in any CRS."""
    window_m: float = Field(default=100, gt=0, le=10_000)
    """Diameter in metres of the circle whose mean `relative_elevation` is measured against."""
    slope: Literal["neighbours", "horn"] = "neighbours"
    """How slope is measured: from the four neighbours as in the paper, or Horn's eight."""
    unit: Literal["metre", "foot", "us_survey_foot"] | None = None
    """Unit of the stored heights; unset: metres, and files that say otherwise are refused."""
    nodata: float | None = None
    """Stored number that means missing, beside the one that the files name themselves."""
    relative_elevation: Precomputed | None = None
    """Relative elevation, made before."""
    slope_degrees: Precomputed | None = None
    """Slope, made before."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        """Refuse elevation without any file."""
        if self.path is None and self.relative_elevation is None and self.slope_degrees is None:
            msg = "elevation is in 'path', or in 'relative_elevation' and 'slope_degrees' made before; give one"
            raise ValueError(msg)
        return self

    def made_before(self, layer: str) -> Precomputed | None:
        """Return the settings of files that hold a layer made before; None for others."""
        return {"relative_elevation": self.relative_elevation, "slope": self.slope_degrees}.get(layer)


class TrendSettings(Settings):
    """Landsat trends of the tasseled-cap indices (TCVIS).

    Brightness, greenness and wetness are three bands.
    """

    path: RelativePath
    """Folder of rasters, a pattern, or one file (a VRT too)."""
    low: float = -0.12
    """Trend per decade that is stored as 0."""
    high: float = 0.12
    """Trend per decade that is stored as 255."""
    nodata: float | None = None
    """Stored number that means missing, beside the one that the files name themselves."""


class SourceSettings(Settings):
    """Sources of layers that are not in the scenes themselves."""

    elevation: ElevationSettings | None = None
    trends: TrendSettings | None = None


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


def expand_context(layers: Any) -> Any:
    """Return a list of layers, each {of: [...], context: [...]} replaced by its names.

    They are every layer with every statistic, such as ndvi_mean_40m. Anything else stays as it is.

    >>> expand_context(["nir", {"of": ["ndvi", "nir"], "context": ["mean_40m"]}])
    ['nir', 'ndvi_mean_40m', 'nir_mean_40m']
    """
    if not isinstance(layers, list | tuple):
        return layers
    return [name for entry in layers for name in _context_names(entry)]


def _context_names(entry: Any) -> list[Any]:
    """Return the names that an entry of `layers` stands for; itself if it is no group."""
    if not isinstance(entry, dict) or not {"of", "context"} & set(entry):
        return [entry]
    if set(entry) != {"of", "context"} or not all(isinstance(names, list | tuple) for names in entry.values()):
        msg = "a group of context layers has two lists, such as {of: [ndvi], context: [mean_40m]}"
        raise ValueError(msg)
    return [f"{base}_{statistic}" for base in entry["of"] for statistic in entry["context"]]


_OF_POLYGONS = ("layer", "scene", "start", "end", "region", "target", "extent")
_OF_RASTERS = ("band", "positive", "negative", "ignore")


class LabelSettings(Settings):
    """Digitised objects: polygons in one vector file, or one raster per scene."""

    path: RelativePath | None = None
    """Vector file of polygons."""
    layer: str | None = None
    """Layer of the vector file; unset: the only one that can hold polygons, or the one named as the file."""
    scene: str | None = None
    """Column that names the scene a polygon was digitised on: its id, or for PlanetScope the name of its file, which
    begins with it; unset: every polygon counts for every scene, or for those of its period."""
    start: str | None = None
    """Column with the first day (UTC, such as 2019-07-14) for which a polygon counts; beside `scene`, the scene decides
    and `thawmap labels check` compares the days."""
    end: str | None = None
    """Column with the last day; unset or empty: the day of `start` only."""
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
    def _check_kind(self) -> Self:
        """Refuse labels of both kinds or none, another kind's keys, and values used twice.

        The kinds are polygons and rasters. Refused is an end without a start, too.
        """
        if (self.path is None) == (self.raster is None):
            msg = "labels are in either 'path' (polygons) or 'raster'; give exactly one of them"
            raise ValueError(msg)
        kind, foreign = ("raster", _OF_POLYGONS) if self.raster else ("path", _OF_RASTERS)
        misplaced = [key for key in foreign if getattr(self, key) != type(self).model_fields[key].default]
        if misplaced:
            msg = f"'{misplaced[0]}' has no meaning beside '{kind}'; leave it out"
            raise ValueError(msg)
        if self.end is not None and self.start is None:
            msg = "'end' has no meaning without 'start'; give both, or leave it out"
            raise ValueError(msg)
        ignore = (self.ignore,) if isinstance(self.ignore, int) else self.ignore
        values = [*set(self.positive), *set(self.negative), *set(ignore)]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            msg = f"value {twice[0]} is in two of 'positive', 'negative' and 'ignore'; keep it in one"
            raise ValueError(msg)
        return self


class TileSettings(Settings):
    """Tiles into which labelled scenes are cut for training."""

    size: Side = Field(default=256, ge=32, multiple_of=32)
    """Side of a tile in pixels."""
    overlap: Side = Field(default=25, ge=0)
    """Pixels that neighbouring tiles share at least."""
    min_valid: Probability = 0.5
    """Share of a tile that must be usable."""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        """Refuse tiles that overlap by their whole side."""
        if self.overlap >= self.size:
            msg = f"overlap is {self.overlap} px; it must be smaller than the tile's {self.size} px"
            raise ValueError(msg)
        return self
