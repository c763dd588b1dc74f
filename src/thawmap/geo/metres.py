"""How a grid lies on the Earth: the metres of its pixels, and where north is.

What is said of a pixel depends on its row and column in the grid alone, never on the window that is looked at.
"""

import numpy as np
import numpy.typing as npt
import pyproj
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from thawmap.errors import DataError
from thawmap.geo.crs import crs_name
from thawmap.grid import Window

_Positions = npt.NDArray[np.float64]

North = tuple[npt.ArrayLike, npt.ArrayLike]
"""Unit vector to the north along columns and rows: numbers, or arrays (y, x)."""

GRID_NORTH: North = (0.0, -1.0)
"""North on a grid whose rows run south."""

_LATTICE_PX = 64  # pixels from one place where north is asked for to the next; it is straight between
_STEP_DEGREES = 1e-4  # about 11 m: how far north the direction is looked for
_FAR_PX = 50  # pixels over which metres are compared
_MOST_OFF = 0.15  # share by which a projection's metres may differ from metres on the ground
_LONLAT = CRS("EPSG:4326")


def pixel_metres(grid: GeoBox, rows: slice) -> tuple[float, float | _Positions]:
    """Height and width of pixels in metres; on a grid of degrees the width of those in each of ``rows``.

    A projection's metres are taken as metres, as the paper and GDAL do; the height of a pixel of degrees is the one
    in the middle of the grid.

    Raises:
        DataError: If a grid of degrees is turned.
    """
    affine, crs = grid.affine, _crs(grid)
    if not crs.geographic:
        unit = float(_horizontal(crs).axis_info[0].unit_conversion_factor)
        return float(np.hypot(affine.b, affine.e)) * unit, float(np.hypot(affine.a, affine.d)) * unit
    if affine.b or affine.d:
        msg = "a DEM in degrees whose rows do not run along parallels cannot be used; warp it, such as to EPSG:3413"
        raise DataError(msg)
    ellipsoid = _horizontal(crs).ellipsoid
    assert ellipsoid is not None
    radius, flattening = ellipsoid.semi_major_metre, 1 / ellipsoid.inverse_flattening
    eccentricity2 = flattening * (2 - flattening)
    degree = np.radians(1.0)
    middle = np.sin(np.radians(affine.f + affine.e * grid.height / 2))
    meridian = radius * (1 - eccentricity2) / (1 - eccentricity2 * middle**2) ** 1.5
    latitude = np.radians(affine.f + affine.e * (np.arange(rows.start, rows.stop) + 0.5))
    parallel = radius * np.cos(latitude) / np.sqrt(1 - eccentricity2 * np.sin(latitude) ** 2)
    return float(abs(affine.e) * degree * meridian), np.maximum(abs(affine.a) * degree * parallel, 1e-3)


def check_metres(grid: GeoBox, window: Window, *, name: str) -> None:
    """Refuse a projection whose metres are not those of the ground, as Web Mercator's in the Arctic.

    Raises:
        DataError: If they differ by more than 15 % in the middle of the window.
    """
    crs = _crs(grid)
    if crs.geographic:
        return
    row, col = window.row + window.height / 2, window.col + window.width / 2
    x, y = grid.affine * (np.array([col, col + _FAR_PX, col]), np.array([row, row, row + _FAR_PX]))
    lon, lat = (np.asarray(axis) for axis in crs.transformer_to_crs(_LONLAT)(x, y))
    if not np.isfinite([*lon, *lat]).all():
        return
    _, _, far = pyproj.Geod(ellps="WGS84").inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    tall, wide = pixel_metres(grid, window.rows)
    wrong = np.asarray(far, np.float64) / _FAR_PX / np.array([wide, tall])
    if (abs(wrong - 1) > _MOST_OFF).any():
        msg = (
            f"{name} is in {crs_name(crs)}, where a metre is {wrong.min():.2g} m on the ground; slopes would be wrong "
            f"by as much: warp it to another CRS, such as EPSG:3413 or UTM"
        )
        raise DataError(msg)


def north_of(grid: GeoBox, window: Window) -> North:
    """Unit vector (along columns, along rows) to the true north in a window's pixels, (y, x) each.

    The columns of a polar or any other projection run north at its central meridian only.
    """
    if _crs(grid).geographic:
        return GRID_NORTH
    row, col = (np.arange(axis.start, axis.stop) for axis in (window.rows, window.cols))
    lattice_rows, lattice_cols = (
        np.arange(axis[0] // _LATTICE_PX, axis[-1] // _LATTICE_PX + 2) * _LATTICE_PX for axis in (row, col)
    )
    right, down = _north_at(grid, *np.meshgrid(lattice_rows, lattice_cols, indexing="ij"))
    return _between(right, row, col), _between(down, row, col)


def _north_at(grid: GeoBox, row: _Positions, col: _Positions) -> tuple[_Positions, _Positions]:
    crs = _crs(grid)
    lon, lat = crs.transformer_to_crs(_LONLAT)(*(grid.affine * (col + 0.5, row + 0.5)))
    x, y = _LONLAT.transformer_to_crs(crs)(lon, np.asarray(lat) + _STEP_DEGREES)
    to_col, to_row = ~grid.affine * (np.asarray(x), np.asarray(y))
    height, width = (
        float(np.hypot(*side)) for side in ((grid.affine.b, grid.affine.e), (grid.affine.a, grid.affine.d))
    )
    right, down = (to_col - col - 0.5) * width, (to_row - row - 0.5) * height
    length = np.hypot(right, down)
    return right / length, down / length


def _between(lattice: _Positions, row: npt.NDArray[np.intp], col: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Values of a lattice at every pixel, linear between."""
    down, right = row // _LATTICE_PX - row[0] // _LATTICE_PX, col // _LATTICE_PX - col[0] // _LATTICE_PX
    tall = ((row % _LATTICE_PX) / _LATTICE_PX).astype(np.float32)[:, None]
    wide = ((col % _LATTICE_PX) / _LATTICE_PX).astype(np.float32)
    corners = lattice.astype(np.float32)
    in_rows = corners[down] * (1 - tall) + corners[down + 1] * tall
    result: npt.NDArray[np.float32] = in_rows[:, right] * (1 - wide) + in_rows[:, right + 1] * wide
    return result


def _crs(grid: GeoBox) -> CRS:
    assert grid.crs is not None
    return grid.crs


def _horizontal(crs: CRS) -> pyproj.CRS:
    """A CRS without its heights."""
    return crs.proj.sub_crs_list[0] if crs.proj.is_compound else crs.proj


def widest_side(grid: GeoBox, rows: slice) -> float:
    """The longer side of the largest pixel in the rows, in metres."""
    return max(float(np.max(side)) for side in pixel_metres(grid, rows))


def width_and_bearing(grid: GeoBox) -> tuple[float, float]:
    """Width in metres of the pixel in the middle of a grid, and the bearing of its upper side in degrees from north.

    Both are NaN where the CRS has no such place.
    """
    row, col = grid.height / 2, grid.width / 2
    x, y = grid.affine * (np.array([col, col + 0.5, col - 0.5, col]), np.array([row, row, row, row - 0.5]))
    lon, lat = (np.asarray(axis, np.float64) for axis in _crs(grid).transformer_to_crs(_LONLAT)(x, y))
    if not np.isfinite([*lon, *lat]).all():
        return float("nan"), float("nan")
    geod = pyproj.Geod(ellps="WGS84")
    _, _, metres = geod.inv(lon[1], lat[1], lon[2], lat[2])
    up, _, _ = geod.inv(lon[0], lat[0], lon[3], lat[3])
    return float(metres), float(up)
