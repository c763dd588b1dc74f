"""Conventions of the catalogues that have Sentinel-2 Level-2A: addresses, names of assets and ids."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from thawmap.acquire.stac.matching import Item, properties_of
from thawmap.config.acquire import CatalogueSettings
from thawmap.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A catalogue of Sentinel-2 Level-2A scenes.

    Attributes:
        name: Its name in plans and messages.
        address: Address of its API, or path or address of a static catalogue.
        collection: Id of its collection; None: its only one.
        tells_cloud: Whether each of its items is known to tell its cloud cover.
    """

    name: str
    address: str
    collection: str | None
    tells_cloud: bool = False


KNOWN: Mapping[str, Catalogue] = MappingProxyType(
    {
        catalogue.name: catalogue
        for catalogue in (
            Catalogue(
                name="earth-search",
                address="https://earth-search.aws.element84.com/v1",
                collection="sentinel-2-c1-l2a",
                tells_cloud=True,
            ),
            Catalogue(
                name="planetary-computer",
                address="https://planetarycomputer.microsoft.com/api/stac/v1",
                collection="sentinel-2-l2a",
                tells_cloud=True,
            ),
            Catalogue(
                name="cdse",
                address="https://stac.dataspace.copernicus.eu/v1",
                collection="sentinel-2-l2a",
                tells_cloud=True,
            ),
        )
    }
)
"""The catalogues that have a name in the YAML."""

_ASSETS = MappingProxyType(
    {
        "coastal": ("coastal", "B01", "B01_60m", "B01_20m"),
        "blue": ("blue", "B02", "B02_10m"),
        "green": ("green", "B03", "B03_10m"),
        "red": ("red", "B04", "B04_10m"),
        "rededge1": ("rededge1", "B05", "B05_20m"),
        "rededge2": ("rededge2", "B06", "B06_20m"),
        "rededge3": ("rededge3", "B07", "B07_20m"),
        "nir": ("nir", "B08", "B08_10m"),
        "nir08": ("nir08", "B8A", "B8A_20m"),
        "swir16": ("swir16", "B11", "B11_20m"),
        "swir22": ("swir22", "B12", "B12_20m"),
        "scl": ("scl", "SCL", "SCL_20m"),
    }
)
"""Band to the names that its asset has in Earth Search, the Planetary Computer, and CDSE.

Never the ones that end in -jp2: Earth Search's lead to ESA's files, whose offset is not what the item says.
"""
_PRODUCT = re.compile(
    r"S2(?P<unit>[A-D])_MSIL(?P<level>\d[AC])_(?P<sensed>\d{8}T\d{6})(?:_N(?P<baseline>\d{4}))?_R\d{3}"
    r"_T(?P<tile>\d{2}[A-Z]{3})_(?P<processed>\d{8}T\d{6})"
)
_TAKE = re.compile(r"GS2(?P<unit>[A-D])_(?P<sensed>\d{8}T\d{6})_\d{6}_N(?P<baseline>\d\d\.\d\d)")
_TILE = re.compile(r"T?(\d{2}[A-Z]{3})(?=_|$)")
_STRIP = re.compile(r"_S(\d{8}T\d{6})(?=_|$)")
_SECRET = re.compile(r"(?i)[?&](?:sig|signature|token|sastoken|x-amz-[a-z-]+|x-goog-[a-z-]+|key|apikey|api_key)=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A Sentinel-2 scene, as all catalogues know it; empty texts where unknown.

    Attributes:
        satellite: Such as sentinel-2b.
        tile: Tile of the grid, such as 08WMB.
        sensed: Time at which the satellite began the image strip, such as 20210712T205019.
        strip: Time at which the ground station's part of it begins.
        baseline: Processing baseline, such as 05.11.
        processed: Time of the processing, in digits.
    """

    satellite: str
    tile: str
    sensed: str
    strip: str
    baseline: str
    processed: str

    @property
    def pass_id(self) -> str:
        """Text that is equal for all tiles of one pass."""
        return f"{self.satellite}_{self.sensed}" if self.satellite and self.sensed else ""

    @property
    def ground_id(self) -> str:
        """Text that is equal for one tile of one pass, in whatever processing."""
        return f"{self.tile}_{self.pass_id}" if self.tile and self.pass_id else ""

    @property
    def processing(self) -> str:
        """Text that sorts processings, the newest last."""
        return f"{self.baseline}_{self.processed}"


def catalogue_of(setting: str | CatalogueSettings, known: Mapping[str, Catalogue] = KNOWN) -> Catalogue:
    """Return the catalogue that a setting names."""
    if isinstance(setting, str):
        return known[setting]
    name = setting.name or urlsplit(setting.address).netloc.rpartition("@")[2] or setting.address
    return Catalogue(name=printable(name), address=setting.address, collection=setting.collection)


def asset_of(item: Mapping[str, Any], band: str) -> Mapping[str, Any] | None:
    """Return the asset of an item that holds a band; None if it has none."""
    assets = item.get("assets")
    for name in _ASSETS[band]:
        asset = assets.get(name) if isinstance(assets, dict) else None
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and asset["href"]:
            return asset
    return None


def identity_of(item: Item) -> Identity:
    """Return who an item is, by the names of its product, else by its properties."""
    properties = properties_of(item)
    texts = [str(properties.get(key) or "") for key in ("s2:product_uri", "title")] + [str(item.get("id", ""))]
    product = next((match.groupdict() for match in map(_PRODUCT.search, texts) if match), {})
    take = _TAKE.search(str(properties.get("s2:datatake_id") or ""))
    of_take = take.groupdict() if take else {}
    unit = product.get("unit") or of_take.get("unit") or ""
    platform = str(properties.get("platform") or "").lower().replace("_", "-")
    baseline = properties.get("s2:processing_baseline") or properties.get("processing:version")
    named = product.get("baseline") or ""
    tiles = (str(properties.get(key) or "").removeprefix("MGRS-") for key in ("grid:code", "s2:mgrs_tile"))
    strip = _STRIP.search(str(properties.get("s2:datastrip_id") or ""))
    processed = product.get("processed") or str(properties.get("s2:generation_time") or "")
    return Identity(
        satellite=f"sentinel-2{unit.lower()}" if unit else platform,
        tile=product.get("tile") or next((match[1] for match in map(_TILE.fullmatch, tiles) if match), ""),
        sensed=product.get("sensed") or of_take.get("sensed") or "",
        strip=strip[1] if strip else "",
        baseline=str(baseline or of_take.get("baseline") or (f"{named[:2]}.{named[2:]}" if named else "")),
        processed=re.sub(r"\D", "", processed)[:14],
    )


def level_of(item: Item) -> str:
    """Return an item's processing level, such as 2A; empty where unknown."""
    properties = properties_of(item)
    kind = str(properties.get("s2:product_type") or properties.get("product:type") or "")
    if kind.startswith("S2MSI"):
        return kind.removeprefix("S2MSI")
    product = _PRODUCT.search(str(properties.get("s2:product_uri") or item.get("id", "")))
    return product["level"] if product else ""


def without_signatures(value: Any) -> Any:
    """Return JSON values in which signed addresses have no query."""
    if isinstance(value, dict):
        return {key: without_signatures(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_signatures(entry) for entry in value]
    return value.partition("?")[0] if isinstance(value, str) and _SECRET.search(value) else value
