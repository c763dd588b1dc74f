"""Networks that are ready to run without PyTorch: converted, and compared with it, by an earlier process.

What was shown once on a tile of a scene is remembered beside the converted network, for the processor that it was shown
on. From then on the bundle's self-test, which is PyTorch's answer, stands for PyTorch.
"""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from thawmap.errors import BundleError, ConfigError, DataError
from thawmap.files.atomic import write_json
from thawmap.model.backends.agreement import Precision
from thawmap.model.backends.devices import named, processor
from thawmap.model.backends.openvino import open_openvino, place
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import check_selftest

_RECORD = "agreed.json"


def recall(bundle: Bundle, *, device: str, backend: str, precision: Precision) -> int | None:
    """Memory in bytes per pixel of a bundle that is ready to run in this way without PyTorch; None where it is not.

    Raises:
        ConfigError: If there is no such device.
    """
    if bundle.stored is None or (backend, precision) != ("openvino", "float32") or named(device) != "cpu":
        return None
    try:
        record = json.loads(_record(bundle).read_text(encoding="utf-8"))
        return int(record["bytes_per_pixel"]) if record["processor"] == list(processor()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(bundle: Bundle, *, backend: str, precision: Precision, bytes_per_pixel: int) -> None:
    """Keep that a backend agreed with PyTorch here, of OpenVINO in float32; nothing where that cannot be written."""
    if (backend, precision) != ("openvino", "float32"):
        return
    path = _record(bundle)
    if path.parent.exists():
        with suppress(DataError):
            write_json(path, {"processor": processor(), "bytes_per_pixel": bytes_per_pixel}, indent=None)


class PreparedBackend:
    """A converted network that is asked the bundle's self-test before it answers anything else.

    Args:
        bundle: One that `recall` knows.

    Raises:
        ConfigError: If the network cannot be read, or OpenVINO is missing.
    """

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.stored is not None
        self._opened = open_openvino(bundle, "cpu", "float32")
        self._stored = bundle.stored
        self._folder = place(bundle).parent
        self._is_proven = False

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probability (N, H, W) of images (N, C, H, W), as `thawmap.model.backends.open.Backend` says.

        Raises:
            ConfigError: If the network does not pass the self-test.
        """
        if not self._is_proven:
            self._prove()
        return self._opened(images)

    def _prove(self) -> None:
        test = load_file(self._stored.selftest)
        try:
            check_selftest(self._stored.folder, float(np.abs(self._opened(test["input"]) - test["probability"]).max()))
        except (BundleError, RuntimeError) as error:
            msg = f"the network in {self._folder} is not that of its bundle ({error}); remove it, and it is made again"
            raise ConfigError(msg) from error
        self._is_proven = True


def _record(bundle: Bundle) -> Path:
    return place(bundle).parent / _RECORD
