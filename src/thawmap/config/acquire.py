"""Settings of acquisition: the area and season, and what is fetched for them."""

import calendar
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from thawmap.config.inputs import Metres, Positive, Probability, RelativePath, Settings

Year = Annotated[int, Field(ge=1972, le=2100)]
"""A year of satellite images; the first Landsat flew in 1972."""
SquareKilometres = Annotated[float, Field(ge=0, le=1e9)]

_DAY = re.compile(r"(\d{2})-(\d{2})")


class ImageRules(Settings):
    """Rules by which scenes are chosen for an area; the defaults are the paper's."""

    cloud: Probability = 0.1
    """Largest cloudy share of what a date shows of the area."""
    cover: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Smallest share of the area that the scenes of a date show together."""
    date: Literal["pass", "day"] = "pass"
    """Scenes that make a date: those of one pass of a satellite, or all of a day (local solar time)."""
    min_gap_days: Annotated[int, Field(ge=0, le=366)] = 5
    """Smallest number of days between two dates of a season; 0: all dates."""
    max_dates: Positive | None = None
    """Most dates of an area in a season; unset: all that the other rules leave."""
    per_month: Positive | None = None
    """Most dates of an area in a calendar month; unset: no limit."""
    min_share: Probability = 0.01
    """Scenes that show less of the area are left out, as are those that add less to a date."""


class PlanetImagery(ImageRules):
    """PlanetScope scenes, ordered from Planet with the user's own account and quota."""

    provider: Literal["planet"]
    """Who has the scenes: planet, or stac for any STAC catalogue."""
    bundle: Literal["analytic_sr_udm2", "analytic_8b_sr_udm2", "analytic_udm2", "analytic_8b_udm2"] = "analytic_sr_udm2"
    """Files of a scene: surface reflectance in four bands (the paper's) or eight; those without sr are radiance."""
    harmonise: bool = False
    """Whether Planet changes the numbers to look like Sentinel-2's; the paper's models have seen them unchanged."""
    clip: bool = True
    """Whether Planet cuts scenes to the area, and charges only that."""
    quota_km2: SquareKilometres | None = None
    """Most square kilometres to ask for, all sites together; unset: what the account has left."""
    minimum_km2: SquareKilometres = 0.0
    """Least that the contract charges for a clipped scene."""
    test_quality: bool = False
    """Whether scenes that Planet calls test quality are taken too."""
    ground_control: bool = True
    """Whether only scenes are taken that Planet has fitted to points on the ground."""
    look_inside: bool = True
    """Whether Planet is asked how much of the area is clear in a scene, where that could change the choice."""
    order_size: Annotated[int, Field(ge=1, le=500)] = 100
    """Most scenes in one order."""
    address: str = "https://api.planet.com"
    """Address of the service."""


class CatalogueSettings(Settings):
    """A STAC catalogue of Sentinel-2 Level-2A scenes."""

    address: str
    """Address of a STAC API, or path or address of a static catalogue's catalog.json, collection.json or item."""
    collection: str | None = None
    """Collection to search; unset: the only one."""
    name: str | None = None
    """Name of the catalogue in plans and messages; unset: its host."""


CatalogueName = Literal["earth-search", "planetary-computer", "cdse"]
Sentinel2Band = Literal[
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22", "scl"
]


class StacImagery(ImageRules):
    """Sentinel-2 Level-2A scenes from STAC catalogues, cut out of cloud-optimised files."""

    provider: Literal["stac"]
    """Who has the scenes: planet, or stac for any STAC catalogue."""
    catalogues: Annotated[tuple[CatalogueName | CatalogueSettings, ...], Field(min_length=1)] = (
        "earth-search",
        "planetary-computer",
    )
    """Where to look, in order; the next one only for dates that the ones before lack. A known name, or an address."""
    look_inside: bool = True
    """Whether the scene classification inside the area is read, where that could change the choice."""
    bands: tuple[Sentinel2Band, ...] = ("blue", "green", "red", "nir", "scl")
    """Files of a scene to cut out."""


