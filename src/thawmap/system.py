"""Memory of this process: what it keeps of freed memory, and what it gives back.

Loads nothing but the C library, so that it can be called before numpy and PyTorch are loaded.
"""

import ctypes
import sys

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
    """Let this process keep up to 1 GiB of memory that tensors free, where its allocator is glibc's.

    It can be called at any time, and changes nothing in a process that keeps all freed memory. By default a tensor of
    some megabytes is handed back to the system, and the next one of its size comes in pages that the system first fills
    with zeros: a seventh of a training step's time on a CPU (benchmarks/training.py). The peak stays the same.
    """
    if _KEEP_ALL not in _applied:
        _apply(_KEEP_1_GIB)


def release_freed_memory() -> None:
    """Give kept memory back, as before images of another size, for which the pieces do not fit."""
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "malloc_trim"):
        allocator.malloc_trim(0)


def _apply(policy: tuple[tuple[int, int], ...]) -> None:
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "mallopt"):
        for parameter, value in policy:
            allocator.mallopt(parameter, value)
        _applied.add(policy)
