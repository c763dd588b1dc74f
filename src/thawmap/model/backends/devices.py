"""What this machine computes with, told without PyTorch where that can be."""

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
"""PyTorch operation by operation, PyTorch compiled for the machine, OpenVINO on a processor."""

_DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")  # NVIDIA's, its boards', WSL's, AMD's
_THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
_CORES = Path("/sys/devices/system/cpu")

_MEMORY_SIGNS = ("allocate memory", "out of memory", "bad_alloc", "bad allocation", "alloc_failed", "out_of_memory")


def named(name: str) -> str:
    """The device called ``name``, as PyTorch writes it: "cpu", "cuda" or "cuda:1".

    PyTorch is asked, but for a processor on a machine that has no driver of a GPU.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == "cpu" or (name == "auto" and not any(map(os.path.exists, _DRIVERS))):
        return "cpu"

    return str(find_device(name))


def find_device(name: str) -> "torch.device":
    """The device called ``name``; "auto" is a GPU where there is one, else the CPU.

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


def kind(device: str) -> str:
    """The kind of a device, "cpu" or "cuda"."""
    return device.partition(":")[0]


def threads() -> int:
    """Threads that a network computes with: PyTorch's, or where it is not loaded those that it would have."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    numbers = [os.environ.get(name, "").split(",")[0] for name in _THREADS]
    return next((max(int(number), 1) for number in numbers if number.isdecimal()), _cores())


def set_threads(number: int) -> None:
    """Let networks compute with so many threads in this process, whether PyTorch is loaded already or later."""
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ.update(dict.fromkeys(_THREADS, str(number)))
    else:
        torch.set_num_threads(number)


@lru_cache(maxsize=1)
def _cores() -> int:
    """Processors that this process may use, those that share a core counted once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    try:
        return len({(_CORES / f"cpu{one}/topology/thread_siblings_list").read_text() for one in mine})
    except OSError:
        return len(mine)


def processor(description: Path = Path("/proc/cpuinfo")) -> tuple[str, str]:
    """The processor's name, and a hash of what it can do."""
    try:
        lines = dict(
            line.split(":", 1) for line in description.read_text().split("\n\n")[0].splitlines() if ":" in line
        )
    except OSError:
        return platform.processor() or platform.machine(), ""
    values = {key.strip(): value.strip() for key, value in lines.items()}
    flags = sha256(values.get("flags", ""), digits=8)
    return values.get("model name", platform.machine()), flags


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns what libraries raise for want of memory into MemoryError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).lower()
        if not any(sign in reason for sign in _MEMORY_SIGNS):
            raise
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise MemoryError(str(error).splitlines()[0]) from error
