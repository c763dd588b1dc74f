"""STAC documents, at an address or on disk: links, and the items below them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from thawmap.acquire.http import Http
from thawmap.acquire.stac.matching import Item
from thawmap.errors import DataError, ServiceError
from thawmap.files.records import read_object
from thawmap.text import printable

ENDPOINT = "stac"
"""Name of the rate of requests to catalogues."""
_WEB = ("http", "https")
_MOST_DOCUMENTS = 1_000_000  # below one catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A STAC document: a landing page, catalogue, collection, item, or items.

    Attributes:
        address: Where it was read: an address, or an absolute path.
        content: Its JSON values.
    """

    address: str
    content: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Its host, or its path."""
        return printable(urlsplit(self.address).netloc.rpartition("@")[2] if is_web(self.address) else self.address)

    @property
    def links(self) -> list[dict[str, Any]]:
        """Its links that lead anywhere."""
        links = self.content.get("links")
        usable = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
        return [link for link in usable if isinstance(link.get("href"), str) and link["href"]]

    def resolve(self, link: dict[str, Any]) -> str:
        """Return the absolute address or path that a link leads to."""
        return resolved(self.address, link["href"])


def is_web(address: str) -> bool:
    """Return whether an address is one of the web, else a path."""
    return urlsplit(address).scheme in _WEB


def resolved(base: str, href: str) -> str:
    """Return an href of a document as an absolute address or path.

    A document on the web can lead to no file on disk.

    Args:
        base: Address or path of the document.
        href: As it stands there.
    """
    if is_web(base):
        return urljoin(base, href)
    if urlsplit(href).scheme in (*_WEB, "s3"):
        return href
    path = Path(href.removeprefix("file://"))
    return str(path if path.is_absolute() else Path(base).parent / path)


def absolute(item: Item, base: str) -> Item:
    """Return an item whose assets have absolute hrefs; itself where all have."""
    assets = item.get("assets")
    if not isinstance(assets, dict):
        return item
    changed = {
        name: {**asset, "href": resolved(base, asset["href"])}
        for name, asset in assets.items()
        if isinstance(asset, dict)
        and isinstance(asset.get("href"), str)
        and resolved(base, asset["href"]) != asset["href"]
    }
    return {**item, "assets": {**assets, **changed}} if changed else item


def read_document(http: Http, address: str) -> Document:
    """Read a STAC document from an address or a path.

    Raises:
        ServiceError: If the service does not give it.
        DataError: If the file cannot be read, or either holds no object.
    """
    if is_web(address):
        content = http.get(address, endpoint=ENDPOINT).json()
        if not isinstance(content, dict):
            msg = f"{address} holds no STAC document; give the address of an API, or of a catalog.json"
            raise ServiceError(msg)
        return Document(address=address, content=content)
    path = Path(address).absolute()
    try:
        return Document(address=str(path), content=read_object(path))
    except FileNotFoundError as error:
        msg = f"{path} does not exist; give the address of a STAC API, or the path of a catalog.json"
        raise DataError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path} {error}; give the path of a catalog.json, a collection or items"
        raise DataError(msg) from error


def items_below(http: Http, root: Document) -> Iterator[Item]:
    """Yield the items in and below a document, with absolute hrefs.

    Each document once.

    Raises:
        ServiceError: If a document does not come, or there is no end to them.
        DataError: If a file cannot be read.
    """
    waiting, read = [root.address], {root.address}
    documents = {root.address: root}
    while waiting:
        address = waiting.pop()
        document = documents.pop(address, None) or read_document(http, address)
        yield from _items_in(document)
        linked = [document.resolve(link) for link in document.links if link.get("rel") in ("child", "item")]
        new = [target for target in dict.fromkeys(linked) if target not in read]
        read.update(new)
        waiting += reversed(new)
        if len(read) > _MOST_DOCUMENTS:
            msg = f"{root.name} has no end: more than {_MOST_DOCUMENTS} documents are linked; name one collection of it"
            raise ServiceError(msg)


def _items_in(document: Document) -> Iterator[Item]:
    """Yield the items that a document is or lists."""
    kind, listed = document.content.get("type"), document.content.get("features")
    if kind == "Feature":
        yield absolute(document.content, document.address)
    elif kind == "FeatureCollection" and isinstance(listed, list):
        for item in listed:
            if isinstance(item, dict):
                yield absolute(item, document.address)


def key_of(values: object) -> str:
    """Return JSON values as one text, whatever the order of keys."""
    return json.dumps(values, sort_keys=True)
