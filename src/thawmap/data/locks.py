"""One writer at a time, of whatever files: what a process that was killed left behind is nobody's, and is cleared."""

import errno
import fcntl
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thawmap.errors import DataError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_log = logging.getLogger(__name__)


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold the right to write ``place``, once no other process has it, and clear what killed ones left of it.

    The right is a lock on a file beside it: the system takes it back from a process that dies, so that a draft of
    `thawmap.data.io.atomic` which is found by the one who holds it belongs to nobody. A disk without locks is written
    to without, and nothing is cleared there.

    Args:
        place: A file or folder that all its writers hold. Who had to wait may find it finished.

    Raises:
        DataError: If the place cannot be written to.
    """
    lock = place.with_name(f".{place.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _hold(lock)
    except OSError as error:
        msg = f"{place} cannot be written ({error.strerror}); choose another place or free some room"
        raise DataError(msg) from error
    try:
        if descriptor is not None:
            random = "[a-z0-9_]" * 8  # as `mkdtemp` fills up a name
            for draft in place.parent.glob(f".{glob.escape(place.name)}.{random}.tmp"):
                shutil.rmtree(draft, ignore_errors=True)
        yield
    finally:
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _hold(lock: Path) -> int | None:
    """The open lock file, waited for; None where the disk knows no locks."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            _wait(descriptor, lock)
            if lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)  # who held it has taken it away: there may be a new one
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise


def _wait(descriptor: int, lock: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("another process holds %s; waiting for it to end", lock)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
