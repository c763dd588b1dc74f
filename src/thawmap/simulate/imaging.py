"""The day of an image: its date, its light, its snow, clouds, shadows and haze, and what the sensor makes of them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from thawmap.simulate.landscape import Land, land
from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.reflectance import REGIONS, Region, paint, surface
from thawmap.simulate.terrain import Country

CLEAR, SNOW, SHADOW, LIGHT_HAZE, HEAVY_HAZE, CLOUD = range(6)
"""What a pixel shows, in the order of the bands of Planet's udm2."""

_CLOUD = (0.360, 0.370, 0.380, 0.430)
_SNOW = (0.620, 0.630, 0.630, 0.600)
_VEIL = 0.26  # opacity of the haze where a cloud begins
_CLOUD_BASE_M = 330.0
_BLUR_PX = 0.6
_MARGIN_PX = 4
_FIRST_YEAR = 2018


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """The date of an image, and what its light and weather do.

    Attributes:
        name: Of this image, for its random fields.
        acquired: UTC time.
        azimuth: Where the sun stands, in radians from north, clockwise.
        elevation: Its height, in radians.
        gain: Factor between this image and another of the same ground.
        blue_air: Reflectance that the air adds in blue.
        green: How far the season's growth is, 0..1.
        snow: How much of the winter's snow is left, 0..1.
        veil_from: Level of the clouds' field above which the air is hazy.
        cloud_from: Level above which there is cloud.
        swath: Share of the footprint's width beyond the edge of the image, 0..1.
        tilt: Direction of that edge, in radians from north, clockwise.
    """

    name: str
    acquired: datetime
    azimuth: float
    elevation: float
    gain: float
    blue_air: float
    green: float
    snow: float
    veil_from: float
    cloud_from: float
    swath: float
    tilt: float

    @property
    def year(self) -> float:
        """The date as a year with its part."""
        return self.acquired.year + (self.acquired.timetuple().tm_yday - 1) / 365


