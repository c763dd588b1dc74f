"""How much memory a network takes for each pixel of an image, before it is run; and who keeps it between images."""

import ctypes
import platform
import weakref
from copy import deepcopy
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from thawmap.model.agreement import Precision
from thawmap.model.bundle import Bundle
from thawmap.model.folding import folded
from thawmap.model.network import PROBE_PX

FACTORS = {
    ("eager", "float32"): 1.5,
    ("eager", "bfloat16"): 0.9,
    ("compile", "float32"): 1.5,
    ("compile", "bfloat16"): 0.9,
    ("openvino", "float32"): 0.75,
    ("openvino", "bfloat16"): 0.4,
}
"""Peak of a process over that of its tensors, by backend and precision.

Measured at 1024 to 2048 px (docs/performance.md). PyTorch copies what it multiplies; OpenVINO merges operations and
lets what is never alive together share memory.
"""

BASE_BYTES = {"eager": 0, "compile": 400_000_000, "openvino": 200_000_000}
"""What a process holds for each network beside PyTorch and that, whatever the size of the images, by backend."""


_KEEP = ((-1, -1), (-4, 0), (-8, 1))  # M_TRIM_THRESHOLD: none; M_MMAP_MAX: none; M_ARENA_MAX: one for all threads


def bytes_per_pixel(bundle: Bundle, backend: str, precision: Precision = "float32") -> int:
    """Memory that a backend takes for each pixel of an image, the image itself not counted.

    Of a batch, PyTorch holds all images at once, OpenVINO one. The tensors that live at the same time are counted in a
    run that computes nothing, so that every architecture and encoder has its own number.
    """
    network = folded(deepcopy(bundle.network).to("meta").eval(), channels=len(bundle.layers))
    watch = _Living()
    with torch.no_grad(), watch:
        network(torch.zeros(1, len(bundle.layers), PROBE_PX, PROBE_PX, device="meta"))
    return round(watch.peak / PROBE_PX**2 * FACTORS[backend, precision])


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where it is Linux's allocator that gives it away.

    PyTorch allocates what it computes anew for every image. Each time the kernel hands it over in pages that it clears
    one by one, which takes a fifth of the time of a network on a processor. To be called before PyTorch computes for
    the first time: its threads would else have memory of their own that cannot be kept.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    allocator = ctypes.CDLL(None)
    for parameter, value in _KEEP:
        allocator.mallopt(parameter, value)


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive at the same time.

    Attributes:
        peak: The most that there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self._now)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)  # several tensors may share one
        if key not in self._seen:
            self._seen.add(key)
            self._now += storage.nbytes()
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size
