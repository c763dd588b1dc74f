"""STAC items and catalogues as JSON values, of the entries of a catalogue."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import shapely

from thawmap.data.catalogue.layout import CATALOG, ITEMS, KIND, NOTES, PROCESSING, REGION, USABLE, Entry, File
from thawmap.data.sources.finding import usable_id
from thawmap.files.hashes import sha256

STAC_VERSION = "1.1.0"
ROOT_ID = "thawmap-data"
"""Id of the root catalogue, by which it is known as thawmap's."""
EXTENSIONS = (
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
_SHA256 = "1220"  # a multihash of SHA-256 begins so
_NO_PHOTOGRAPH_BEFORE = datetime(1858, 1, 1, tzinfo=UTC)
_UNDATED, _NO_REGION = "undated", "scenes"
_MEDIA = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jp2": "image/jp2",
    ".xml": "application/xml",
    ".json": "application/json",
}
_MASKS, _METADATA = frozenset({"udm", "udm2", "scl"}), frozenset({".xml", ".json"})


def item_paths(entries: Sequence[Entry]) -> list[str]:
    """Return the path of each entry's item, from the catalogue's folder.

    A folder for each site and year, so that no catalogue has too many links.
    """
    sites = _site_names({entry.region for entry in entries})
    return [
        f"{ITEMS}/{sites[entry.region]}/{entry.acquired.year if entry.acquired else _UNDATED}/{entry.id}.item.json"
        for entry in entries
    ]


def item(entry: Entry, path: str) -> dict[str, Any]:
    """Return an entry as a STAC item.

    Args:
        entry: The scene.
        path: Where the item is to be, from the catalogue's folder; its links and files count from there.
    """
    up = "../" * (len(PurePosixPath(path).parts) - 1)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": entry.id,
        "geometry": shapely.geometry.mapping(shapely.from_wkb(entry.outline)),
        "bbox": list(entry.bbox),
        "properties": properties(entry),
        "links": [
            {"rel": "root", "href": f"{up}{CATALOG}", "type": "application/json"},
            {"rel": "parent", "href": f"./{CATALOG}", "type": "application/json"},
        ],
        "assets": {file.key: asset(file, up) for file in entry.files},
    }


def properties(entry: Entry) -> dict[str, Any]:
    """Return the properties of an entry's item.

    STAC wants a time of every item: of an unknown one `datetime` is null, and the interval goes from the first
    photograph from the air to the last change of its files.
    """
    moments: dict[str, Any] = {"datetime": time_text(entry.acquired)}
    if entry.acquired is None:
        since, until = interval(entry)
        moments |= {"start_datetime": time_text(since), "end_datetime": time_text(until)}
    code = {"proj:code": entry.crs} if entry.crs.startswith("EPSG:") else {"proj:code": None, "proj:wkt2": entry.crs}
    return {
        **moments,
        **code,
        "proj:shape": list(entry.shape),
        "proj:transform": list(entry.transform),
        KIND: entry.kind,
        REGION: entry.region,
        PROCESSING: entry.processing,
        USABLE: entry.usable,
        NOTES: list(entry.notes),
    }


def interval(entry: Entry) -> tuple[datetime, datetime]:
    """Return the times between which the image of an entry without a time was taken."""
    last = max((file.mtime_ns for file in entry.files), default=0) // 1_000_000_000
    return _NO_PHOTOGRAPH_BEFORE, datetime.fromtimestamp(last, UTC)


def asset(file: File, up: str) -> dict[str, Any]:
    """Return a file as an asset; ``up`` leads from where it is named to the catalogue."""
    ending = PurePosixPath(file.path).suffix.lower()
    role = "metadata" if ending in _METADATA else "data-mask" if file.key in _MASKS else "data"
    return {
        "href": f"{up}{file.path}",
        **({"type": _MEDIA[ending]} if ending in _MEDIA else {}),
        "roles": [role],
        "updated": time_text(datetime.fromtimestamp(file.mtime_ns // 1_000_000_000, UTC)),
        "file:size": file.size,
        **({} if file.sha256 is None else {"file:checksum": _SHA256 + file.sha256}),
    }


def catalogues(entries: Sequence[Entry], paths: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and content of each STAC catalogue: the root, of sites, of years.

    Args:
        entries: The scenes.
        paths: Where their items are, from the catalogue's folder.
    """
    years: dict[str, dict[str, list[str]]] = {}
    titles: dict[str, str] = {}
    for entry, path in zip(entries, paths, strict=True):
        _, site, year, name = path.split("/")
        years.setdefault(site, {}).setdefault(year, []).append(name)
        titles[site] = entry.region or _NO_REGION
    sites = [(f"./{ITEMS}/{site}/{CATALOG}", titles[site]) for site in sorted(years)]
    yield CATALOG, _catalogue(ROOT_ID, "Scenes on this disk, as thawmap reads them", "", _children(sites))
    for site, of_year in sorted(years.items()):
        children = [(f"./{year}/{CATALOG}", f"{titles[site]} {year}") for year in sorted(of_year)]
        about = f"Scenes of {titles[site]}"
        yield f"{ITEMS}/{site}/{CATALOG}", _catalogue(site, about, "../../", _children(children))
        for year, names in sorted(of_year.items()):
            items = [{"rel": "item", "href": f"./{name}", "type": "application/geo+json"} for name in sorted(names)]
            content = _catalogue(f"{site}-{year}", f"{about}, {year}", "../../../", items)
            yield f"{ITEMS}/{site}/{year}/{CATALOG}", content


def time_text(time: datetime | None) -> str | None:
    """Return a time in RFC 3339 as STAC wants it, UTC; None for none."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _catalogue(id_: str, about: str, up: str, links: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Return a STAC catalogue; ``up`` leads to the root's folder, "" is the root."""
    parent = [{"rel": "parent", "href": f"../{CATALOG}" if up != "../../" else f"{up}{CATALOG}"}] if up else []
    above = [{"rel": "root", "href": f"{up or './'}{CATALOG}"}, *parent]
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": id_,
        "title": about,
        "description": about,
        "links": [*({**link, "type": "application/json"} for link in above), *links],
    }


def _children(children: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return links to sub-catalogues, each a path and a title."""
    return [{"rel": "child", "href": href, "type": "application/json", "title": title} for href, title in children]


def _site_names(regions: set[str | None]) -> dict[str | None, str]:
    """Return a name of a folder for each region, each its own."""
    names: dict[str | None, str] = {}
    for region in sorted(regions, key=lambda region: region or ""):
        name = _NO_REGION if region is None else usable_id(region)[:100]
        if any(name.lower() == other.lower() for other in names.values()):
            name = f"{name}-{sha256(region or '', digits=6)}"
        names[region] = name
    return names
