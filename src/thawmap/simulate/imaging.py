"""The day of an image: its light, snow, clouds and haze, and the sensor's view."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from thawmap.simulate.landscape import Land, land
from thawmap.simulate.noise import PIXEL_M, Field, Lattice
from thawmap.simulate.reflectance import paint, surface
from thawmap.simulate.regions import REGIONS, Country

CLEAR, SNOW, SHADOW, LIGHT_HAZE, HEAVY_HAZE, CLOUD = range(6)
"""Classes of what a pixel shows, in the order of the bands of Planet's udm2."""

_CLOUD = (0.360, 0.370, 0.380, 0.430)
_SNOW = (0.620, 0.630, 0.630, 0.600)
_VEIL = 0.26  # opacity of the haze where a cloud begins
_CLOUD_BASE_M = 330.0
_BLUR_PX = 0.6
_MARGIN_PX = 4
_FIRST_YEAR = 2018


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """The date of an image, its light and its weather.

    Attributes:
        name: Name of the image, for its random fields.
        acquired: UTC time.
        azimuth: Direction of the sun, in radians clockwise from north.
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
        """Date of the image as a year with a fraction, such as 2019.5."""
        return self.acquired.year + (self.acquired.timetuple().tm_yday - 1) / 365


def draw_sky(country: Country, number: int, date: int, footprint: Lattice) -> Sky:
    """Draw an image's date, sun, season, weather and swath by chance, as a `Sky`.

    The same arguments draw the same. From June to September of 2018 or 2019, or as many years later as ``date``, about
    10:30 local time. Of a site's dates, and of a date's sites, each second has clouds and some haze, each third is cut
    by the edge of the swath.

    Args:
        country: The ground, of which the clouds' random fields are.
        number: The site's number among those of its region.
        date: The date's number among those of its site.
        footprint: The pixels of the image.
    """
    name = f"image {number} {date}"
    rng = country.plane.rng(name)
    year = _FIRST_YEAR + int(country.plane.rng(f"place {number}").integers(2)) + date
    day = datetime(year, 6, 12, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 95)))
    hour = (10.5 - country.region.lon / 15 + rng.uniform(-0.7, 0.7)) % 24
    season = (day - day.replace(month=7, day=25)).days / 45
    cloudy, hazy = (rng.uniform(0.015, 0.045), rng.uniform(0.0, 0.05)) if (number + date) % 2 == 0 else (0.0, 0.0)
    step = max(1, footprint.height // 96)
    sample = Lattice(
        row=footprint.row, col=footprint.col, step=step,
        height=footprint.height // step, width=footprint.width // step,
    )  # fmt: skip
    cloud_from, veil_from = np.quantile(_clouds(country, name, sample), [1 - cloudy, 1 - cloudy - hazy])
    beyond = 0.0 if cloudy else 1e9  # a level that no field reaches
    return Sky(
        name=name,
        acquired=day + timedelta(seconds=int(3600 * hour), microseconds=int(rng.integers(1_000_000))),
        azimuth=float(np.radians(rng.uniform(145, 185))),
        elevation=float(np.radians(np.clip(42 - 5 * season**2 + rng.normal(0, 1), 24, 44))),
        gain=float(rng.uniform(0.9, 1.12)),
        blue_air=float(rng.uniform(0, 0.012)),
        green=float(np.exp(-0.28 * season**2)),
        snow=float(np.clip(-0.45 - season, 0, 0.5) * 2),
        veil_from=float(veil_from) - 1e-3 + beyond,
        cloud_from=float(cloud_from) + beyond,
        swath=float(rng.uniform(0.02, 0.1)) if (REGIONS.index(country.region) + number + date) % 3 == 2 else 0.0,
        tilt=float(np.radians(rng.uniform(3, 12) + rng.choice([0, 180]))),
    )


def _clouds(country: Country, name: str, lattice: Lattice) -> Field:
    """Return a random field (row, column) at a lattice, whose peaks are clouds."""
    puffs = country.plane.noise(f"clouds {name}", lattice, longest_m=420, shortest_m=20)
    fronts = country.plane.noise(f"fronts {name}", lattice, longest_m=6000, shortest_m=3000)
    field: Field = puffs + np.float32(0.6) * fronts
    return field


def _opacity(sky: Sky, level: Field) -> Field:
    """Return each pixel's opacity of haze and cloud, 0..0.95, from the clouds' field.

    A veil that thickens, then cloud.
    """
    veil = _VEIL * np.clip((level - sky.veil_from) / (sky.cloud_from - sky.veil_from), 0, 1)
    opacity: Field = np.clip(veil + 2.2 * np.maximum(level - sky.cloud_from, 0), 0, 0.95).astype(np.float32)
    return opacity


def _light(ground: Land, sky: Sky) -> Field:
    """Return each point's brightness from sun and slope; 1 on level ground and water.

    An array (row, column); the light of the sky damps that of the sun.
    """
    down, right = np.gradient(ground.height, PIXEL_M)
    east, north = np.float32(np.sin(sky.azimuth)), np.float32(np.cos(sky.azimuth))
    sun = np.float32(np.tan(np.pi / 2 - sky.elevation)) * (-right * east + down * north)
    facing = (1 + sun) / np.sqrt(1 + down**2 + right**2)
    light = 0.35 + 0.65 * np.clip(facing, 0.05, 2.2)
    on_land: Field = np.where(ground.shore_m > 0, light, 1).astype(np.float32)
    return on_land


def _snow(country: Country, ground: Land, sky: Sky) -> Field:
    """Return each point's share of snow that has not melted yet, 0..1; 0 on water.

    An array (row, column): drifts in hollows, gullies and under headwalls.
    """
    if sky.snow == 0:
        return np.zeros(ground.lattice.shape, np.float32)
    drift = country.plane.noise("drifts", ground.lattice, longest_m=160, shortest_m=15, roughness=1.5)
    level = 0.6 * drift - 0.35 * np.clip(ground.hollow_m, -4, 4) + 1.2 * ground.headwall
    share: Field = np.clip(3 * (level - (2.3 - 1.0 * sky.snow)), 0, 1) * (ground.shore_m > 0)
    return share


def photograph(
    country: Country, sky: Sky, lattice: Lattice
) -> tuple[Field, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return an image's reflectance, classes, and percent confidence in the classes.

    Three arrays at the pixels of a lattice of step 1: reflectance (band, row, column); the class (row, column), one of
    `CLEAR` .. `CLOUD`; its confidence (row, column).
    """
    padded = lattice.pad(_MARGIN_PX)
    ground = land(country, padded, year=sky.year)
    image = surface(country, ground, green=sky.green)
    snow = _snow(country, ground, sky)
    if snow.any():
        paint(image, snow, _SNOW)
    image *= _light(ground, sky)
    opacity, shade = _air(country, sky, padded)
    if opacity is not None and shade is not None:
        image *= 1 - 0.6 * shade
        paint(image, opacity, _CLOUD)
    view = (slice(_MARGIN_PX, -_MARGIN_PX),) * 2
    image = ndimage.gaussian_filter(image, (0, _BLUR_PX, _BLUR_PX))[(slice(None), *view)]
    image = image * np.float32(sky.gain)
    image += np.float32(sky.blue_air) * np.array([1, 0.6, 0.4, 0.15], np.float32)[:, None, None]
    for band in range(len(image)):
        deviation = 0.0012 + 0.012 * image[band]
        image[band] += country.plane.white(f"sensor {sky.name} {band}", lattice) * deviation
    whitened = ndimage.maximum_filter(snow, 3)  # by the blur
    classes, confidence = _classify(
        whitened[view], None if shade is None else shade[view], None if opacity is None else opacity[view]
    )
    return image, classes, confidence


