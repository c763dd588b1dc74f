"""Rows of a plan as JSON: their schema, and the way there and back."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Any

import numpy as np
import shapely
from pydantic import Field

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import PlannedDate, PlannedItem
from thawmap.acquire.offers import ClearSource, Offer
from thawmap.files.records import Record
from thawmap.geo.shapes import Shapes

FORMAT = 1
"""Version of the files of a plan."""

_SMALL_ITEM = 2000  # letters of the JSON of a catalogue that are kept of scenes that make no date

_Share = Annotated[float, Field(ge=0, le=1)]
_Km2 = Annotated[float, Field(ge=0)]
_Outline = dict[str, Any]


class AreaRow(Record):
    """An area in a plan's JSON."""

    name: str
    km2: _Km2
    notes: list[str]
    outline: _Outline


class DateRow(Record):
    """A date in a plan's JSON."""

    area: str
    name: str
    day: str
    acquired: str
    catalogue: str
    satellite: str
    cover: _Share
    clear: _Share | None
    clear_source: ClearSource
    km2: _Km2
    chosen: bool
    take: bool
    reason: str


class ItemRow(Record):
    """A scene in a plan's JSON."""

    area: str
    date: str
    id: str
    catalogue: str
    collection: str
    acquired: str
    take: bool
    chosen: bool
    reason: str
    cover: _Share
    clear: _Share | None
    clear_source: ClearSource
    km2: _Km2
    part: bool
    pass_id: str
    satellite: str
    ground_id: str
    processing: str
    updated: str | None
    is_standard: bool
    has_ground_control: bool
    is_owned: bool
    is_paid: bool
    is_clipped: bool
    fault: str
    outline: _Outline
    item: dict[str, Any]


class Counts(Record):
    """Rows that a plan had when it was written."""

    areas: int
    dates: int
    items: int


class PlanRecord(Record):
    """A plan's JSON."""

    format: int
    id: str
    quota_km2: _Km2 | None
    rules: dict[str, Any]
    settings: dict[str, Any]
    written: Counts
    areas: list[AreaRow]
    dates: list[DateRow]
    items: list[ItemRow]
    elevation: list[dict[str, Any]]
    trends: list[dict[str, Any]]


def area_rows(areas: Sequence[Area]) -> list[dict[str, Any]]:
    """Return areas as JSON rows."""
    outlines = _geojson(area.outline for area in areas)
    return [
        {"name": area.name, "km2": area.km2, "notes": list(area.notes), "outline": outline}
        for area, outline in zip(areas, outlines, strict=True)
    ]


