"""A piece of invented permafrost country: hills, gullies, water, and the scars of thaw slumps.

Everything here is numbers on one square grid of `PIXEL_M` metres, rows running south and columns east; no
files, no coordinate systems. How slumps look follows Nitze et al. 2021 (doi 10.3390/rs13214294), sections 1
and 2.1: a steep headwall in a horseshoe, a bare floor that slopes gently to the outlet, a debris tongue below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely
from scipy import fft, ndimage
from scipy.interpolate import PchipInterpolator
from shapely.affinity import affine_transform
from shapely.geometry import Polygon

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

PIXEL_M = 3.0
"""Side of a pixel of the ground, in metres: PlanetScope's."""

_WALL_SLOPE = np.tan(np.radians(50.0))
_OLD_SMOOTHING_PX = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """The shape of a region's ground.

    Attributes:
        hills_m: Standard deviation of the hills' height, in metres.
        wavelength_m: Longest distance from hill to hill, in metres.
        gully_m: Depth of the valleys that drain the hills, in metres.
        water: What fills the low ground.
        water_share: Share of the ground under water, 0..1.
        bank_m: Typical height of the banks at the water, in metres.
        bank_width_m: Distance over which the banks rise, in metres.
        slump_m2: Median area of a slump, in square metres.
        slumps_per_km2: Slumps on a square kilometre.
        elongation: Length of a slump (downslope) over its width.
        at_shore: Whether slumps open to the water; else they lie on any slope.
    """

    hills_m: float
    wavelength_m: float
    gully_m: float
    water: Literal["sea", "river", "lakes", "channels"]
    water_share: float
    bank_m: float
    bank_width_m: float
    slump_m2: float
    slumps_per_km2: float
    elongation: float
    at_shore: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scar:
    """One slump, active or old.

    Attributes:
        outline: Its edge in pixels of the ground, (column, row).
        downslope: Unit vector (column, row) from the headwall to the outlet.
        length_px: From the headwall to the toe, in pixels.
        active: Whether it still thaws; an old scar has its shape, softened, and is overgrown.
    """

    outline: Polygon
    downslope: tuple[float, float]
    length_px: float
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Land:
    """The ground; every field is (row, column).

    Attributes:
        height: Height in metres, the water's surface included.
        shore_m: Distance to the water's edge in metres: positive on land, negative in the water.
        bank_m: Height of the nearest bank in metres; low where the shore is flat.
        headwall: 0..1, how much an active slump's headwall the pixel is.
        floor: 0..1, share of bare floor or debris of an active slump.
        old: 0..1, how much the pixel belongs to an old, overgrown scar.
        scars: Every slump, active and old.
    """

    height: Field
    shore_m: Field
    bank_m: Field
    headwall: Field
    floor: Field
    old: Field
    scars: Sequence[Scar]


def noise(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    longest_m: float,
    shortest_m: float = 2 * PIXEL_M,
    roughness: float = 2.0,
    pixel_m: float = PIXEL_M,
) -> Field:
    """A random field (row, column) of mean 0 and standard deviation 1: white noise filtered in the spectrum.

    The amplitude is level above the wavelength ``longest_m``, falls below it with the power ``roughness`` of
    the wavelength, and vanishes below ``shortest_m``.
    """
    rows = fft.fftfreq(shape[0], pixel_m)[:, None]
    cols = fft.rfftfreq(shape[1], pixel_m)[None, :]
    frequency2 = rows**2 + cols**2
    amplitude = (frequency2 + longest_m**-2.0) ** (-roughness / 2) * np.exp(-frequency2 * shortest_m**2)
    white = rng.standard_normal(shape, dtype=np.float32)
    field = fft.irfft2(fft.rfft2(white) * amplitude.astype(np.float32), s=shape)
    field -= field.mean()
    unit: Field = (field / field.std()).astype(np.float32)
    return unit


def make_land(relief: Relief, pixels: int, rng: np.random.Generator, *, inner: slice) -> Land:
    """The ground, ``pixels`` a side, with an active slump or more in the rows and columns ``inner``."""
    shape = (pixels, pixels)
    third = (inner.stop - inner.start) // 3
    middle = slice(inner.start + third, inner.stop - third)
    shore_m = _shore(relief, shape, rng)
    while np.mean(shore_m[middle, middle] > 0) < 0.5:
        shore_m = _shore(relief, shape, rng)
    bank_m = relief.bank_m * np.clip(0.9 + 0.45 * noise(shape, rng, longest_m=500, shortest_m=60), 0.08, 1.7)
    height = _hills(relief, shore_m, bank_m, rng)
    scars = _place(relief, height, shore_m, rng, inner=inner)
    headwall, floor, old = (np.zeros(shape, np.float32) for _ in range(3))
    patches = noise(shape, rng, longest_m=40, roughness=1.5)
    for scar in scars:
        box, depth = _excavate(scar, height, rng)
        if scar.active:
            _fill_water(scar, box, height, shore_m)
            _bare(scar, box, depth, patches, headwall, floor)
        else:
            edge_m = _distance_inside(scar, box)
            old[box] = np.maximum(old[box], np.clip(edge_m / 9.0, 0, 1))
        height[box] -= depth
    dry = shore_m > 0
    return Land(
        height=height.astype(np.float32),
        shore_m=shore_m,
        bank_m=bank_m.astype(np.float32),
        headwall=headwall * dry,
        floor=floor * dry,
        old=old * dry,
        scars=scars,
    )


