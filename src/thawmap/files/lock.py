"""The one lock: a file that one process holds, at most until it dies."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_log = logging.getLogger(__name__)


@contextmanager
def hold(path: Path, *, wait: bool = True, remove: bool = True) -> Iterator[bool]:
    """Lock a file until the block ends; yield True, or False on disks without locks.

    The file is made where there is none; what it holds stays. Processes that are forked in the block hold the lock too,
    those that are spawned do not.

    Args:
        path: The lock file, in a folder that exists.
        wait: Wait for another process that holds it, and say so.
        remove: Remove the file in the end.

    Raises:
        BlockingIOError: If another process holds it, and ``wait`` is False.
        OSError: If the file cannot be made.
    """
    descriptor = _acquire(path, wait=wait)
    try:
        yield descriptor is not None
    finally:
        if remove:
            path.unlink(missing_ok=True)  # before it is free: whoever opened it meanwhile sees that its name is gone
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: Path, *, wait: bool) -> int | None:
    """Lock a file and return its descriptor; None where the disk has no locks."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            _lock(descriptor, path, wait=wait)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)  # who held it has removed it: another process may hold a new file of this name
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise


def _lock(descriptor: int, path: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        _log.warning("another process holds %s; waiting for it to end", path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
