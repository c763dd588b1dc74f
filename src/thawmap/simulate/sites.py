"""Where the simulated images lie: how pixels of the endless ground become coordinates, and which of it is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from thawmap.simulate.landscape import visible
from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.reflectance import Region
from thawmap.simulate.slumps import REFERENCE_YEAR, crowds, slumps_within
from thawmap.simulate.terrain import WIDE_PX, Country, shores

POLAR = "EPSG:3413"
"""The projection of ArcticDEM."""

_SPREAD_PX = 1400  # how far from its spot on the shore a place may lie
_SPOTS = 24
_BEST_SPOTS = 8
_ENOUGH_SLUMPS = 5
_TRIED_SLUMPS = 12
_TRIED_SHIFTS = 3
_NEAR_PX, _FAR_PX = 160, 350  # how far around a square slumps are looked for
_ALL_SLUMPS_PX = 1200  # larger footprints have slumps wherever they crowd
_ANCHORS = 32  # pixels between places that are projected exactly

_Positions = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A piece of a region's ground that images show.

    Attributes:
        region: The region.
        country: Its ground.
        number: Its number among the region's places, from 0.
        footprint: The pixels that its first image shows.
    """

    region: Region
    country: Country
    number: int
    footprint: Lattice

    @property
    def name(self) -> str:
        """A name, such as "coast_01"."""
        return f"{self.region.name}_{self.number + 1:02d}"


