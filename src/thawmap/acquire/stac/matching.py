"""Conditions on STAC items: sent to catalogues, and checked again on what they answer."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.geo.shapes import LONLAT, to_lonlat
from thawmap.text import counted

Item = dict[str, Any]
"""A STAC item, as JSON values."""
Period = tuple[datetime, datetime]
"""First and last UTC time, both included."""

_IN_QUERY = {"<=": "lte", ">=": "gte", "=": "eq", "in": "in"}
_WIDEST = 180.0  # degrees; what is wider crosses the antimeridian, and is drawn the wrong way round


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition on one property of an item; one that lacks it does not meet it.

    Attributes:
        property: Name of the property, such as eo:cloud_cover.
        op: The comparison.
        value: A number or text; for ``in`` a tuple of them.
    """

    property: str
    op: Literal["<=", ">=", "=", "in"]
    value: Any

    def is_met(self, item: Mapping[str, Any]) -> bool:
        """Return whether an item meets it."""
        stored = properties_of(item).get(self.property)
        if self.op in ("<=", ">="):
            if isinstance(stored, bool) or not isinstance(stored, int | float):
                return False
            return bool(stored <= self.value if self.op == "<=" else stored >= self.value)
        return stored == self.value if self.op == "=" else stored in self.value

    def __str__(self) -> str:
        """Return it for messages."""
        value = ", ".join(map(str, self.value)) if self.op == "in" else self.value
        return f"{self.property} {self.op} {value}"


def as_cql2(conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return conditions as a filter in the JSON form of CQL2."""
    tests = [
        {"op": condition.op, "args": [{"property": condition.property}, _json_value(condition)]}
        for condition in conditions
    ]
    return tests[0] if len(tests) == 1 else {"op": "and", "args": tests}


def as_query(conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return conditions in the form of STAC's query extension."""
    query: dict[str, Any] = {}
    for condition in conditions:
        query.setdefault(condition.property, {})[_IN_QUERY[condition.op]] = _json_value(condition)
    return query


def _json_value(condition: Condition) -> Any:
    """Return what a condition compares with, as a JSON value."""
    return list(condition.value) if condition.op == "in" else condition.value


@dataclass(slots=True, kw_only=True)
class Matching:
    """What is searched; counts the items of a catalogue that do not match.

    Attributes:
        collections: Ids of collections; empty: any.
        outline: Ground in EPSG:4326 that an item must touch.
        periods: Times of which an item must lie in one; empty: any time.
        conditions: Conditions on its properties.
        misses: Reason to number of items that were left out.
    """

    collections: Sequence[str]
    outline: BaseGeometry
    periods: Sequence[Period]
    conditions: Sequence[Condition]
    misses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Make the outline quick to compare."""
        shapely.prepare(self.outline)

    def keeps(self, item: Item) -> bool:
        """Return whether an item matches, and count it if not."""
        fault = self._fault(item)
        if fault is not None:
            self.misses[fault] += 1
        return fault is None

    def sentence(self, name: str) -> str | None:
        """Return a sentence on what a catalogue let through; None if nothing."""
        if not self.misses:
            return None
        reasons = "; ".join(f"{counted(number, 'item')} {reason}" for reason, number in sorted(self.misses.items()))
        return f"{name} gave items that were not asked for, which are left out: {reasons}"

    def _fault(self, item: Item) -> str | None:
        """Return the reason why an item does not match; None if it does."""
        if not is_usable(item):
            return "without id or place"
        if self.collections and item.get("collection") not in self.collections:
            return "of another collection"
        if self.periods and not any(_overlaps(item, period) for period in self.periods):
            return "of another time"
        unmet = next((condition for condition in self.conditions if not condition.is_met(item)), None)
        if unmet is not None:
            return f"that do not meet {unmet}"
        return None if self.outline.intersects(footprint(item)) else "beside the area"


def properties_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties of an item; empty where it has none."""
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}


def is_usable(item: object) -> bool:
    """Return whether JSON values are an item with an id and a place."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and bool(item["id"])
        and (isinstance(item.get("geometry"), dict) or isinstance(item.get("bbox"), list))
        and not footprint(item).is_empty
    )


def footprint(item: Mapping[str, Any]) -> BaseGeometry:
    """Return an item's outline in EPSG:4326, valid, cut at the antimeridian.

    By its geometry, else its box; empty where it has neither, or they cannot be read.
    """
    outline = _polygon(item.get("geometry"))
    if outline.is_empty:
        outline = _box(item.get("bbox"))
    west, south, east, north = outline.bounds if not outline.is_empty else (0, 0, 0, 0)
    if east - west > _WIDEST or not -180 <= west <= east <= 180 or not -90 <= south <= north <= 90:
        return to_lonlat(outline, LONLAT)
    return outline if outline.is_valid else shapely.make_valid(outline)


def _polygon(geometry: object) -> BaseGeometry:
    """Return a GeoJSON geometry as a shape in two dimensions; empty for what is none."""
    if not isinstance(geometry, dict):
        return shapely.Polygon()
    shape = shapely.from_geojson(json.dumps(geometry), on_invalid="ignore")
    if shape is None or shape.is_empty or not shapely.is_valid_input(shape):
        return shapely.Polygon()
    return shapely.force_2d(shape)


def _box(bbox: object) -> BaseGeometry:
    """Return a STAC box of 4 or 6 numbers as a shape; empty for what is none."""
    if not isinstance(bbox, list) or len(bbox) not in (4, 6) or not all(isinstance(side, int | float) for side in bbox):
        return shapely.Polygon()
    half = len(bbox) // 2
    west, south, east, north = bbox[0], bbox[1], bbox[half], bbox[half + 1]
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union_all([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def times_of(item: Mapping[str, Any]) -> Period | None:
    """Return first and last UTC time of an item, mostly the same; None if unknown."""
    properties = properties_of(item)
    time = parse_time(properties.get("datetime"))
    if time is not None:
        return time, time
    first, last = (parse_time(properties.get(key)) for key in ("start_datetime", "end_datetime"))
    return (first, last) if first is not None and last is not None else None


def parse_time(text: object) -> datetime | None:
    """Return a time in ISO 8601, whatever its decimals, in UTC; None for other texts."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _overlaps(item: Item, period: Period) -> bool:
    """Return whether an item was taken in a period; False for an unknown time."""
    times = times_of(item)
    return times is not None and times[0] <= period[1] and period[0] <= times[1]
