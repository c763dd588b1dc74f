"""Backends that run a bundle: from images in physical units to probabilities.

Every backend gives what PyTorch gives in float32, within bounds (`thawmap.model.backends.agreement`); one that does
not is not used. Which of them is the fastest depends on the network and the machine: `thawmap.model.backends.select`
measures.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thawmap.errors import ConfigError
from thawmap.model.backends.agreement import Precision, RealImage, comparison_image, disagreement
from thawmap.model.backends.devices import BACKENDS, find_device, memory_errors
from thawmap.model.backends.folding import folded
from thawmap.model.bundle import Bundle
from thawmap.model.network import PROBE_PX, probability


class Backend(Protocol):
    """Function from a batch of images to their probabilities."""

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute probability (N, H, W) of images (N, C, H, W).

        Probability is float32, 0..1; images are float32 in physical units, NaN = missing. Layers are in the bundle's
        order; H and W are multiples of the bundle's stride. Every pixel gets an answer: what is not valid is the
        caller's to leave out.

        Raises:
            MemoryError: If the device's memory does not hold the batch; a smaller one may fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """Backend of PyTorch on one device.

    Attributes:
        answer: Probability (N, H, W) of a tensor of images, on the device.
        device: Where it runs.
        precision: float32 is the full one on GPUs too; bfloat16 multiplies in 16 bits and adds in 32.
    """

    answer: Callable[[Tensor], Tensor]
    device: torch.device
    precision: Precision = "float32"

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute probability (N, H, W) of images (N, C, H, W), as in `Backend`."""
        with memory_errors(), torch.inference_mode(), _arithmetic(self.device, self.precision):
            batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(self.device)
            probabilities: npt.NDArray[np.float32] = self.answer(batch).cpu().numpy()
        return probabilities


def open_backend(
    bundle: Bundle,
    *,
    device: str = "auto",
    backend: str = "eager",
    precision: Precision = "float32",
    image: RealImage | None = None,
) -> Backend:
    """Return a function that runs a bundle; refuse one that disagrees with PyTorch.

    That is a backend, compared with PyTorch in float32. The bundle's own network is moved to the device.

    Args:
        bundle: The model.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        backend: One of `BACKENDS`.
        precision: Of multiplications.
        image: Reads a real image, on a tile of which answers are compared; it is asked only where there is something to
            compare. None: a small one, made up. What bfloat16 loses depends on the image.

    Raises:
        ConfigError: If there is no such device or backend, its library is missing, it does not work here, or it
            disagrees with PyTorch.
    """
    torch_device = find_device(device)
    opened = open_unchecked(bundle, torch_device, backend, precision)
    if (backend, precision) == ("eager", "float32"):
        return opened
    sample = comparison_image(bundle.layers, PROBE_PX if image is None else bundle.tile, image)
    answer = first_answer(opened, sample, backend)
    truth = open_unchecked(bundle, torch_device, "eager", "float32")(sample)
    fault = disagreement(answer, truth, precision=precision, threshold=bundle.threshold)
    if fault is not None:
        advice = "inference.backend to eager" if precision == "float32" else "inference.precision to float32"
        msg = f"backend {backend} in {precision} disagrees with PyTorch in float32: {fault}; set {advice}"
        raise ConfigError(msg)
    return opened


def open_unchecked(bundle: Bundle, device: torch.device, backend: str, precision: Precision) -> Backend:
    """Return a function that runs a bundle on a device, not compared with PyTorch.

    That is a backend. The bundle's network is moved to the device.

    Raises:
        ConfigError: If there is no such backend, or its library is missing.
    """
    # torch's stubs know `to` with a memory format only together with other arguments
    bundle.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bundle.network.eval()
    on_processor = device.type == "cpu"  # where it is faster; on GPUs that was not measured
    network = folded(bundle.network, channels=len(bundle.layers)) if on_processor else bundle.network
    answer = partial(probability, network, reading=bundle.reading)
    if backend == "eager":
        return TorchBackend(answer, device, precision)
    if backend == "compile":
        # any size on a processor; on a GPU one CUDA graph per size, which takes no time between operations
        on_gpu = device.type == "cuda"
        compiled = torch.compile(answer, dynamic=not on_gpu, mode="reduce-overhead" if on_gpu else None)
        return TorchBackend(compiled, device, precision)
    if backend == "openvino":
        from thawmap.model.backends.openvino import open_openvino  # noqa: PLC0415 - an optional library, and a slow one

        return open_openvino(bundle, device.type, precision)
    msg = f"backend {backend!r} does not exist; use {', '.join(BACKENDS)}"
    raise ConfigError(msg)


def first_answer(opened: Backend, images: npt.NDArray[np.float32], backend: str) -> npt.NDArray[np.float32]:
    """Compute a backend's first probability (N, H, W); refuse a backend that fails.

    Compilers may fail during it.

    Raises:
        ConfigError: If the backend fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers' remarks on what they could not make faster
            return opened(images)
    except (RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        msg = f"backend {backend} does not work here ({reason}); set inference.backend to eager"
        raise ConfigError(msg) from error


@contextmanager
def _arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Set the precision of a device's multiplications within a block.

    GPUs would else cut the factors of float32 convolutions to 10 bits.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False))
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        yield