def find_place(region: Region, country: Country, number: int, size: int) -> Place:
    """A place with slumps and not too much water, ``size`` pixels a side.

    Places of a region follow each other along its shore and never overlap.
    """
    rng = country.plane.rng("places", number)
    heading = np.radians(region.relief.heading)
    along = number * (3 * size + 3 * _SPREAD_PX)
    spots = np.array([-np.cos(heading), np.sin(heading)]) * along + rng.uniform(-1, 1, (_SPOTS, 2)) * _SPREAD_PX
    if region.slumps.at_shore and (region.relief.sea or region.relief.river_m):
        spots = np.stack([_near_shore(country, spot, heading, inland_px=0.2 * size) for spot in spots])
    corners = [(round(row) - size // 2, round(col) - size // 2) for row, col in spots]
    promise = [_promise(region, country, _square(row, col, size)) for row, col in corners]
    squares = [_square(*corners[int(spot)], size=size) for spot in np.argsort(promise)[::-1]]
    footprint = squares[0] if size > _ALL_SLUMPS_PX else _with_slumps(region, country, squares, rng)
    return Place(region=region, country=country, number=number, footprint=footprint)


def _with_slumps(region: Region, country: Country, squares: Sequence[Lattice], rng: np.random.Generator) -> Lattice:
    """A footprint near the first of some squares that shows enough slumps, else the best found."""
    size = squares[0].height
    wanted = min(_ENOUGH_SLUMPS, 1 + size // 100)
    best = (-9.0, squares[0])
    for tried, square in enumerate(squares):
        reach = max(size // 3, _NEAR_PX) if tried < _BEST_SPOTS else _FAR_PX
        best = max(best, _around(region, country, square, rng, reach=min(reach, _FAR_PX)), key=lambda one: one[0])
        if best[0] >= wanted or (best[0] > -9 and tried >= _BEST_SPOTS):
            break
    return best[1]


def _square(row: int, col: int, size: int) -> Lattice:
    return Lattice(row=row, col=col, height=size, width=size)


def _near_shore(country: Country, spot: _Positions, heading: float, *, inland_px: float) -> _Positions:
    """The spot (row, column) moved straight to the shore of the sea or the river, and a little inland."""
    alone = _without_lakes(country)
    inland = np.array([np.sin(heading), np.cos(heading)])

    def shore_px(at: _Positions) -> float:
        there = Lattice(row=round(at[0]), col=round(at[1]), height=1, width=1, step=WIDE_PX)
        return float(shores(alone, there)[0][0, 0]) / PIXEL_M

    for _ in range(2):
        far = shore_px(spot)
        spot = min(spot - inland * far, spot + inland * far, key=lambda at: abs(shore_px(at)))  # a river has two
    return spot + inland * inland_px


def _without_lakes(country: Country) -> Country:
    """The country with nothing but its sea or river."""
    return replace(country, relief=replace(country.relief, lakes=0.0))


def _promise(region: Region, country: Country, footprint: Lattice) -> float:
    """How well a spot suits, at a first look: land where slumps crowd, and the region's share of water."""
    step = max(1, footprint.height // 12)
    sample = Lattice(row=footprint.row + step // 2, col=footprint.col + step // 2, height=12, width=12, step=step)
    relief = region.relief
    if relief.sea or relief.river_m:
        country = _without_lakes(country)  # they are not what it is known for
    wet = 0.25 if relief.sea else 0.14 if relief.river_m else relief.lakes
    dry = shores(country, sample)[0] > 0
    crowd = crowds(country, region.slumps, sample)
    return float((crowd * dry).mean() - 6 * max(abs(1 - dry.mean() - wet) - 0.07, 0))


def _around(
    region: Region, country: Country, spot: Lattice, rng: np.random.Generator, *, reach: int
) -> tuple[float, Lattice]:
    """Of some footprints about a spot the one that shows most slumps, up to enough; and how good it is."""
    size = spot.height
    near = visible(slumps_within(country, region.slumps, spot.pad(reach)), year=REFERENCE_YEAR)
    middles = np.array([(scar.row, scar.col) for scar in near]).reshape(-1, 2)
    outlines = shapely.union_all([scar.outline(REFERENCE_YEAR) for scar in near])
    best = (-9.0, spot)
    for middle in rng.permutation(middles)[:_TRIED_SLUMPS]:
        for down, right in rng.integers(-size // 4, size // 4 + 1, (_TRIED_SHIFTS, 2)) - size // 2:
            square = _square(int(middle[0] + down), int(middle[1] + right), size)
            inside = middles - (square.row, square.col)
            whole = int(((inside > size // 10) & (inside < size - size // 10)).all(axis=1).sum())
            share = outlines.intersection(edge(square)).area / size**2
            score = min(whole, _ENOUGH_SLUMPS) + min(share, 0.3) - 20 * max(share - 0.3, 0)
            if score > best[0]:
                score += 2 * min(_promise(region, country, square), 0)
            if score > best[0]:
                best = (score, square)
    return best


def edge(lattice: Lattice) -> shapely.Polygon:
    """The outer edge of the pixels of a lattice of step 1, in pixels of the ground (column, row)."""
    return shapely.box(
        lattice.col - 0.5, lattice.row - 0.5, lattice.col + lattice.width - 0.5, lattice.row + lattice.height - 0.5
    )


def grid(region: Region, lattice: Lattice) -> GeoBox:
    """Where the pixels of a lattice of step 1 lie, in the region's UTM zone."""
    west, north = _origin(region)
    corner = Affine(PIXEL_M, 0, west + PIXEL_M * lattice.col, 0, -PIXEL_M, north - PIXEL_M * lattice.row)
    return GeoBox(lattice.shape, corner, f"EPSG:{region.epsg}")


def to_map(region: Region, shape: shapely.Polygon) -> shapely.Polygon:
    """A shape in pixels of the ground (column, row) in the region's UTM zone, in metres."""
    west, north = _origin(region)
    return shapely.transform(
        shape, lambda points: np.array([west, north]) + (points + 0.5) * np.array([PIXEL_M, -PIXEL_M])
    )


def _origin(region: Region) -> tuple[float, float]:
    """Easting and northing of the upper left corner of the ground's pixel (0, 0)."""
    east, north = project(np.array(region.lon), np.array(region.lat), "EPSG:4326", f"EPSG:{region.epsg}")
    return 30.0 * round(float(east) / 30), 30.0 * round(float(north) / 30)


def project(x: _Positions, y: _Positions, source: str, target: str) -> tuple[_Positions, _Positions]:
    """Coordinates in another CRS, longitude before latitude."""
    east, north = CRS(source).transformer_to_crs(CRS(target))(x, y)
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


def polar_grid(cells: Lattice, metres: float) -> GeoBox:
    """Where cells of the polar grid lie: squares of so many metres, counted from the pole."""
    corner = Affine(metres, 0, metres * cells.col, 0, -metres, -metres * cells.row)
    return GeoBox(cells.shape, corner, POLAR)


def polar_cells(region: Region, footprint: Lattice, *, metres: float, margin_m: float) -> Lattice:
    """The cells of the polar grid that cover a footprint and a margin around it."""
    box = grid(region, footprint).boundingbox
    sides = np.linspace(0, 1, 21)
    xs, ys = box.left + sides * (box.right - box.left), box.bottom + sides * (box.top - box.bottom)
    x = np.concatenate([xs, xs, np.full(21, box.left), np.full(21, box.right)])
    y = np.concatenate([np.full(21, box.bottom), np.full(21, box.top), ys, ys])
    east, north = project(x, y, f"EPSG:{region.epsg}", POLAR)
    west, top = int((east.min() - margin_m) // metres), int(-(north.max() + margin_m) // metres)
    return Lattice(
        row=top, col=west, height=int((margin_m - north.min()) // metres) + 1 - top,
        width=int((east.max() + margin_m) // metres) + 1 - west,
    )  # fmt: skip


def on_ground_of(region: Region, cells: Lattice, metres: float) -> tuple[_Positions, _Positions]:
    """Row and column on the ground, in pixels, of the middle of every cell of a piece of the polar grid.

    Projected exactly every 32 cells, counted from the pole, and linear between: over so short a way projections
    differ from linear by less than a millimetre (at 2 m).
    """
    anchors = cells.coarse(_ANCHORS)
    x, y = (anchors.x[None, :] + 0.5) * metres, -(anchors.y[:, None] + 0.5) * metres
    wide, high = np.broadcast_arrays(x, y)
    east, north = project(wide, high, POLAR, f"EPSG:{region.epsg}")
    west, top = _origin(region)
    rows, cols = (top - north) / PIXEL_M - 0.5, (east - west) / PIXEL_M - 0.5
    return _between(rows, anchors, cells), _between(cols, anchors, cells)


def _between(values: _Positions, anchors: Lattice, cells: Lattice) -> _Positions:
    """Values at anchors, linear between, at every cell."""
    first, part = np.divmod(cells.y - anchors.row, anchors.step)
    weight = (part / anchors.step)[:, None]
    down = values[first] * (1 - weight) + values[first + 1] * weight
    first, part = np.divmod(cells.x - anchors.col, anchors.step)
    weight = part / anchors.step
    return np.asarray(down[:, first] * (1 - weight) + down[:, first + 1] * weight)


def window(rows: _Positions, cols: _Positions, *, step: int) -> Lattice:
    """The lattice from which splines reach every one of some positions on the ground."""
    top, left = (int(axis.min() // step) - 1 for axis in (rows, cols))
    bottom, right = (int(axis.max() // step) + 3 for axis in (rows, cols))
    return Lattice(row=top * step, col=left * step, height=bottom - top + 1, width=right - left + 1, step=step)


def in_window(rows: _Positions, cols: _Positions, lattice: Lattice) -> Field:
    """Positions on the ground counted in places of a lattice (2, row, column)."""
    return np.stack([(rows - lattice.row) / lattice.step, (cols - lattice.col) / lattice.step])
