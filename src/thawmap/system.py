"""This process and its system: memory, threads, versions of libraries.

Loads nothing but the C library, so that it can be called before numpy and PyTorch are loaded.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_KEEP_ALL = ((-1, -1), (-4, 0), (-8, 1))  # M_TRIM_THRESHOLD: none; M_MMAP_MAX: none; M_ARENA_MAX: one for all threads
_KEEP_1_GIB = ((-1, 2**30), (-3, 2**30))  # M_TRIM_THRESHOLD; M_MMAP_THRESHOLD

_applied: set[tuple[tuple[int, int], ...]] = set()


def keep_freed_memory() -> None:
    """Let this process keep all memory that it frees, where its allocator is glibc's.

    PyTorch allocates what it computes anew for every image, and each time the kernel hands it over in pages that it
    clears one by one: a fifth of the time of a network on a processor. To be called before numpy or PyTorch are loaded,
    as their threads would have memory of their own that cannot be kept.
    """
    _apply(_KEEP_ALL)


def keep_freed_tensors() -> None:
    """Let this process keep up to 1 GiB of memory that tensors free.

    Only where its allocator is glibc's. It can be called at any time, and changes nothing in a process that keeps all
    freed memory. By default a tensor of some megabytes is handed back to the system, and the next one of its size comes
    in pages that the system first fills with zeros: a seventh of a training step's time on a CPU
    (benchmarks/training.py). The peak stays the same.
    """
    if _KEEP_ALL not in _applied:
        _apply(_KEEP_1_GIB)


def release_freed_memory() -> None:
    """Give memory that this process freed but kept back to the system, on Linux.

    As before images of another size, for which the pieces do not fit.
    """
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "malloc_trim"):
        allocator.malloc_trim(0)


def forget_peak_memory() -> int:
    """Reset the peak memory of this process, and return the bytes in use now.

    Only on Linux does `peak_memory` count anew.
    """
    release_freed_memory()
    with suppress(OSError):  # systems other than Linux cannot
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def peak_memory() -> int:
    """Return the peak memory of this process in bytes, since its last reset or ever."""
    return _memory("VmHWM")


def threads_each(workers: int) -> int:
    """Return the number of CPUs divided by a number of workers, at least 1.

    So many threads each of them may use.
    """
    return max(1, (os.cpu_count() or 1) // workers)


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return a dict of library to version, without those that are not installed."""
    versions: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _apply(policy: tuple[tuple[int, int], ...]) -> None:
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "mallopt"):
        for parameter, value in policy:
            allocator.mallopt(parameter, value)
        _applied.add(policy)


def _memory(name: str) -> int:
    """Return a memory figure of this process in bytes, by Linux's name for it.

    On other systems it is the peak ever, whatever the name.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
