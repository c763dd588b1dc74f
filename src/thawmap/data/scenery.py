"""How the Arctic looks from above: the simulated regions, their light and weather, and their trends.

Regions follow the patterns of the six study regions of Nitze et al. 2021 (doi 10.3390/rs13214294; section
2.1, slump sizes of Table 2) in spectra, relief, and the size and place of slumps; they are not those places.
Everything here is numbers on the grid of `thawmap.data.terrain`. What slumps change follows what real
Sentinel-2, ArcticDEM and Landsat data show: less vegetation, a bare wet floor, falling greenness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from scipy import ndimage

from thawmap.data.terrain import PIXEL_M, Field, Land, Mask, Relief, noise, slope

TREND_PX = 10
"""Side of a pixel of the trends in pixels of the ground: Landsat's 30 m."""

TREND_RANGE = 0.12
"""Trends are stored between minus and plus this much per decade."""

_WATER = (0.022, 0.025, 0.015, 0.010)
_SILT = (0.062, 0.085, 0.082, 0.040)
_SAND = (0.098, 0.122, 0.142, 0.185)
_MUD = (0.055, 0.070, 0.082, 0.125)
_WALL = (0.040, 0.049, 0.056, 0.078)
_SHRUB = (0.024, 0.046, 0.032, 0.330)
_CLOUD = (0.360, 0.370, 0.380, 0.430)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """How a region looks. Spectra are reflectances in blue, green, red and nir.

    Attributes:
        name: The pattern that it follows.
        epsg: Its UTM zone.
        lon: Longitude of its first scene, in degrees.
        lat: Latitude of its first scene, in degrees.
        relief: The shape of its ground.
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
    dense: tuple[float, float, float, float]
    sparse: tuple[float, float, float, float]
    soil: tuple[float, float, float, float]
    cover: float
    rugged: float
    silty: float


REGIONS = (
    Region(
        name="moraine", epsg=32611, lon=-118.6, lat=72.7,
        relief=Relief(
            hills_m=9, wavelength_m=420, gully_m=4, water="lakes", water_share=0.13,
            bank_m=9, bank_width_m=70, slump_m2=22100, slumps_per_km2=3.0, elongation=1.5, at_shore=False,
        ),
        dense=(0.035, 0.060, 0.050, 0.265), sparse=(0.060, 0.084, 0.094, 0.205),
        soil=(0.078, 0.098, 0.113, 0.165), cover=0.42, rugged=0.05, silty=0.25,
    ),
    Region(
        name="lake_plain", epsg=32608, lon=-134.1, lat=69.3,
        relief=Relief(
            hills_m=3, wavelength_m=300, gully_m=1, water="lakes", water_share=0.30,
            bank_m=8, bank_width_m=35, slump_m2=2230, slumps_per_km2=11.0, elongation=1.0, at_shore=True,
        ),
        dense=(0.025, 0.050, 0.035, 0.320), sparse=(0.041, 0.066, 0.060, 0.240),
        soil=(0.062, 0.081, 0.090, 0.160), cover=0.62, rugged=0.02, silty=0.35,
    ),
    Region(
        name="coast", epsg=32639, lon=49.3, lat=69.1,
        relief=Relief(
            hills_m=4, wavelength_m=500, gully_m=7, water="sea", water_share=0.27,
            bank_m=28, bank_width_m=60, slump_m2=9100, slumps_per_km2=4.5, elongation=1.0, at_shore=True,
        ),
        dense=(0.030, 0.055, 0.043, 0.275), sparse=(0.050, 0.072, 0.075, 0.195),
        soil=(0.072, 0.088, 0.098, 0.160), cover=0.50, rugged=0.04, silty=0.5,
    ),
    Region(
        name="river_terrace", epsg=32651, lon=124.7, lat=69.0,
        relief=Relief(
            hills_m=7, wavelength_m=600, gully_m=4, water="river", water_share=0.16,
            bank_m=19, bank_width_m=90, slump_m2=14500, slumps_per_km2=3.5, elongation=1.5, at_shore=True,
        ),
        dense=(0.020, 0.033, 0.024, 0.185), sparse=(0.031, 0.047, 0.041, 0.205),
        soil=(0.062, 0.077, 0.083, 0.155), cover=0.68, rugged=0.03, silty=0.6,
    ),
    Region(
        name="island", epsg=32607, lon=-139.6, lat=69.5,
        relief=Relief(
            hills_m=14, wavelength_m=700, gully_m=11, water="sea", water_share=0.16,
            bank_m=18, bank_width_m=90, slump_m2=5200, slumps_per_km2=6.0, elongation=1.2, at_shore=False,
        ),
        dense=(0.028, 0.056, 0.036, 0.345), sparse=(0.045, 0.070, 0.065, 0.250),
        soil=(0.070, 0.086, 0.093, 0.170), cover=0.60, rugged=0.04, silty=0.8,
    ),
    Region(
        name="delta", epsg=32652, lon=128.2, lat=72.2,
        relief=Relief(
            hills_m=2, wavelength_m=350, gully_m=2, water="channels", water_share=0.24,
            bank_m=12, bank_width_m=45, slump_m2=7000, slumps_per_km2=4.5, elongation=0.9, at_shore=True,
        ),
        dense=(0.030, 0.051, 0.045, 0.225), sparse=(0.060, 0.080, 0.095, 0.188),
        soil=(0.098, 0.122, 0.142, 0.190), cover=0.45, rugged=0.05, silty=0.7,
    ),
)  # fmt: skip
"""In the order in which `Simulation.regions` takes them."""


def _paint(image: Field, share: Field, colour: Sequence[float]) -> None:
    """Mix a spectrum into ``image`` (band, row, column), by its share (row, column) of each pixel."""
    image += np.clip(share, 0, 1) * (np.array(colour, np.float32)[:, None, None] - image)


def _surface(region: Region, land: Land, rng: np.random.Generator, *, green: float) -> Field:
    """Reflectance (band, row, column) in flat light; ``green`` is how far the season's growth is, 0..1."""
    shape = (land.height.shape[0], land.height.shape[1])
    wide, fine = noise(shape, rng, longest_m=350), noise(shape, rng, longest_m=30, roughness=1.2)
    hollow = land.height - ndimage.gaussian_filter(land.height, 14)
    cover = region.cover + 0.17 * wide + 0.07 * fine - 0.07 * np.clip(hollow, -4, 4)
    image = np.empty((4, *shape), np.float32)
    image[:] = np.array(region.sparse, np.float32)[:, None, None]
    _paint(image, green * cover, region.dense)
    _paint(image, _rugged(region, land, wide, fine, rng), region.soil)
    _paint(image, 0.6 * land.old * np.clip(0.8 + 0.3 * fine, 0, 1) * green, _SHRUB)
    flat = np.clip(1 - land.bank_m / (0.8 * region.relief.bank_m), 0, 1)
    bar_m = 45 if region.relief.water == "river" else 18
    dry = land.shore_m > 0
    _paint(image, dry * flat * np.clip(1.5 - land.shore_m / bar_m + 0.5 * fine, 0, 1), _SAND)
    beach = dry * np.clip(1.3 - land.shore_m / 7 + 0.4 * fine, 0, 1)
    _paint(image, 0.7 * beach, _SAND if region.relief.water == "sea" else region.soil)
    mud = 0.55 * np.array(_MUD) + 0.45 * np.array(region.soil)
    _paint(image, land.floor * np.clip(0.88 + 0.12 * fine, 0, 1), tuple(mud))
    _paint(image, 0.7 * land.headwall, _WALL)
    _paint_water(region, land, image, rng)
    texture = np.exp(0.06 * fine + 0.05 * noise(shape, rng, longest_m=120, roughness=1.2))
    result: Field = image * np.where(dry, texture, 1).astype(np.float32)
    return result