def date_rows(dates: Sequence[PlannedDate], taken: Collection[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return dates as JSON rows; ``taken`` has area and name of those that are."""
    return [
        {
            "area": each.area,
            "name": each.name,
            "day": each.day.isoformat(),
            "acquired": each.acquired.isoformat(),
            "take": (each.area, each.name) in taken,
            "chosen": each.chosen,
            "reason": each.reason,
            "cover": each.cover,
            "clear": each.clear,
            "clear_source": each.clear_source,
            "km2": each.km2,
            "catalogue": each.catalogue,
            "satellite": each.satellite,
        }
        for each in dates
    ]


def item_rows(items: Sequence[PlannedItem]) -> list[dict[str, Any]]:
    """Return scenes as JSON rows.

    The JSON of a catalogue is kept of those that make a date, and where it is short; else it is empty.
    """
    outlines = _geojson(each.offer.outline for each in items)
    return [_item_row(each, outline) for each, outline in zip(items, outlines, strict=True)]


def _item_row(each: PlannedItem, outline: _Outline) -> dict[str, Any]:
    """Return one scene as a JSON row, what a person looks for first."""
    offer = each.offer
    item = dict(offer.item)
    return {
        "area": each.area,
        "date": each.date,
        "id": offer.id,
        "take": each.taken,
        "chosen": each.chosen,
        "reason": each.reason,
        "cover": each.cover,
        "clear": offer.clear,
        "clear_source": offer.clear_source,
        "km2": each.km2,
        "part": each.part,
        "catalogue": offer.catalogue,
        "collection": offer.collection,
        "acquired": offer.acquired.isoformat(),
        "pass_id": offer.pass_id,
        "satellite": offer.satellite,
        "ground_id": offer.ground_id,
        "processing": offer.processing,
        "updated": offer.updated.isoformat() if offer.updated else None,
        "is_standard": offer.is_standard,
        "has_ground_control": offer.has_ground_control,
        "is_owned": offer.is_owned,
        "is_paid": offer.is_paid,
        "is_clipped": offer.is_clipped,
        "fault": offer.fault,
        "outline": outline,
        "item": item if each.part or len(json.dumps(item)) <= _SMALL_ITEM else {},
    }


def areas_of(rows: Sequence[AreaRow]) -> tuple[Area, ...]:
    """Return the areas of JSON rows.

    Raises:
        ValueError: If an outline is none.
    """
    outlines = _shapes([row.outline for row in rows], [f"area {row.name!r}" for row in rows])
    return tuple(Area(row.name, outline, tuple(row.notes)) for row, outline in zip(rows, outlines, strict=True))


def dates_of(rows: Sequence[DateRow]) -> tuple[PlannedDate, ...]:
    """Return the dates of JSON rows.

    Raises:
        ValueError: If a time is none.
    """
    return tuple(
        PlannedDate(
            area=row.area,
            name=row.name,
            day=_time(row.day, f"date {row.name!r}").date(),
            acquired=_time(row.acquired, f"date {row.name!r}"),
            catalogue=row.catalogue,
            satellite=row.satellite,
            cover=row.cover,
            clear=row.clear,
            clear_source=row.clear_source,
            km2=row.km2,
            chosen=row.chosen,
            reason=row.reason,
        )
        for row in rows
    )


def items_of(rows: Sequence[ItemRow]) -> tuple[PlannedItem, ...]:
    """Return the scenes of JSON rows; they are taken as ``take`` says.

    Raises:
        ValueError: If an outline or a time is none.
    """
    outlines = _shapes([row.outline for row in rows], [f"item {row.id!r}" for row in rows])
    return tuple(
        PlannedItem(
            area=row.area,
            date=row.date,
            offer=_offer(row, outline),
            cover=row.cover,
            km2=row.km2,
            part=row.part,
            chosen=row.chosen,
            taken=row.take,
            reason=row.reason,
        )
        for row, outline in zip(rows, outlines, strict=True)
    )


def _offer(row: ItemRow, outline: Any) -> Offer:
    """Return the offer of a JSON row."""
    return Offer(
        id=row.id,
        catalogue=row.catalogue,
        collection=row.collection,
        acquired=_time(row.acquired, f"item {row.id!r}"),
        outline=outline,
        clear=row.clear,
        clear_source=row.clear_source,
        pass_id=row.pass_id,
        satellite=row.satellite,
        ground_id=row.ground_id,
        processing=row.processing,
        updated=None if row.updated is None else _time(row.updated, f"item {row.id!r}"),
        is_standard=row.is_standard,
        has_ground_control=row.has_ground_control,
        is_owned=row.is_owned,
        is_paid=row.is_paid,
        is_clipped=row.is_clipped,
        fault=row.fault,
        item=row.item,
    )


def _geojson(outlines: Iterable[Any]) -> list[_Outline]:
    """Return outlines as GeoJSON geometries."""
    return [json.loads(text) for text in shapely.to_geojson(np.array(list(outlines), object))]


def _shapes(outlines: Sequence[_Outline], names: Sequence[str]) -> Shapes:
    """Return GeoJSON geometries as polygons.

    Raises:
        ValueError: If one is no polygon; the message goes on after the file's name.
    """
    shapes = shapely.from_geojson([json.dumps(outline) for outline in outlines], on_invalid="ignore")
    polygonal = np.isin(shapely.get_type_id(shapes), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    if not polygonal.all():
        msg = f"has no polygon as the outline of the {names[int(np.argmin(polygonal))]}; plan again"
        raise ValueError(msg)
    return np.asarray(shapes, object)


def _time(text: str, what: str) -> datetime:
    """Return a day, or a time with its zone, from ISO 8601.

    Raises:
        ValueError: If it is none; the message goes on after the file's name.
    """
    try:
        time = datetime.fromisoformat(text)
        is_day = date.fromisoformat(text[:10]).isoformat() == text
    except ValueError:
        time, is_day = datetime(1, 1, 1), False  # noqa: DTZ001 - refused below, as it has no zone
    if time.tzinfo is None and not is_day:
        msg = f"has no time that can be read for the {what}: {text!r}; plan again"
        raise ValueError(msg)
    return time
