"""OpenVINO on a processor: a network converted once, run without PyTorch's operations.

The conversion takes more memory than the running, so it is done aside, and kept by bundle (`thawmap.model.aside`). All
of `thawmap.model.network.probability` is converted, with scaling and sigmoid, but for the filling of gaps: that is done
before, and only in images that have any.
"""

import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thawmap.config import Fill
from thawmap.errors import ConfigError
from thawmap.model.agreement import Precision
from thawmap.model.aside import (
    LIMIT_S,
    AsideError,
    bundle_of,
    cache_folder,
    digest,
    identity,
    room,
    run_aside,
    task_of,
    versions,
)
from thawmap.model.bundle import Bundle
from thawmap.model.folding import folded
from thawmap.model.gaps import fill_gaps
from thawmap.model.network import PROBE_PX, probability
from thawmap.model.reading import Reading

_MODEL = "network.xml"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoBackend:
    """A converted network, one image after the other, on the processor's threads that PyTorch has.

    It is compiled for the size of the images, again when that changes: a compilation for any size takes twice the
    memory. A batch would take more memory and no less time.

    Args:
        path: What `convert` made.
        precision: Of multiplications; without this said, a processor that knows bfloat16 would use it.
        fill: What missing pixels look like (`thawmap.model.reading.Reading`).
    """

    def __init__(self, path: Path, precision: Precision, fill: Fill) -> None:
        self._fill = fill
        self._core = import_openvino().Core()
        self._model = self._core.read_model(path)
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # processes side by side would sit on the same processor
        }
        self._compiled: Any = None
        self._shape: tuple[int, ...] = ()

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probability (N, H, W) of images (N, C, H, W), as `thawmap.model.backends.Backend` says."""
        from thawmap.model.backends import memory_errors  # noqa: PLC0415 - it opens this one

        answers = np.empty((len(images), *images.shape[2:]), np.float32)
        with memory_errors():
            self._compile((1, *images.shape[1:]))
            for image, answer in zip(images, answers, strict=True):
                filled = fill_gaps(image[None]) if self._fill == "near" else image[None]
                answer[:] = self._compiled(np.ascontiguousarray(filled, dtype=np.float32), share_outputs=True)[0][0]
        return answers

    def _compile(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        self._compiled, self._shape = None, ()  # its memory first
        self._model.reshape(list(shape))
        self._compiled, self._shape = self._core.compile_model(self._model, "CPU", self._settings), shape


def open_openvino(bundle: Bundle, device: torch.device, precision: Precision) -> OpenVinoBackend:
    """The bundle on OpenVINO, converted now where it was not before.

    Raises:
        ConfigError: If the library is missing, the device is no processor, or the network cannot be converted.
    """
    if device.type != "cpu":
        msg = f"backend openvino runs on the processor, but the device is {device.type}; set inference.device to cpu"
        raise ConfigError(msg)
    import_openvino()
    path = convert(bundle)
    try:
        return OpenVinoBackend(path, precision, bundle.fill)
    except RuntimeError as error:
        msg = f"{path} cannot be read by OpenVINO; remove the folder {path.parent}, and it will be made again"
        raise ConfigError(msg) from error


def convert(bundle: Bundle, *, limit_s: float = LIMIT_S) -> Path:
    """The network in OpenVINO's files, for images of any size; made now where it was not before.

    Raises:
        ConfigError: If it cannot be converted, or the cache folder cannot be written.
    """
    path = place(bundle)
    if path.parent.exists():
        return path
    with room(bundle) as work:
        try:
            run_aside("thawmap.model.openvino", work, {}, limit_s=limit_s)
        except AsideError as error:
            msg = (
                f"architecture {bundle.architecture!r} with encoder {bundle.encoder!r} cannot be converted for "
                f"OpenVINO ({error}); set inference.backend to eager"
            )
            raise ConfigError(msg) from error
        _publish(work / "converted", path.parent)
    return path


def place(bundle: Bundle) -> Path:
    """Where the network in OpenVINO's files is kept, by what decides its answers."""
    return cache_folder() / "openvino" / digest({"network": identity(bundle), "versions": versions()}) / _MODEL


def import_openvino() -> Any:
    """The library, without the part of it that reports its use to its makers.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec("openvino") is None:
        msg = "inference.backend is openvino, but its library is not installed; pip install 'thawmap[openvino]'"
        raise ConfigError(msg)
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return import_module("openvino")
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]


class _Probability(nn.Module):
    """What is converted: from physical units, NaN = missing, to probability."""

    def __init__(self, network: nn.Module, reading: Reading) -> None:
        super().__init__()
        self._network = network
        self._reading = reading

    def forward(self, images: Tensor) -> Tensor:
        """Probability (1, H, W) of an image (1, C, H, W)."""
        return probability(self._network, images, self._reading)


def trace(bundle: Bundle, path: Path) -> None:
    """Trace with a small image of which no side is fixed, and save in float32."""
    openvino = import_openvino()
    sides = {
        axis: torch.export.Dim(name, min=2, max=1024) * bundle.stride if bundle.stride > 1 else torch.export.Dim(name)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    example = torch.zeros(1, len(bundle.layers), PROBE_PX, PROBE_PX * 3 // 2)
    network = folded(bundle.network, channels=len(bundle.layers))
    with torch.no_grad():
        whole = _Probability(network, replace(bundle.reading, fill="zero")).eval()
        traced = torch.export.export(whole, (example,), dynamic_shapes=(sides,))
    path.parent.mkdir()
    openvino.save_model(openvino.convert_model(traced), path, compress_to_fp16=False)


def _publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name; another process may have been faster."""
    folder.parent.mkdir(exist_ok=True)
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def main(folder: Path) -> None:
    """In a process of its own: convert the bundle in ``folder``."""
    with task_of(folder):
        trace(bundle_of(folder), folder / "converted" / _MODEL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