def _rugged(region: Region, land: Land, wide: Field, fine: Field, rng: np.random.Generator) -> Field:
    """Share of bare ground that is no slump: on dry tops, in steep gullies, on fresh banks."""
    steep = np.nan_to_num(slope(land.height, pixel_m=PIXEL_M))
    patch = noise((land.height.shape[0], land.height.shape[1]), rng, longest_m=140, shortest_m=8) - 0.4 * wide
    threshold = np.quantile(patch, 1 - region.rugged)
    blown = 1 / (1 + np.exp(-6 * (patch - threshold)))
    cut = np.clip((steep - 17) / 14, 0, 1) * np.clip(0.6 + 0.9 * patch, 0, 1)
    share: Field = np.maximum(blown * np.clip(0.75 + 0.25 * fine, 0, 1), 0.75 * cut)
    return share


def _paint_water(region: Region, land: Land, image: Field, rng: np.random.Generator) -> None:
    """Deep water is dark; the water of some lakes, or along some shores, is bright with silt."""
    wet = land.shore_m <= 0
    lakes, count = ndimage.label(wet)
    shape = (wet.shape[0], wet.shape[1])
    loads = np.concatenate([[0.0], np.where(rng.uniform(size=count) < region.silty, rng.uniform(0.2, 1, count), 0)])
    outward_m = np.minimum(land.shore_m, 0)
    plume = np.exp(outward_m / 60) * np.clip(0.5 + 0.6 * noise(shape, rng, longest_m=250, shortest_m=20), 0, 1)
    load = loads[lakes] if region.relief.water == "lakes" else np.full(shape, 0.45 * region.silty)
    shallow = np.exp(outward_m / 8) * 0.35
    _paint(image, wet.astype(np.float32), _WATER)
    _paint(image, np.where(wet, np.maximum(load * (0.4 + 0.6 * plume), shallow), 0), _SILT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """The date of a scene, and what its light and weather do.

    Attributes:
        acquired: UTC time.
        azimuth: Where the sun stands, in radians from north, clockwise.
        elevation: Its height, in radians.
        gain: Factor between this image and another of the same ground.
        haze: Reflectance that the air adds in blue.
        green: How far the season's growth is, 0..1.
        clouds: Share of the scene under cloud, 0..1.
        swath: Share of the scene's width beyond the edge of the image, 0..1.
    """

    acquired: datetime
    azimuth: float
    elevation: float
    gain: float
    haze: float
    green: float
    clouds: float
    swath: float


def draw_sky(region: Region, number: int, rng: np.random.Generator) -> Sky:
    """A date from June to September, about 10:30 local time; each second scene is cloudy, each third cut."""
    day = datetime(int(rng.choice([2018, 2019])), 6, 12, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 95)))
    time = (10.5 - region.lon / 15 + rng.uniform(-0.7, 0.7)) % 24
    season = (day - day.replace(month=7, day=25)).days / 45
    return Sky(
        acquired=day + timedelta(seconds=int(3600 * time)),
        azimuth=float(np.radians(rng.uniform(145, 185))),
        elevation=float(np.radians(np.clip(42 - 5 * season**2 + rng.normal(0, 1), 24, 44))),
        gain=float(rng.uniform(0.9, 1.12)),
        haze=float(rng.uniform(0, 0.012)),
        green=float(np.exp(-0.28 * season**2)),
        clouds=float(rng.uniform(0.015, 0.045)) if number % 2 == 0 else 0.0,
        swath=float(rng.uniform(0.02, 0.1)) if (REGIONS.index(region) + number) % 3 == 2 else 0.0,
    )


