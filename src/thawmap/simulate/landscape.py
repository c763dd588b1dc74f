"""The ground of a year: a country with its slumps, and what they laid bare."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thawmap.simulate.noise import PIXEL_M, Field, Lattice, upsample
from thawmap.simulate.regions import Country
from thawmap.simulate.slumps import Imprint, Slump, depth_m, imprint, slumps_near
from thawmap.simulate.terrain import draw_height, draw_shore, wide_forms


@dataclass(frozen=True, slots=True, kw_only=True)
class Land:
    """The ground at the points of a lattice in a year; every field is (row, column).

    Attributes:
        lattice: The points.
        height: Height in metres, the water's surface (0) included.
        shore_m: About the distance to the water's edge in metres: positive on land, negative in the water.
        bank_m: Height of the nearest bank in metres; low where the shore is flat.
        hollow_m: Height over the surroundings in metres, slumps apart; negative in a hollow.
        headwall: 0..1, how much of an active slump's headwall the point has.
        floor: 0..1, share of bare floor or debris of an active slump.
        old: 0..1, how much the point belongs to an overgrown slump.
    """

    lattice: Lattice
    height: Field
    shore_m: Field
    bank_m: Field
    hollow_m: Field
    headwall: Field
    floor: Field
    old: Field


def land(country: Country, lattice: Lattice, *, year: float) -> Land:
    """Compute height, shores, banks and slump cover of a year at a lattice, as `Land`."""
    wide = wide_forms(country, lattice)
    shore_m = draw_shore(country, wide, lattice)
    height = draw_height(country, wide, lattice, shore_m)
    headwall, floor, old = (np.zeros(lattice.shape, np.float32) for _ in range(3))
    patches = country.plane.noise("patches", lattice, longest_m=40, shortest_m=10, roughness=1.5)
    for slump, shape, depth in _dig(country, lattice, height, shore_m, year=year):
        view, activity = shape.view, slump.activity(year)
        wall, bare = _laid_bare(shape, depth, patches[view])
        headwall[view] = np.maximum(headwall[view], activity * wall)
        floor[view] = np.maximum(floor[view], activity * bare)
        old[view] = np.maximum(old[view], (1 - activity) * np.clip(shape.edge_m / 9, 0, 1))
    dry = shore_m > 0
    return Land(
        lattice=lattice,
        height=height,
        shore_m=shore_m,
        bank_m=upsample(wide.bank_m, wide.lattice, lattice),
        hollow_m=upsample(wide.hollow_m, wide.lattice, lattice),
        headwall=headwall * dry,
        floor=floor * dry,
        old=old * dry,
    )


def heights(country: Country, lattice: Lattice, *, year: float) -> Field:
    """Return the ground's height in metres in a year at a lattice, slumps dug in.

    The same as that of `land`, in less time.
    """
    wide = wide_forms(country, lattice)
    shore_m = draw_shore(country, wide, lattice)
    height = draw_height(country, wide, lattice, shore_m)
    for _ in _dig(country, lattice, height, shore_m, year=year):
        pass
    return height


def _dig(
    country: Country, lattice: Lattice, height: Field, shore_m: Field, *, year: float
) -> Iterator[tuple[Slump, Imprint, Field]]:
    """Dig a year's slumps into height and shore distance in place; yield each slump.

    With it come its imprint and its depth in metres. Nothing is dug until it is asked for.
    """
    slumps = slumps_near(country, lattice)
    if not slumps:
        return
    mounds = country.plane.noise("mounds", lattice, longest_m=20, shortest_m=10, roughness=1.2)
    for slump in slumps:
        shape = imprint(slump, lattice, year)
        if shape is None:
            continue
        view = shape.view
        depth = depth_m(slump, shape, height[view], mounds[view], year)
        # Debris stands above the water where the toe reaches into it.
        fan = (shape.edge_m > 0) & (shore_m[view] <= 0)
        height[view][fan] = 0.3
        shore_m[view][fan] = 0.5 * PIXEL_M
        height[view] -= depth
        yield slump, shape, depth


def _laid_bare(shape: Imprint, depth: Field, patches: Field) -> tuple[Field, Field]:
    """Return two shares (0..1) at each point of a slump: headwall, all bare ground.

    Turf and regrowth leave patches.
    """
    inside = shape.edge_m > 0
    wall = inside * np.clip(1.4 - shape.edge_m / 9, 0, 1) * np.clip(1.5 - 2 * shape.fall, 0, 1)
    wall = wall * np.clip(depth / 1.5, 0.3, 1)
    regrown = 1 / (1 + np.exp(-3 * (patches - 1.0 + 0.9 * np.clip(shape.fall, 0, 1))))
    bare = inside * np.clip(shape.edge_m / 4.5, 0.5, 1) * (1 - 0.85 * regrown)
    return wall.astype(np.float32), np.maximum(bare, wall).astype(np.float32)


def visible(slumps: Sequence[Slump], *, year: float) -> list[Slump]:
    """Return, of some slumps, those that exist and are active in a year, as a list.

    That is those that a person would call active: by more than half.
    """
    return [slump for slump in slumps if slump.size(year) > 0 and slump.activity(year) > 0.5]
