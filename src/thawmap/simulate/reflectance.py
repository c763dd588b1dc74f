"""How the Arctic looks from above: the simulated regions, what grows and lies on their ground, and its trends.

Regions follow the patterns of the six study regions of Nitze et al. 2021 (doi 10.3390/rs13214294; section
2.1, slump sizes and numbers of Table 2) in spectra, relief, and the size and place of slumps; they are not those
places. What slumps change follows what real Sentinel-2, ArcticDEM and Landsat data show: less vegetation, a bare wet
floor, falling greenness. What is mistaken for slumps is there too: river bars, silty water, rugged bare ground, bare
bluffs, and scars that have stabilised long ago.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import ndimage

from thawmap.simulate.landscape import Land, land
from thawmap.simulate.noise import PIXEL_M, Field, Lattice, Mask, Plane
from thawmap.simulate.slumps import REFERENCE_YEAR, Slumps
from thawmap.simulate.terrain import Country, Relief

Spectrum = tuple[float, float, float, float]
"""Reflectances in blue, green, red and nir."""

_WATER = (0.022, 0.025, 0.015, 0.010)
_SILT = (0.062, 0.085, 0.082, 0.040)
_SAND = (0.098, 0.122, 0.142, 0.185)
_MUD = (0.034, 0.048, 0.048, 0.090)
_WALL = (0.040, 0.049, 0.056, 0.078)
_SHRUB = (0.024, 0.046, 0.032, 0.330)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """How a region looks.

    Attributes:
        name: The pattern that it follows.
        epsg: Its UTM zone.
        lon: Longitude of its first place, in degrees.
        lat: Latitude of its first place, in degrees.
        relief: The shape of its ground.
        slumps: Its slumps.
        dense: Spectrum of its densest vegetation.
        sparse: Spectrum of its thinnest vegetation.
        soil: Spectrum of its bare ground.
        cover: Mean density of its vegetation, 0..1.
        rugged: Share of ground that is bare without a slump, 0..1.
        silty: Share of its water that is bright with silt, 0..1.
    """

    name: str
    epsg: int
    lon: float
    lat: float
    relief: Relief
    slumps: Slumps
    dense: Spectrum
    sparse: Spectrum
    soil: Spectrum
    cover: float
    rugged: float
    silty: float

    def country(self, seed: int) -> Country:
        """Its endless ground: another one for each seed."""
        return Country(self.relief, Plane((seed, REGIONS.index(self))))


REGIONS = (
    Region(  # Banks Island: lakes and valleys in a moraine with buried ice, sparse tundra, some of the largest slumps
        name="moraine", epsg=32611, lon=-118.6, lat=72.7,
        relief=Relief(
            hills_m=1.4, wavelength_m=420, gully_m=1.2, lakes=0.13, bank_m=4.5, bank_width_m=85,
        ),
        slumps=Slumps(area_m2=21000, per_km2=60, elongation=1.5, at_shore=False, crowded=0.25, old=0.3),
        dense=(0.035, 0.060, 0.050, 0.265), sparse=(0.060, 0.084, 0.094, 0.205),
        soil=(0.078, 0.098, 0.113, 0.165), cover=0.42, rugged=0.05, silty=0.25,
    ),
    Region(  # Tuktoyaktuk Peninsula: a plain of lakes with small slumps at their shores, shrubs
        name="lake_plain", epsg=32608, lon=-134.1, lat=69.3,
        relief=Relief(
            hills_m=0.7, wavelength_m=300, gully_m=0.4, lakes=0.30, bank_m=3.5, bank_width_m=60,
        ),
        slumps=Slumps(area_m2=2500, per_km2=380, elongation=1.0, at_shore=True, crowded=0.15, old=0.3),
        dense=(0.025, 0.050, 0.035, 0.320), sparse=(0.041, 0.066, 0.060, 0.240),
        soil=(0.062, 0.081, 0.090, 0.160), cover=0.62, rugged=0.02, silty=0.35,
    ),
    Region(  # Herschel Island: hills with many small valleys, slumps on slopes near the sea, shrubs
        name="island", epsg=32607, lon=-139.6, lat=69.5,
        relief=Relief(
            hills_m=3.5, wavelength_m=700, gully_m=3, sea=True, lakes=0.01, bank_m=10, bank_width_m=120, heading=130,
        ),
        slumps=Slumps(area_m2=5200, per_km2=15, elongation=1.2, at_shore=False, crowded=0.22, old=0.3),
        dense=(0.028, 0.056, 0.036, 0.345), sparse=(0.045, 0.070, 0.065, 0.250),
        soil=(0.070, 0.086, 0.093, 0.170), cover=0.60, rugged=0.04, silty=0.8,
    ),
    Region(  # Kolguev Island: steep bluffs above the sea with large slumps
        name="coast", epsg=32639, lon=49.3, lat=69.1,
        relief=Relief(
            hills_m=1.5, wavelength_m=500, gully_m=1.8, sea=True, lakes=0.01, bank_m=12, bank_width_m=100, heading=-35,
        ),
        slumps=Slumps(area_m2=12500, per_km2=250, elongation=1.0, at_shore=True, crowded=0.4, old=0.3),
        dense=(0.030, 0.055, 0.043, 0.275), sparse=(0.050, 0.072, 0.075, 0.195),
        soil=(0.072, 0.088, 0.098, 0.160), cover=0.50, rugged=0.04, silty=0.5,
    ),
    Region(  # Horton Delta: high bare cliffs above the sea, deep valleys, slumps at the cliffs' tops
        name="cliffs", epsg=32609, lon=-126.7, lat=69.7,
        relief=Relief(
            hills_m=2.8, wavelength_m=800, gully_m=4.5, sea=True, bank_m=20, bank_width_m=140, heading=20,
        ),
        slumps=Slumps(area_m2=5600, per_km2=1100, elongation=0.9, at_shore=True, crowded=0.7, old=0.3),
        dense=(0.029, 0.052, 0.042, 0.265), sparse=(0.058, 0.078, 0.091, 0.195),
        soil=(0.098, 0.122, 0.142, 0.190), cover=0.53, rugged=0.05, silty=0.7,
    ),
    Region(  # Lena River: terraces at a river with bars, lakes behind, boreal forest, many overgrown scars
        name="river_terrace", epsg=32651, lon=124.7, lat=69.0,
        relief=Relief(
            hills_m=1.8, wavelength_m=600, gully_m=1.5, river_m=200, lakes=0.06, bank_m=9, bank_width_m=120, heading=15,
        ),
        slumps=Slumps(area_m2=13800, per_km2=300, elongation=1.5, at_shore=True, crowded=0.1, old=0.5),
        dense=(0.020, 0.033, 0.024, 0.185), sparse=(0.031, 0.047, 0.041, 0.205),
        soil=(0.062, 0.077, 0.083, 0.155), cover=0.68, rugged=0.03, silty=0.6,
    ),
)  # fmt: skip
"""In the order in which `Simulation.regions` takes them."""


def paint(image: Field, share: Field, colour: Sequence[float]) -> None:
    """Mix a spectrum into ``image`` (band, row, column), by its share (row, column) of each pixel."""
    part = np.clip(share, 0, 1)
    for band, value in enumerate(colour):
        image[band] += part * (np.float32(value) - image[band])


def surface(region: Region, country: Country, ground: Land, *, green: float) -> Field:
    """Reflectance (band, row, column) in flat light; ``green`` is how far the season's growth is, 0..1."""
    plane, lattice = country.plane, ground.lattice
    wide = plane.noise("cover", lattice, longest_m=350, shortest_m=20)
    fine = plane.noise("tufts", lattice, longest_m=30, shortest_m=10, roughness=1.2)
    cover = region.cover + 0.17 * wide + 0.07 * fine - 0.07 * np.clip(ground.hollow_m, -4, 4)
    image = np.empty((4, *lattice.shape), np.float32)
    image[:] = np.array(region.sparse, np.float32)[:, None, None]
    paint(image, green * cover, region.dense)
    paint(image, _rugged(region, country, ground, wide, fine), region.soil)
    paint(image, 0.6 * ground.old * np.clip(0.8 + 0.3 * fine, 0, 1) * green, _SHRUB)
    dry = ground.shore_m > 0
    _paint_shore(region, ground, dry, fine, image)
    wet = 0.75 + 0.6 * plane.noise("wet floors", lattice, longest_m=900, shortest_m=450)
    paint(image, ground.floor * np.clip(0.88 + 0.12 * fine, 0, 1), region.soil)
    paint(image, ground.floor * np.clip(wet, 0, 1), _MUD)
    image *= np.exp(0.25 * ground.floor * plane.noise("pale floors", lattice, longest_m=700, shortest_m=350))
    paint(image, 0.7 * ground.headwall, _WALL)
    blots = plane.noise("blots", lattice, longest_m=120, shortest_m=15, roughness=1.2)
    image *= np.where(dry, np.exp(0.06 * fine + 0.05 * blots), 1)
    if not dry.all():
        _paint_water(region, country, ground, image)
    return image