def _air(country: Country, sky: Sky, lattice: Lattice) -> tuple[Field | None, Field | None]:
    """Return opacity of clouds and haze, and depth of cloud shadow; two None if clear.

    Both are arrays (row, column), 0..1.
    """
    if sky.cloud_from > 1e8:
        return None, None
    # A shadow is that of the cloud which the lattice would show, shifted towards the sun.
    distance_px = _CLOUD_BASE_M / np.tan(sky.elevation) / PIXEL_M * 0.5
    down, right = round(distance_px * np.cos(sky.azimuth)), round(-distance_px * np.sin(sky.azimuth))
    caster = Lattice(row=lattice.row - down, col=lattice.col - right, height=lattice.height, width=lattice.width)
    opacity = _opacity(sky, _clouds(country, sky.name, lattice))
    shade = np.clip((_opacity(sky, _clouds(country, sky.name, caster)) - _VEIL) / (1 - _VEIL), 0, 1)
    return opacity, shade


def _classify(
    snow: Field, shade: Field | None, opacity: Field | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return each pixel's class, and percent confidence, from snow, shadow and haze.

    The three come as shares and opacity, 0..1; without clouds the last two are None. Both results are arrays of bytes.
    """
    classes = np.full(snow.shape, CLEAR, np.uint8)
    confidence = np.full(snow.shape, 92, np.uint8)
    classes[snow > 0.1] = SNOW
    if shade is not None and opacity is not None:
        classes[shade > 0.06] = SHADOW
        for threshold, class_ in ((0.07, LIGHT_HAZE), (0.18, HEAVY_HAZE), (0.34, CLOUD)):
            classes[opacity > threshold] = class_
        hidden = (opacity > 0.07) | (shade > 0.06)
        confidence = np.where(hidden, 60 + 35 * np.maximum(opacity, shade), confidence).astype(np.uint8)
    return classes, confidence