def draw_sky(region: Region, country: Country, number: int, date: int, footprint: Lattice) -> Sky:
    """A date from June to September of 2018 or 2019, or as many years later as ``date``, about 10:30 local time.

    Of a place's dates, and of a date's places, each second has clouds and some haze, each third is cut by the edge
    of the swath.
    """
    name = f"image {number} {date}"
    rng = country.plane.rng(name)
    year = _FIRST_YEAR + int(country.plane.rng(f"place {number}").integers(2)) + date
    day = datetime(year, 6, 12, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 95)))
    time = (10.5 - region.lon / 15 + rng.uniform(-0.7, 0.7)) % 24
    season = (day - day.replace(month=7, day=25)).days / 45
    cloudy, hazy = (rng.uniform(0.015, 0.045), rng.uniform(0.0, 0.05)) if (number + date) % 2 == 0 else (0.0, 0.0)
    step = max(1, footprint.height // 96)
    sample = Lattice(
        row=footprint.row, col=footprint.col, step=step,
        height=footprint.height // step, width=footprint.width // step,
    )  # fmt: skip
    cloud_from, veil_from = np.quantile(_clouds(country, name, sample), [1 - cloudy, 1 - cloudy - hazy])
    none = 1e9 if not cloudy else 0.0
    return Sky(
        name=name,
        acquired=day + timedelta(seconds=int(3600 * time), microseconds=int(rng.integers(1_000_000))),
        azimuth=float(np.radians(rng.uniform(145, 185))),
        elevation=float(np.radians(np.clip(42 - 5 * season**2 + rng.normal(0, 1), 24, 44))),
        gain=float(rng.uniform(0.9, 1.12)),
        blue_air=float(rng.uniform(0, 0.012)),
        green=float(np.exp(-0.28 * season**2)),
        snow=float(np.clip(-0.45 - season, 0, 0.5) * 2),
        veil_from=float(veil_from) - 1e-3 + none,
        cloud_from=float(cloud_from) + none,
        swath=float(rng.uniform(0.02, 0.1)) if (REGIONS.index(region) + number + date) % 3 == 2 else 0.0,
        tilt=float(np.radians(rng.uniform(3, 12) + rng.choice([0, 180]))),
    )


def _clouds(country: Country, name: str, lattice: Lattice) -> Field:
    """The field whose tops are clouds."""
    puffs = country.plane.noise(f"clouds {name}", lattice, longest_m=420, shortest_m=20)
    fronts = country.plane.noise(f"fronts {name}", lattice, longest_m=6000, shortest_m=3000)
    field: Field = puffs + np.float32(0.6) * fronts
    return field


def _opacity(sky: Sky, level: Field) -> Field:
    """Opacity of the air, 0..1: a veil that thickens, then cloud."""
    veil = _VEIL * np.clip((level - sky.veil_from) / (sky.cloud_from - sky.veil_from), 0, 1)
    opacity: Field = np.clip(veil + 2.2 * np.maximum(level - sky.cloud_from, 0), 0, 0.95).astype(np.float32)
    return opacity


def _light(ground: Land, sky: Sky) -> Field:
    """Brightness (row, column) of slopes against flat ground, about 1, damped by the light of the sky."""
    down, right = np.gradient(ground.height, PIXEL_M)
    east, north = np.float32(np.sin(sky.azimuth)), np.float32(np.cos(sky.azimuth))
    sun = np.float32(np.tan(np.pi / 2 - sky.elevation)) * (-right * east + down * north)
    facing = (1 + sun) / np.sqrt(1 + down**2 + right**2)
    light = 0.35 + 0.65 * np.clip(facing, 0.05, 2.2)
    result: Field = np.where(ground.shore_m > 0, light, 1).astype(np.float32)
    return result


def _snow(country: Country, ground: Land, sky: Sky) -> Field:
    """Share of snow, 0..1: what is left of drifts in hollows, gullies and under headwalls."""
    if sky.snow == 0:
        return np.zeros(ground.lattice.shape, np.float32)
    drift = country.plane.noise("drifts", ground.lattice, longest_m=160, shortest_m=15, roughness=1.5)
    level = 0.6 * drift - 0.35 * np.clip(ground.hollow_m, -4, 4) + 1.2 * ground.headwall
    share: Field = np.clip(3 * (level - (2.3 - 1.0 * sky.snow)), 0, 1) * (ground.shore_m > 0)
    return share


def photograph(
    region: Region, country: Country, sky: Sky, lattice: Lattice
) -> tuple[Field, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """What the sensor sees at the pixels of a lattice of step 1.

    Returns:
        Reflectance (band, row, column), what each pixel shows (one of `CLEAR` .. `CLOUD`), and how sure that is
        in percent.
    """
    around = lattice.pad(_MARGIN_PX)
    ground = land(country, region.slumps, around, year=sky.year)
    image = surface(region, country, ground, green=sky.green)
    snow = _snow(country, ground, sky)
    if snow.any():
        paint(image, snow, _SNOW)
    image *= _light(ground, sky)
    opacity, shade = _air(country, sky, around)
    if opacity is not None and shade is not None:
        image *= 1 - 0.6 * shade
        paint(image, opacity, _CLOUD)
    view = (slice(_MARGIN_PX, -_MARGIN_PX),) * 2
    image = ndimage.gaussian_filter(image, (0, _BLUR_PX, _BLUR_PX))[(slice(None), *view)]
    image = image * np.float32(sky.gain)
    image += np.float32(sky.blue_air) * np.array([1, 0.6, 0.4, 0.15], np.float32)[:, None, None]
    for band in range(len(image)):
        spread = 0.0012 + 0.012 * image[band]
        image[band] += country.plane.white(f"sensor {sky.name} {band}", lattice) * spread
    whitened = ndimage.maximum_filter(snow, 3)  # by the blur
    shown, sure = _classes(
        whitened[view], None if shade is None else shade[view], None if opacity is None else opacity[view]
    )
    return image, shown, sure


def _air(country: Country, sky: Sky, lattice: Lattice) -> tuple[Field | None, Field | None]:
    """Opacity of cloud and haze, and depth of cloud shadow (row, column), 0..1; None under a clear sky."""
    if sky.cloud_from > 1e8:
        return None, None
    far_px = _CLOUD_BASE_M / np.tan(sky.elevation) / PIXEL_M * 0.5
    down, right = round(far_px * np.cos(sky.azimuth)), round(-far_px * np.sin(sky.azimuth))
    caster = Lattice(row=lattice.row - down, col=lattice.col - right, height=lattice.height, width=lattice.width)
    opacity = _opacity(sky, _clouds(country, sky.name, lattice))
    shade = np.clip((_opacity(sky, _clouds(country, sky.name, caster)) - _VEIL) / (1 - _VEIL), 0, 1)
    return opacity, shade


def _classes(
    snow: Field, shade: Field | None, opacity: Field | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """What each pixel shows, and how sure that is in percent."""
    shown = np.full(snow.shape, CLEAR, np.uint8)
    sure = np.full(snow.shape, 92, np.uint8)
    shown[snow > 0.1] = SNOW
    if shade is not None and opacity is not None:
        shown[shade > 0.06] = SHADOW
        for above, what in ((0.07, LIGHT_HAZE), (0.18, HEAVY_HAZE), (0.34, CLOUD)):
            shown[opacity > above] = what
        sure = np.where((opacity > 0.07) | (shade > 0.06), 60 + 35 * np.maximum(opacity, shade), sure).astype(np.uint8)
    return shown, sure
