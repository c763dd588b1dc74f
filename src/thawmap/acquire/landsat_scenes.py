"""Landsat scenes of Collection 2 that trends are computed from, as rows of a plan."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http, without_query
from thawmap.acquire.stac.matching import properties_of, times_of
from thawmap.acquire.stac.search import Condition, Item, Period, search
from thawmap.acquire.trends import BANDS
from thawmap.config.acquire import LandsatTrends
from thawmap.errors import ConfigError
from thawmap.files.records import Record, checked
from thawmap.text import counted

ASSETS = (*BANDS, "qa_pixel", "qa_radsat")
"""Files of a scene that are read."""

_ID = re.compile(
    r"L(?P<kind>[TEOC])0(?P<satellite>\d)_(?P<level>L\d\w\w)_(?P<place>\d{6})_(?P<date>\d{8})_"
    r"(?:(?P<made>\d{8})_)?(?P<collection>\d\d)_(?P<tier>T1|T2|RT)(?:_(?P<part>SR|ST))?"
)
_SENSORS = {"T": "tm", "E": "etm", "O": "oli", "C": "oli"}
_SATELLITES = {"T": "5", "E": "7", "O": "89", "C": "89"}
_SCALE, _OFFSET = 2.75e-5, -0.2  # of Collection 2
_ONE_PASS = timedelta(minutes=5)  # within which a satellite's scenes of one path are of one pass


class SceneRow(Record):
    """A scene of a plan, for one area."""

    area: str
    id: str
    sensor: Literal["tm", "etm", "oli"]
    satellite: str
    path: str
    acquired: str
    address: str
    assets: dict[str, str]

    @property
    def time(self) -> datetime:
        """UTC time of the image."""
        return datetime.fromisoformat(self.acquired)

    @property
    def day(self) -> str:
        """Satellite and path: equal for scenes of one pass, at about one time."""
        return f"{self.satellite}/{self.path}"


def find(http: Http, settings: LandsatTrends, area: Area, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return rows, JSON values, of the scenes that the trends of an area are computed from.

    Surface reflectance of Tier 1 from TM 5, ETM+ 7, OLI 8 and 9, with or without temperature; a scene that stands in
    the catalogue several times, as several items or processings, once. In order of time.

    Args:
        http: Sends the requests.
        settings: Years, months, cloud, and the catalogue.
        area: The area.
        note: Is told what was left out and why.

    Raises:
        ServiceError: If the catalogue cannot be searched to its end.
    """
    found = search(
        http,
        settings.address,
        [settings.collection],
        outline=area.outline,
        periods=_periods(settings),
        conditions=[Condition(property="eo:cloud_cover", op="<=", value=100 * settings.cloud)],
        note=note,
    )
    scenes: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {}
    left_out: Counter[str] = Counter()
    for item in found:
        fault = _fault(item)
        if fault is not None:
            left_out[fault] += 1
            continue
        key, rank, row = _row(item, settings, area)
        if key in scenes:
            left_out["that are another processing of the same scene"] += 1
        if key not in scenes or rank > scenes[key][0]:
            scenes[key] = (rank, row)
    if left_out:
        reasons = "; ".join(f"{counted(number, 'item')} {reason}" for reason, number in sorted(left_out.items()))
        note(f"{area.name}: of Landsat left out: {reasons}")
    rows = sorted((row for _, row in scenes.values()), key=lambda row: (row["acquired"], row["id"]))
    if not rows:
        note(f"{area.name}: {settings.address} has no Landsat scene of these years and months; it gets no trends")
    return rows


def rows_of(rows: Sequence[Mapping[str, Any]], area: Area) -> list[SceneRow]:
    """Return the rows of a plan that are of an area, checked, in order of time.

    Raises:
        ConfigError: If a person made one of them into nonsense.
    """
    try:
        scenes = [checked(dict(row), SceneRow) for row in rows if row.get("area") == area.name]
        absent = next((scene for scene in scenes if not set(ASSETS) <= scene.assets.keys()), None)
        if absent is not None:
            msg = f"has no address of all of {', '.join(ASSETS)} for {absent.id!r}"
            raise ValueError(msg)  # noqa: TRY301 - said as any other fault of a row
        return sorted(scenes, key=lambda scene: (scene.time, scene.id))
    except ValueError as error:
        msg = f"a row of 'trends' in the plan {error}; undo what was edited, or plan again"
        raise ConfigError(msg) from error


