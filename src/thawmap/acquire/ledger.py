"""The ledger of an acquisition, one JSON event a line, and the lock of its folder."""

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from thawmap.acquire.answers import without_query
from thawmap.errors import DataError
from thawmap.files.atomic import unwritable
from thawmap.files.lock import hold
from thawmap.text import printable

LOCK = ".acquire.lock"
"""File in the folder of an acquisition that says who works in it."""


class Ledger:
    """What an acquisition has done, in order; lines are added and never changed.

    An event is on the disk when `append` returns. Several threads may append; of several processes, the lock of the
    folder lets one.
    """

    def __init__(self, path: Path, events: list[dict[str, Any]], whole: int) -> None:
        self.path = path
        self._events = events
        self._whole = whole  # bytes of the file that are whole lines
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the ledger in a file, which need not exist; nothing is written yet.

        A last line that was cut as the program or the power went off is left out, and goes with the next event.

        Raises:
            DataError: If the file cannot be read, or another line than the last is damaged.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            msg = f"{path} cannot be read ({error.strerror}); what was done before is not known without it"
            raise DataError(msg) from error
        events, whole = _read(content, path)
        return cls(path, events, whole)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events in order: "event" is its kind, "time" is UTC."""
        with self._lock:
            return list(self._events)

    def of(self, event: str, **match: Any) -> list[dict[str, Any]]:
        """Return the events of one kind, in order, whose values are those given."""
        return [
            entry
            for entry in self.events
            if entry["event"] == event and all(key in entry and entry[key] == value for key, value in match.items())
        ]

    def append(self, event: str, **values: Any) -> dict[str, Any]:
        """Write an event with its values to the disk, and return it.

        Of addresses among the values the query is left out, as it may be a key.

        Args:
            event: Its kind.
            values: JSON values by name.

        Raises:
            DataError: If it cannot be written.
        """
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **_clean(values)}
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                raise unwritable(self.path, error.strerror or str(error)) from error
            self._events.append(entry)
        return entry

    def close(self) -> None:
        """Close the file; it opens again with the next event."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _write(self, line: bytes) -> None:
        """Write a line behind the whole ones; a line that does not fit leaves nothing."""
        if self._descriptor is None:
            self._descriptor = _opened(self.path)
        if os.fstat(self._descriptor).st_size != self._whole:
            os.ftruncate(self._descriptor, self._whole)  # a torn line
        if self._whole and os.pread(self._descriptor, 1, self._whole - 1) != b"\n":
            line = b"\n" + line  # somebody's editor took the last line break
        try:
            is_written = os.pwrite(self._descriptor, line, self._whole) == len(line)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._whole)
            raise
        if not is_written:
            os.ftruncate(self._descriptor, self._whole)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._whole += len(line)


@contextmanager
def alone(folder: Path, *, note: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the right to acquire into a folder for a block.

    One process at a time has it.

    Args:
        folder: Made where it is missing.
        note: Is told about a lock that a process left which ended before its work did.

    Raises:
        DataError: If another process has it, or may have it on another machine, or the folder cannot be written to.
    """
    path = folder / LOCK
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_held = stack.enter_context(hold(path, wait=False, remove=False))
            holder = _holder(path)
            _check_left(holder, path, is_held=is_held)
            stack.callback(path.unlink, missing_ok=True)  # before it is free
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}) + "\n")
        except BlockingIOError:
            msg = f"{_named(_holder(path))} acquires into {folder}; wait for it to end, or stop it"
            raise DataError(msg) from None
        except OSError as error:
            raise unwritable(path, error.strerror or str(error)) from error
        if holder and note:
            note(f"{_named(holder)} ended before its work did; going on from what it left")
        yield


def _read(content: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the events of a ledger's bytes, and the number of bytes up to a torn last line.

    Raises:
        DataError: If another line than the last is damaged.
    """
    events: list[dict[str, Any]] = []
    lines = content.splitlines(keepends=True)
    whole = 0
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is not None:
            events.append(entry)
        elif line.strip():
            if number == len(lines):
                break
            msg = (
                f"{path} is damaged in line {number}, so that what was ordered and fetched is not known for certain;"
                " put back a copy of the file, or remove the line if you know that it is of no order"
            )
            raise DataError(msg)
        whole += len(line)
    return events, whole


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line; None where it holds none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(entry, dict) and isinstance(entry.get("event"), str)
    return entry if is_event else None


def _opened(path: Path) -> int:
    """Return the descriptor of a file, which is made and known to the disk where it is missing."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    if is_new:
        sync_folder(path.parent)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean(value: Any) -> Any:
    """Return a JSON value in which addresses have no query."""
    if isinstance(value, str):
        return without_query(value) if value.lower().startswith(("https://", "http://")) else value
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def _holder(path: Path) -> dict[str, Any]:
    """Return process, host and time in a lock; an empty dict where it says nothing."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _named(holder: dict[str, Any]) -> str:
    """Return a holder of the lock in words."""
    if not holder:
        return "another process"
    return printable(f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})")


def _check_left(holder: dict[str, Any], path: Path, *, is_held: bool) -> None:
    """Refuse a lock that a process left which may still be at work.

    The lock itself tells of this machine's processes, where the disk has locks; of other machines' nothing does.

    Raises:
        DataError: If it may.
    """
    if not holder:
        return
    if holder.get("host") != socket.gethostname():
        msg = f"{_named(holder)} may still acquire into {path.parent}; if it does not, remove {path}"
        raise DataError(msg)
    if not is_held and _is_alive(holder.get("pid")):
        msg = f"{_named(holder)} acquires into {path.parent}; wait for it to end, or stop it"
        raise DataError(msg)


def _is_alive(pid: object) -> bool:
    """Return whether a process of this machine exists."""
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
