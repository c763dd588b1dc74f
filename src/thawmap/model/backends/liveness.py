"""Memory of the tensors that are alive at the same time."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes of tensors that are alive at the same time.

    Attributes:
        peak: The most bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, or PyTorch would load its compiler for this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, count the bytes of its tensors, and return its answer."""
        answer = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(answer):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self._now)
        return answer

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Count the bytes of a tensor's storage, once, until it is freed."""
        key = id(storage)  # several tensors may share one
        if key not in self._seen:
            self._seen.add(key)
            self._now += storage.nbytes()
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        """Take away the bytes of a storage that is freed."""
        self._seen.discard(key)
        self._now -= size
