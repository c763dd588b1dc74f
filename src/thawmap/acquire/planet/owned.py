"""Offers of scenes that were ordered before, marked and judged by their pixels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.features
import rasterio.warp
import shapely

from thawmap.acquire.areas import Area
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.offers import Offer
from thawmap.acquire.planet import history
from thawmap.acquire.planet.history import Order
from thawmap.acquire.planet.manifest import MANIFEST, folder_of, read_manifest
from thawmap.acquire.planet.requests import recipe_of
from thawmap.config import PlanetImagery
from thawmap.data.sources.finding import parse_time
from thawmap.errors import ServiceError

_MOST_PX = 2000  # along a side of a mask, of which a share is wanted
_CLEAR, _UNUSABLE = 1, 8  # bands of udm2; bit 0 of the latter: nothing was seen


def with_owned(
    offers: Sequence[Offer],
    settings: PlanetImagery,
    area: Area,
    root: Path,
    ledger: Ledger,
    note: Callable[[str], None],
) -> list[Offer]:
    """Return an area's offers with those marked that were ordered before.

    Nothing is asked for.

    Ordered in the same bundle, by the same tools and with the same outline. Those on disk have the clear fraction of
    their own mask. What Planet refused, or did not bring twice, cannot be taken. Scenes that Planet has changed since
    they were ordered are named, and stay as they are.

    Args:
        offers: What Planet has.
        settings: What is wanted.
        area: The area.
        root: Folder of the acquisition.
        ledger: What was done before.
        note: Is told of changed scenes.

    Raises:
        ConfigError: If the area cannot be cut out.
    """
    recipe = recipe_of(settings, area)[0].hash
    same = [order for order in history.orders(ledger) if order.site == area.name and order.recipe == recipe]
    kept = {item: order for order in same for item in order.kept}
    faults = {item: f"refused by Planet: {reason}" for order in same for item, reason in order.refused.items()}
    faults |= {
        item: "was ordered twice and did not come" for order in same if order.is_second for item in order.missing
    }
    return [_marked(offer, kept.get(offer.id), faults.get(offer.id, ""), area, root, note) for offer in offers]


def _marked(
    offer: Offer, order: Order | None, fault: str, area: Area, root: Path, note: Callable[[str], None]
) -> Offer:
    """Return an offer with what is known of it from the order that has it."""
    if order is None:
        return replace(offer, fault=offer.fault or fault)
    then = parse_time(order.items[offer.id])
    if then is not None and offer.updated is not None and offer.updated > then:
        note(
            f"{area.name}: Planet has changed {offer.id} on {offer.updated:%Y-%m-%d}, after it was ordered; it stays as"
            " it is on disk"
        )
    clear = own_clear(root, order, offer.id, area) if order.is_received else None
    offer = replace(offer, is_owned=True, fault="")
    return offer if clear is None else replace(offer, clear=clear, clear_source="udm2")


def own_clear(root: Path, order: Order, item: str, area: Area) -> float | None:
    """Return the clear fraction of a scene on disk inside an area, by its udm2.

    Of what it shows of the area; None where the file is missing or damaged.
    """
    try:
        files = read_manifest(folder_of(root, order.site, order.id) / MANIFEST)
    except (OSError, ServiceError):
        return None
    mask = next((file.path for file in files if file.item == item and "udm2" in file.path.stem.split("_")), None)
    if mask is None or not mask.is_file():
        return None
    try:
        return _clear_fraction(mask, area)
    except (rasterio.errors.RasterioError, IndexError):
        return None


def _clear_fraction(path: Path, area: Area) -> float | None:
    """Return the clear share of an area's pixels in a udm2 file; None without any.

    Of those that the sensor has seen.
    """
    with rasterio.open(path) as source:
        step = max(1, -(-max(source.shape) // _MOST_PX))
        shape = (-(-source.height // step), -(-source.width // step))
        clear, unusable = source.read([_CLEAR, _UNUSABLE], out_shape=(2, *shape))
        place = source.transform * source.transform.scale(source.width / shape[1], source.height / shape[0])
        outline = rasterio.warp.transform_geom("EPSG:4326", source.crs, shapely.geometry.mapping(area.outline))
    seen = rasterio.features.geometry_mask([outline], shape, place, invert=True) & (unusable & 1 == 0)
    count = int(np.count_nonzero(seen))
    return float(np.count_nonzero(seen & (clear == 1)) / count) if count else None
