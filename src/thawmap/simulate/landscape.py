"""The ground of a year: the country with its slumps, and what they laid bare."""

from dataclasses import dataclass

import numpy as np

from thawmap.simulate.noise import PIXEL_M, Field, Lattice, upsample
from thawmap.simulate.slumps import Scar, Shape, Slumps, depth_m, on_ground, slumps_near
from thawmap.simulate.terrain import Country, draw_height, draw_shore, wide_forms


@dataclass(frozen=True, slots=True, kw_only=True)
class Land:
    """The ground at the places of a lattice in a year; every field is (row, column).

    Attributes:
        lattice: The places.
        height: Height in metres, the water's surface (0) included.
        shore_m: About the distance to the water's edge in metres: positive on land, negative in the water.
        bank_m: Height of the nearest bank in metres; low where the shore is flat.
        hollow_m: How far the ground lies above (or, negative, below) its surroundings, in metres, slumps apart.
        headwall: 0..1, how much an active slump's headwall the place is.
        floor: 0..1, share of bare floor or debris of an active slump.
        old: 0..1, how much the place belongs to an overgrown scar.
    """

    lattice: Lattice
    height: Field
    shore_m: Field
    bank_m: Field
    hollow_m: Field
    headwall: Field
    floor: Field
    old: Field


def land(country: Country, slumps: Slumps, lattice: Lattice, *, year: float) -> Land:
    """The ground of a year at the places of a lattice."""
    wide = wide_forms(country, lattice)
    shore_m = draw_shore(country, wide, lattice)
    height = draw_height(country, wide, lattice, shore_m)
    headwall, floor, old = (np.zeros(lattice.shape, np.float32) for _ in range(3))
    patches = country.plane.noise("patches", lattice, longest_m=40, shortest_m=10, roughness=1.5)
    mounds = _mounds(country, lattice)
    for scar in slumps_near(country, slumps, lattice):
        shape = on_ground(scar, lattice, year)
        if shape is None:
            continue
        view = shape.view
        depth = _dig(scar, shape, (height, shore_m), mounds, year)
        lively = scar.activity(year)
        wall, bare = _bare(shape, depth, patches[view])
        headwall[view] = np.maximum(headwall[view], lively * wall)
        floor[view] = np.maximum(floor[view], lively * bare)
        old[view] = np.maximum(old[view], (1 - lively) * np.clip(shape.edge_m / 9, 0, 1))
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


def heights(country: Country, slumps: Slumps, lattice: Lattice, *, year: float) -> Field:
    """Height (row, column) in metres of the ground of a year, as `land` has it."""
    wide = wide_forms(country, lattice)
    shore_m = draw_shore(country, wide, lattice)
    height = draw_height(country, wide, lattice, shore_m)
    near = slumps_near(country, slumps, lattice)
    mounds = _mounds(country, lattice) if near else height
    for scar in near:
        shape = on_ground(scar, lattice, year)
        if shape is not None:
            _dig(scar, shape, (height, shore_m), mounds, year)
    return height


def _mounds(country: Country, lattice: Lattice) -> Field:
    """What uneven floors of slumps follow, of standard deviation 1."""
    return country.plane.noise("mounds", lattice, longest_m=20, shortest_m=10, roughness=1.2)


def _dig(scar: Scar, shape: Shape, ground: tuple[Field, Field], mounds: Field, year: float) -> Field:
    """Take a slump out of the ground (height and distance to the shore); what it took, in metres, on its piece."""
    height, shore_m = ground
    depth = depth_m(scar, shape, height[shape.view], mounds[shape.view], year)
    _fill_water(shape, height, shore_m)
    height[shape.view] -= depth
    return depth


def _fill_water(shape: Shape, height: Field, shore_m: Field) -> None:
    """Let the debris of a slump stand above the water where its toe reaches into it."""
    fan = (shape.edge_m > 0) & (shore_m[shape.view] <= 0)
    height[shape.view][fan] = 0.3
    shore_m[shape.view][fan] = 0.5 * PIXEL_M


def _bare(shape: Shape, depth: Field, patches: Field) -> tuple[Field, Field]:
    """How much headwall, and how much bare ground, a slump has (0..1); turf and regrowth leave patches."""
    inside = shape.edge_m > 0
    wall = inside * np.clip(1.4 - shape.edge_m / 9, 0, 1) * np.clip(1.5 - 2 * shape.fall, 0, 1)
    wall = wall * np.clip(depth / 1.5, 0.3, 1)
    regrown = 1 / (1 + np.exp(-3 * (patches - 1.0 + 0.9 * np.clip(shape.fall, 0, 1))))
    bare = inside * np.clip(shape.edge_m / 4.5, 0.5, 1) * (1 - 0.85 * regrown)
    return wall.astype(np.float32), np.maximum(bare, wall).astype(np.float32)


def visible(scars: list[Scar], *, year: float) -> list[Scar]:
    """The slumps that a person would call active in a year."""
    return [scar for scar in scars if scar.size(year) > 0 and scar.activity(year) > 0.5]
