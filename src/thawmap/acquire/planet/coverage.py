"""Planet's look inside: the clear fraction of an area, before a scene is ordered."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import shapely

from thawmap.acquire.areas import Area, clip_outline
from thawmap.acquire.http import Http, Refused
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.offers import Offer, looked_inside
from thawmap.acquire.planet.service import ITEM_TYPE, Service
from thawmap.config import PlanetImagery
from thawmap.files.hashes import json_sha256
from thawmap.text import counted

_THREADS = 4
_MOST_LOOKS = 3  # while the service says that it is still computing


def look_inside(
    http: Http,
    settings: PlanetImagery,
    area: Area,
    offers: Sequence[Offer],
    ledger: Ledger,
    note: Callable[[str], None],
) -> list[Offer]:
    """Return offers with the clear fraction inside an area, where Planet tells it.

    What was asked before, for the same outline and the same version of a scene, is in the ledger and not asked again.
    An offer of which Planet tells nothing stays as it is, and a sentence says how many do.

    Raises:
        ServiceError: If Planet cannot be reached, or refuses the login.
    """
    outline = json.loads(shapely.to_geojson(shapely.set_precision(clip_outline(area)[0], 1e-7)))
    place = json_sha256(outline, digits=16)
    known = {
        (entry["item"], entry.get("updated", "")): entry["clear"]
        for entry in ledger.of("coverage", source="planet", outline=place)
    }
    service = Service(http, settings.address)

    def clear(offer: Offer) -> float | None:
        key = (offer.id, offer.processing)
        if key not in known:
            found = _ask(service, offer, outline)
            if found is not None:
                ledger.append(
                    "coverage", source="planet", item=offer.id, updated=offer.processing, outline=place, clear=found
                )
            return found
        return float(known[key])

    with ThreadPoolExecutor(_THREADS) as pool:
        fractions = list(pool.map(clear, offers))
    unknown = fractions.count(None)
    if unknown:
        note(f"{area.name}: Planet does not say how much is clear inside the area for {counted(unknown, 'scene')}")
    return looked_inside(offers, fractions)


def _ask(service: Service, offer: Offer, outline: Any) -> float | None:
    """Return an offer's clear fraction inside an outline; None where it is not told."""
    url = service.url(f"/data/v1/item-types/{ITEM_TYPE}/items/{offer.id}/coverage?mode=UDM2&band=cloud")
    for _ in range(_MOST_LOOKS):
        try:
            answer = service.post(url, {"geometry": outline}, endpoint="planet-coverage", repeat=True).json()
        except Refused:
            return None
        if isinstance(answer, dict) and answer.get("status", "complete") == "complete":
            percent = answer.get("clear_percent")
            if isinstance(percent, int | float) and not isinstance(percent, bool) and 0 <= percent <= 100:
                return float(percent) / 100
    return None