def _light(height: Field, sky: Sky) -> Field:
    """Brightness (row, column) of slopes against flat ground, about 1, damped by the light of the sky."""
    down, right = np.gradient(height, PIXEL_M)
    east, north = np.sin(sky.azimuth), np.cos(sky.azimuth)
    sun = np.tan(np.pi / 2 - sky.elevation) * (-right * east + down * north)
    facing = (1 + sun) / np.sqrt(1 + down**2 + right**2)
    light: Field = (0.35 + 0.65 * np.clip(facing, 0.05, 2.2)).astype(np.float32)
    return light


def _weather(sky: Sky, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    """Opacity of cloud, and of cloud shadow (row, column), 0..1."""
    field = noise(shape, rng, longest_m=350, shortest_m=12)
    if sky.clouds == 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cloud = np.clip(2.2 * (field - np.quantile(field, 1 - sky.clouds)), 0, 0.95).astype(np.float32)
    far = 330 / np.tan(sky.elevation) / PIXEL_M * 0.5
    moved = (far * np.cos(sky.azimuth), -far * np.sin(sky.azimuth))
    shadow = ndimage.shift(ndimage.gaussian_filter(cloud, 1.5), moved, order=1)
    return cloud, shadow.astype(np.float32)


def photograph(region: Region, land: Land, sky: Sky, rng: np.random.Generator) -> tuple[Field, Mask]:
    """Reflectance (band, row, column) as the sensor sees it, and which pixels show clear ground."""
    shape = (land.height.shape[0], land.height.shape[1])
    light = np.where(land.shore_m > 0, _light(land.height, sky), 1)
    image = _surface(region, land, rng, green=sky.green) * light
    cloud, shadow = _weather(sky, shape, rng)
    image *= 1 - 0.6 * shadow
    _paint(image, cloud, _CLOUD)
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6)) * sky.gain
    image += sky.haze * np.array([1, 0.6, 0.4, 0.15], np.float32)[:, None, None]
    image += rng.standard_normal(image.shape, dtype=np.float32) * (0.0012 + 0.012 * image)
    hidden = ndimage.binary_dilation((cloud > 0.08) | (shadow > 0.12), iterations=2)
    return image.astype(np.float32), ~hidden


def trends(land: Land, rng: np.random.Generator) -> Field:
    """Trends per decade (brightness, greenness, wetness; row, column) at 30 m.

    Where the ground was laid bare greenness falls and wetness rises; old scars grow green, and some shores
    and hills change without a slump.
    """
    side = land.height.shape[0] // TREND_PX

    def mean(field: Field) -> Field:
        coarse: Field = field.reshape(side, TREND_PX, side, TREND_PX).mean(axis=(1, 3))
        return coarse

    pixel_m = TREND_PX * PIXEL_M
    age = 0.65 + 0.45 * noise((side, side), rng, longest_m=400, shortest_m=60, pixel_m=pixel_m)
    bare = np.clip(age, 0.1, 1.2) * mean(land.floor + 0.15 * (land.floor > 0))
    shore, old = mean(np.exp(-np.abs(land.shore_m) / 15)), mean(land.old)
    brighter, greener, wetter, dried = (
        noise((side, side), rng, longest_m=600, shortest_m=30, pixel_m=pixel_m) for _ in range(4)
    )
    drying = np.clip(dried - 1.2, 0, 1)
    shift = rng.normal(0, 0.006, 3)
    brightness = shift[0] + 0.012 * brighter + 0.028 * bare + 0.015 * drying - 0.02 * shore * wetter
    greenness = 0.008 + shift[1] + 0.013 * greener - 0.062 * bare + 0.022 * old - 0.022 * drying
    wetness = shift[2] + 0.012 * wetter + 0.034 * bare - 0.01 * drying + 0.03 * shore * wetter
    return np.stack([brightness, greenness, wetness]).astype(np.float32)
