"""Files from services to disk: side by side, gone on from where they were cut, checked, whole or not there."""

import errno
import hashlib
import os
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import httpx

from thawmap.acquire.answers import Refused
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger, sync_folder
from thawmap.acquire.names import PART, check_paths
from thawmap.acquire.pacing import backoff, rest
from thawmap.acquire.parts import ChangedError, Part, Wanted, WrongFileError, forget
from thawmap.acquire.progress import size_text
from thawmap.errors import DataError, ServiceError, ThawmapError
from thawmap.files.atomic import unwritable
from thawmap.files.hashes import file_sha256
from thawmap.text import counted

__all__ = ["Fetched", "Wanted", "download"]

EVENT = "file"
"""Event of the ledger for a file that landed: its path below the root, size and sha256."""
_EXPIRED = (401, 403, 410)
_MOST_CHANGES = 5  # of a file while it is fetched
_MOST_SILENCES = 6  # answers in a row that bring no byte
_SPARE = 2**26  # bytes of a disk that stay free
_TICK_S = 0.2  # between two reports of progress
_LEAVE_S = 5.0  # for threads to end after an interrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of a wanted file.

    Attributes:
        wanted: The file.
        size: Its bytes; 0 if it is not there.
        sha256: Its SHA-256 as hex; empty if it is not there.
        is_new: Whether it was fetched now.
        error: Why it is not there; None if it is.
    """

    wanted: Wanted
    size: int = 0
    sha256: str = ""
    is_new: bool = False
    error: ThawmapError | None = None


def download(
    http: Http,
    wanted: Sequence[Wanted],
    *,
    ledger: Ledger,
    root: Path,
    connections: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Fetched]:
    """Fetch files, and yield each one as it lands or fails.

    Those that are there cost no request.

    A file is written to NAME.part, its checksum is computed on the way, and it takes its name when it is whole and
    right. A part that a broken-off run left is gone on from. What fails is yielded with its error, and the rest goes
    on; only a disk that takes no more ends all.

    Args:
        http: How services are asked.
        wanted: The files.
        ledger: Gets an event for each file that lands.
        root: Folder that all files are to lie in.
        connections: Files that are fetched side by side.
        progress: Is called a few times a second, in the thread that iterates, with the bytes that are there and the
            bytes of all files, as far as their sizes are known.

    Raises:
        ServiceError: If names lead out of the folder or would be one file; before anything is fetched.
        DataError: If the disk has not enough room, before anything is fetched, or cannot be written to.
    """
    check_paths([file.path for file in wanted], root)
    _check_room(wanted)
    return _fetched(_Transfer(http, wanted, ledger, root), wanted, connections, progress)


def _fetched(
    transfer: "_Transfer", wanted: Sequence[Wanted], connections: int, progress: Callable[[int, int], None] | None
) -> Iterator[Fetched]:
    """Yield files as they land or fail."""
    pool = ThreadPoolExecutor(connections, thread_name_prefix="download")
    finished: SimpleQueue[Future[Fetched]] = SimpleQueue()
    futures = [pool.submit(transfer.fetch, file) for file in wanted]
    for future in futures:
        future.add_done_callback(finished.put)
    try:
        missing = len(futures)
        while missing:
            landed = _next(finished)
            if progress:
                progress(*transfer.bytes())
            if landed is not None:
                missing -= 1
                yield landed.result()
    finally:
        transfer.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        begun = [future for future in futures if not future.cancelled()]
        wait(begun, timeout=_LEAVE_S)  # a thread that a silent service holds adds nothing any more


def _next(finished: "SimpleQueue[Future[Fetched]]") -> Future[Fetched] | None:
    """Return the next file that is finished; None if there is none for a moment."""
    try:
        return finished.get(timeout=_TICK_S)
    except Empty:
        return None


class _Transfer:
    """One download: what its threads share."""

    def __init__(self, http: Http, wanted: Sequence[Wanted], ledger: Ledger, root: Path) -> None:
        self._http = http
        self._ledger = ledger
        self._root = root.absolute()
        self._entries = {entry.get("path"): entry for entry in ledger.of(EVENT)}
        self._bytes = {file.path: (0, file.size or 0) for file in wanted}
        self.stop = threading.Event()

    def bytes(self) -> tuple[int, int]:
        """Return the bytes that are there, and those of all files as far as is known."""
        done, total = zip(*self._bytes.values(), strict=True)
        return sum(done), sum(total)

    def fetch(self, wanted: Wanted) -> Fetched:
        """Return a wanted file that landed, was there, or failed.

        Raises:
            DataError: If the disk cannot be written to.
        """
        try:
            fetched = self._present(wanted)
            if fetched:
                forget(wanted)
            else:
                fetched = self._landed(wanted)
        except (ServiceError, DataError) as error:
            return Fetched(wanted=wanted, error=error)
        except OSError as error:
            raise unwritable(wanted.path, error.strerror or str(error)) from error
        self._bytes[wanted.path] = (fetched.size, fetched.size)
        return fetched

    def _present(self, wanted: Wanted) -> Fetched | None:
        """Return a wanted file that is there; None if it is to be fetched.

        Raises:
            DataError: If something else has its name that is not of the ledger, so may be somebody's work.
        """
        if not os.path.lexists(wanted.path):
            return None
        entry = self._entries.get(self._name(wanted))
        size = wanted.path.stat().st_size if wanted.path.is_file() else -1
        if entry is not None and size >= 0:
            if size == entry["size"] and wanted.allows(size=size, sha256=entry["sha256"], md5=entry.get("md5")):
                return Fetched(wanted=wanted, size=size, sha256=entry["sha256"])
            return None
        if size >= 0 and wanted.is_known:
            digests = _digests(wanted.path)
            if wanted.allows(size=size, **digests):
                self._note(wanted, size, digests["sha256"])
                return Fetched(wanted=wanted, size=size, sha256=digests["sha256"])
        msg = f"{wanted.path} is there, and is not what is to be fetched; move it away, or name another folder"
        raise DataError(msg)

    def _landed(self, wanted: Wanted) -> Fetched:
        """Return a wanted file that was fetched, has its name, and stands in the ledger.

        It is in the ledger first: whoever finds its part whole knows that it needs no more of the service.
        """
        part = Part(wanted)
        try:
            self._fill(part)
            part.sync()
            self._note(wanted, part.size, part.sha256)
        finally:
            part.close()
        part.path.replace(wanted.path)
        sync_folder(wanted.path.parent)
        forget(wanted)
        return Fetched(wanted=wanted, size=part.size, sha256=part.sha256, is_new=True)

    def _fill(self, part: Part) -> None:
        """Fetch what is missing of a part, again and again where it breaks.

        Raises:
            ServiceError: If it cannot be had, or not as it should be.
        """
        address = _Address(part)
        faults: Counter[type[Exception]] = Counter()
        while True:
            before = part.size
            try:
                if not part.is_whole:
                    self._receive(part, address.current())
                part.check()
            except (WrongFileError, ChangedError) as error:
                faults[type(error)] += 1
                _begin_anew(part, error, faults[type(error)])
                address.renew()
            except Refused as refused:
                if refused.status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
                    part.restart()
                elif not (refused.status in _EXPIRED and address.renew()):
                    raise
            except httpx.TransportError as error:
                faults[OSError] = 0 if part.size > before else faults[OSError] + 1
                self._rest(part, faults[OSError], error)
            else:
                return

    def _receive(self, part: Part, url: str) -> None:
        """Add to a part what an address sends."""
        with self._http.stream(url, endpoint=part.wanted.endpoint, headers=part.headers(), stop=self.stop) as response:
            part.follow(response)
            self._check_free(part)
            for piece in response.iter_raw():
                rest(0, self.stop)
                part.write(piece)
                self._bytes[part.wanted.path] = (part.size, part.total or part.wanted.size or 0)
        part.end()

    def _check_free(self, part: Part) -> None:
        """Refuse to begin a file that the disk has no room for."""
        if (part.total or 0) - part.size > shutil.disk_usage(part.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rest(self, part: Part, silences: int, error: httpx.TransportError) -> None:
        """Wait a little after a body that broke off.

        Raises:
            ServiceError: If too many in a row brought nothing.
        """
        if silences > _MOST_SILENCES:
            msg = f"{part.wanted.name} breaks off again and again ({error}); a rerun goes on from there"
            raise ServiceError(msg)
        rest(backoff(silences) if silences else 0.0, self.stop)

    def _note(self, wanted: Wanted, size: int, sha256: str) -> None:
        """Write a file into the ledger that has its name, or will have it at once."""
        event = {"path": self._name(wanted), "size": size, "sha256": sha256}
        event |= {"md5": wanted.md5} if wanted.md5 else {}
        known = self._entries.get(event["path"], {})
        if any(known.get(key) != value for key, value in event.items()):
            self._ledger.append(EVENT, **event)

    def _name(self, wanted: Wanted) -> str:
        """Return the path of a wanted file below the root, as the ledger has it."""
        return wanted.path.absolute().relative_to(self._root).as_posix()


def _begin_anew(part: Part, error: WrongFileError | ChangedError, times: int) -> None:
    """Forget the bytes of a part that are not the wanted file's.

    Raises:
        ServiceError: If that has been so too often.
    """
    if times <= (1 if isinstance(error, WrongFileError) else _MOST_CHANGES):
        part.restart()
        return
    part.discard()
    msg = f"{error}, {counted(times, 'time')} in a row; it is left out, and a rerun tries it again"
    raise ServiceError(msg) from None


class _Address:
    """The address of a file, asked for again when it has expired."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._url = part.wanted.url if isinstance(part.wanted.url, str) else None
        self._asked = 0
        self._size = -1  # of the part when the address was asked for

    def current(self) -> str:
        """Return the address, and ask for it where there is none."""
        if self._url is None:
            assert callable(self._part.wanted.url)
            self._url = self._part.wanted.url()
            self._asked += 1
            self._size = self._part.size
        return self._url

    def renew(self) -> bool:
        """Return whether a fresh address may help: the first is old, or the last has brought something."""
        can_help = callable(self._part.wanted.url) and (self._asked == 1 or self._part.size > self._size)
        self._url = None if can_help else self._url
        return can_help


def _check_room(wanted: Sequence[Wanted]) -> None:
    """Refuse files that their disks have no room for.

    Raises:
        DataError: If there are such.
    """
    missing: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for file in wanted:
        if file.path.exists():
            continue
        folder = next(parent for parent in file.path.absolute().parents if parent.exists())
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        part = file.path.with_name(file.path.name + PART)
        there = part.stat().st_size if part.exists() else 0
        missing[device] += max((file.size or 0) - there, 0)
    for device, size in missing.items():
        free = max(shutil.disk_usage(folders[device]).free - _SPARE, 0)
        if size > free:
            msg = (
                f"{size_text(size)} are to be fetched into {folders[device]}, and its disk has room for"
                f" {size_text(free)}; free some room, or choose a folder on another disk"
            )
            raise DataError(msg)


def _digests(path: Path) -> dict[str, str]:
    """Return SHA-256 and MD5 of a file as hex, by name."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {"sha256": file_sha256(path), "md5": md5}
