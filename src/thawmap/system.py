"""How this process gets memory from the kernel, and gives it back; nothing else is loaded for it."""

import ctypes
import sys

_KEEP = ((-1, -1), (-4, 0), (-8, 1))  # M_TRIM_THRESHOLD: none; M_MMAP_MAX: none; M_ARENA_MAX: one for all threads


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where it is Linux's allocator that gives it away.

    PyTorch allocates what it computes anew for every image, and each time the kernel hands it over in pages that it
    clears one by one: a fifth of the time of a network on a processor. To be called before numpy or PyTorch are loaded,
    as their threads would have memory of their own that cannot be kept.
    """
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "mallopt"):
        for parameter, value in _KEEP:
            allocator.mallopt(parameter, value)


def release_freed_memory() -> None:
    """Give back what is kept, as before images of another size, for which the pieces do not fit."""
    if sys.platform == "linux" and hasattr(allocator := ctypes.CDLL(None), "malloc_trim"):
        allocator.malloc_trim(0)
