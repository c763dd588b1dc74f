"""Devices, threads and processor of this machine, mostly without PyTorch."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from thawmap.errors import ConfigError
from thawmap.files.hashes import sha256

if TYPE_CHECKING:
    import torch

BACKENDS = ("eager", "compile", "openvino")
"""Names of the backends.

PyTorch operation by operation, PyTorch compiled for the machine, OpenVINO on a processor.
"""

_DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")  # NVIDIA's, its boards', WSL's, AMD's
_THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
_CORES = Path("/sys/devices/system/cpu")

_MEMORY_PHRASES = (
    "allocate memory",
    "out of memory",
    "out_of_memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "could not create a memory object",
)


def resolve_device(name: str) -> str:
    """Return the device that a name means: "cpu", "cuda" or "cuda:1".

    As PyTorch writes it. "auto" is a GPU where there is one, else "cpu". PyTorch is asked, but for a processor on a
    machine that has no driver of a GPU.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == "cpu" or (name == "auto" and not any(map(os.path.exists, _DRIVERS))):
        return "cpu"

    return str(find_device(name))


def find_device(name: str) -> "torch.device":
    """Return the torch device of a name; "auto" is a GPU if there is one.

    Raises:
        ConfigError: If there is no such device.
    """
    import torch  # noqa: PLC0415 - torch loads slowly

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


def device_type(device: str) -> str:
    """Return a device's type without its number, "cpu" or "cuda"."""
    return device.partition(":")[0]


def threads() -> int:
    """Return the number of threads that a network computes with.

    PyTorch's, or where it is not loaded the number that it would have.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    numbers = [os.environ.get(name, "").split(",")[0] for name in _THREADS]
    return next((max(int(number), 1) for number in numbers if number.isdecimal()), _cores())


def set_threads(number: int) -> None:
    """Set the number of threads of networks, for PyTorch loaded now or later."""
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ.update(dict.fromkeys(_THREADS, str(number)))
    else:
        torch.set_num_threads(number)


@lru_cache(maxsize=1)
def _cores() -> int:
    """Count the processor cores that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    numbers = os.sched_getaffinity(0)
    try:  # processors that share a core have the same list of siblings, and count once
        return len({(_CORES / f"cpu{number}/topology/thread_siblings_list").read_text() for number in numbers})
    except OSError:
        return len(numbers)


def processor(description: Path = Path("/proc/cpuinfo")) -> tuple[str, str]:
    """Return the processor's name and a hash of its instruction sets, from cpuinfo.

    Without that file the hash is empty.
    """
    try:
        lines = dict(
            line.split(":", 1) for line in description.read_text().split("\n\n")[0].splitlines() if ":" in line
        )
    except OSError:
        return platform.processor() or platform.machine(), ""
    values = {key.strip(): value.strip() for key, value in lines.items()}
    flags = sha256(values.get("flags", ""), digits=8)
    return values.get("model name", platform.machine()), flags


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error, by its type or message, means that memory is full.

    That of the machine or of a GPU.
    """
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in message for phrase in _MEMORY_PHRASES)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn libraries' errors for want of memory within a block into MemoryError.

    PyTorch's cache of a GPU's memory is emptied then.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise MemoryError(str(error).splitlines()[0]) from error
