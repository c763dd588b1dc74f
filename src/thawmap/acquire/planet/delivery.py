"""Waiting for orders at Planet, and fetching what they bring, each file once."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from thawmap.acquire.download import Wanted, download
from thawmap.acquire.http import Http, PatienceEnded
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.planet import history
from thawmap.acquire.planet.history import SOURCE, Order
from thawmap.acquire.planet.manifest import MANIFEST, Delivered, Links, folder_of, items_of, read_manifest
from thawmap.acquire.planet.orders import again, resolve
from thawmap.acquire.planet.placing import Placer
from thawmap.acquire.planet.service import USUAL, LoginRefused, Manners, Service
from thawmap.config import PlanetImagery
from thawmap.errors import ServiceError, ThawmapError
from thawmap.text import counted, printable

DOWNLOAD = "planet-download"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Received:
    """What a run of `fetch` brought.

    Attributes:
        files: Files that landed or were there.
        new: Files that landed in this run, manifests among them.
        size: Their bytes.
        missing: Sentences on scenes that did not come.
        faults: Sentences on files and orders that could not be fetched.
    """

    files: int = 0
    new: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def fetch(
    http: Http,
    settings: PlanetImagery,
    root: Path,
    ledger: Ledger,
    note: Callable[[str], None],
    *,
    progress: Callable[[int, int], None] | None = None,
    manners: Manners = USUAL,
) -> Received:
    """Wait for all orders of a ledger, and fetch what they bring.

    Each order's files lie in ROOT/scenes/SITE/ORDER, as delivered.

    The caller holds the lock of the folder. It can be broken off at any moment, and goes on when it is run again.
    What is on disk is not asked for. What an order did not bring is ordered once more, and only once.

    Args:
        http: The way to the service.
        settings: What was ordered.
        root: Folder of the acquisition.
        ledger: What was done before, and is done.
        note: Is told what happens.
        progress: Is called with the bytes that are there, and those of all files of the orders that are ready.
        manners: How the service is treated, and how long to wait.

    Raises:
        PatienceEnded: If orders are not ready in time; what was ready is on disk.
        ServiceError: If Planet refuses the login, or cannot be reached.
        DataError: If the disk is full or cannot be written to.
    """
    service = Service(http, settings.address)
    placer = Placer(service=service, ledger=ledger, note=note, settle_s=manners.settle_s)
    run = _Run(service, root, ledger, note, progress, manners.connections)
    started = time.monotonic()
    resolve(placer)
    while True:
        looks = [run.advance(order) for order in run.pending()]
        run.order_again(placer)
        if not run.pending():
            return run.result()
        if all(looks):
            continue
        waiting = [order for order in run.pending() if not order.is_final]
        if time.monotonic() - started + manners.pause_s > manners.patience_s:
            names = ", ".join(f"{order.id} ({order.site}, {order.state or 'placed'})" for order in waiting)
            msg = f"orders are not ready yet: {names}; run the same command again later, which goes on from here"
            raise PatienceEnded(msg)
        time.sleep(manners.pause_s)


@dataclass(slots=True)
class _Run:
    """One run of `fetch`: what its steps share."""

    service: Service
    root: Path
    ledger: Ledger
    note: Callable[[str], None]
    progress: Callable[[int, int], None] | None
    connections: int
    given_up: set[str] = field(default_factory=set)  # orders, and names of second ones, that failed in this run
    received: Received = field(default_factory=Received)

    def pending(self) -> list[Order]:
        """Return the orders of which something is still to come."""
        return [
            order
            for order in history.orders(self.ledger)
            if order.id and order.id not in self.given_up and not self._is_done(order)
        ]

    def order_again(self, placer: Placer) -> None:
        """Order once more what did not come, and was not asked for a second time."""
        for request in again(self.ledger):
            if request.name in self.given_up:
                continue
            self.note(f"{request.site}: {counted(len(request.ids), 'scene')} that did not come are ordered once more")
            try:
                placer.place_all(request)
            except (PatienceEnded, LoginRefused):
                raise
            except ServiceError as error:
                self.given_up.add(request.name)
                self.received.faults.append(f"{request.site}: {error}")
                self.note(str(error))

    def result(self) -> Received:
        """Return what there is now."""
        for order in history.orders(self.ledger):
            if order.is_received and order.kept:
                files = _manifest_on_disk(self.root, order) or []
                self.received.files += len(files)
                self.received.size += sum(file.size for file in files)
        second = {item for order in history.orders(self.ledger) if order.is_second for item in order.kept}
        for order in history.orders(self.ledger):
            lost = [item for item in order.missing if item not in second]
            hints = f" ({printable('; '.join(order.hints))})" if order.hints else ""
            self.received.missing += [f"{order.site}: {item} did not come{hints}" for item in lost]
        self.received.missing = list(dict.fromkeys(self.received.missing))
        return self.received

    def advance(self, order: Order) -> bool:
        """Look at an order, fetch it if it is ready; return whether that is settled."""
        try:
            links = Links(self.service, order.id, folder_of(self.root, order.site, order.id))
            if not (order.is_final and order.is_received and _has_all(self.root, order)):
                self._look(order, links)
            if not order.is_final:
                return False
            self._finish(order, links)
        except (PatienceEnded, LoginRefused):
            raise
        except ServiceError as error:
            self._give_up(order, f"{order.site}: order {order.id}: {error}")
        return True

    def _look(self, order: Order, links: Links) -> None:
        """Ask for the state of an order."""
        answer = links.ask()
        state, hints = answer["state"], [str(hint) for hint in answer.get("error_hints") or ()]
        if state != order.state:
            self.note(f"{order.site}: order {order.id} is {printable(state)}")
            self.ledger.append("state", source=SOURCE, name=order.name, order=order.id, state=state, hints=hints)
            order.state, order.hints = state, tuple(hints)

    def _finish(self, order: Order, links: Links) -> None:
        """Fetch what an order brings, and note what is missing."""
        if order.state == "cancelled":
            self.given_up.add(order.id)
            self.note(f"{order.site}: order {order.id} was cancelled; 'order' asks for its scenes again")
            return
        files = [] if order.state == "failed" else self._fetched(order, links)
        if files is None:
            return
        missing = sorted(set(order.items) - items_of(files))
        hints = f": {printable('; '.join(order.hints))}" if order.hints else ""
        if missing:
            self.note(f"{order.site}: order {order.id} did not bring {', '.join(missing)}{hints}")
        self.ledger.append(
            "received", source=SOURCE, name=order.name, order=order.id, missing=missing, files=len(files),
            size=sum(file.size for file in files),
        )  # fmt: skip

    def _fetched(self, order: Order, links: Links) -> list[Delivered] | None:
        """Fetch the files of an order and return them; None where some failed."""
        folder = folder_of(self.root, order.site, order.id)
        manifest = Wanted(
            url=partial(links.address, MANIFEST), path=folder / MANIFEST, what=f"manifest of order {order.id}",
            endpoint=DOWNLOAD,
        )  # fmt: skip
        if self._download(order, [manifest], show=False):
            return None
        try:
            files = read_manifest(manifest.path)
        except ServiceError:
            manifest.path.unlink()
            raise
        wanted = [
            Wanted(
                url=partial(links.address, file.name), path=file.path, size=file.size, sha256=file.sha256,
                what=f"{order.site}: {file.name}", endpoint=DOWNLOAD,
            )
            for file in files
        ]  # fmt: skip
        return None if self._download(order, wanted) else files

    def _download(self, order: Order, wanted: Sequence[Wanted], *, show: bool = True) -> int:
        """Fetch files, and return how many could not be had."""
        faults: list[ThawmapError] = []
        for fetched in download(
            self.service.http, wanted, ledger=self.ledger, root=self.root, connections=self.connections,
            progress=self.progress if show else None,
        ):  # fmt: skip
            self.received.new += fetched.is_new
            faults += [fetched.error] if fetched.error is not None else []
        _check_patience(faults)
        for error in faults:
            self._give_up(order, f"{order.site}: {error}")
        return len(faults)

    def _give_up(self, order: Order, fault: str) -> None:
        """Leave an order for this run."""
        self.given_up.add(order.id)
        self.received.faults.append(fault)
        self.note(fault)

    def _is_done(self, order: Order) -> bool:
        """Return whether nothing more comes of an order, and all that came is on disk."""
        if order.state == "cancelled" and order.is_final:
            return True
        return order.is_received and (order.state == "failed" or _has_all(self.root, order))


def _check_patience(faults: Sequence[ThawmapError]) -> None:
    """Raise the first fault that is the end of patience."""
    for error in faults:
        if isinstance(error, PatienceEnded):
            raise error


def _manifest_on_disk(root: Path, order: Order) -> list[Delivered] | None:
    """Return the files of an order by its manifest on disk; None where there is none."""
    try:
        return read_manifest(folder_of(root, order.site, order.id) / MANIFEST)
    except (OSError, ServiceError):
        return None


def _has_all(root: Path, order: Order) -> bool:
    """Return whether all files of an order are on disk, by their sizes."""
    files = _manifest_on_disk(root, order)
    return files is not None and all(_size(file.path) == file.size for file in files)


def _size(path: Path) -> int:
    """Return the bytes of a file; -1 where it is none."""
    return path.stat().st_size if path.is_file() else -1
