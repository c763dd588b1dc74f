"""Thaw slumps of an endless country: where they lie, how they grow, and what they do to the ground.

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
from thawmap.simulate.terrain import WIDE_PX, Country, rise, shores

REFERENCE_YEAR = 2019.0
"""The year in which slumps have the sizes of the paper's Table 2."""

_CELL_PX = 256
_LONGEST_M = 560.0  # so that two slumps apart from each other lie in the same cell or in neighbouring ones
_REACH_PX = 250  # no slump changes anything farther from its middle
_NEVER = 9999.0
_FILLED = 0.68  # area of a slump over the square of its length, times its elongation
_SPREAD = 0.8  # of the logarithm of areas: 0.7 to 1.3 in the paper's sites
_DIRECTIONS = 256
_HEAD = 0.42  # the part of a slump's length above its middle
_NARROWER = 0.7  # a slump that is longer by a factor is wider by this power of it
_ON_LAND = 7  # of nine places in the middle of a slump
_WALL_SLOPE = np.tan(np.radians(50.0))
_OLD_SLOPE = np.tan(np.radians(18.0))

_Places = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slumps:
    """The slumps of a region.

    Attributes:
        area_m2: Median area in square metres of those that are tried; the ground takes more of some sizes.
        per_km2: Sites on a square kilometre at which one is tried; it begins where the ground suits it.
        elongation: Length (downslope) over width.
        at_shore: Whether they open to the water; else they lie on any slope.
        crowded: Share of the country that has any, 0..1.
        old: Share that has stabilised long ago, 0..1.
    """

    area_m2: float
    per_km2: float
    elongation: float
    at_shore: bool
    crowded: float
    old: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scar:
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
        """Its length as a share of that in the reference year; 0 before it began."""
        if year < self.born:
            return 0.0
        return float(np.clip(1 + self.retreat * (min(year, self.ended) - REFERENCE_YEAR), 0.2, 1.5))

    def activity(self, year: float) -> float:
        """1 while it thaws, then fading as plants cover it."""
        return float(np.exp(-max(year - self.ended, 0) / 4))

    def outline(self, year: float) -> Polygon:
        """Its edge in pixels of the ground, (column, row)."""
        size, toe = self.size(year), float(self.radius_px[0])
        turn = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
        along = toe + size * (self.radius_px * np.cos(turn) - toe)
        across = size**_NARROWER * self.radius_px * np.sin(turn)
        x, y = self.downslope
        return Polygon(np.column_stack([self.col + along * x - across * y, self.row + along * y + across * x]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A slump on a piece of ground; fields are (row, column) of the piece.

    Attributes:
        view: Rows and columns of the piece in its lattice.
        edge_m: Distance to the slump's edge in metres; 0 outside.
        fall: 0 at its head, 1 at its toe.
    """

    view: tuple[slice, slice]
    edge_m: Field
    fall: Field


def slumps_within(country: Country, slumps: Slumps, lattice: Lattice) -> list[Scar]:
    """The slumps with their middle on a lattice, in an order that does not depend on it."""
    south, east = int(lattice.y[-1]), int(lattice.x[-1])
    cells = [
        (row, col)
        for row in range(lattice.row // _CELL_PX, south // _CELL_PX + 1)
        for col in range(lattice.col // _CELL_PX, east // _CELL_PX + 1)
    ]
    found = [scar for row, col in cells for scar in _settled(country, slumps, row, col)]
    return [scar for scar in found if lattice.row <= scar.row <= south and lattice.col <= scar.col <= east]


def slumps_near(country: Country, slumps: Slumps, lattice: Lattice) -> list[Scar]:
    """Every slump that can touch a lattice, in an order that does not depend on it."""
    return slumps_within(country, slumps, lattice.pad(-(-_REACH_PX // lattice.step)))


def on_ground(scar: Scar, lattice: Lattice, year: float) -> Shape | None:
    """The slump at the places of a lattice in a year; None where it touches none of them."""
    size = scar.size(year)
    if size == 0:
        return None
    west, north, east, south = scar.outline(year).bounds
    rows, cols = _between(lattice.y, north, south), _between(lattice.x, west, east)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return None
    x, y = scar.downslope
    down, right = (lattice.y[rows] - scar.row)[:, None], (lattice.x[cols] - scar.col)[None, :]
    toe = float(scar.radius_px[0])
    along = toe + (right * x + down * y - toe) / size
    across = (down * x - right * y) / size**_NARROWER
    turn = np.arctan2(across, along) * (_DIRECTIONS / (2 * np.pi))
    radius, lean = _at(scar.radius_px, turn), _at(_lean(scar.radius_px), turn)
    inside = np.maximum(radius - np.hypot(along, across), 0) * lean
    return Shape(
        view=(rows, cols),
        edge_m=(inside * size * PIXEL_M).astype(np.float32),
        fall=(along / scar.length_px + _HEAD).astype(np.float32),
    )


def _between(places: npt.NDArray[np.int64], low: float, high: float) -> slice:
    """Which of ascending places lie between two numbers."""
    return slice(int(np.searchsorted(places, low)), int(np.searchsorted(places, high, side="right")))


def _at(table: Field, turn: _Places) -> _Places:
    """Values of a table around the circle, linear between its entries."""
    whole = np.floor(turn)
    part = turn - whole
    first = whole.astype(np.int64) % _DIRECTIONS
    values: _Places = table[first] * (1 - part) + table[(first + 1) % _DIRECTIONS] * part
    return values


def _lean(radius: Field) -> Field:
    """Distance to the edge over distance along the radius, about, in every direction."""
    step = 2 * np.pi / _DIRECTIONS
    change = (np.roll(radius, -1) - np.roll(radius, 1)) / (2 * step)
    lean: Field = (1 / np.sqrt(1 + (change / radius) ** 2)).astype(np.float32)
    return lean


def depth_m(scar: Scar, shape: Shape, ground: Field, mounds: Field, year: float) -> Field:
    """What a slump has taken from the ground of a piece, in metres: a wall at the head, a floor that falls."""
    length_m, fall = scar.length_px * PIXEL_M, shape.fall
    softened = float(np.clip((year - scar.ended) / 12, 0, 1))
    wall = _WALL_SLOPE + softened * (_OLD_SLOPE - _WALL_SLOPE)
    floor = scar.toe_m + scar.floor_slope * length_m * np.clip(1 - fall, 0, 1)
    least = 0.75 * scar.deepest_m * np.clip(0.95 - fall, -0.05, 1)
    depth = np.clip(np.maximum(ground - floor, least), -0.6, scar.deepest_m)
    depth = np.minimum(depth, 1.2 * scar.deepest_m * np.clip(1 - fall, 0.02, 1))
    depth = np.minimum(depth, shape.edge_m * wall) * (1 - 0.3 * softened)
    depth = np.minimum(depth + 0.35 * mounds * np.clip(shape.edge_m / 9, 0, 1), 0.8 * ground)
    taken: Field = np.where((shape.edge_m > 0) & (ground > 0), depth, 0).astype(np.float32)
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A slump that may be there: its middle, length and downslope direction; the lowest rank of a crowd has room."""

    row: int
    col: int
    length_px: float
    elongation: float
    downslope: float
    rank: float

    def yields(self, other: "_Trial") -> bool:
        """Whether the other one has the room."""
        apart = np.hypot(self.row - other.row, self.col - other.col)
        return bool(other.rank < self.rank and apart < 0.5 * (self.length_px + other.length_px))


@lru_cache(maxsize=4096)
def _settled(country: Country, slumps: Slumps, row: int, col: int) -> tuple[Scar, ...]:
    """The slumps with their middle in a cell: its trials less those whose room another one has."""
    mine = _trials(country, slumps, row, col)
    if not mine:
        return ()
    around = [
        other
        for near_row in (row - 1, row, row + 1)
        for near_col in (col - 1, col, col + 1)
        for other in _trials(country, slumps, near_row, near_col)
    ]
    return tuple(_begin(country, slumps, one) for one in mine if not any(one.yields(other) for other in around))


@lru_cache(maxsize=4096)
def _trials(country: Country, slumps: Slumps, row: int, col: int) -> tuple[_Trial, ...]:
    """Slumps that could begin in a cell."""
    rng = country.plane.rng("slumps", row, col)
    side = _CELL_PX // WIDE_PX
    lattice = Lattice(row=row * _CELL_PX, col=col * _CELL_PX, height=side, width=side, step=WIDE_PX)
    hot = crowds(country, slumps, lattice)
    tries = rng.poisson(slumps.per_km2 * (_CELL_PX * PIXEL_M / 1000) ** 2)
    if not hot.any() or not tries:
        return ()
    area_m2 = slumps.area_m2 * rng.lognormal(0, _SPREAD, tries)
    elongation = slumps.elongation * rng.uniform(0.75, 1.35, tries)
    length_m = np.minimum(np.sqrt(area_m2 * elongation / _FILLED), _LONGEST_M)
    at = rng.integers(0, side, (2, tries))
    typical_m = np.sqrt(slumps.area_m2 * slumps.elongation / _FILLED)
    ranks, chance = rng.uniform(size=tries) * (typical_m / length_m) ** 2, rng.uniform(size=tries)
    if slumps.at_shore:  # the strip where one can lie is as wide as it is long
        chance *= np.maximum(length_m / (0.75 * typical_m), 1)
    hopeful = np.flatnonzero(chance < hot[at[0], at[1]])
    suits, downslope = _suits(country, slumps, lattice, at[:, hopeful], length_m[hopeful])
    chosen = chance[hopeful] < suits * hot[at[0], at[1]][hopeful]
    return tuple(
        _Trial(
            row=lattice.row + WIDE_PX * int(at[0, number]),
            col=lattice.col + WIDE_PX * int(at[1, number]),
            length_px=float(length_m[number] / PIXEL_M),
            elongation=float(elongation[number]),
            downslope=float(turn),
            rank=float(ranks[number]),
        )
        for number, turn in zip(hopeful[chosen], downslope[chosen], strict=True)
        if _ashore(country, lattice, at[:, number], length_m[number])
    )


def _ashore(country: Country, lattice: Lattice, at: npt.NDArray[np.int64], length_m: float) -> bool:
    """Whether the ground around a place is land: an islet, where the shore seems far, has no room for a slump."""
    step = max(1, round(0.3 * length_m / PIXEL_M))
    row, col = int(lattice.y[at[0]]), int(lattice.x[at[1]])
    around = Lattice(row=row - step, col=col - step, height=3, width=3, step=step)
    return int((shores(country, around)[0] > 0).sum()) >= _ON_LAND


def crowds(country: Country, slumps: Slumps, lattice: Lattice) -> Field:
    """0..1, how much the places belong to the parts of the country that have slumps."""
    level = country.plane.noise("crowds", lattice, longest_m=2600, shortest_m=1300)
    crowd: Field = np.clip((level - NormalDist().inv_cdf(1 - slumps.crowded)) / 0.5, 0, 1)
    return crowd


def _suits(
    country: Country, slumps: Slumps, lattice: Lattice, at: npt.NDArray[np.int64], length_m: _Places
) -> tuple[_Places, _Places]:
    """How well each place suits a slump of its length, 0..1; and the direction (column, row) in which it opens."""
    margin = 4
    around, spot = lattice.pad(margin), (at[0] + margin, at[1] + margin)
    shore_m, bank_m = shores(country, around)
    from_shore = shore_m[spot] / length_m
    fits = (from_shore > 0.36) & (from_shore < 0.66) if slumps.at_shore else from_shore > 0.45
    if not fits.any():
        return fits.astype(np.float64), np.zeros(len(fits))
    height = ndimage.gaussian_filter(rise(country, around, shore_m, bank_m), 1.5, truncate=2)
    form = ndimage.gaussian_filter(shore_m, 2, truncate=2) if slumps.at_shore else height
    steep = np.degrees(np.arctan(np.hypot(*(axis[spot] for axis in np.gradient(height, WIDE_PX * PIXEL_M)))))
    down, right = (axis[spot] for axis in np.gradient(form))
    return fits * np.clip(steep / 4, 0.02, 1) ** 2, np.arctan2(-down, -right)


def _begin(country: Country, slumps: Slumps, trial: _Trial) -> Scar:
    """A slump with its shape and its history."""
    rng = country.plane.rng("slump", trial.row, trial.col)
    turned = trial.downslope + rng.normal(0, 0.12)
    x, y = float(np.cos(turned)), float(np.sin(turned))
    length_m = trial.length_px * PIXEL_M
    retreat = float(np.clip(rng.lognormal(np.log(6), 0.5) / length_m, 0.01, 0.12))
    long_ago = rng.uniform() < slumps.old
    ended = rng.uniform(1960, 2004) if long_ago else rng.choice([_NEVER, rng.uniform(2018, 2030)])
    return Scar(
        row=trial.row,
        col=trial.col,
        downslope=(x, y),
        length_px=trial.length_px,
        radius_px=_outline(trial.length_px, trial.elongation, rng),
        toe_m=0.3 if slumps.at_shore else _height(country, trial, x, y),
        floor_slope=float(np.tan(np.radians(rng.uniform(2.5, 6)))),
        deepest_m=float(np.clip(0.012 * length_m * rng.uniform(0.5, 1.6), 1.0, 5.0)),
        born=0.0 if long_ago else REFERENCE_YEAR - float(rng.uniform(-0.02, 0.8)) / retreat,
        ended=float(ended),
        retreat=0.0 if long_ago else retreat,
    )


def _height(country: Country, trial: _Trial, x: float, y: float) -> float:
    """Height of the ground in metres at the toe of a slump that opens in the direction (x, y)."""
    places = 0.55 * trial.length_px / WIDE_PX
    toe = Lattice(
        row=trial.row + WIDE_PX * round(places * y), col=trial.col + WIDE_PX * round(places * x),
        height=1, width=1, step=WIDE_PX,
    )  # fmt: skip
    return float(rise(country, toe, *shores(country, toe))[0, 0])


def _outline(length_px: float, elongation: float, rng: np.random.Generator) -> Field:
    """A horseshoe with a tongue: distance in pixels from its middle to its edge, from downslope around."""
    along = np.array([0, 0.02, 0.08, 0.28, 0.52, 0.7, 0.88, 0.97, 1.0])
    outlet = rng.uniform(0.4, 0.85)
    half = np.array([0, 0.38, 0.7, 1.0, 0.5 + 0.5 * outlet, outlet, outlet * rng.uniform(0.85, 1.15), 0.3, 0])
    steps = (1 - np.cos(np.linspace(0, np.pi, 60))) / 2
    width = PchipInterpolator(along, half)(steps) / (2 * elongation)
    turn, distance = np.arctan2(width, steps - _HEAD)[::-1], np.hypot(width, steps - _HEAD)[::-1]
    around = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    radius = np.interp(np.abs(around - 2 * np.pi * (around > np.pi)), turn, distance)
    waves = np.arange(2, 16)
    size = rng.normal(0, 0.15, (2, len(waves))) / waves**1.15
    swell = 1 + size[0] @ np.cos(waves[:, None] * around) + size[1] @ np.sin(waves[:, None] * around)
    radius = radius * np.maximum(swell, 0.3)
    area = 0.5 * np.sin(2 * np.pi / _DIRECTIONS) * np.sum(radius * np.roll(radius, -1))
    wanted = _FILLED / elongation * length_px**2
    outline: Field = (radius * np.sqrt(wanted / area)).astype(np.float32)
    return outline