ImagerySettings = Annotated[PlanetImagery | StacImagery, Field(discriminator="provider")]
"""The images to acquire, by who has them."""


class ElevationRequest(Settings):
    """Elevation of the area: ArcticDEM mosaic tiles, found in a STAC catalogue or given."""

    resolution_m: Literal[2, 10, 32] = 2
    """Pixels of the mosaic: 2, 10 or 32 m."""
    version: Literal["v4.1", "v3.0"] = "v4.1"
    """Version of the mosaic; heights and gaps of versions differ, so a model wants the one it was trained with."""
    margin_m: Metres = 200.0
    """Ground beyond the area that is fetched too, for the window of relative elevation."""
    tiles: RelativePath | None = None
    """Tiles that are there already: a folder, a pattern, or a text file with an address or path on each line; unset:
    they are searched in the catalogue."""
    address: str = "https://stac.pgc.umn.edu/api/v1/"
    """Address of the STAC API with the collections arcticdem-mosaics-..."""


class LandsatTrends(Settings):
    """Landsat trends of the tasselled-cap indices, computed from scenes of Collection 2."""

    kind: Literal["landsat"] = "landsat"
    """Where trends come from: landsat (computed here), or earthengine (the published images)."""
    years: tuple[Year, Year] = (2000, 2019)
    """First and last year."""
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = (7, 8)
    """Calendar months whose scenes count."""
    cloud: Probability = 0.7
    """Largest cloudy share of a scene, as its catalogue says."""
    method: Literal["least-squares", "theil-sen"] = "least-squares"
    """How a slope is fitted: least squares as in the paper's data, in one pass; Theil-Sen holds all dates in memory."""
    harmonise: Literal["roy2016", "none"] = "roy2016"
    """How OLI's reflectance is made comparable to that of ETM+ before indices are computed."""
    dilated_cloud: bool = True
    """Whether pixels that only the dilation of a cloud covers are left out."""
    min_observations: Annotated[int, Field(ge=2, le=10_000)] = 5
    """Pixels with fewer clear dates have no trend."""
    min_span_years: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Pixels whose clear dates span less have no trend."""
    address: str = "https://planetarycomputer.microsoft.com/api/stac/v1"
    """STAC API, or static catalogue, of Landsat Collection 2 Level 2."""
    collection: str = "landsat-c2-l2"
    """Collection to search."""

    @model_validator(mode="after")
    def _check_years(self) -> Self:
        """Refuse years in the wrong order."""
        if self.years[0] > self.years[1]:
            msg = f"years are {self.years[0]} to {self.years[1]}; the first must not be after the last"
            raise ValueError(msg)
        return self


class EarthEngineTrends(Settings):
    """The published images of Landsat trends (TCVIS), from Earth Engine."""

    kind: Literal["earthengine"]
    """Where trends come from: landsat (computed here), or earthengine (the published images)."""
    asset: str = "users/ingmarnitze/TCtrend_SR_2000-2019_TCVIS"
    """Image or collection of images with three bands of bytes: brightness, greenness, wetness."""
    project: str
    """Google Cloud project that is registered for Earth Engine."""


TrendRequest = Annotated[LandsatTrends | EarthEngineTrends, Field(discriminator="kind")]


def _with_kind(raw: Any) -> Any:
    """Return raw settings of trends with their default kind."""
    return {"kind": "landsat", **raw} if isinstance(raw, dict) else raw


class AcquireSettings(Settings):
    """Acquisition: from an area and a season to data on disk."""

    folder: RelativePath = Path("data")
    """Folder that everything is fetched into; --out of the command line goes before it."""
    area: RelativePath | tuple[float, float, float, float]
    """Vector file of the area in any CRS, or west, south, east, north in degrees; west is larger across 180 degrees."""
    site: str | None = None
    """Column that names the site, or region, of each polygon; polygons of one name are one site; unset: all are one
    site, named as the file."""
    years: Annotated[tuple[Year, ...], Field(min_length=1)]
    """Years in which images were taken."""
    season: tuple[str, str] = ("06-01", "09-30")
    """First and last day of each year, as month and day."""
    imagery: ImagerySettings | None = None
    """Images; unset: none are fetched."""
    elevation: ElevationRequest | None = None
    """Elevation; unset: none is fetched."""
    trends: TrendRequest | None = None
    """Landsat trends; unset: none are fetched."""
    patience_minutes: Annotated[float, Field(ge=0, le=1e5)] = 1440.0
    """How long to wait for a service that is busy, or for orders to be ready; then the rest is left for a rerun."""
    connections: Annotated[int, Field(ge=1, le=32)] = 8
    """Files that are fetched side by side."""

    @model_validator(mode="before")
    @classmethod
    def _fill_kind(cls, raw: Any) -> Any:
        """Return raw settings in which trends have a kind."""
        return {**raw, "trends": _with_kind(raw["trends"])} if isinstance(raw, dict) and "trends" in raw else raw

    @model_validator(mode="after")
    def _check_area_and_season(self) -> Self:
        """Refuse a box or a season that is none, and settings that fetch nothing."""
        if isinstance(self.area, tuple):
            west, south, east, north = self.area
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                msg = "area is no box; give west, south, east, north in degrees, such as [-138.9, 69.5, -138.6, 69.6]"
                raise ValueError(msg)
        first, last = (_day_of_year(text) for text in self.season)
        if first > last:
            msg = f"season ends ({self.season[1]}) before it begins ({self.season[0]}); give its first and last day"
            raise ValueError(msg)
        if self.imagery is None and self.elevation is None and self.trends is None:
            msg = "nothing is asked for; give 'imagery', 'elevation' or 'trends'"
            raise ValueError(msg)
        return self

    def seasons(self) -> tuple[tuple[date, date], ...]:
        """Return first and last day of the season of each year, in order."""
        return tuple(
            (_date(year, *_day_of_year(self.season[0])), _date(year, *_day_of_year(self.season[1])))
            for year in sorted(set(self.years))
        )


def _day_of_year(text: str) -> tuple[int, int]:
    """Return month and day of a text such as 06-01.

    Raises:
        ValueError: If it is no day of a leap year.
    """
    match = _DAY.fullmatch(text)
    month, day = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(2000, month)[1]):
        msg = f"{text!r} is no day of a year; write month and day, such as '06-01'"
        raise ValueError(msg)
    return month, day


def _date(year: int, month: int, day: int) -> date:
    """Return a date; the last day of February for its 29th in other years."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def fill_inputs(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a raw configuration with the inputs that its acquisition brings.

    Only where it has no ``scenes``, or no ``sources``, of its own: what is acquired is read from where it was put.
    """
    acquire = raw.get("acquire")
    if not isinstance(acquire, dict):
        return raw
    implied = implied_inputs(acquire, str(acquire.get("folder", "data")))
    return {**{key: value for key, value in implied.items() if value}, **raw}


def implied_inputs(acquire: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the keys scenes and sources that read what an acquisition put into a folder.

    Args:
        acquire: The raw section.
        folder: Where it is put.
    """
    imagery = acquire.get("imagery")
    inputs: dict[str, Any] = {}
    if isinstance(imagery, dict):
        kind = "planetscope" if imagery.get("provider") == "planet" else "sentinel2"
        inputs["scenes"] = {"kind": kind, "path": f"{folder}/scenes", "region": "{folder}"}
        if kind == "planetscope" and "sr" not in str(imagery.get("bundle", "sr")):
            inputs["scenes"]["top_of_atmosphere"] = True
    sources = {name: {"path": f"{folder}/{name}"} for name in ("elevation", "trends") if acquire.get(name) is not None}
    return {**inputs, "sources": sources}