def _paint_shore(region: Region, ground: Land, dry: Mask, fine: Field, image: Field) -> None:
    """Bars and flats of sand where the shore is low; a beach along the rest."""
    flat = np.clip(1 - ground.bank_m / (0.8 * region.relief.bank_m), 0, 1)
    bar_m = 45 if region.relief.river_m else 18
    paint(image, dry * flat * np.clip(1.5 - ground.shore_m / bar_m + 0.5 * fine, 0, 1), _SAND)
    beach = dry * np.clip(1.3 - ground.shore_m / 7 + 0.4 * fine, 0, 1)
    paint(image, 0.7 * beach, _SAND if region.relief.sea else region.soil)


def _rugged(region: Region, country: Country, ground: Land, wide: Field, fine: Field) -> Field:
    """Share of bare ground that is no slump: on dry tops, in steep gullies, on fresh banks."""
    down, right = np.gradient(ground.height, PIXEL_M * ground.lattice.step)
    steep = np.degrees(np.arctan(np.hypot(down, right)))
    patch = country.plane.noise("barrens", ground.lattice, longest_m=140, shortest_m=15) - 0.4 * wide
    threshold = NormalDist(0, np.hypot(1, 0.4)).inv_cdf(1 - region.rugged)
    blown = 1 / (1 + np.exp(-6 * (patch - np.float32(threshold))))
    cut = np.clip((steep - 17) / 14, 0, 1) * np.clip(0.6 + 0.9 * patch, 0, 1)
    share: Field = np.maximum(blown * np.clip(0.75 + 0.25 * fine, 0, 1), 0.75 * cut)
    return share


