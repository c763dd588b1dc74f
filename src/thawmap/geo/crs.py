"""Coordinate systems of rasters: their names, and the way from one to another."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.crs
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError, ProjError

EQUAL_AREA = "EPSG:6931"
"""The CRS in which areas are measured: EASE-Grid 2.0 North, Lambert's azimuthal equal-area projection of the Arctic."""

_Positions = npt.NDArray[np.float64]

_LONLAT = CRS("EPSG:4326")
_POINTS = 5  # points along a side of a grid that are looked for on Earth
_MOST_DEGREES = 540  # of longitude: some count from 0 to 360, and some go on beyond
_NAMELESS = ("", "unknown", "unnamed")
_LONGEST_NAME = 40  # letters of a CRS's name in a table
_CORRECT = "correct its CRS and transform, such as with gdal_edit -a_srs and -a_ullr"


def location_fault(file: Any) -> str | None:
    """Return a clause on why an open raster's place is unknown; None if it is known.

    The end of a sentence about the file, with what to do.

    Args:
        file: A dataset that rasterio has opened.
    """
    if file.crs is None or file.transform.is_identity:
        return _missing_reference(file, "CRS" if file.crs is None else "transform")
    coefficients = file.transform[:6]
    if not (np.isfinite(coefficients).all() and file.transform.determinant):
        listed = ", ".join(f"{coefficient:g}" for coefficient in coefficients)
        return f"has a transform ({listed}) that gives its pixels no size; {_CORRECT}"
    crs = file_crs(file)
    if not is_on_earth(crs):
        return f"has the CRS {crs_name(crs)!r}, which has no place on Earth; {_CORRECT}, or warp it to UTM"
    if not _touches_earth(GeoBox(file.shape, file.transform, crs)):
        x, y = file.transform * (file.width / 2, file.height / 2)
        return f"lies at x {x:.6g}, y {y:.6g}, which is no place on Earth in {crs_name(crs)}; {_CORRECT}"
    return None


def _missing_reference(file: Any, missing: str) -> str:
    """Return a clause on a raster's missing CRS or transform, with what to do."""
    points, _ = file.gcps
    if points:
        return f"has ground control points and no {missing}; warp it onto a grid, such as with gdalwarp -tps"
    if file.rpcs is not None:
        return f"has RPCs and no {missing}; warp it onto a grid, such as with gdalwarp -rpc"
    if missing == "CRS":
        return "has no CRS, so nobody knows where it lies; write one into it, such as with gdal_edit -a_srs"
    return "has a CRS but no transform, so nobody knows where it lies; write one into it, or a world file"


@lru_cache(maxsize=256)
def is_on_earth(crs: str) -> bool:
    """Return whether a CRS is a geographic or projected one of the Earth."""
    try:
        parsed = CRS(crs)
        parsed.transformer_to_crs(_LONLAT)
    except (CRSError, ProjError):  # of another planet
        return False
    return parsed.geographic or parsed.projected


def _touches_earth(grid: GeoBox) -> bool:
    """Return whether any of 5 x 5 points of a grid has a longitude and a latitude."""
    assert grid.crs is not None
    row, col = np.meshgrid(*(np.linspace(0, side, _POINTS) for side in grid.shape), indexing="ij")
    x, y = grid.affine * (col.ravel(), row.ravel())
    lon, lat = (np.abs(axis) for axis in grid.crs.transformer_to_crs(_LONLAT)(x, y))
    return bool(((lon <= _MOST_DEGREES) & (lat <= 90)).any())


def file_crs(file: Any) -> str:
    """Return the CRS of an open rasterio dataset: its EPSG code, else WKT."""
    return _epsg_or_wkt(file.crs.to_wkt())


@lru_cache(maxsize=256)
def _epsg_or_wkt(wkt: str) -> str:
    """Return a CRS given as WKT as its EPSG code; the WKT itself if it has none."""
    code = rasterio.crs.CRS.from_wkt(wkt).to_epsg()  # slow: it compares all CRS that there are
    return f"EPSG:{code}" if code else wkt


def crs_of(geobox: GeoBox) -> str:
    """Return the CRS of a grid for rasterio and geopandas: its EPSG code, else WKT."""
    return str(geobox.crs)


def crs_name(crs: CRS | str) -> str:
    """Return a CRS's name for people: its EPSG code, else its own name or its kind.

    At most 40 letters; a longer name ends in an ellipsis.
    """
    parsed = CRS(crs)
    name = f"EPSG:{parsed.epsg}" if parsed.epsg else str(parsed.proj.name)
    if name in _NAMELESS:
        projection = parsed.proj.coordinate_operation
        name = str(parsed.proj.type_name if projection is None else projection.method_name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def to_pixels(grid: GeoBox, crs: CRS | None, x: _Positions, y: _Positions) -> tuple[_Positions, _Positions]:
    """Return points of a CRS as columns and rows of a grid, in pixels from its corner.

    Not finite where the grid's CRS has no such point. Degrees count on across the antimeridian, around the middle of
    the grid.
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
    """Return a grid in degrees, moved by multiples of 360 to lie near a reference.

    Longitudes may count from -180 or from 0: the moved grid counts as the reference does. If either is in metres, the
    grid stays as it is.
    """
    if not (grid.crs is not None and grid.crs.geographic and reference.crs is not None and reference.crs.geographic):
        return grid
    turns = round((_longitude(reference) - _longitude(grid)) / 360)
    return GeoBox(grid.shape, Affine.translation(360 * turns, 0) * grid.affine, grid.crs) if turns else grid


def _longitude(grid: GeoBox) -> float:
    """Return the longitude of the middle of a grid of degrees."""
    return float((grid.affine * (grid.width / 2, grid.height / 2))[0])
