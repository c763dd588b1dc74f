"""What runs a bundle: from images in physical units to probabilities."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from thawmap.errors import ConfigError
from thawmap.model.bundle import Bundle
from thawmap.model.network import probability


class Backend(Protocol):
    """Answers for a batch of images."""

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probability (N, H, W) float32, 0..1, of images (N, C, H, W) float32, physical units, NaN = missing.

        Layers are in the bundle's order; H and W are multiples of the bundle's stride. Every pixel gets an
        answer: what is not valid is the caller's to leave out.
        """
        ...


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """PyTorch on one device, in float32 as that device multiplies it (recent GPUs round more than a CPU).

    Attributes:
        bundle: The model; its network is on ``device``.
        device: Where it runs.
    """

    bundle: Bundle
    device: torch.device

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probability (N, H, W) of images (N, C, H, W), as `Backend` says."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(self.device)
            answer = probability(self.bundle.network, batch, self.bundle.layers)
            found: npt.NDArray[np.float32] = answer.cpu().numpy()
        return found


def open_backend(bundle: Bundle, *, device: str = "auto") -> Backend:
    """The bundle, ready to run on ``device``: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".

    The bundle's own network is moved there.

    Raises:
        ConfigError: If there is no such device.
    """
    where = find_device(device)
    # torch's stubs know `to` with a memory format only together with other arguments
    bundle.network.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bundle.network.eval()
    return TorchBackend(bundle, where)


def find_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is a GPU where there is one, else the CPU.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"device {name!r} is not known; use auto, cpu or cuda"
        raise ConfigError(msg) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        msg = (
            f"device {name!r} was asked for, but this machine has {torch.cuda.device_count()} GPUs that "
            "torch can use; use auto or cpu"
        )
        raise ConfigError(msg)
    return device