def _paint_water(region: Region, country: Country, ground: Land, image: Field) -> None:
    """Deep water is dark; the water of some lakes, or along some shores, is bright with silt."""
    plane, lattice = country.plane, ground.lattice
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


_TREND_PLACES = 1.2  # standard deviation of the blur by which Landsat's 30 m pixel sees places 9 m apart


def trends(region: Region, country: Country, lattice: Lattice) -> Field:
    """Trends per decade (brightness, greenness, wetness; row, column) at every third pixel, as 30 m pixels see them.

    Where the ground was laid bare greenness falls and wetness rises; old scars grow green, and some shores
    and hills change without a slump.
    """
    margin = round(4 * _TREND_PLACES)
    around = lattice.pad(margin)
    ground = land(country, region.slumps, around, year=REFERENCE_YEAR)

    def noise(name: str, longest_m: float, shortest_m: float) -> Field:
        return country.plane.noise(name, around, longest_m=longest_m, shortest_m=shortest_m)

    bare = np.clip(0.65 + 0.45 * noise("age", 400, 100), 0.1, 1.2) * (ground.floor + 0.15 * (ground.floor > 0))
    shore, drying = np.exp(-np.abs(ground.shore_m) / 15), np.clip(noise("drying", 600, 70) - 1.2, 0, 1)
    wetter = noise("wetter", 600, 70)
    shift = country.plane.rng("shift").normal(0, 0.006, 3)
    brightness = shift[0] + 0.012 * noise("brighter", 600, 70) + 0.028 * bare + 0.015 * drying - 0.02 * shore * wetter
    greenness = 0.008 + shift[1] + 0.013 * noise("greener", 600, 70) - 0.062 * bare + 0.022 * ground.old
    greenness = greenness - 0.022 * drying
    wetness = shift[2] + 0.012 * wetter + 0.034 * bare - 0.01 * drying + 0.03 * shore * wetter
    stacked = np.stack([brightness, greenness, wetness]).astype(np.float32)
    seen: Field = ndimage.gaussian_filter(stacked, (0, _TREND_PLACES, _TREND_PLACES))
    return seen[:, margin:-margin, margin:-margin]
