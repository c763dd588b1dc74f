"""Searching PlanetScope scenes of an area: what Planet has, as offers."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area, clip_outline
from thawmap.acquire.http import Http
from thawmap.acquire.offers import ClearSource, Offer
from thawmap.acquire.planet.service import ITEM_TYPE, Service, link, objects
from thawmap.config import PlanetImagery
from thawmap.data.sources.finding import parse_time
from thawmap.errors import ServiceError
from thawmap.geo.shapes import LONLAT, repair, to_lonlat
from thawmap.text import counted, printable

ASSETS: Mapping[str, tuple[str, ...]] = {
    "analytic_sr_udm2": ("ortho_analytic_4b_sr", "ortho_analytic_4b_xml", "ortho_udm2"),
    "analytic_8b_sr_udm2": ("ortho_analytic_8b_sr", "ortho_analytic_8b_xml", "ortho_udm2"),
    "analytic_udm2": ("ortho_analytic_4b", "ortho_analytic_4b_xml", "ortho_udm2"),
    "analytic_8b_udm2": ("ortho_analytic_8b", "ortho_analytic_8b_xml", "ortho_udm2"),
}
"""Files of a scene by bundle, as Planet's specification of 2024-08-12 has them; all must exist."""

_LOOSE_CLOUD = 0.5  # of a whole scene, which says little of an area inside it
_PAGE = 250


def find(
    http: Http, settings: PlanetImagery, area: Area, seasons: Sequence[tuple[date, date]], note: Callable[[str], None]
) -> list[Offer]:
    """Return the offers of PlanetScope scenes that show an area in given seasons.

    By time and id. Scenes that are cloudy as a whole (more than half, or what the rules allow) are not among them. Each
    condition is checked again here, and what is left out is counted in a sentence.

    Args:
        http: The way to the service.
        settings: What is wanted.
        area: The area.
        seasons: First and last day (UTC) of each season.
        note: Is told what was left out.

    Raises:
        ServiceError: If Planet refuses, cannot be reached, or answers with something else.
    """
    outline, _ = clip_outline(area)
    most_cloud = max(_LOOSE_CLOUD, settings.cloud)
    offers: dict[str, Offer] = {}
    left_out = Counter[str]()
    for item in _items(Service(http, settings.address), _filter(outline, seasons, most_cloud)):
        offer = _offer(item, settings)
        reason = offer if isinstance(offer, str) else _outside(offer, item, area, seasons, most_cloud)
        if reason or isinstance(offer, str):
            left_out[reason] += 1
        elif offer.id not in offers or _age(offers[offer.id]) <= _age(offer):
            offers[offer.id] = offer  # a page repeats what was published while it was read
    for reason, count in sorted(left_out.items()):
        note(f"{area.name}: {counted(count, 'scene')} left out that Planet found: {reason}")
    return sorted(offers.values(), key=lambda offer: (offer.acquired, offer.id))


def _filter(outline: BaseGeometry, seasons: Sequence[tuple[date, date]], most_cloud: float) -> dict[str, Any]:
    """Return a filter of the Data API: area, seasons and cloud."""
    days = [(first, last + timedelta(days=1)) for first, last in seasons]
    spans = [{"gte": f"{first}T00:00:00Z", "lt": f"{end}T00:00:00Z"} for first, end in days]
    times = [{"type": "DateRangeFilter", "field_name": "acquired", "config": span} for span in spans]
    config = [
        {"type": "GeometryFilter", "field_name": "geometry", "config": json.loads(shapely.to_geojson(outline))},
        {"type": "OrFilter", "config": times},
        {"type": "RangeFilter", "field_name": "cloud_cover", "config": {"lte": most_cloud}},
    ]
    return {"type": "AndFilter", "config": config}


