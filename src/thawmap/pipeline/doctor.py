"""The verb doctor: what this machine has."""

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

import rasterio
import torch

from thawmap import __version__

EXTRAS = {
    "openvino": ("openvino", "maps in less time on processors"),
    "onnx": ("onnx", "'thawmap model export'"),
    "tune": ("optuna", "'thawmap tune'"),
    "cluster": ("distributed", "many machines at once, 'engine.kind: dask'"),
}
"""The optional parts: the library that each is for, and what it gives."""


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
        **{f"optional: {name}": _about_extra(name) for name in EXTRAS},
    }


def _about_extra(name: str) -> str:
    """What an optional part gives, and how to get it where it is missing."""
    library, gives = EXTRAS[name]
    return f"{gives}; {'is there' if find_spec(library) else f'missing: pip install thawmap[{name}]'}"
