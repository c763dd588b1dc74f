"""Sites of a region: squares of its ground with slumps and not too much water."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from thawmap.simulate.coordinates import outer_edge
from thawmap.simulate.landscape import visible
from thawmap.simulate.noise import PIXEL_M, Lattice
from thawmap.simulate.regions import Country, Region
from thawmap.simulate.slumps import REFERENCE_YEAR, crowding, slumps_within
from thawmap.simulate.terrain import WIDE_PX, shores

_SPREAD_PX = 1400  # how far from its spot on the shore a site may lie
_SPOTS = 24
_BEST_SPOTS = 8
_ENOUGH_SLUMPS = 5
_TRIED_SLUMPS = 12
_TRIED_SHIFTS = 3
_NEAR_PX, _FAR_PX = 160, 350  # how far around a square slumps are looked for
_ALL_SLUMPS_PX = 1200  # larger footprints have slumps wherever they crowd
_WORST = -9.0  # below every score

_Position = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A square of a region's ground that images show.

    Attributes:
        country: The ground of its region.
        number: Its number among the region's sites, from 0.
        footprint: The pixels that its first image shows.
    """

    country: Country
    number: int
    footprint: Lattice

    @property
    def region(self) -> Region:
        """Region whose ground the site shows."""
        return self.country.region

    @property
    def name(self) -> str:
        """Name made of region and number from 1, such as "coast_01"."""
        return f"{self.region.name}_{self.number + 1:02d}"


def find_site(country: Country, number: int, size: int) -> Site:
    """Find a site, ``size`` pixels square, with slumps and not too much water.

    Sites of a region follow each other along its shore and never overlap.
    """
    region, rng = country.region, country.plane.rng("places", number)
    heading = np.radians(region.relief.heading)
    along = number * (3 * size + 3 * _SPREAD_PX)
    spots = np.array([-np.cos(heading), np.sin(heading)]) * along + rng.uniform(-1, 1, (_SPOTS, 2)) * _SPREAD_PX
    if region.slumps.at_shore and (region.relief.sea or region.relief.river_m):
        spots = np.stack([_move_to_shore(country, spot, heading, inland_px=0.2 * size) for spot in spots])
    squares = [_square(round(row) - size // 2, round(col) - size // 2, size) for row, col in spots]
    promise = [_promise(country, square) for square in squares]
    squares = [squares[int(spot)] for spot in np.argsort(promise)[::-1]]
    footprint = squares[0] if size > _ALL_SLUMPS_PX else _with_slumps(country, squares, rng)
    return Site(country=country, number=number, footprint=footprint)


def _square(row: int, col: int, size: int) -> Lattice:
    """Return a step-1 lattice of ``size`` x ``size`` pixels from its upper left one."""
    return Lattice(row=row, col=col, height=size, width=size)


def _move_to_shore(country: Country, spot: _Position, heading: float, *, inland_px: float) -> _Position:
    """Return a spot (row, column) moved to the shore of sea or river, then inland.

    In two steps, so that it is about right.
    """
    dry_country = _without_lakes(country)
    inland = np.array([np.sin(heading), np.cos(heading)])

    def shore_px(position: _Position) -> float:
        point = Lattice(row=round(position[0]), col=round(position[1]), height=1, width=1, step=WIDE_PX)
        return float(shores(dry_country, point)[0][0, 0]) / PIXEL_M

    for _ in range(2):
        distance = shore_px(spot)
        # A river has two shores, so that the way to the nearer one may lead either way.
        spot = min(spot - inland * distance, spot + inland * distance, key=lambda position: abs(shore_px(position)))
    return spot + inland * inland_px


def _without_lakes(country: Country) -> Country:
    """Return a copy of a country without lakes; sea or river stay."""
    region = country.region
    return replace(country, region=replace(region, relief=replace(region.relief, lakes=0.0)))


def _promise(country: Country, footprint: Lattice) -> float:
    """Return a quick score of a footprint: higher for slumps, lower for unusual water.

    From 12 x 12 points: the share of land where slumps crowd, less the amount by which the share of water differs from
    the region's.
    """
    step = max(1, footprint.height // 12)
    sample = Lattice(row=footprint.row + step // 2, col=footprint.col + step // 2, height=12, width=12, step=step)
    relief = country.region.relief
    if relief.sea or relief.river_m:
        country = _without_lakes(country)  # they are not what it is known for
    wet = 0.25 if relief.sea else 0.14 if relief.river_m else relief.lakes
    dry = shores(country, sample)[0] > 0
    crowd = crowding(country, sample)
    return float((crowd * dry).mean() - 6 * max(abs(1 - dry.mean() - wet) - 0.07, 0))


def _with_slumps(country: Country, squares: Sequence[Lattice], rng: np.random.Generator) -> Lattice:
    """Return a footprint near the first of some squares with enough slumps near it.

    After the first nine any that shows slumps will do; the best of all if none has enough, the first square if none
    shows any.
    """
    size = squares[0].height
    wanted = min(_ENOUGH_SLUMPS, 1 + size // 100)
    best, footprint = _WORST, squares[0]
    for tried, square in enumerate(squares):
        reach = max(size // 3, _NEAR_PX) if tried < _BEST_SPOTS else _FAR_PX
        score, shifted = _best_around(country, square, rng, reach=min(reach, _FAR_PX))
        if score > best:
            best, footprint = score, shifted
        if best >= wanted or (best > _WORST and tried >= _BEST_SPOTS):
            break
    return footprint


def _best_around(country: Country, square: Lattice, rng: np.random.Generator, *, reach: int) -> tuple[float, Lattice]:
    """Shift a square to slumps nearby; return the best score and that footprint.

    They lie about the slumps within ``reach`` pixels of the square. The score counts slumps, up to enough, and the
    share of ground that they take; without slumps it is -9, and the footprint the square.
    """
    size = square.height
    slumps = visible(slumps_within(country, square.pad(reach)), year=REFERENCE_YEAR)
    middles = np.array([(slump.row, slump.col) for slump in slumps]).reshape(-1, 2)
    outlines = shapely.union_all([slump.outline(REFERENCE_YEAR) for slump in slumps])
    best, footprint = _WORST, square
    for middle in rng.permutation(middles)[:_TRIED_SLUMPS]:
        for down, right in rng.integers(-size // 4, size // 4 + 1, (_TRIED_SHIFTS, 2)) - size // 2:
            shifted = _square(int(middle[0] + down), int(middle[1] + right), size)
            inside = middles - (shifted.row, shifted.col)
            count = int(((inside > size // 10) & (inside < size - size // 10)).all(axis=1).sum())
            share = outlines.intersection(outer_edge(shifted)).area / size**2
            score = min(count, _ENOUGH_SLUMPS) + min(share, 0.3) - 20 * max(share - 0.3, 0)
            if score > best:  # water is costly to look at, and only takes from the score
                score += 2 * min(_promise(country, shifted), 0)
            if score > best:
                best, footprint = score, shifted
    return best, footprint
