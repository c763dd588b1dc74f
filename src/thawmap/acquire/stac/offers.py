"""Sentinel-2 scenes that catalogues offer for an area."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path

import shapely

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.offers import Offer
from thawmap.acquire.stac.conventions import (
    KNOWN,
    Catalogue,
    asset_of,
    catalogue_of,
    identity_of,
    level_of,
    without_signatures,
)
from thawmap.acquire.stac.matching import Condition, Item, footprint, parse_time, properties_of, times_of
from thawmap.acquire.stac.search import only_collection, search
from thawmap.config.acquire import StacImagery
from thawmap.data.sources.finding import usable_id
from thawmap.data.sources.metadata import as_share, sentinel_item

_LOOSE_CLOUD = 0.8
"""Cloudy share of a whole tile of 110 km beyond which nobody asks for it, whatever its part over the area."""
_SAME_GROUND = 0.5  # of the smaller of two footprints: those that share less are two parts of one tile
_BASELINE = re.compile(r"_N\d{4}(?=_|\.|$)")


def find(
    http: Http,
    settings: StacImagery,
    area: Area,
    seasons: Sequence[tuple[date, date]],
    note: Callable[[str], None],
    *,
    known: Mapping[str, Catalogue] = KNOWN,
) -> list[Offer]:
    """Return what the catalogues offer for an area, in the settings' order of them.

    A scene that several catalogues have is there several times, with one ``ground_id``. Scenes that cannot be read
    have a fault.

    Args:
        http: Sends the requests.
        settings: Which catalogues, bands and clouds.
        area: The area.
        seasons: First and last day of each season.
        note: Is told what a catalogue did wrong.
        known: The catalogues that have a name in the settings.

    Raises:
        ServiceError: If a catalogue cannot be searched to its end.
        DataError: If a file of a static catalogue cannot be read.
    """
    offers: list[Offer] = []
    for setting in settings.catalogues:
        catalogue = catalogue_of(setting, known)
        items = _items(http, catalogue, settings, area, seasons, note)
        own = [_offer(item, catalogue, settings) for item in items]
        offers += sorted(_told_apart(own), key=lambda offer: (offer.acquired, offer.id))
    return offers


def _items(
    http: Http,
    catalogue: Catalogue,
    settings: StacImagery,
    area: Area,
    seasons: Sequence[tuple[date, date]],
    note: Callable[[str], None],
) -> Iterator[Item]:
    """Yield the items that a catalogue has for an area."""
    collection = catalogue.collection or only_collection(http, catalogue.address)
    cloud = 100 * max(_LOOSE_CLOUD, settings.cloud)
    return search(
        http,
        catalogue.address,
        [] if collection is None else [collection],
        outline=area.outline,
        periods=[_period(first, last) for first, last in seasons],
        conditions=[Condition(property="eo:cloud_cover", op="<=", value=cloud)] if catalogue.tells_cloud else [],
        note=note,
    )


def _period(first: date, last: date) -> tuple[datetime, datetime]:
    """Return first and last UTC time of some days."""
    return datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)


def _offer(item: Item, catalogue: Catalogue, settings: StacImagery) -> Offer:
    """Return an item of a catalogue as an offer."""
    properties, identity, times = properties_of(item), identity_of(item), times_of(item)
    assert times is not None  # an item without time is in no season
    cloud = as_share(properties.get("eo:cloud_cover"), percent=True)
    return Offer(
        id=item["id"],
        catalogue=catalogue.name,
        collection=str(item.get("collection") or ""),
        acquired=times[0],
        outline=footprint(item),
        clear=None if cloud is None else 1 - cloud,
        clear_source="unknown" if cloud is None else "cloud_cover",
        pass_id=identity.pass_id,
        satellite=identity.satellite,
        ground_id=identity.ground_id,
        processing=identity.processing,
        updated=parse_time(properties.get("updated") or properties.get("created")),
        fault=_fault(item, settings),
        item=without_signatures({**item, _ADDRESS: catalogue.address}),
    )


_ADDRESS = "thawmap:catalogue"
"""Member of an offer's item with the address of its catalogue, beside which tokens are given; never written beside
pixels."""


def item_and_address(offered: Mapping[str, object]) -> tuple[Item, str]:
    """Return an offer's item as the catalogue gave it, and the catalogue's address."""
    return {key: value for key, value in offered.items() if key != _ADDRESS}, str(offered.get(_ADDRESS, ""))


def _fault(item: Item, settings: StacImagery) -> str:
    """Return the reason why an item cannot be fetched and read; empty if it can."""
    level = level_of(item)
    if level and not level.startswith("2"):
        return f"it is Level-{level}, top-of-atmosphere"
    name = folder_name(item["id"])
    if name != usable_id(name):
        return "its id cannot name a folder"
    absent = [band for band in settings.bands if asset_of(item, band) is None]
    if absent:
        return f"it has no file for {', '.join(absent)}"
    offsets = sentinel_item(item, Path(f"{name}.json")).offsets
    return "" if offsets or _BASELINE.search(item["id"]) else "nothing tells the offset of its stored numbers"


def folder_name(item_id: str) -> str:
    """Return the name of the folder that an item is fetched into.

    Its id, without the ending of a SAFE folder, which this one is not.
    """
    return re.sub(r"\.SAFE$", "", item_id, flags=re.IGNORECASE)


@dataclass(slots=True)
class _Part:
    """Offers that show one part of a tile, in whatever processing."""

    offers: list[Offer]

    def shows(self, offer: Offer) -> bool:
        """Return whether an offer shows the same part."""
        first = self.offers[0].outline
        smaller = min(first.area, offer.outline.area)
        return bool(shapely.intersection(first, offer.outline).area >= _SAME_GROUND * smaller)


def _told_apart(offers: Sequence[Offer]) -> Iterator[Offer]:
    """Yield a catalogue's offers, with ``ground_id`` of their own for the parts of a divided tile.

    The image strip of one pass may come down to two ground stations, and a tile at the seam is then two scenes.
    """
    by_ground = defaultdict[str, list[Offer]](list)
    for offer in sorted(offers, key=lambda offer: offer.id):
        by_ground[offer.ground_id].append(offer)
    for ground, same in by_ground.items():
        parts: list[_Part] = []
        for offer in same if ground else []:
            part = next((part for part in parts if part.shows(offer)), None)
            if part is None:
                parts.append(_Part([offer]))
            else:
                part.offers.append(offer)
        if len(parts) < 2:
            yield from same
            continue
        for part in parts:
            strip = identity_of(dict(part.offers[0].item)).strip or part.offers[0].id
            yield from (replace(offer, ground_id=f"{ground}_{strip}") for offer in part.offers)
