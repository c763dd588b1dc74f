"""Backend of OpenVINO: a network converted once, run without PyTorch.

The conversion takes more memory than the running, so it is done in a sandbox, and kept by bundle
(`thawmap.model.backends.sandbox`). All of `thawmap.model.network.probability` is converted, with scaling and sigmoid,
but for the filling of gaps: that is done before, and only in images that have any.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thawmap.config import Fill
from thawmap.errors import ConfigError
from thawmap.files.hashes import json_sha256
from thawmap.model.backends.agreement import Precision
from thawmap.model.backends.devices import memory_errors, threads
from thawmap.model.backends.sandbox import (
    LIMIT_S,
    SandboxError,
    cache_folder,
    identity,
    run_in_sandbox,
    sandbox,
    versions,
)
from thawmap.model.bundle import Bundle
from thawmap.model.gaps import fill_gaps

CONVERTED, NETWORK = "converted", "network.xml"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoBackend:
    """Backend of a converted network, on so many threads as PyTorch has.

    It takes one image after the other, and is compiled for the size of the images, again when that changes: a
    compilation for any size takes twice the memory. A batch would take more memory and no less time.

    Args:
        path: File of the converted network, as `convert` writes it.
        precision: Of multiplications; without a hint, a processor that has bfloat16 would use it.
        fill: Values of missing pixels (`thawmap.model.reading.Reading`).
    """

    def __init__(self, path: Path, precision: Precision, fill: Fill) -> None:
        self._fill = fill
        self._core = import_openvino().Core()
        self._model = self._core.read_model(path)
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads(),
            "ENABLE_CPU_PINNING": False,  # processes side by side would sit on the same processor
        }
        self._compiled: Any = None
        self._shape: tuple[int, ...] = ()

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute probability (N, H, W) of images (N, C, H, W).

        As `thawmap.model.backends.open.Backend`.
        """
        answers = np.empty((len(images), *images.shape[2:]), np.float32)
        shape = (1, *images.shape[1:])
        with memory_errors():
            if shape != self._shape:
                self._compiled, self._shape = None, ()  # so that two compiled networks are never in memory
                self._model.reshape(list(shape))
                self._compiled, self._shape = self._core.compile_model(self._model, "CPU", self._settings), shape
            for image, answer in zip(images, answers, strict=True):
                filled = fill_gaps(image[None]) if self._fill == "near" else image[None]
                answer[:] = self._compiled(np.ascontiguousarray(filled, dtype=np.float32), share_outputs=True)[0][0]
        return answers


def open_openvino(bundle: Bundle, device: str, precision: Precision) -> OpenVinoBackend:
    """Return a bundle's backend of OpenVINO, converting the network if needed.

    Raises:
        ConfigError: If the library is missing, the device is no processor, or the network cannot be converted.
    """
    if device != "cpu":
        msg = f"backend openvino runs on the processor, but the device is {device}; set inference.device to cpu"
        raise ConfigError(msg)
    import_openvino()
    path = convert(bundle)
    try:
        return OpenVinoBackend(path, precision, bundle.fill)
    except RuntimeError as error:
        msg = f"{path} cannot be read by OpenVINO; remove the folder {path.parent}, and it will be made again"
        raise ConfigError(msg) from error


def convert(bundle: Bundle, *, limit_s: float = LIMIT_S) -> Path:
    """Convert a bundle's network for OpenVINO, once, and return the cached file.

    The network takes images of any size.

    Raises:
        ConfigError: If it cannot be converted, or the cache folder cannot be written.
    """
    path = converted_path(bundle)
    if path.parent.exists():
        return path
    with sandbox(bundle) as folder:
        try:
            run_in_sandbox("thawmap.model.backends.tracing", folder, {}, limit_s=limit_s)
        except SandboxError as error:
            msg = (
                f"architecture {bundle.architecture!r} with encoder {bundle.encoder!r} cannot be converted for "
                f"OpenVINO ({error}); set inference.backend to eager"
            )
            raise ConfigError(msg) from error
        path.parent.parent.mkdir(exist_ok=True)
        try:
            (folder / CONVERTED).rename(path.parent)
        except OSError:  # another process may have been faster
            if not path.parent.exists():
                raise
    return path


def converted_path(bundle: Bundle) -> Path:
    """Return the path of a bundle's converted network, whether it exists or not.

    It depends on all that decides the network's answers.
    """
    key = json_sha256({"network": identity(bundle), "versions": versions()}, digits=16)
    return cache_folder() / "openvino" / key / NETWORK


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, and return the module.

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
