"""Relief of an endless country before any slump: water, banks, hills and valleys.

Everything here is numbers on the pixels of an endless ground, rows running south and columns east; no files, no
coordinate systems. Wide forms are computed at every fourth pixel and drawn out smoothly between.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import ndimage

from thawmap.simulate.noise import PIXEL_M, Field, Lattice, upsample
from thawmap.simulate.regions import Country

WIDE_PX = 4
"""Pixels from point to point where wide forms are computed."""

_HOLLOW_POINTS = 3.5  # standard deviation of the mean that hollows lie below, in points of the wide lattice
_FLAT_SHORE = 0.08  # the lowest bank, as a share of the typical one
_LAKE_STEEPNESS = 0.006  # of the level that makes lakes, per metre, about


@dataclass(frozen=True, slots=True, kw_only=True)
class WideForms:
    """The wide forms of the ground at the points of a coarse lattice.

    Every field is (row, column).

    Attributes:
        lattice: The points.
        shore_m: About the distance to the water's edge in metres: positive on land, negative in the water.
        bank_m: Height of the nearest bank in metres; low where the shore is flat.
        rise_m: Height of the ground in metres, without its bumps.
        hollow_m: Height of the ground over its surroundings in metres; negative in a hollow.
    """

    lattice: Lattice
    shore_m: Field
    bank_m: Field
    rise_m: Field
    hollow_m: Field


def wide_forms(country: Country, lattice: Lattice) -> WideForms:
    """Compute shore, bank, height and hollow fields at every fourth ground pixel.

    They reach beyond the lattice, so that splines between them reach its every point.
    """
    margin = round(2.5 * _HOLLOW_POINTS)
    inner = lattice.coarse(WIDE_PX)
    padded = inner.pad(margin)
    shore_m, bank_m = shores(country, padded)
    rise_m = rise(country, padded, shore_m, bank_m)
    hollow_m = rise_m - ndimage.gaussian_filter(rise_m, _HOLLOW_POINTS, truncate=2.5)
    view = (slice(margin, -margin),) * 2
    return WideForms(
        lattice=inner, shore_m=shore_m[view], bank_m=bank_m[view], rise_m=rise_m[view], hollow_m=hollow_m[view]
    )


def draw_shore(country: Country, wide: WideForms, lattice: Lattice) -> Field:
    """Refine coarse distances to the water's edge to a lattice, with small teeth.

    In metres, positive on land.
    """
    teeth = country.plane.noise("teeth", lattice, longest_m=45, shortest_m=11, roughness=1.5)
    distance: Field = upsample(wide.shore_m, wide.lattice, lattice) + np.float32(1.5) * teeth
    return distance


def draw_height(country: Country, wide: WideForms, lattice: Lattice, shore_m: Field) -> Field:
    """Refine coarse heights to a lattice, in metres, with small bumps; 0 on water."""
    bumps = country.plane.noise("bumps", lattice, longest_m=24, shortest_m=12, roughness=1.5)
    height = np.maximum(upsample(wide.rise_m, wide.lattice, lattice) + np.float32(0.07) * bumps, 0.05)
    dry: Field = height * np.clip(shore_m / 6, 0, 1)
    return dry


def shores(country: Country, lattice: Lattice) -> tuple[Field, Field]:
    """Return two fields in metres at a lattice: distance to water, height of its bank.

    The distance is about right near the water, positive on land and negative in the water.
    """
    relief, plane = country.region.relief, country.plane
    padded = lattice.pad(1)
    bank = 0.9 + 0.45 * plane.noise("banks", lattice, longest_m=1000, shortest_m=250)
    bank_m = np.float32(relief.bank_m) * np.clip(bank, _FLAT_SHORE, 1.7)
    shore_m = np.full(lattice.shape, 1e4, np.float32)
    if relief.sea:
        shore_m = np.minimum(shore_m, _distance(_coast(country, padded), padded, flat=0.05))
    if relief.river_m:
        swell = 1 + 0.3 * plane.noise("width", lattice, longest_m=1200, shortest_m=300)
        half_m = np.float32(relief.river_m / 2) * np.clip(swell, 0.4, 2)
        river = np.abs(_distance(_river(country, padded), padded, flat=0.05)) - half_m
        bars = np.minimum(
            30 * (plane.forms("bars", lattice, longest_m=420, shortest_m=100, roughness=2.4) - 1), -river - 12
        )
        bank_m = np.where(bars > river, np.float32(_FLAT_SHORE * relief.bank_m), bank_m)
        shore_m = np.minimum(shore_m, np.maximum(river, bars))
    if relief.lakes:
        level = _lakes(country, padded)
        lakes = _distance(level, padded, flat=0.12 * _LAKE_STEEPNESS)
        lakes *= 1 + (np.maximum(level[1:-1, 1:-1], 0) / 0.8) ** 2  # no lake is near where the level is high
        shore_m = np.minimum(shore_m, lakes)
    return shore_m.astype(np.float32), bank_m.astype(np.float32)


def _distance(level: Field, lattice: Lattice, *, flat: float) -> Field:
    """Return about the distance in metres to where a field is 0: value over slope.

    The result is one point smaller on every side.

    Args:
        level: Positive on one side.
        lattice: The points of ``level``.
        flat: Steepness of the level, per metre, that keeps the distance finite where the level has none.
    """
    step_m = lattice.step * PIXEL_M
    down = (level[2:, 1:-1] - level[:-2, 1:-1]) / (2 * step_m)
    right = (level[1:-1, 2:] - level[1:-1, :-2]) / (2 * step_m)
    return (level[1:-1, 1:-1] / np.sqrt(down**2 + right**2 + np.float32(flat**2))).astype(np.float32)


def _across(country: Country, lattice: Lattice) -> Field:
    """Return each point's signed distance in metres from a straight line along shore.

    The line runs through the ground's origin; positive on the dry side of a sea.
    """
    angle = np.radians(country.region.relief.heading)
    east, south = PIXEL_M * lattice.x[None, :], PIXEL_M * lattice.y[:, None]
    across: Field = (east * np.cos(angle) + south * np.sin(angle)).astype(np.float32)
    return across


def _coast(country: Country, lattice: Lattice) -> Field:
    """Return about the metres from a coast with capes and bays; negative at sea."""
    plane, across = country.plane, _across(country, lattice)
    bays = 250 * plane.noise("bays", lattice, longest_m=5000, shortest_m=1000)
    gulfs = 1200 * plane.noise("gulfs", lattice, longest_m=30000, shortest_m=8000)
    coast: Field = across + bays + gulfs + 40 * plane.forms("capes", lattice, longest_m=350, shortest_m=36)
    return coast


def _river(country: Country, lattice: Lattice) -> Field:
    """Return a lattice's rough signed metres from the middle of a winding river."""
    plane, across = country.plane, _across(country, lattice)
    bends = 150 * plane.forms("bends", lattice, longest_m=1600, shortest_m=800)
    turns = 900 * plane.noise("gulfs", lattice, longest_m=20000, shortest_m=6000)
    river: Field = across + bends + turns + 14 * plane.forms("capes", lattice, longest_m=350, shortest_m=36)
    return river


