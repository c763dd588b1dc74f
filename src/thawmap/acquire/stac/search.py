"""Searching a STAC catalogue: an API, a static catalogue, or files."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.http import Http
from thawmap.acquire.stac.documents import Document, absolute, items_below, read_document
from thawmap.acquire.stac.matching import Condition, Item, Matching, Period, as_cql2, as_query
from thawmap.acquire.stac.pages import Endpoint, all_items
from thawmap.errors import ServiceError

__all__ = ["Condition", "Item", "Period", "only_collection", "search"]

_MOST_BOXES = 20  # parts of an area that are searched as boxes of their own
_QUERY = "item-search#query"
_CQL2 = ("cql2/1.0/conf/cql2-json", "item-search#filter")


def search(
    http: Http,
    address: str,
    collections: Sequence[str],
    *,
    outline: BaseGeometry,
    periods: Sequence[Period] = (),
    conditions: Sequence[Condition] = (),
    note: Callable[[str], None],
) -> Iterator[Item]:
    """Yield the items of a STAC catalogue that match, each once, with absolute hrefs.

    What the catalogue gives is checked again on each item. Its pages are followed to their end: an empty one is none,
    a repeated one changes nothing, a circle is left. Where fewer items come than it says, or than another order of
    pages brings, it is asked again.

    Args:
        http: Sends the requests.
        address: Address of an API; path or address of a static catalogue's catalog.json, of a collection, or of items.
        collections: Ids of the collections to search; empty: all.
        outline: Ground in EPSG:4326, cut at the antimeridian, that an item must touch.
        periods: Times of which an item must lie in one; empty: any time.
        conditions: Conditions on its properties; an item that lacks one does not meet it.
        note: Is told what the catalogue did wrong.

    Raises:
        ServiceError: If the catalogue cannot be searched to its end.
        DataError: If a file of it cannot be read.
    """
    matching = Matching(collections=collections, outline=outline, periods=periods, conditions=conditions)
    root = read_document(http, address)
    endpoint = _endpoint(root)
    found = items_below(http, root) if endpoint is None else _items_of_api(http, endpoint, root, matching, note)
    seen = set[tuple[str, str]]()
    for item in found:
        key = (str(item.get("collection")), str(item.get("id")))
        if key not in seen and matching.keeps(item):
            seen.add(key)
            yield item
    sentence = matching.sentence(root.name)
    if sentence is not None:
        note(sentence)


def only_collection(http: Http, address: str) -> str | None:
    """Return the id of a catalogue's only collection; None if it tells of none.

    Raises:
        ServiceError: If it has several.
    """
    root = read_document(http, address)
    data = next((link for link in root.links if link.get("rel") == "data"), None)
    if data is None:
        return None
    listed = read_document(http, root.resolve(data)).content.get("collections")
    ids = (
        sorted({str(entry.get("id")) for entry in listed if isinstance(entry, dict)})
        if isinstance(listed, list)
        else []
    )
    if len(ids) > 1:
        msg = f"{root.name} has {len(ids)} collections ({', '.join(ids[:5])} ...); name one as 'collection'"
        raise ServiceError(msg)
    return ids[0] if ids else None


def _endpoint(root: Document) -> Endpoint | None:
    """Return where to search from an API's landing page; None for other documents."""
    links = [link for link in root.links if link.get("rel") == "search"]
    if links:
        post = next((link for link in links if str(link.get("method", "")).upper() == "POST"), None)
        return Endpoint(name=root.name, url=root.resolve(post or links[0]), is_post=post is not None)
    items = next((link for link in root.links if link.get("rel") == "items"), None)
    return None if items is None else Endpoint(name=root.name, url=root.resolve(items), is_post=False)


def _items_of_api(
    http: Http, endpoint: Endpoint, root: Document, matching: Matching, note: Callable[[str], None]
) -> Iterator[Item]:
    """Yield the items that an API has in each half of the Earth and each period."""
    asked = _asked(root, matching.conditions) if endpoint.is_post else {}
    periods: list[Period | None] = list(matching.periods) or [None]
    for boxes in _halves(matching.outline):
        for period in periods:
            body: dict[str, Any] = {"intersects": shapely.geometry.mapping(boxes)}
            if not endpoint.is_post:
                body = {"bbox": list(boxes.bounds)}
            if matching.collections:
                body["collections"] = list(matching.collections)
            if period is not None:
                body["datetime"] = "/".join(map(_written, period))
            for item, address in all_items(http, endpoint, {**body, **asked}, note):
                yield absolute(item, address)


def _asked(root: Document, conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return the members of a search's body for conditions, in a form that an API knows."""
    classes = root.content.get("conformsTo")
    known = [str(name) for name in classes] if isinstance(classes, list) else []
    if not conditions:
        return {}
    if any(form in name for name in known for form in _CQL2):
        return {"filter": as_cql2(conditions), "filter-lang": "cql2-json"}
    return {"query": as_query(conditions)} if any(_QUERY in name for name in known) else {}


def _halves(outline: BaseGeometry) -> list[BaseGeometry]:
    """Return boxes around an outline's parts, by sides of the antimeridian it crosses.

    One shape for each side: the union of the boxes, or the box of all where there are many.
    """
    west, _, east, _ = outline.bounds
    parts = shapely.get_parts(outline)
    if east - west <= 180:
        sides = [parts]
    else:
        is_east = shapely.bounds(parts)[:, 0] >= 0
        sides = [parts[is_east], parts[~is_east]]
    return [_around(list(side)) for side in sides if len(side)]


def _around(parts: list[BaseGeometry]) -> BaseGeometry:
    """Return the union of the boxes around some shapes; of many, their one box."""
    if len(parts) > _MOST_BOXES:
        return shapely.box(*shapely.total_bounds(parts))
    return shapely.union_all([shapely.box(*part.bounds) for part in parts])


def _written(time: datetime) -> str:
    """Return a UTC time as text, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