def passes(scenes: Sequence[SceneRow]) -> list[tuple[SceneRow, ...]]:
    """Return scenes grouped by pass of a satellite, in order of time.

    Neighbours along a path overlap, and show the same pixels at the same moment.
    """
    groups: list[list[SceneRow]] = []
    latest: dict[str, list[SceneRow]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.time, scene.id)):
        group = latest.get(scene.day)
        if group is None or scene.time - group[-1].time > _ONE_PASS:
            group = latest[scene.day] = []
            groups.append(group)
        group.append(scene)
    return [tuple(group) for group in groups]


def _periods(settings: LandsatTrends) -> list[Period]:
    """Return the runs of months of each year, first and last moment."""
    months = sorted(set(settings.months))
    runs: list[list[int]] = []
    for month in months:
        if runs and month == runs[-1][-1] + 1:
            runs[-1].append(month)
        else:
            runs.append([month])
    return [
        (datetime(year, run[0], 1, tzinfo=UTC), _end(year, run[-1]))
        for year in range(settings.years[0], settings.years[1] + 1)
        for run in runs
    ]


def _end(year: int, month: int) -> datetime:
    """Return the last second of a month."""
    following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return following - timedelta(seconds=1)


def _fault(item: Item) -> str | None:
    """Return the reason why trends are not computed from an item; None if they are."""
    match = _ID.fullmatch(item["id"])
    if match is None:
        return "that are no Level-2 product by their id"
    has_files = set(ASSETS) <= _hrefs(item).keys()
    faults = {
        "that are no Level-2 product by their id": not match["level"].startswith("L2"),
        "of another collection than 2": match["collection"] != "02",
        "that are not Tier 1": match["tier"] != "T1",
        "of another satellite than Landsat 5, 7, 8 and 9": match["satellite"] not in _SATELLITES[match["kind"]],
        "without reflectance and its masks": not has_files,
        "without a time": times_of(item) is None,
        f"whose numbers are not (reflectance {-_OFFSET:+g}) / {_SCALE:g}": has_files
        and any(scaling != (_SCALE, _OFFSET) for scaling in _scalings(item)),
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)


def _row(item: Item, settings: LandsatTrends, area: Area) -> tuple[str, tuple[str, str], dict[str, Any]]:
    """Return what an item shows, the rank of its processing, and its row."""
    match = _ID.fullmatch(item["id"])
    times = times_of(item)
    assert match is not None
    assert times is not None
    hrefs = _hrefs(item)
    row = {
        "area": area.name,
        "id": item["id"],
        "sensor": _SENSORS[match["kind"]],
        "satellite": f"landsat-{match['satellite']}",
        "path": match["place"][:3],
        "acquired": times[0].isoformat(),
        "cloud": properties_of(item).get("eo:cloud_cover"),
        "address": settings.address,
        "assets": {name: without_query(hrefs[name]) for name in ASSETS},
    }
    key = f"{match['satellite']}/{match['place']}/{match['date']}"
    return key, (match["made"] or str(properties_of(item).get("created", "")), item["id"]), row


def _hrefs(item: Item) -> dict[str, str]:
    """Return an item's hrefs by name of the asset."""
    assets = item.get("assets")
    if not isinstance(assets, dict):
        return {}
    return {
        name: asset["href"]
        for name, asset in assets.items()
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and asset["href"]
    }


def _scalings(item: Item) -> Iterator[tuple[float, float]]:
    """Yield scale and offset of the bands for which an item says them."""
    for name in BANDS:
        bands = item["assets"][name].get("raster:bands")
        if isinstance(bands, list) and bands and isinstance(bands[0], dict) and "scale" in bands[0]:
            yield bands[0]["scale"], bands[0].get("offset", 0.0)
