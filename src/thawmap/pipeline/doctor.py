"""The verb doctor: what this machine has."""

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

import rasterio
import torch

from thawmap import __version__


def doctor() -> dict[str, str]:
    """What this machine has, by name, for a person to read."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "thawmap": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the processor is used",
        "GDAL": rasterio.__gdal_version__,
        "processors": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "disk free here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB",
        "optional parts": ", ".join(_installed_extras()) or "none",
    }


def _installed_extras() -> list[str]:
    """The optional parts (extras) whose library is there."""
    libraries = {
        "openvino": "openvino",
        "cluster": "distributed",
        "acquire": "pystac_client",
        "earthengine": "ee",
        "onnx": "onnx",
        "review": "nicegui",
        "tune": "optuna",
    }
    return [extra for extra, library in libraries.items() if find_spec(library) is not None]
