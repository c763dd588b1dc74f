"""Whether a raster says where on Earth it lies, and what is missing where it does not."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.crs
import rasterio.shutil
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError, ProjError

EQUAL_AREA = "EPSG:6931"
"""Where areas are measured: EASE-Grid 2.0 North, Lambert's azimuthal equal-area projection of the Arctic."""

_Positions = npt.NDArray[np.float64]

_LONLAT = CRS("EPSG:4326")
_POINTS = 5  # a side of a grid that are looked for on Earth
_MOST_DEGREES = 540  # of longitude: some count from 0 to 360, and some go on beyond
_NAMELESS = ("", "unknown", "unnamed")
_LONGEST = 40  # letters of a CRS's name in a table
_CORRECT = "correct its CRS and transform, such as with gdal_edit -a_srs and -a_ullr"


def location_fault(file: Any) -> str | None:
    """Why nobody knows where an open rasterio file lies, and what to do; None where it is known."""
    if file.crs is None or file.transform.is_identity:
        return _lacking(file, "CRS" if file.crs is None else "transform")
    numbers = file.transform[:6]
    if not (np.isfinite(numbers).all() and file.transform.determinant):
        given = ", ".join(f"{number:g}" for number in numbers)
        return f"has a transform ({given}) that gives its pixels no size; {_CORRECT}"
    crs = file_crs(file)
    if not is_on_earth(crs):
        return f"has the CRS {crs_name(crs)!r}, which has no place on Earth; {_CORRECT}, or warp it to UTM"
    if not _somewhere(GeoBox(file.shape, file.transform, crs)):
        x, y = file.transform * (file.width / 2, file.height / 2)
        return f"lies at x {x:.6g}, y {y:.6g}, which is no place on Earth in {crs_name(crs)}; {_CORRECT}"
    return None


def file_crs(file: Any) -> str:
    """The CRS of an open rasterio file: its EPSG code, else WKT."""
    return _as_text(file.crs.to_wkt())


def crs_name(crs: CRS | str) -> str:
    """What a person calls a CRS: its EPSG code, else its name or its kind, cut where that is long."""
    known = CRS(crs)
    name = f"EPSG:{known.epsg}" if known.epsg else str(known.proj.name)
    if name in _NAMELESS:
        how = known.proj.coordinate_operation
        name = str(known.proj.type_name if how is None else how.method_name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def to_pixels(grid: GeoBox, crs: CRS | None, x: _Positions, y: _Positions) -> tuple[_Positions, _Positions]:
    """Points in a CRS as columns and rows of a grid, in pixels from its corner; not finite where it knows none.

    Degrees count on across the antimeridian, around the middle of the grid.
    """
    assert crs is not None
    assert grid.crs is not None
    if crs != grid.crs:
        x, y = crs.transformer_to_crs(grid.crs)(x, y)
    x, y = np.asarray(x), np.asarray(y)
    with np.errstate(invalid="ignore"):
        if grid.crs.geographic:
            x = x + 360 * np.round((_longitude(grid) - x) / 360)
        col, row = ~grid.affine * (x, y)
    return col, row


def shift_by_turns(grid: GeoBox, reference: GeoBox) -> GeoBox:
    """Return a grid in degrees, moved by whole turns of the Earth towards another one.

    Longitudes may count from -180 or from 0: the moved grid counts as the reference does. Grids in metres stay.
    """
    if not (grid.crs is not None and grid.crs.geographic and reference.crs is not None and reference.crs.geographic):
        return grid
    turns = round((_longitude(reference) - _longitude(grid)) / 360)
    return GeoBox(grid.shape, Affine.translation(360 * turns, 0) * grid.affine, grid.crs) if turns else grid


def _longitude(grid: GeoBox) -> float:
    """The longitude of the middle of a grid of degrees."""
    return float((grid.affine * (grid.width / 2, grid.height / 2))[0])


def _lacking(file: Any, what: str) -> str:
    """What a file lacks, and how to place it by what it has instead."""
    points, _ = file.gcps
    if points:
        return f"has ground control points and no {what}; warp it onto a grid, such as with gdalwarp -tps"
    if file.rpcs is not None:
        return f"has RPCs and no {what}; warp it onto a grid, such as with gdalwarp -rpc"
    if what == "CRS":
        return "has no CRS, so nobody knows where it lies; write one into it, such as with gdal_edit -a_srs"
    return "has a CRS but no transform, so nobody knows where it lies; write one into it, or a world file"


@lru_cache(maxsize=256)
def _as_text(wkt: str) -> str:
    code = rasterio.crs.CRS.from_wkt(wkt).to_epsg()  # looks through all that there are
    return f"EPSG:{code}" if code else wkt


@lru_cache(maxsize=256)
def is_on_earth(crs: str) -> bool:
    """Whether a CRS is one of places on Earth that maps can be drawn in: geographic or projected."""
    try:
        asked = CRS(crs)
        asked.transformer_to_crs(_LONLAT)
    except (CRSError, ProjError):  # of another planet
        return False
    return asked.geographic or asked.projected


def _somewhere(grid: GeoBox) -> bool:
    """Whether any place of a grid has a longitude and a latitude."""
    assert grid.crs is not None
    row, col = np.meshgrid(*(np.linspace(0, side, _POINTS) for side in grid.shape), indexing="ij")
    x, y = grid.affine * (col.ravel(), row.ravel())
    lon, lat = (np.abs(axis) for axis in grid.crs.transformer_to_crs(_LONLAT)(x, y))
    return bool(((lon <= _MOST_DEGREES) & (lat <= 90)).any())


def crs_of(geobox: GeoBox) -> str:
    """The CRS of a grid for rasterio and geopandas: its EPSG code, else WKT."""
    return str(geobox.crs)