def relative_elevation(height: Field, *, pixel_m: float, diameter_m: float) -> Field:
    """Height less its mean in a circle, in metres; NaN where the circle meets a NaN or the edge."""
    reach = int(diameter_m / 2 / pixel_m)
    offsets = np.arange(-reach, reach + 1) ** 2
    circle = (offsets[:, None] + offsets[None, :] <= (diameter_m / 2 / pixel_m) ** 2).astype(np.float32)
    gap = ~np.isfinite(height)
    level = np.float32(np.nanmean(height))
    filled = np.where(gap, 0, height - level).astype(np.float32)
    shape = tuple(fft.next_fast_len(side + 2 * reach, real=True) for side in height.shape)
    kernel = fft.rfft2(circle, shape)

    def summed(values: Field) -> Field:
        whole = fft.irfft2(fft.rfft2(values, shape) * kernel, shape)
        result: Field = whole[reach : reach + height.shape[0], reach : reach + height.shape[1]]
        return result

    known = summed((~gap).astype(np.float32))
    return np.where(known > circle.sum() - 0.5, filled - summed(filled) / circle.sum(), np.nan).astype(np.float32)


def slope(height: Field, *, pixel_m: float) -> Field:
    """Slope in degrees from the four neighbours; NaN at the edge and beside missing (NaN) heights."""
    steepness = np.full(height.shape, np.nan, np.float32)
    down = (height[2:, 1:-1] - height[:-2, 1:-1]) / (2 * pixel_m)
    right = (height[1:-1, 2:] - height[1:-1, :-2]) / (2 * pixel_m)
    steepness[1:-1, 1:-1] = np.degrees(np.arctan(np.hypot(down, right)))
    return steepness


