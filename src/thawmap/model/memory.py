"""How much memory a network takes for each pixel of an image, before it is run."""

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
    ("eager", "float32"): 2.4,
    ("eager", "bfloat16"): 1.4,
    ("compile", "float32"): 2.4,
    ("compile", "bfloat16"): 1.4,
    ("openvino", "float32"): 0.75,
    ("openvino", "bfloat16"): 0.4,
}
"""Peak of a process over that of its tensors, by backend and precision.

Measured at 1024 to 2048 px (docs/performance.md). PyTorch copies what it multiplies, and what it frees is kept
in pieces that do not always fit; OpenVINO merges operations and lets what is never alive together share memory.
"""

BASE_BYTES = {"eager": 0, "compile": 400_000_000, "openvino": 200_000_000}
"""What a process holds for each network beside PyTorch and that, whatever the size of the images, by backend."""


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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no: PyTorch would load its compiler only to tell it to pass this class by."""
        return False

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
