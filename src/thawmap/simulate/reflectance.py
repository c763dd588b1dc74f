"""Reflectance of the ground in flat light, and the trends of its tasseled cap.

What slumps change follows what real Sentinel-2, ArcticDEM and Landsat data show: less vegetation, a bare wet
floor, falling greenness. What is mistaken for slumps is there too: river bars, silty water, rugged bare ground, bare
bluffs, and slumps that have stabilised long ago.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import ndimage

from thawmap.simulate.landscape import Land, land
from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.regions import Country
from thawmap.simulate.slumps import REFERENCE_YEAR

_WATER = (0.022, 0.025, 0.015, 0.010)
_SILT = (0.062, 0.085, 0.082, 0.040)
_SAND = (0.098, 0.122, 0.142, 0.185)
_MUD = (0.034, 0.048, 0.048, 0.090)
_WALL = (0.040, 0.049, 0.056, 0.078)
_SHRUB = (0.024, 0.046, 0.032, 0.330)

_TREND_BLUR = 1.2  # standard deviation of the blur by which Landsat's 30 m pixel sees points 9 m apart


def paint(image: Field, share: Field, colour: Sequence[float]) -> None:
    """Mix a spectrum into an image in place, by its share of each pixel.

    The image is (band, row, column); the share (row, column) is clipped to 0..1.
    """
    weight = np.clip(share, 0, 1)
    for band, reflectance in enumerate(colour):
        image[band] += weight * (np.float32(reflectance) - image[band])


def surface(country: Country, ground: Land, *, green: float) -> Field:
    """Return the ground's reflectance (4, row, column) in flat light, free of snow.

    Bands are blue, green, red and nir; ``green`` is how far the season's growth is, 0..1.
    """
    region, plane, lattice = country.region, country.plane, ground.lattice
    wide = plane.noise("cover", lattice, longest_m=350, shortest_m=20)
    fine = plane.noise("tufts", lattice, longest_m=30, shortest_m=10, roughness=1.2)
    cover = region.cover + 0.17 * wide + 0.07 * fine - 0.07 * np.clip(ground.hollow_m, -4, 4)
    image = np.empty((4, *lattice.shape), np.float32)
    image[:] = np.array(region.sparse, np.float32)[:, None, None]
    paint(image, green * cover, region.dense)
    paint(image, _bare_ground(country, ground, wide, fine), region.soil)
    # Shrubs grow thick on old slumps.
    paint(image, 0.6 * ground.old * np.clip(0.8 + 0.3 * fine, 0, 1) * green, _SHRUB)
    dry = ground.shore_m > 0
    # Bars and flats of sand where the shore is low, a beach along the rest.
    flat = np.clip(1 - ground.bank_m / (0.8 * region.relief.bank_m), 0, 1)
    bar_m = 45 if region.relief.river_m else 18
    paint(image, dry * flat * np.clip(1.5 - ground.shore_m / bar_m + 0.5 * fine, 0, 1), _SAND)
    beach = dry * np.clip(1.3 - ground.shore_m / 7 + 0.4 * fine, 0, 1)
    paint(image, 0.7 * beach, _SAND if region.relief.sea else region.soil)
    wet = 0.75 + 0.6 * plane.noise("wet floors", lattice, longest_m=900, shortest_m=450)
    paint(image, ground.floor * np.clip(0.88 + 0.12 * fine, 0, 1), region.soil)
    paint(image, ground.floor * np.clip(wet, 0, 1), _MUD)
    image *= np.exp(0.25 * ground.floor * plane.noise("pale floors", lattice, longest_m=700, shortest_m=350))
    paint(image, 0.7 * ground.headwall, _WALL)
    blots = plane.noise("blots", lattice, longest_m=120, shortest_m=15, roughness=1.2)
    image *= np.where(dry, np.exp(0.06 * fine + 0.05 * blots), 1)
    if not dry.all():
        _paint_water(country, ground, image)
    return image


def _bare_ground(country: Country, ground: Land, wide: Field, fine: Field) -> Field:
    """Return each point's share, 0..1, of bare ground that no slump laid bare.

    On dry tops, in steep gullies, on fresh banks; it follows the fields of the vegetation, wide and fine.
    """
    down, right = np.gradient(ground.height, PIXEL_M * ground.lattice.step)
    steep = np.degrees(np.arctan(np.hypot(down, right)))
    # The threshold makes the wanted share of a normal field of the patches' variance bare.
    patch = country.plane.noise("barrens", ground.lattice, longest_m=140, shortest_m=15) - 0.4 * wide
    threshold = NormalDist(0, np.hypot(1, 0.4)).inv_cdf(1 - country.region.rugged)
    blown = 1 / (1 + np.exp(-6 * (patch - np.float32(threshold))))
    cut = np.clip((steep - 17) / 14, 0, 1) * np.clip(0.6 + 0.9 * patch, 0, 1)
    share: Field = np.maximum(blown * np.clip(0.75 + 0.25 * fine, 0, 1), 0.75 * cut)
    return share


def _paint_water(country: Country, ground: Land, image: Field) -> None:
    """Paint the water of an image in place, dark where deep, bright where silty."""
    region, plane, lattice = country.region, country.plane, ground.lattice
    wet = ground.shore_m <= 0
    outward_m = np.minimum(ground.shore_m, 0)
    plume = np.exp(outward_m / 60) * np.clip(
        0.5 + 0.6 * plane.noise("plumes", lattice, longest_m=250, shortest_m=30), 0, 1
    )
    murk = plane.noise("silt", lattice, longest_m=2400, shortest_m=1200)
    load = np.clip((murk - NormalDist().inv_cdf(1 - region.silty)) / 0.6, 0, 1)
    if region.relief.sea or region.relief.river_m:
        load = 0.45 * region.silty + 0.15 * load
    shallow = np.exp(outward_m / 8) * 0.35
    paint(image, wet.astype(np.float32), _WATER)
    paint(image, np.where(wet, np.maximum(load * (0.4 + 0.6 * plume), shallow), 0), _SILT)


def trends(country: Country, lattice: Lattice) -> Field:
    """Return trends of brightness, greenness and wetness per decade (3, row, column).

    At a lattice of every third pixel, blurred as Landsat's pixels of 30 m see them. Where the ground was laid bare
    greenness falls and wetness rises; old slumps grow green, and some shores and hills change without a slump.
    """
    margin = round(4 * _TREND_BLUR)
    padded = lattice.pad(margin)
    ground = land(country, padded, year=REFERENCE_YEAR)

    def noise(name: str, longest_m: float, shortest_m: float) -> Field:
        return country.plane.noise(name, padded, longest_m=longest_m, shortest_m=shortest_m)

    bare = np.clip(0.65 + 0.45 * noise("age", 400, 100), 0.1, 1.2) * (ground.floor + 0.15 * (ground.floor > 0))
    shore, drying = np.exp(-np.abs(ground.shore_m) / 15), np.clip(noise("drying", 600, 70) - 1.2, 0, 1)
    wetter = noise("wetter", 600, 70)
    shift = country.plane.rng("shift").normal(0, 0.006, 3)
    brightness = shift[0] + 0.012 * noise("brighter", 600, 70) + 0.028 * bare + 0.015 * drying - 0.02 * shore * wetter
    greenness = 0.008 + shift[1] + 0.013 * noise("greener", 600, 70) - 0.062 * bare + 0.022 * ground.old
    greenness = greenness - 0.022 * drying
    wetness = shift[2] + 0.012 * wetter + 0.034 * bare - 0.01 * drying + 0.03 * shore * wetter
    stacked = np.stack([brightness, greenness, wetness]).astype(np.float32)
    blurred: Field = ndimage.gaussian_filter(stacked, (0, _TREND_BLUR, _TREND_BLUR))
    return blurred[:, margin:-margin, margin:-margin]