def _items(service: Service, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of all pages of a search.

    Raises:
        ServiceError: If an answer is no page of items.
    """
    url = service.url(f"/data/v1/quick-search?_sort=acquired%20asc&_page_size={_PAGE}")
    body = {"item_types": [ITEM_TYPE], "filter": wanted}
    first = service.post(url, body, endpoint="planet-search", repeat=True).json()
    for page in service.pages(first, following=lambda page: link(page, "_next"), endpoint="planet-search"):
        if not isinstance(page, dict) or not isinstance(page.get("features"), list):
            msg = f"{service.address} answers a search with something else than scenes; check 'acquire.imagery.address'"
            raise ServiceError(msg)
        yield from objects(page, "features")


def _offer(item: Mapping[str, Any], settings: PlanetImagery) -> Offer | str:
    """Return an item as an offer; why it is none, where it lacks what each must have."""
    properties = item.get("properties")
    if not isinstance(item.get("id"), str) or not isinstance(properties, dict):
        return "no scene"
    acquired, outline = parse_time(str(properties.get("acquired"))), _outline(item.get("geometry"))
    if acquired is None or outline is None:
        return "no time" if acquired is None else "no footprint"
    clear, source = _clear(properties)
    offer = Offer(
        id=item["id"],
        catalogue="planet",
        collection=str(properties.get("item_type", "")),
        acquired=acquired,
        outline=outline,
        clear=clear,
        clear_source=source,
        pass_id=_text(properties.get("strip_id")),
        satellite=_text(properties.get("satellite_id")),
        processing=_text(properties.get("updated")),
        updated=parse_time(_text(properties.get("updated"))),
        is_standard=properties.get("quality_category") == "standard",
        has_ground_control=_is_true(properties.get("ground_control")),
        is_paid=True,
        is_clipped=settings.clip,
        item={"id": item["id"], "item_type": ITEM_TYPE, "updated": _text(properties.get("updated"))},
    )
    return replace(offer, fault=_fault(offer, item, settings))


def _fault(offer: Offer, item: Mapping[str, Any], settings: PlanetImagery) -> str:
    """Return why a scene cannot be taken; empty if it can."""
    wanted = ASSETS[settings.bundle]
    assets, permissions = item.get("assets"), item.get("_permissions")
    if isinstance(assets, list) and (absent := [name for name in wanted if name not in assets]):
        return f"has no {absent[0]} (yet)"
    if isinstance(permissions, list):
        allowed = {str(text).removeprefix("assets.").removesuffix(":download") for text in permissions}
        denied = [] if "assets:download" in permissions else [name for name in wanted if name not in allowed]
        if denied:
            return f"the account may not have {denied[0]}"
    if not (offer.is_standard or settings.test_quality):
        return "test quality"
    return "no ground control" if settings.ground_control and not offer.has_ground_control else ""


def _outside(
    offer: Offer, item: Mapping[str, Any], area: Area, seasons: Sequence[tuple[date, date]], most_cloud: float
) -> str:
    """Return the condition of a search that an offer fails; empty if it meets all."""
    if offer.collection != ITEM_TYPE:
        return f"of another type ({printable(offer.collection)})"
    day = offer.acquired.date()
    if not any(first <= day <= last for first, last in seasons):
        return "of another season"
    cloud = _number(item["properties"].get("cloud_cover"))
    if cloud is None or cloud > most_cloud:
        return "cloudy as a whole, or of unknown cloud"
    return "" if shapely.intersects(offer.outline, area.outline) else "of another place"


def _outline(geometry: Any) -> BaseGeometry | None:
    """Return a footprint as a valid shape, cut at the antimeridian; None for others."""
    try:
        polygon = shape(geometry)
        if shapely.get_dimensions(polygon) < 2 or shapely.is_empty(polygon):
            return None
        west, _, east, _ = shapely.bounds(polygon)
        if west >= -180 and east <= 180 and east - west < 180:  # as nearly all are, and quickly done
            repaired: BaseGeometry = repair(np.array([polygon], object))[0]
            return repaired
        return to_lonlat(polygon, LONLAT)
    except (ShapelyError, ValueError, TypeError, AttributeError, KeyError, IndexError):
        return None


def _clear(properties: Mapping[str, Any]) -> tuple[float | None, ClearSource]:
    """Return the clear fraction of a whole scene, and what it is from."""
    clear = _number(properties.get("clear_percent"))
    if clear is not None and 0 <= clear <= 100:
        return clear / 100, "clear_percent"
    cloud = _number(properties.get("cloud_cover"))
    return (1 - cloud, "cloud_cover") if cloud is not None and 0 <= cloud <= 1 else (None, "unknown")


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_true(value: Any) -> bool:
    """Return whether a value is true; Planet writes some as texts."""
    return value is True or str(value).lower() == "true"


def _age(offer: Offer) -> datetime:
    """Return when an offer was last changed, long ago where that is unknown."""
    return offer.updated or datetime.min.replace(tzinfo=UTC)
