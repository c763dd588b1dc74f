"""A look inside: how much of an area is clear in a Sentinel-2 scene, by its own classes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio.features
import rasterio.warp
import shapely

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http, Refused
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.offers import Offer, looked_inside
from thawmap.acquire.remote import Address
from thawmap.acquire.stac.conventions import asset_of
from thawmap.acquire.stac.offers import item_and_address
from thawmap.acquire.stac.signing import signed, signer_for
from thawmap.acquire.windows import read_window
from thawmap.errors import DataError
from thawmap.files.hashes import sha256
from thawmap.geo.crs import crs_of
from thawmap.geo.shapes import LONLAT
from thawmap.text import counted

_UNSEEN = 0  # class of the scene classification: no data
_CLEAR = (2, 4, 5, 6, 7)  # dark, vegetation, bare, water, unclassified; not clouds, shadows, snow, saturated


def look_inside(
    http: Http,
    area: Area,
    offers: Sequence[Offer],
    ledger: Ledger,
    note: Callable[[str], None],
    *,
    connections: int = 8,
) -> list[Offer]:
    """Return offers with the clear fraction inside an area, by the scene classification.

    A window of it is read, some hundred kilobytes. What was looked at before, for the same outline and processing, is
    in the ledger and not read again. Offers whose classes cannot be read stay as they are, and a sentence counts them.

    Raises:
        PatienceEnded: If a catalogue is busy for too long.
    """
    place = sha256(area.outline.wkb, digits=16)
    events = ledger.of("coverage", source="stac", outline=place)
    known = {(event["item"], event["processing"]): event["clear"] for event in events}
    signers = {address: signer_for(http, address) for address in {item_and_address(offer.item)[1] for offer in offers}}

    def clear(offer: Offer) -> float | None:
        key = (offer.id, offer.processing)
        if key in known:
            return float(known[key])
        item, address = item_and_address(offer.item)
        asset = asset_of(item, "scl")
        if asset is None:
            return None
        try:
            fraction = _clear_fraction(http, signed(signers[address], asset["href"]), area)
        except (DataError, Refused):
            return None
        if fraction is not None:
            ledger.append(
                "coverage", source="stac", item=offer.id, processing=offer.processing, outline=place, clear=fraction
            )
        return fraction

    with ThreadPoolExecutor(max(connections, 1)) as pool:
        fractions = list(pool.map(clear, offers))
    unknown = fractions.count(None)
    if unknown:
        note(f"{area.name}: the classes inside the area cannot be read of {counted(unknown, 'scene')}")
    return looked_inside(offers, fractions)


def _clear_fraction(http: Http, href: Address, area: Area) -> float | None:
    """Return the clear share of an area's pixels in a scene classification.

    Of those that the sensor has seen; None if there is none.
    """
    read = read_window(href, area.outline, http=http)
    outline = shapely.geometry.mapping(shapely.segmentize(area.outline, 0.02))
    local = rasterio.warp.transform_geom(LONLAT, crs_of(read.geobox), outline)
    inside = rasterio.features.geometry_mask([local], read.geobox.shape, read.geobox.affine, invert=True)
    classes = read.values[0][inside & (read.values[0] != _UNSEEN)]
    return float(np.isin(classes, _CLEAR).mean()) if classes.size else None