def _lakes(country: Country, lattice: Lattice) -> Field:
    """Return a random field at a lattice that is below zero in lakes.

    They lie in districts.
    """
    plane = country.plane
    basins = plane.forms("lakes", lattice, longest_m=620, shortest_m=77, roughness=2.6)
    level = 0.9 * basins + np.sqrt(1 - 0.9**2) * plane.noise("lake districts", lattice, longest_m=4000, shortest_m=2000)
    lakes: Field = (level - NormalDist().inv_cdf(country.region.relief.lakes)).astype(np.float32)
    return lakes


def rise(country: Country, lattice: Lattice, shore_m: Field, bank_m: Field) -> Field:
    """Return height in metres above water at a lattice, from shore distance and banks.

    Banks at the water, then hills and valleys that fade towards it.
    """
    relief, plane = country.region.relief, country.plane
    wave = relief.wavelength_m
    hills = plane.forms("hills", lattice, longest_m=wave, shortest_m=0.12 * wave, roughness=2.7)
    uplands = plane.noise("uplands", lattice, longest_m=12 * wave, shortest_m=3 * wave)
    main = plane.forms("main valleys", lattice, longest_m=5 * wave, shortest_m=0.3 * wave, roughness=2.5)
    side = plane.forms("side valleys", lattice, longest_m=2 * wave, shortest_m=0.25 * wave, roughness=2.6)
    wobble = 1 + 0.25 * plane.noise("wobble", lattice, longest_m=200, shortest_m=50)
    up = np.clip((shore_m - 6) / (relief.bank_width_m * np.clip(wobble, 0.4, 2)), 0, 1)
    banks = bank_m * up * up * (3 - 2 * up) + 3 * (1 - np.exp(-np.clip(shore_m, 0, 4000) / 300))
    inland = 1 - np.exp(-np.clip(shore_m, 0, 4000) / 120)
    far = 1 - np.exp(-np.clip(shore_m, 0, 4000) / 900)
    valleys = relief.gully_m * (1.6 * far * np.exp(-((main / 0.11) ** 2)) + np.exp(-((side / 0.15) ** 2)))
    height = banks + inland * (relief.hills_m * hills - valleys) + 1.5 * relief.hills_m * far * (1.5 + uplands)
    above: Field = (2 * np.logaddexp(0, height / 2)).astype(np.float32)  # no hollow lies under the water
    return above * np.clip(shore_m / 6, 0, 1)
