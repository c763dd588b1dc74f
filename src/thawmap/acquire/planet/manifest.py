"""The files of an order: its manifest, checked, and its links of one day."""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from thawmap.acquire.names import check_paths, inside
from thawmap.acquire.planet.placing import ORDERS
from thawmap.acquire.planet.service import Service, objects
from thawmap.data.sources.finding import parse_time
from thawmap.errors import ServiceError
from thawmap.files.records import Record, checked, read_object
from thawmap.text import printable

MANIFEST = "manifest.json"
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{7,63}")
_SOON = timedelta(minutes=1)  # before a link expires it is as good as expired


class _Digests(Record):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    md5: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class _File(Record):
    path: str
    size: Annotated[int, Field(ge=0)]
    digests: _Digests
    annotations: dict[str, Any] = Field(default_factory=dict)


class _Manifest(Record):
    files: list[_File]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A file that an order brings, by its manifest.

    Attributes:
        name: Its path below the order's folder, as the manifest has it.
        path: Where it lies, or is to lie.
        size: Its bytes.
        sha256: Its SHA-256 as hex.
        item: Id of its scene; empty for files of none.
    """

    name: str
    path: Path
    size: int
    sha256: str
    item: str


def folder_of(root: Path, site: str, order: str) -> Path:
    """Return the folder of an order below the folder of an acquisition.

    Raises:
        ServiceError: If Planet's id of the order can name none.
    """
    if not _ID.fullmatch(order):
        msg = f"Planet calls an order {printable(order)!r}, which is no id; nothing of it is fetched"
        raise ServiceError(msg)
    return root / "scenes" / site / order


def read_manifest(path: Path) -> list[Delivered]:
    """Read a manifest on disk, and return its files, each at a place of its own.

    Raises:
        OSError: If it cannot be read.
        ServiceError: If it is none, a file lacks its checksum, or a path is hostile.
    """
    try:
        manifest = checked(read_object(path), _Manifest)
    except ValueError as error:
        msg = f"{path} {error}; it is no manifest of Planet's, and nothing of the order is fetched"
        raise ServiceError(msg) from error
    files = [
        Delivered(
            name=file.path, path=inside(path.parent, file.path), size=file.size, sha256=file.digests.sha256.lower(),
            item=str(file.annotations.get("planet/item_id", "")),
        )
        for file in manifest.files
    ]  # fmt: skip
    check_paths([*(file.path for file in files), path], path.parent)
    return files


def items_of(files: list[Delivered]) -> set[str]:
    """Return the scenes that have an image among files; metadata alone are no scene."""
    return {file.item for file in files if PurePosixPath(file.name).suffix.lower() in {".tif", ".tiff"}} - {""}


class Links:
    """The links to an order's files, asked for again when they have expired.

    For several threads: one request brings fresh links for all of them.

    Args:
        service: Planet's service.
        order: Planet's id of the order.
        folder: Where its files are to lie.
    """

    def __init__(self, service: Service, order: str, folder: Path) -> None:
        self._service = service
        self._order = order
        self._folder = folder
        self._lock = threading.Lock()
        self._links: Mapping[str, str] = {}
        self._until = float("-inf")
        self._round = 0
        self._given: dict[str, int] = {}
        self.answer: Mapping[str, Any] = {}

    def ask(self) -> Mapping[str, Any]:
        """Return Planet's answer about the order, and keep its links.

        Raises:
            ServiceError: If a link is to another host, or a name leads out of the folder or stands there twice.
        """
        url = self._service.url(f"{ORDERS}/{self._order}")
        answer = self._service.get(url, endpoint="planet-state")
        order = answer.json()
        if not isinstance(order, dict) or not isinstance(order.get("state"), str):
            msg = f"{answer.url} answers with no order; try again later"
            raise ServiceError(msg)
        results = [row for row in objects(order.get("_links"), "results") if isinstance(row.get("location"), str)]
        self._links = self._checked(results)
        self._until = time.monotonic() + _seconds_left(results, answer.date or datetime.now(UTC))
        self._round += 1
        self.answer = order
        return order

    def address(self, name: str) -> str:
        """Return a link to a file by its path below the order's folder.

        Each time that it is asked for it is a fresh one.

        Raises:
            ServiceError: If the order has no such file.
        """
        with self._lock:
            if time.monotonic() >= self._until or self._given.get(name) == self._round:
                self.ask()
            self._given[name] = self._round
            if name not in self._links:
                msg = f"Planet's order {self._order} has no link to {printable(name)}, which its manifest names"
                raise ServiceError(msg)
            return self._links[name]

    def _checked(self, results: list[dict[str, Any]]) -> dict[str, str]:
        """Return links by path below the folder; refuse hostile ones.

        Raises:
            ServiceError: If there is one.
        """
        links: dict[str, str] = {}
        for row in results:
            name = str(row.get("name", "")).removeprefix(f"{self._order}/")
            inside(self._folder, name)
            self._service.check_own(row["location"])
            if name in links:
                msg = f"Planet's order {self._order} has two files {printable(name)}; nothing of it is fetched"
                raise ServiceError(msg)
            links[name] = row["location"]
        check_paths([self._folder / name for name in links], self._folder)
        return links


def _seconds_left(results: list[dict[str, Any]], now: datetime) -> float:
    """Return for how many seconds all links live, by the service's own clock."""
    times = [parse_time(str(row.get("expires_at"))) for row in results]
    known = [time for time in times if time is not None]
    return (min(known) - _SOON - now).total_seconds() if known else float("inf")
