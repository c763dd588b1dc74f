"""Thaw slumps of an endless country: their positions, their growth, their depth.

How they look follows Nitze et al. 2021 (doi 10.3390/rs13214294), sections 1 and 2.1: a steep headwall in a
horseshoe that retreats upslope, a bare floor that slopes gently to the outlet, a debris tongue below. They lie in
crowds, as in the paper's regions. The slumps of a cell follow from the cell alone, so that any window can list those
that touch it.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import PchipInterpolator
from shapely.geometry import Polygon

from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.regions import Country
from thawmap.simulate.terrain import WIDE_PX, rise, shores

REFERENCE_YEAR = 2019.0
"""The year in which slumps have the sizes of the paper's Table 2."""

_CELL_PX = 256
_LONGEST_M = 560.0  # so that two slumps apart from each other lie in the same cell or in neighbouring ones
_REACH_PX = 250  # no slump changes anything farther from its middle
_NEVER = 9999.0
_FILLED = 0.68  # area of a slump over the square of its length, times its elongation
_SPREAD = 0.8  # of the logarithm of areas: 0.7 to 1.3 in the paper's sites
_DIRECTIONS = 256
_HEAD = 0.42  # share of a slump's length above its middle
_NARROWER = 0.7  # a slump that is longer by a factor is wider by this power of it
_ON_LAND = 7  # of nine points in the middle of a slump
_WALL_SLOPE = np.tan(np.radians(50.0))
_OLD_SLOPE = np.tan(np.radians(18.0))