def _shore(relief: Relief, shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Distance to the water's edge in metres, positive on land."""
    row, col = ((np.indices(shape, dtype=np.float32) - np.float32(shape[0] / 2)) * np.float32(PIXEL_M)).astype(
        np.float32
    )
    angle = rng.uniform(0, 2 * np.pi)
    across = col * np.cos(angle) + row * np.sin(angle)
    along = row * np.cos(angle) - col * np.sin(angle)
    wiggle = noise(shape, rng, longest_m=350, shortest_m=25)
    if relief.water == "sea":
        level = across + 45 * wiggle
    elif relief.water == "river":
        bends = rng.uniform(120, 180) * np.sin(2 * np.pi * along / rng.uniform(900, 1300) + rng.uniform(0, 6))
        level = np.abs(across + bends + 15 * wiggle)
    elif relief.water == "lakes":
        level = noise(shape, rng, longest_m=420, shortest_m=45, roughness=2.5)
    else:
        level = np.abs(noise(shape, rng, longest_m=800, shortest_m=50, roughness=2.5)) + 0.03 * wiggle
    water = level < np.quantile(level, relief.water_share)
    outside = ndimage.distance_transform_edt(~water)
    inside = ndimage.distance_transform_edt(water)
    distance: Field = ((outside - inside) * PIXEL_M).astype(np.float32)
    return distance


def _hills(relief: Relief, shore_m: Field, bank_m: Field, rng: np.random.Generator) -> Field:
    """Height in metres over the water: banks, then hills and valleys that fade towards the shore."""
    shape = (shore_m.shape[0], shore_m.shape[1])
    hills = noise(shape, rng, longest_m=relief.wavelength_m, shortest_m=25, roughness=2.4)
    course = noise(shape, rng, longest_m=1.5 * relief.wavelength_m, shortest_m=45, roughness=2.3)
    valleys = np.exp(-((course / 0.16) ** 2)) * np.clip(0.6 + noise(shape, rng, longest_m=500, shortest_m=60), 0, 1.3)
    wobble = 1 + 0.3 * noise(shape, rng, longest_m=120, shortest_m=30)
    rise = np.clip((shore_m - 6) / (relief.bank_width_m * np.clip(wobble, 0.4, 2)), 0, 1)
    banks = bank_m * rise * rise * (3 - 2 * rise) + 0.02 * np.clip(shore_m, 0, None)
    inland = 1 - np.exp(-np.clip(shore_m, 0, None) / 120)
    bumps = 0.1 * noise(shape, rng, longest_m=25, roughness=1.5)
    height = banks + inland * (relief.hills_m * hills - relief.gully_m * valleys) + bumps
    dry = 2 * np.logaddexp(0, height / 2) * np.clip(shore_m / 6, 0, 1)
    return np.where(shore_m > 0, dry, 0).astype(np.float32)


def _place(relief: Relief, height: Field, shore_m: Field, rng: np.random.Generator, *, inner: slice) -> list[Scar]:
    """Where slumps lie and how large they are: on slopes that suit their size, apart from each other."""
    side_m = (inner.stop - inner.start) * PIXEL_M
    active = max(2, round(relief.slumps_per_km2 * (side_m / 1000) ** 2 * rng.uniform(0.8, 1.25)))
    old = max(1, round(0.6 * active))
    smooth = ndimage.gaussian_filter(height, 5)
    down, right = np.gradient(smooth, PIXEL_M)
    steep = np.degrees(np.arctan(np.hypot(down, right)))
    free = np.full(height.shape, np.inf, np.float32)
    row, col = np.indices(height.shape, dtype=np.float32)
    scars: list[Scar] = []
    for number in range(active + old):
        area_m2 = min(relief.slump_m2 * rng.lognormal(0, 0.55), (0.3 * side_m) ** 2)
        elongation = relief.elongation * rng.uniform(0.75, 1.35)
        length_m = np.sqrt(area_m2 * elongation / 0.68)
        edge = max(1, int(0.6 * length_m / PIXEL_M)) if number == 0 else 4
        suits = _suits(relief, shore_m, free, length_m)
        if number and suits.sum() < 50:
            continue
        weight = np.zeros(height.shape, np.float64)
        view = (slice(inner.start + edge, inner.stop - edge),) * 2
        weight[view] = (suits * np.clip(steep, 0.2, 22) ** 2)[view] + 1e-9 * (shore_m > 0)[view]
        spot = int(np.searchsorted(np.cumsum(weight.ravel()), rng.uniform(0, weight.sum())))
        at = (spot // height.shape[1], spot % height.shape[1])
        turned = np.arctan2(-down[at], -right[at]) + rng.normal(0, 0.12)
        downslope = (float(np.cos(turned)), float(np.sin(turned)))
        outline = _outline(area_m2, elongation, rng, at=at, downslope=downslope)
        scars.append(Scar(outline=outline, downslope=downslope, length_px=length_m / PIXEL_M, active=number < active))
        free = np.minimum(free, np.hypot(row - at[0], col - at[1]) * PIXEL_M - 0.55 * length_m)
    return scars


def _suits(relief: Relief, shore_m: Field, free: Field, length_m: float) -> Mask:
    """Where a slump of this length has room and, at a shore, reaches it with its toe."""
    room = free > 0.55 * length_m
    if not relief.at_shore:
        return room & (shore_m > 0.6 * length_m)
    return room & (shore_m > 0.45 * length_m) & (shore_m < 0.8 * length_m)


def _outline(
    area_m2: float,
    elongation: float,
    rng: np.random.Generator,
    *,
    at: tuple[int, int],
    downslope: tuple[float, float],
) -> Polygon:
    """A horseshoe with a tongue, in pixels (column, row), around ``at`` (row, column)."""
    along = np.array([0, 0.02, 0.08, 0.28, 0.52, 0.7, 0.88, 0.97, 1.0])
    outlet = rng.uniform(0.4, 0.85)
    half = np.array([0, 0.38, 0.7, 1.0, 0.5 + 0.5 * outlet, outlet, outlet * rng.uniform(0.85, 1.15), 0.3, 0])
    profile = PchipInterpolator(along, half)
    steps = (1 - np.cos(np.linspace(0, np.pi, 40))) / 2
    flanks = [(steps, profile(steps) / 2), (steps[-2:0:-1], -profile(steps[-2:0:-1]) / 2)]
    u, v = (np.concatenate(axis) for axis in zip(*flanks, strict=True))
    u = u * elongation - 0.5 * elongation
    turn = np.linspace(0, 2 * np.pi, len(u), endpoint=False)
    waves = np.arange(2, 14)
    size = rng.normal(0, 0.15, (2, len(waves))) / waves**1.25
    phase = waves[:, None] * turn
    swell = 1 + size[0] @ np.cos(phase) + size[1] @ np.sin(phase)
    shape = shapely.make_valid(Polygon(np.column_stack([u * swell, v * swell])))
    largest = max(shapely.get_parts(shape), key=shapely.area)
    scale = np.sqrt(area_m2 / largest.area) / PIXEL_M
    x, y = downslope[0] * scale, downslope[1] * scale
    placed: Polygon = affine_transform(Polygon(largest.exterior), [x, -y, y, x, at[1] + 0.5, at[0] + 0.5])
    return placed


def _box(scar: Scar, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns that a scar can touch."""
    west, north, east, south = scar.outline.bounds
    margin = 4 * _OLD_SMOOTHING_PX
    rows = slice(max(0, int(north - margin)), min(shape[0], int(south + margin) + 1))
    return rows, slice(max(0, int(west - margin)), min(shape[1], int(east + margin) + 1))


def _distance_inside(scar: Scar, box: tuple[slice, slice]) -> Field:
    """Distance to the scar's edge in metres within a box of the ground; 0 outside of the scar."""
    rows, cols = (np.arange(axis.start, axis.stop) + 0.5 for axis in box)
    shapely.prepare(scar.outline)
    inside = shapely.contains_xy(scar.outline, *np.meshgrid(cols, rows))
    distance: Field = (ndimage.distance_transform_edt(inside) * PIXEL_M).astype(np.float32)
    return distance


def _fall(scar: Scar, box: tuple[slice, slice]) -> Field:
    """0 at the head of the scar, 1 at its toe, linear in between and beyond."""
    rows, cols = (np.arange(axis.start, axis.stop, dtype=np.float32) + 0.5 for axis in box)
    x, y = scar.outline.centroid.coords[0]
    along = (cols[None, :] - x) * scar.downslope[0] + (rows[:, None] - y) * scar.downslope[1]
    result: Field = (along / scar.length_px + 0.5).astype(np.float32)
    return result


def _excavate(scar: Scar, height: Field, rng: np.random.Generator) -> tuple[tuple[slice, slice], Field]:
    """What a scar takes away, in metres, in its box: a wall at the head, a floor that falls to the toe."""
    box = _box(scar, height.shape)
    ground, fall, edge_m = height[box], _fall(scar, box), _distance_inside(scar, box)
    length_m = scar.length_px * PIXEL_M
    deepest = float(np.clip(0.045 * length_m * rng.uniform(0.7, 1.4), 2.0, 9.0))
    inside = edge_m > 0
    toe = float(ground[inside & (fall > 0.85)].min(initial=float(ground[inside].max(initial=0.0))))
    plane = toe + np.tan(np.radians(rng.uniform(2.5, 6))) * length_m * np.clip(1 - fall, 0, 1)
    least = 0.75 * deepest * np.clip(0.95 - fall, -0.05, 1)
    depth = np.clip(np.maximum(ground - plane, least), -0.6, deepest)
    depth = np.minimum(np.minimum(depth, 1.2 * deepest * np.clip(1 - fall, 0.02, 1)), edge_m * _WALL_SLOPE)
    mounds = 0.35 * noise((depth.shape[0], depth.shape[1]), rng, longest_m=20, roughness=1.2)
    depth = np.where(inside & (ground > 0), np.minimum(depth + mounds * np.clip(edge_m / 9, 0, 1), 0.8 * ground), 0)
    if not scar.active:
        depth = 0.7 * ndimage.gaussian_filter(depth, _OLD_SMOOTHING_PX)
    return box, depth.astype(np.float32)


def _fill_water(scar: Scar, box: tuple[slice, slice], height: Field, shore_m: Field) -> None:
    """Let the debris of a slump stand above the water where its toe reaches into it."""
    fan = (_distance_inside(scar, box) > 0) & (shore_m[box] <= 0)
    height[box][fan] = 0.3
    shore_m[box][fan] = 0.5 * PIXEL_M


def _bare(scar: Scar, box: tuple[slice, slice], depth: Field, patches: Field, headwall: Field, floor: Field) -> None:
    """Note in ``headwall`` and ``floor`` what an active slump lays bare; turf and regrowth leave patches."""
    edge_m, fall = _distance_inside(scar, box), _fall(scar, box)
    inside = edge_m > 0
    wall = inside * np.clip(1.4 - edge_m / 9, 0, 1) * np.clip(1.5 - 2 * fall, 0, 1) * np.clip(depth / 1.5, 0.3, 1)
    regrown = 1 / (1 + np.exp(-3 * (patches[box] - 1.3 + 0.9 * np.clip(fall, 0, 1))))
    bare = inside * np.clip(edge_m / 4.5, 0.5, 1) * (1 - 0.85 * regrown)
    headwall[box] = np.maximum(headwall[box], wall)
    floor[box] = np.maximum(floor[box], np.maximum(bare, wall))
