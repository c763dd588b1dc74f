"""Coordinates of the endless ground: UTM for images, the polar grid for the rest."""

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.regions import Region

POLAR = "EPSG:3413"
"""The projection of ArcticDEM."""

_NODE_STEP = 32  # cells between those that are projected exactly

_Positions = npt.NDArray[np.float64]


def outer_edge(lattice: Lattice) -> shapely.Polygon:
    """Return the outer edge of a lattice's pixels as a polygon in ground pixels.

    Its coordinates are (column, row); the lattice has step 1.
    """
    return shapely.box(
        lattice.col - 0.5, lattice.row - 0.5, lattice.col + lattice.width - 0.5, lattice.row + lattice.height - 0.5
    )


def utm_grid(region: Region, lattice: Lattice) -> GeoBox:
    """Return a lattice of ground pixels as a grid (GeoBox) in the region's UTM zone.

    The lattice has step 1.
    """
    west, north = _origin(region)
    corner = Affine(PIXEL_M, 0, west + PIXEL_M * lattice.col, 0, -PIXEL_M, north - PIXEL_M * lattice.row)
    return GeoBox(lattice.shape, corner, f"EPSG:{region.epsg}")


def to_utm(region: Region, shape: shapely.Polygon) -> shapely.Polygon:
    """Return a polygon in ground pixels (column, row) as one in UTM metres."""
    west, north = _origin(region)
    return shapely.transform(
        shape, lambda points: np.array([west, north]) + (points + 0.5) * np.array([PIXEL_M, -PIXEL_M])
    )


def _origin(region: Region) -> tuple[float, float]:
    """Return UTM easting and northing of the region's pixel (0, 0), upper left corner.

    In metres, rounded to 30.
    """
    east, north = _project(np.array(region.lon), np.array(region.lat), "EPSG:4326", f"EPSG:{region.epsg}")
    return 30.0 * round(float(east) / 30), 30.0 * round(float(north) / 30)


def _project(x: _Positions, y: _Positions, source: str, target: str) -> tuple[_Positions, _Positions]:
    """Return x and y arrays in one CRS as x and y arrays in another.

    Longitude stands before latitude; a CRS is named, such as "EPSG:3413".
    """
    east, north = CRS(source).transformer_to_crs(CRS(target))(x, y)
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


def polar_grid(cells: Lattice, metres: float) -> GeoBox:
    """Return a lattice of polar cells as a grid (GeoBox) in EPSG:3413.

    Cells are squares of so many metres; their rows and columns count from the pole.
    """
    corner = Affine(metres, 0, metres * cells.col, 0, -metres, -metres * cells.row)
    return GeoBox(cells.shape, corner, POLAR)


def polar_cells(region: Region, footprint: Lattice, *, metres: float, margin_m: float) -> Lattice:
    """Return the rectangle of polar cells that holds a footprint and a margin around.

    It is a lattice of cells, squares of so many metres; the footprint is a lattice of ground pixels.
    """
    box = utm_grid(region, footprint).boundingbox
    sides = np.linspace(0, 1, 21)
    xs, ys = box.left + sides * (box.right - box.left), box.bottom + sides * (box.top - box.bottom)
    x = np.concatenate([xs, xs, np.full(21, box.left), np.full(21, box.right)])
    y = np.concatenate([np.full(21, box.bottom), np.full(21, box.top), ys, ys])
    east, north = _project(x, y, f"EPSG:{region.epsg}", POLAR)
    west, top = int((east.min() - margin_m) // metres), int(-(north.max() + margin_m) // metres)
    return Lattice(
        row=top, col=west, height=int((margin_m - north.min()) // metres) + 1 - top,
        width=int((east.max() + margin_m) // metres) + 1 - west,
    )  # fmt: skip


def cells_on_ground(region: Region, cells: Lattice, metres: float) -> tuple[_Positions, _Positions]:
    """Return two arrays, ground row and ground column of each polar cell's middle.

    In pixels with fractions, each (row, column) of the cells. Projected exactly every 32 cells, counted from the pole,
    and linear between: over so short a way projections differ from linear by less than a millimetre (at 2 m).
    """
    nodes = cells.coarse(_NODE_STEP)
    x, y = np.broadcast_arrays((nodes.x[None, :] + 0.5) * metres, -(nodes.y[:, None] + 0.5) * metres)
    east, north = _project(x, y, POLAR, f"EPSG:{region.epsg}")
    west, top = _origin(region)
    rows, cols = (top - north) / PIXEL_M - 0.5, (east - west) / PIXEL_M - 0.5
    return _interpolate(rows, nodes, cells), _interpolate(cols, nodes, cells)


def _interpolate(values: _Positions, nodes: Lattice, cells: Lattice) -> _Positions:
    """Interpolate values at a coarse lattice's nodes linearly to every cell.

    Both are arrays (row, column).
    """
    first, offset = np.divmod(cells.y - nodes.row, nodes.step)
    weight = (offset / nodes.step)[:, None]
    in_rows = values[first] * (1 - weight) + values[first + 1] * weight
    first, offset = np.divmod(cells.x - nodes.col, nodes.step)
    weight = offset / nodes.step
    return np.asarray(in_rows[:, first] * (1 - weight) + in_rows[:, first + 1] * weight)


def lattice_under(rows: _Positions, cols: _Positions, *, step: int) -> Lattice:
    """Return a `Lattice` of some step around rows and columns, with room for splines.

    Rows and columns of the positions are arrays, in pixels.
    """
    top, left = (int(axis.min() // step) - 1 for axis in (rows, cols))
    bottom, right = (int(axis.max() // step) + 3 for axis in (rows, cols))
    return Lattice(row=top * step, col=left * step, height=bottom - top + 1, width=right - left + 1, step=step)


def in_lattice(rows: _Positions, cols: _Positions, lattice: Lattice) -> Field:
    """Return ground positions as an array (2, row, column) of indices into a lattice.

    Indices have fractions: one is a step of the lattice.
    """
    return np.stack([(rows - lattice.row) / lattice.step, (cols - lattice.col) / lattice.step])
