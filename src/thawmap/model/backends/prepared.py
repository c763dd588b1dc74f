"""Networks that an earlier process made ready to run without PyTorch.

That process converted them and compared them with PyTorch on a tile of a scene. The agreement is remembered beside the
converted network, for the processor that it was found on. From then on the bundle's self-test, which is PyTorch's
answer, stands for PyTorch.
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
from thawmap.model.backends.devices import processor, resolve_device
from thawmap.model.backends.openvino import converted_path, open_openvino
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import check_selftest

_RECORD = "agreed.json"


def recall(bundle: Bundle, *, device: str, backend: str, precision: Precision) -> int | None:
    """Read remembered bytes per pixel of a bundle that runs without PyTorch, or None.

    None where no earlier process made it ready for this device, backend, precision and processor.

    Raises:
        ConfigError: If there is no such device.
    """
    if bundle.stored is None or (backend, precision) != ("openvino", "float32") or resolve_device(device) != "cpu":
        return None
    try:
        record = json.loads(_record(bundle).read_text(encoding="utf-8"))
        return int(record["bytes_per_pixel"]) if record["processor"] == list(processor()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(bundle: Bundle, *, backend: str, precision: Precision, bytes_per_pixel: int) -> None:
    """Write beside the converted network that it agreed with PyTorch, and its memory.

    On this processor. Only of OpenVINO in float32; where the cache folder cannot be written, nothing is remembered.
    """
    if (backend, precision) != ("openvino", "float32"):
        return
    path = _record(bundle)
    if path.parent.exists():
        with suppress(DataError):
            write_json(path, {"processor": processor(), "bytes_per_pixel": bytes_per_pixel}, indent=None)


class PreparedBackend:
    """Backend of a converted network that first has to pass the self-test.

    Args:
        bundle: A bundle for which `recall` returned a number.

    Raises:
        ConfigError: If the network cannot be read, or OpenVINO is missing.
    """

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.stored is not None
        self._opened = open_openvino(bundle, "cpu", "float32")
        self._stored = bundle.stored
        self._folder = converted_path(bundle).parent
        self._is_proven = False

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute probability (N, H, W) of images (N, C, H, W), after a self-test.

        The test is made in the first call. Otherwise as `thawmap.model.backends.open.Backend`.

        Raises:
            ConfigError: If the network does not pass the self-test.
        """
        if self._is_proven:
            return self._opened(images)
        test = load_file(self._stored.selftest)
        try:
            difference = np.abs(self._opened(test["input"]) - test["probability"])
            check_selftest(self._stored.folder, float(difference.max()))
        except (BundleError, RuntimeError) as error:
            msg = f"the network in {self._folder} is not that of its bundle ({error}); remove it, and it is made again"
            raise ConfigError(msg) from error
        self._is_proven = True
        return self._opened(images)


def _record(bundle: Bundle) -> Path:
    """Return the path of a bundle's record of agreement, beside its converted network."""
    return converted_path(bundle).parent / _RECORD
