"""The layout of a map's folder: names of files, numbers, the item's keys, columns.

Everything that writes or reads a map takes these from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thawmap.data.raster.io import Encoding

Storage: TypeAlias = Literal["uint8", "float32"]
"""How probabilities are stored: as hundredths in bytes, or as they are."""

# --- files -------------------------------------------------------------------------------------------------------

ITEM = "item.json"
"""The STAC item, which is written last: a folder without one is no finished map."""

QUICKLOOK = "quicklook.png"

FILE_NAMES: Mapping[str, Mapping[str, str]] = {
    "thawmap": {"probability": "probability.tif", "mask": "mask.tif", "slumps": "slumps"},
    "darts": {"probability": "probabilities.tif", "mask": "binarized.tif", "slumps": "prediction_segments"},
}
"""File of each result, by the setting `outputs.names`; that of the polygons without its ending. The second are those
of darts-nextgen (its module darts_export)."""

# --- rasters -----------------------------------------------------------------------------------------------------

NODATA = 255
"""Stored byte of a missing pixel, in probabilities and masks."""

MASK_COLOURS = {0: (255, 255, 255, 0), 1: (215, 48, 39, 255), NODATA: (0, 0, 0, 0)}
"""Colour of each number of a mask: red, green, blue, opacity."""

MASK_LABELS = {0: "no slump", 1: "slump"}

_ENCODINGS: Mapping[Storage, Encoding] = {
    "uint8": Encoding(dtype="uint8", nodata=NODATA, scale=0.01),
    "float32": Encoding(dtype="float32", nodata=float("nan")),
}
_PROBABILITY_OF_BYTE = np.where(np.arange(256) == NODATA, np.nan, np.arange(256) / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRaster:
    """A raster of a map: its file, and how its numbers are stored.

    Attributes:
        name: Its name among the item's assets.
        file: Its file's name.
        title: What a catalogue shows.
        encoding: How its numbers are stored; a scale other than 1 means hundredths in bytes.
    """

    name: str
    file: str
    title: str
    encoding: Encoding

    def stored(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values (y, x) as the file stores them: hundredths in bytes, or only cast.

        NaN = missing, stored as 255 in bytes.
        """
        if self.encoding.scale == 1.0:
            return values.astype(self.encoding.dtype)
        hundredths = np.rint(np.multiply(values, 100, dtype=np.float64))
        return np.where(np.isnan(values), NODATA, hundredths).astype(np.uint8)

    def values(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored numbers (y, x) as values: hundredths / 100, or as they are.

        NaN = missing.

        Hundredths are compared and counted as float64, where 57 / 100 is the 0.57 of a setting.
        """
        return stored if self.encoding.scale == 1.0 else _PROBABILITY_OF_BYTE[stored]

    @property
    def fields(self) -> dict[str, Any]:
        """Type, nodata number and scale of the raster, by the keys of a STAC asset."""
        encoding = self.encoding
        fields: dict[str, Any] = {"data_type": encoding.dtype}
        if encoding.nodata is not None:
            fields["nodata"] = "nan" if math.isnan(encoding.nodata) else encoding.nodata
        return fields | ({} if encoding.scale == 1.0 else {"raster:scale": encoding.scale})


def probability_raster(file: str, storage: Storage) -> MapRaster:
    """Return the description of a raster of probabilities: name, title, encoding."""
    return _fractions("probability", file, "Probability of a slump, 0 to 1", storage)


def mask_raster(file: str) -> MapRaster:
    """Return the description of a mask: 1 in slumps, 0 beside them, 255 missing."""
    encoding = Encoding(
        dtype="uint8", nodata=NODATA, descriptions=("slump",), colours=MASK_COLOURS, overviews="nearest"
    )
    return MapRaster(name="mask", file=file, title="1 slump, 0 not, 255 no data", encoding=encoding)


def spread_raster(between: Literal["networks", "dates"], storage: Storage) -> MapRaster:
    """Return the description of spread.tif, the spread between networks or dates.

    It is the standard deviation of their probabilities.
    """
    return _fractions("spread", "spread.tif", f"Standard deviation between {between}", storage)


COUNT = MapRaster(
    name="count",
    file="count.tif",
    title="Number of clear dates",
    encoding=Encoding(dtype="uint16", descriptions=("clear dates",), overviews="nearest"),
)
"""The raster of how many dates a fused pixel is from."""


def _fractions(name: str, file: str, title: str, storage: Storage) -> MapRaster:
    return MapRaster(name=name, file=file, title=title, encoding=replace(_ENCODINGS[storage], descriptions=(name,)))


def from_hundredths(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Divide hundredths (y, x) by 100 into probabilities 0..1; NaN stays NaN.

    float32, read from a byte raster, on any grid.
    """
    return numbers / np.float32(100)


# --- the item's keys ---------------------------------------------------------------------------------------------

BUNDLE = "thawmap:bundle"
THRESHOLD = "thawmap:threshold"
FINGERPRINT = "thawmap:fingerprint"
CONFIG = "thawmap:config"
INPUTS = "thawmap:inputs"
FILES = "thawmap:files"
SENSOR = "thawmap:sensor"
REGION = "thawmap:region"
SLUMPS = "thawmap:slumps"
SLUMP_AREA_M2 = "thawmap:slump_area_m2"
LEFT_OUT = "thawmap:left_out"

# --- slumps ------------------------------------------------------------------------------------------------------

SLUMP_COLUMNS = {
    "slump_id": "string",
    "scene_id": "string",
    "acquired": "datetime64[us, UTC]",
    "area_m2": "float64",
    "perimeter_m": "float64",
    "pixels": "int64",
    "probability_mean": "float64",
    "probability_max": "float64",
    "probability_min": "float64",
    "probability_median": "float64",
    "probability_std": "float64",
    "touches_edge": "bool",
    "bundle_id": "string",
    "status": "string",
    "reviewer": "string",
    "reviewed_at": "datetime64[us, UTC]",
}
"""Columns of slumps and their types, in order; the geometry follows them."""

REASON = "reason"
"""One column more that objects have which are left out: why."""

LEFT_OUT_LAYER = "left_out"
"""Layer of the objects that are none of the slumps; in other formats than GeoPackage the end of a file's name."""

SHAPEFILE_NAMES = {
    "slump_id": "slump_id",
    "scene_id": "scene_id",
    "acquired": "acquired",
    "area_m2": "area_m2",
    "perimeter_m": "perim_m",
    "pixels": "pixels",
    "probability_mean": "prob_mean",
    "probability_max": "prob_max",
    "probability_min": "prob_min",
    "probability_median": "prob_med",
    "probability_std": "prob_std",
    "touches_edge": "edge",
    "bundle_id": "bundle_id",
    "status": "status",
    "reviewer": "reviewer",
    "reviewed_at": "reviewed",
}
"""Columns of slumps in a Shapefile, whose names have at most 10 characters."""
