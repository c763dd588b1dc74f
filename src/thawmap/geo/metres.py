"""Sizes of pixels in metres, and the direction of north in a grid.

What is said of a pixel depends on its row and column in the grid alone, never on the window that is looked at.

Two kinds of metres: a projection's own, in which slopes and circles are measured (`pixel_metres`), and those on the
ellipsoid (`ground_pixel_m`, `width_and_bearing`). `check_metres` refuses grids where the two differ too much.
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

_NODE_PX = 64  # pixels between the nodes at which north is computed; linear between them
_STEP_DEGREES = 1e-4  # about 11 m: the step to the north that gives its direction
_BASELINE_PX = 50  # pixels over which metres are compared
_MOST_OFF = 0.15  # share by which a projection's metres may differ from metres on the ground
_LONLAT = CRS("EPSG:4326")
_ELLIPSOID = pyproj.Geod(ellps="WGS84")


def pixel_metres(grid: GeoBox, rows: slice) -> tuple[float, float | _Positions]:
    """Return a pixel's height and width in projection metres; width by row in degrees.

    A projection's metres are taken as metres, as the paper and GDAL do. On a grid of degrees the width is an array, one
    for each of ``rows``, and the height is the one in the middle of the grid.

    Raises:
        DataError: If a grid of degrees is turned.
    """
    affine, crs = grid.affine, _crs(grid)
    if not crs.geographic:
        unit = float(_horizontal(crs).axis_info[0].unit_conversion_factor)
        height, width = _sides(grid)
        return height * unit, width * unit
    if affine.b or affine.d:
        msg = "a DEM in degrees whose rows do not run along parallels cannot be used; warp it, such as to EPSG:3413"
        raise DataError(msg)
    ellipsoid = _horizontal(crs).ellipsoid
    assert ellipsoid is not None
    radius, flattening = ellipsoid.semi_major_metre, 1 / ellipsoid.inverse_flattening
    eccentricity2 = flattening * (2 - flattening)
    degree = np.radians(1.0)
    sin_middle = np.sin(np.radians(affine.f + affine.e * grid.height / 2))
    meridian = radius * (1 - eccentricity2) / (1 - eccentricity2 * sin_middle**2) ** 1.5
    latitude = np.radians(affine.f + affine.e * (np.arange(rows.start, rows.stop) + 0.5))
    parallel = radius * np.cos(latitude) / np.sqrt(1 - eccentricity2 * np.sin(latitude) ** 2)
    # At the poles a parallel has no length, and no slope could be divided by it.
    return float(abs(affine.e) * degree * meridian), np.maximum(abs(affine.a) * degree * parallel, 1e-3)


def square_pixel_m(grid: GeoBox) -> float | None:
    """Return the side in projection metres of a square as large as a grid's pixels.

    None on a grid of degrees, where it differs from row to row.
    """
    if _crs(grid).geographic:
        return None
    height, width = pixel_metres(grid, slice(0, 1))
    return float(np.sqrt(height * float(width)))


def longest_side(grid: GeoBox, rows: slice) -> float:
    """Return the longer side of the largest pixel in some rows, in metres."""
    return max(float(np.max(side)) for side in pixel_metres(grid, rows))


def ground_pixel_m(grid: GeoBox) -> tuple[float, float]:
    """Return height and width on the ground, in metres, of a grid's middle pixel.

    Measured on the ellipsoid, as `width_and_bearing` is; `pixel_metres` takes those of the projection.
    """
    row, col = (side / 2 for side in grid.shape)
    lon, lat = _lonlat(grid, [col, col, col + 1], [row, row + 1, row])
    _, _, lengths = _ELLIPSOID.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    return float(lengths[0]), float(lengths[1])


def width_and_bearing(grid: GeoBox) -> tuple[float, float]:
    """Return ground width in metres and bearing in degrees of a grid's middle pixel.

    The width is measured on the ellipsoid, from half a pixel left of the middle to half a pixel right of it. The
    bearing is that of the way up a column, in degrees clockwise from north. Both are NaN where the CRS has no such
    point on Earth.
    """
    row, col = grid.height / 2, grid.width / 2
    lon, lat = _lonlat(grid, [col, col + 0.5, col - 0.5, col], [row, row, row, row - 0.5])
    if not np.isfinite([*lon, *lat]).all():
        return float("nan"), float("nan")
    _, _, width_m = _ELLIPSOID.inv(lon[1], lat[1], lon[2], lat[2])
    bearing, _, _ = _ELLIPSOID.inv(lon[0], lat[0], lon[3], lat[3])
    return float(width_m), float(bearing)


def check_metres(grid: GeoBox, window: Window, *, name: str) -> None:
    """Refuse a grid whose metres differ by over 15 % from metres on the ground.

    Web Mercator's are not in the Arctic, where slopes would come out too small.

    Raises:
        DataError: If they differ by more than 15 % in the middle of the window.
    """
    crs = _crs(grid)
    if crs.geographic:
        return
    row, col = window.row + window.height / 2, window.col + window.width / 2
    lon, lat = _lonlat(grid, [col, col + _BASELINE_PX, col], [row, row, row + _BASELINE_PX])
    if not np.isfinite([*lon, *lat]).all():
        return
    _, _, distances = _ELLIPSOID.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    height, width = pixel_metres(grid, window.rows)
    ratio = np.asarray(distances, np.float64) / _BASELINE_PX / np.array([width, height])
    if (abs(ratio - 1) > _MOST_OFF).any():
        msg = (
            f"{name} is in {crs_name(crs)}, where a metre is {ratio.min():.2g} m on the ground; slopes would be wrong "
            f"by as much: warp it to another CRS, such as EPSG:3413 or UTM"
        )
        raise DataError(msg)


def north_of(grid: GeoBox, window: Window) -> North:
    """Return unit vectors to true north in a window's pixels, along columns and rows.

    Two arrays (y, x), float32; `GRID_NORTH` on a grid of degrees. The columns of a polar or any other projection run
    north at its central meridian only.
    """
    if _crs(grid).geographic:
        return GRID_NORTH
    row, col = (np.arange(axis.start, axis.stop) for axis in (window.rows, window.cols))
    # Nodes count from the grid's corner, so that a pixel has one north whatever window is read.
    node_rows, node_cols = (np.arange(axis[0] // _NODE_PX, axis[-1] // _NODE_PX + 2) * _NODE_PX for axis in (row, col))
    node_row, node_col = np.meshgrid(node_rows, node_cols, indexing="ij")
    lon, lat = _lonlat(grid, node_col + 0.5, node_row + 0.5)
    x, y = _LONLAT.transformer_to_crs(_crs(grid))(lon, lat + _STEP_DEGREES)
    north_col, north_row = ~grid.affine * (np.asarray(x), np.asarray(y))
    height, width = _sides(grid)
    right, down = (north_col - node_col - 0.5) * width, (north_row - node_row - 0.5) * height
    length = np.hypot(right, down)
    return _interpolate(right / length, row, col), _interpolate(down / length, row, col)


def _interpolate(nodes: _Positions, row: npt.NDArray[np.intp], col: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Return values (y, x) at pixels, bilinear between nodes 64 pixels apart."""
    down, right = row // _NODE_PX - row[0] // _NODE_PX, col // _NODE_PX - col[0] // _NODE_PX
    row_weight = ((row % _NODE_PX) / _NODE_PX).astype(np.float32)[:, None]
    col_weight = ((col % _NODE_PX) / _NODE_PX).astype(np.float32)
    corners = nodes.astype(np.float32)
    in_rows = corners[down] * (1 - row_weight) + corners[down + 1] * row_weight
    values: npt.NDArray[np.float32] = in_rows[:, right] * (1 - col_weight) + in_rows[:, right + 1] * col_weight
    return values


def _lonlat(grid: GeoBox, cols: npt.ArrayLike, rows: npt.ArrayLike) -> tuple[_Positions, _Positions]:
    """Return longitudes and latitudes of points given as columns and rows of a grid.

    Not finite where the CRS has no such point on Earth.
    """
    x, y = grid.affine * (np.asarray(cols, np.float64), np.asarray(rows, np.float64))
    lon, lat = _crs(grid).transformer_to_crs(_LONLAT)(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def _sides(grid: GeoBox) -> tuple[float, float]:
    """Return height and width of a grid's pixels in units of its CRS."""
    affine = grid.affine
    return float(np.hypot(affine.b, affine.e)), float(np.hypot(affine.a, affine.d))


def _crs(grid: GeoBox) -> CRS:
    """Return the CRS of a grid, which has one."""
    assert grid.crs is not None
    return grid.crs


def _horizontal(crs: CRS) -> pyproj.CRS:
    """Return the horizontal CRS of a compound one, or the CRS itself."""
    return crs.proj.sub_crs_list[0] if crs.proj.is_compound else crs.proj
