"""The verb doctor: the versions, processors, memory and extras of this machine."""

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
    "boosting": ("lightgbm", "training with 'model.architecture: boosting'"),
    "acquire": ("httpx", "'thawmap acquire'"),
    "earthengine": ("ee", "published Landsat trends, 'acquire.trends.kind: earthengine'"),
    "cluster": ("distributed", "many machines at once, 'engine.kind: dask'"),
}
"""Optional part to the library that it installs, and what it is good for."""


def doctor() -> dict[str, str]:
    """Return texts on this machine: versions, processors, memory, GPU, optional parts.

    Returns:
        Name to a text for a person.
    """
    extras = {
        f"optional: {name}": f"{gives}; {'is there' if find_spec(library) else f'missing: pip install thawmap[{name}]'}"
        for name, (library, gives) in EXTRAS.items()
    }
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
        **extras,
    }