_Floats = npt.NDArray[np.float64]
_Points = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slump:
    """One slump; its middle stays, its toe stays, its head retreats.

    Attributes:
        row: Row of its middle, in pixels of the ground.
        col: Column of its middle.
        downslope: Unit vector (column, row) from the headwall to the outlet.
        length_px: From the headwall to the toe in the reference year, in pixels.
        radius_px: From the middle to the edge in the reference year, in equal steps of angle from downslope on.
        toe_m: Height of the ground at the toe.
        floor_slope: Fall of the floor, metres on a metre.
        deepest_m: Greatest depth of the floor under the former ground.
        born: Year in which it began.
        ended: Year in which it stabilised.
        retreat: Growth of its length in a year, as a share of that of the reference year.
    """

    row: int
    col: int
    downslope: tuple[float, float]
    length_px: float
    radius_px: Field = field(repr=False)
    toe_m: float
    floor_slope: float
    deepest_m: float
    born: float
    ended: float
    retreat: float

    def size(self, year: float) -> float:
        """Return the slump's length in a year over that of 2019; 0 before it began."""
        if year < self.born:
            return 0.0
        return float(np.clip(1 + self.retreat * (min(year, self.ended) - REFERENCE_YEAR), 0.2, 1.5))

    def activity(self, year: float) -> float:
        """Return how active the slump is in a year: 1 while it thaws, then falling to 0.

        From year to year plants cover more of it.
        """
        return float(np.exp(-max(year - self.ended, 0) / 4))

    def outline(self, year: float) -> Polygon:
        """Return the slump's edge in a year, as a polygon in ground pixels (column, row)."""
        size, toe = self.size(year), float(self.radius_px[0])
        angle = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
        along = toe + size * (self.radius_px * np.cos(angle) - toe)  # grows from the toe, which stays
        across = size**_NARROWER * self.radius_px * np.sin(angle)
        x, y = self.downslope
        return Polygon(np.column_stack([self.col + along * x - across * y, self.row + along * y + across * x]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Imprint:
    """A slump in a year at the points of a lattice that its bounds hold.

    Attributes:
        view: Rows and columns of these points in the lattice; the fields are (row, column) of them.
        edge_m: Distance to the slump's edge in metres; 0 outside.
        fall: 0 at its head, 1 at its toe.
    """

    view: tuple[slice, slice]
    edge_m: Field
    fall: Field


def slumps_within(country: Country, lattice: Lattice) -> list[Slump]:
    """Return a list of the slumps whose middles lie within a lattice's bounds.

    Their order does not depend on the lattice.
    """
    south, east = int(lattice.y[-1]), int(lattice.x[-1])
    return [
        slump
        for cell_row in range(lattice.row // _CELL_PX, south // _CELL_PX + 1)
        for cell_col in range(lattice.col // _CELL_PX, east // _CELL_PX + 1)
        for slump in _cell_slumps(country, cell_row, cell_col)
        if lattice.row <= slump.row <= south and lattice.col <= slump.col <= east
    ]


def slumps_near(country: Country, lattice: Lattice) -> list[Slump]:
    """Return a list of all slumps that may touch a lattice: those within 250 pixels.

    Their order does not depend on the lattice.
    """
    return slumps_within(country, lattice.pad(-(-_REACH_PX // lattice.step)))


def imprint(slump: Slump, lattice: Lattice, year: float) -> Imprint | None:
    """Return a slump's distance to edge and to head at a lattice; None if off it.

    None also before it began. Only points within its bounds are computed.
    """
    size = slump.size(year)
    if size == 0:
        return None
    west, north, east, south = slump.outline(year).bounds
    rows, cols = _slice_between(lattice.y, north, south), _slice_between(lattice.x, west, east)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return None
    # Every point goes back into the slump of the reference year, where its angle tells how far the edge is.
    x, y = slump.downslope
    down, right = (lattice.y[rows] - slump.row)[:, None], (lattice.x[cols] - slump.col)[None, :]
    toe = float(slump.radius_px[0])
    along = toe + (right * x + down * y - toe) / size
    across = (down * x - right * y) / size**_NARROWER
    angle = np.arctan2(across, along) * (_DIRECTIONS / (2 * np.pi))
    radius = slump.radius_px
    change = (np.roll(radius, -1) - np.roll(radius, 1)) / (2 * (2 * np.pi / _DIRECTIONS))
    # Where the edge runs askew to the radius, it is nearer than along the radius.
    nearer = (1 / np.sqrt(1 + (change / radius) ** 2)).astype(np.float32)
    inside = np.maximum(_look_up(radius, angle) - np.hypot(along, across), 0) * _look_up(nearer, angle)
    return Imprint(
        view=(rows, cols),
        edge_m=(inside * size * PIXEL_M).astype(np.float32),
        fall=(along / slump.length_px + _HEAD).astype(np.float32),
    )


def _slice_between(positions: _Points, low: float, high: float) -> slice:
    """Return the slice of a sorted array whose values lie between two numbers."""
    return slice(int(np.searchsorted(positions, low)), int(np.searchsorted(positions, high, side="right")))


def _look_up(table: Field, angle: _Floats) -> _Floats:
    """Interpolate a table around the circle linearly, at angles counted in entries."""
    below = np.floor(angle)
    weight = angle - below
    first = below.astype(np.int64) % _DIRECTIONS
    values: _Floats = table[first] * (1 - weight) + table[(first + 1) % _DIRECTIONS] * weight
    return values


def depth_m(slump: Slump, shape: Imprint, height: Field, mounds: Field, year: float) -> Field:
    """Return how deep in metres a slump cuts the ground at its points; 0 outside.

    A wall at the head, a floor that falls to the toe and is uneven by ``mounds``; below 0 where debris lies on the
    ground. Height and mounds are at the points of the imprint.
    """
    length_m, fall = slump.length_px * PIXEL_M, shape.fall
    softened = float(np.clip((year - slump.ended) / 12, 0, 1))
    wall = _WALL_SLOPE + softened * (_OLD_SLOPE - _WALL_SLOPE)
    floor = slump.toe_m + slump.floor_slope * length_m * np.clip(1 - fall, 0, 1)
    least = 0.75 * slump.deepest_m * np.clip(0.95 - fall, -0.05, 1)
    depth = np.clip(np.maximum(height - floor, least), -0.6, slump.deepest_m)
    depth = np.minimum(depth, 1.2 * slump.deepest_m * np.clip(1 - fall, 0.02, 1))
    depth = np.minimum(depth, shape.edge_m * wall) * (1 - 0.3 * softened)
    depth = np.minimum(depth + 0.35 * mounds * np.clip(shape.edge_m / 9, 0, 1), 0.8 * height)
    inside: Field = np.where((shape.edge_m > 0) & (height > 0), depth, 0).astype(np.float32)
    return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    """A slump that lies there unless another one takes its room.

    Attributes:
        row: Row of its middle, in pixels of the ground.
        col: Column of its middle.
        length_px: From the headwall to the toe.
        elongation: Length over width.
        downslope: Direction (column, row) in which it opens, as an angle in radians.
        rank: The lower one of two has the room.
    """

    row: int
    col: int
    length_px: float
    elongation: float
    downslope: float
    rank: float

    def yields_to(self, other: "_Proposal") -> bool:
        """Return whether another proposal is too near and has the lower rank."""
        distance = np.hypot(self.row - other.row, self.col - other.col)
        return bool(other.rank < self.rank and distance < 0.5 * (self.length_px + other.length_px))


@lru_cache(maxsize=4096)
def _cell_slumps(country: Country, row: int, col: int) -> tuple[Slump, ...]:
    """Return a cell's slumps: its proposals, less those too near one of lower rank.

    A cell is a square of 256 pixels; a slump belongs to that in which its middle lies.
    """
    proposals = _proposals(country, row, col)
    if not proposals:
        return ()
    # Rivals in the eight neighbours too, by rank alone: no cell needs to know how another one was decided.
    rivals = [
        rival
        for rival_row in (row - 1, row, row + 1)
        for rival_col in (col - 1, col, col + 1)
        for rival in _proposals(country, rival_row, rival_col)
    ]
    return tuple(
        _draw_slump(country, proposal)
        for proposal in proposals
        if not any(proposal.yields_to(rival) for rival in rivals)
    )


@lru_cache(maxsize=4096)
def _proposals(country: Country, row: int, col: int) -> tuple[_Proposal, ...]:
    """Draw by chance the slumps that a cell of 256 pixels may hold, as proposals.

    They lie where slumps crowd and the ground suits them.
    """
    traits, rng = country.region.slumps, country.plane.rng("slumps", row, col)
    side = _CELL_PX // WIDE_PX
    lattice = Lattice(row=row * _CELL_PX, col=col * _CELL_PX, height=side, width=side, step=WIDE_PX)
    crowd = crowding(country, lattice)
    count = rng.poisson(traits.per_km2 * (_CELL_PX * PIXEL_M / 1000) ** 2)
    if not crowd.any() or not count:
        return ()
    area_m2 = traits.area_m2 * rng.lognormal(0, _SPREAD, count)
    elongation = traits.elongation * rng.uniform(0.75, 1.35, count)
    length_m = np.minimum(np.sqrt(area_m2 * elongation / _FILLED), _LONGEST_M)
    points = rng.integers(0, side, (2, count))
    typical_m = np.sqrt(traits.area_m2 * traits.elongation / _FILLED)
    ranks, chance = rng.uniform(size=count) * (typical_m / length_m) ** 2, rng.uniform(size=count)
    if traits.at_shore:  # the strip where one can lie is as wide as it is long
        chance *= np.maximum(length_m / (0.75 * typical_m), 1)
    # The cheap test first: relief is computed for those alone that their crowd allows.
    hopeful = np.flatnonzero(chance < crowd[points[0], points[1]])
    suitability, downslope = _suitability(country, lattice, points[:, hopeful], length_m[hopeful])
    chosen = chance[hopeful] < suitability * crowd[points[0], points[1]][hopeful]
    return tuple(
        _Proposal(
            row=lattice.row + WIDE_PX * int(points[0, number]),
            col=lattice.col + WIDE_PX * int(points[1, number]),
            length_px=float(length_m[number] / PIXEL_M),
            elongation=float(elongation[number]),
            downslope=float(angle),
            rank=float(ranks[number]),
        )
        for number, angle in zip(hopeful[chosen], downslope[chosen], strict=True)
        if _is_on_land(country, lattice, points[:, number], length_m[number])
    )


def _is_on_land(country: Country, lattice: Lattice, point: _Points, length_m: float) -> bool:
    """Return whether at least 7 of 9 points around a slump's middle lie on land.

    An islet, where the shore seems far, has no room for it.
    """
    step = max(1, round(0.3 * length_m / PIXEL_M))
    row, col = int(lattice.y[point[0]]), int(lattice.x[point[1]])
    middle = Lattice(row=row - step, col=col - step, height=3, width=3, step=step)
    return int((shores(country, middle)[0] > 0).sum()) >= _ON_LAND


def crowding(country: Country, lattice: Lattice) -> Field:
    """Return how densely slumps may lie at each point of a lattice, 0 to 1.

    An array (row, column); 0: none.
    """
    level = country.plane.noise("crowds", lattice, longest_m=2600, shortest_m=1300)
    crowd: Field = np.clip((level - NormalDist().inv_cdf(1 - country.region.slumps.crowded)) / 0.5, 0, 1)
    return crowd


def _suitability(country: Country, lattice: Lattice, points: _Points, length_m: _Floats) -> tuple[_Floats, _Floats]:
    """Return each point's suitability for a slump, 0..1, and its downslope angle.

    The angle is that of the direction (column, row) in which a slump opens, in radians.

    Args:
        country: The ground.
        lattice: The points of a cell.
        points: Rows and columns (2, point) in the lattice.
        length_m: Length of the slump at each point.
    """
    traits, margin = country.region.slumps, 4
    padded, spots = lattice.pad(margin), (points[0] + margin, points[1] + margin)
    shore_m, bank_m = shores(country, padded)
    from_shore = shore_m[spots] / length_m
    fits = (from_shore > 0.36) & (from_shore < 0.66) if traits.at_shore else from_shore > 0.45
    if not fits.any():
        return fits.astype(np.float64), np.zeros(len(fits))
    height = ndimage.gaussian_filter(rise(country, padded, shore_m, bank_m), 1.5, truncate=2)
    form = ndimage.gaussian_filter(shore_m, 2, truncate=2) if traits.at_shore else height
    steep = np.degrees(np.arctan(np.hypot(*(axis[spots] for axis in np.gradient(height, WIDE_PX * PIXEL_M)))))
    down, right = (axis[spots] for axis in np.gradient(form))
    return fits * np.clip(steep / 4, 0.02, 1) ** 2, np.arctan2(-down, -right)


def _draw_slump(country: Country, proposal: _Proposal) -> Slump:
    """Draw a proposed slump's shape and history by chance; return the `Slump`."""
    traits, rng = country.region.slumps, country.plane.rng("slump", proposal.row, proposal.col)
    angle = proposal.downslope + rng.normal(0, 0.12)
    x, y = float(np.cos(angle)), float(np.sin(angle))
    length_m = proposal.length_px * PIXEL_M
    retreat = float(np.clip(rng.lognormal(np.log(6), 0.5) / length_m, 0.01, 0.12))
    is_old = rng.uniform() < traits.old
    ended = rng.uniform(1960, 2004) if is_old else rng.choice([_NEVER, rng.uniform(2018, 2030)])
    radius_px = _draw_outline(proposal.length_px, proposal.elongation, rng)
    toe_m = 0.3
    if not traits.at_shore:
        steps = 0.55 * proposal.length_px / WIDE_PX
        toe = Lattice(
            row=proposal.row + WIDE_PX * round(steps * y), col=proposal.col + WIDE_PX * round(steps * x),
            height=1, width=1, step=WIDE_PX,
        )  # fmt: skip
        toe_m = float(rise(country, toe, *shores(country, toe))[0, 0])
    return Slump(
        row=proposal.row,
        col=proposal.col,
        downslope=(x, y),
        length_px=proposal.length_px,
        radius_px=radius_px,
        toe_m=toe_m,
        floor_slope=float(np.tan(np.radians(rng.uniform(2.5, 6)))),
        deepest_m=float(np.clip(0.012 * length_m * rng.uniform(0.5, 1.6), 1.0, 5.0)),
        born=0.0 if is_old else REFERENCE_YEAR - float(rng.uniform(-0.02, 0.8)) / retreat,
        ended=float(ended),
        retreat=0.0 if is_old else retreat,
    )


def _draw_outline(length_px: float, elongation: float, rng: np.random.Generator) -> Field:
    """Draw a horseshoe with a tongue by chance: 256 distances from middle to edge.

    In pixels, in equal steps of angle from downslope on.
    """
    along = np.array([0, 0.02, 0.08, 0.28, 0.52, 0.7, 0.88, 0.97, 1.0])
    outlet = rng.uniform(0.4, 0.85)
    half = np.array([0, 0.38, 0.7, 1.0, 0.5 + 0.5 * outlet, outlet, outlet * rng.uniform(0.85, 1.15), 0.3, 0])
    steps = (1 - np.cos(np.linspace(0, np.pi, 60))) / 2
    width = PchipInterpolator(along, half)(steps) / (2 * elongation)
    edge_angle, distance = np.arctan2(width, steps - _HEAD)[::-1], np.hypot(width, steps - _HEAD)[::-1]
    angle = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    radius = np.interp(np.abs(angle - 2 * np.pi * (angle > np.pi)), edge_angle, distance)
    waves = np.arange(2, 16)
    amplitude = rng.normal(0, 0.15, (2, len(waves))) / waves**1.15
    swell = 1 + amplitude[0] @ np.cos(waves[:, None] * angle) + amplitude[1] @ np.sin(waves[:, None] * angle)
    radius = radius * np.maximum(swell, 0.3)
    area = 0.5 * np.sin(2 * np.pi / _DIRECTIONS) * np.sum(radius * np.roll(radius, -1))
    wanted = _FILLED / elongation * length_px**2
    outline: Field = (radius * np.sqrt(wanted / area)).astype(np.float32)
    return outline
