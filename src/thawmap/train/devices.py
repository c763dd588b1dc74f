"""Where a training runs: in this process, or in one process for each of several devices.

Several processes each have the whole network and a part of every batch; what they learn is averaged at every step, and
what they count is summed. This process starts them, hears what the first of them says, and ends with them. A script
that trains on several devices must be guarded by ``if __name__ == "__main__"``, as with every Python that starts
processes.
"""

import ctypes
import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch.multiprocessing.spawn import ProcessException, start_processes

from thawmap.config import TrainingSettings
from thawmap.errors import ConfigError, ThawmapError, TrainingError
from thawmap.model.backends.devices import find_device

Report = Callable[[str], None]
"""Is told what happens, a line each."""

_MALLOPT = {"trim threshold": -1, "mmap threshold": -3}  # as <malloc.h> numbers them

Work = Callable[[Fabric, Report], None]
"""A training in one process, or its part in one of several."""


def launch(work: Work, settings: TrainingSettings, report: Report) -> None:
    """Do ``work`` on the devices that the settings name; with several, it must be one that can be sent to processes.

    Only the first process is heard. What ``report`` raises ends them all, and is raised here.

    Raises:
        ConfigError: If there are no such devices.
        ThawmapError: If one of the processes fails with it.
        TrainingError: If one ends without a word.
    """
    if settings.devices == 1:
        work(fabric_of(settings), report)
        return
    fabric_of(settings)  # what is wrong with it is said before any process begins
    here, there = get_context("spawn").Pipe()
    ended: ProcessException | None = None
    with ThreadPoolExecutor(1) as thread:
        failure = thread.submit(_listen, here, report)
        port = LightningEnvironment().main_port
        try:
            start_processes(_take_part, (work, settings, there, port), settings.devices)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            ended = error
        finally:
            there.close()
        said = failure.result()
    if said is not None:
        raise said
    if ended is not None:
        reason = str(ended).strip().splitlines()[-1]
        msg = (
            f"one of the {settings.devices} processes of the training has ended ({reason}), often for want of memory; "
            "lower training.batch_size or training.devices, and go on with --resume"
        )
        raise TrainingError(msg) from ended


def fabric_of(settings: TrainingSettings) -> Fabric:
    """Devices and precision.

    Raises:
        ConfigError: If there are no such devices.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets with the precision
    device, number = find_device(settings.device), settings.devices
    if device.type == "cuda" and number > torch.cuda.device_count():
        msg = (
            f"training.devices is {number}, but this machine has {torch.cuda.device_count()} GPUs that torch can use; "
            "lower it"
        )
        raise ConfigError(msg)
    one = 1 if device.type == "cpu" else [device.index or 0]
    return Fabric(
        accelerator=device.type,
        devices=one if number == 1 else number,
        strategy="auto" if number == 1 else "ddp",
        plugins=LightningEnvironment(),  # whatever cluster this machine belongs to
        precision=precision(settings, device),
    )


def precision(settings: TrainingSettings, device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Fabric's name of the arithmetic."""
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and _has_bfloat16(device))
    return "bf16-mixed" if half else "32-true"


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; on others it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def keep_memory() -> None:
    """Have this process keep the memory that tensors give back, for the next ones, where its C library is glibc.

    By default a tensor of some megabytes is handed back to the system, and the next one of its size comes in pages that
    the system first fills with zeros: a seventh of a step's time on a CPU (benchmarks/training.py). The most that a
    process takes stays the same.
    """
    with suppress(OSError, AttributeError, TypeError):  # other systems and libraries have no such function
        for number in _MALLOPT.values():
            ctypes.CDLL(None).mallopt(number, 2**30)


def _take_part(number: int, work: Work, settings: TrainingSettings, there: Connection, port: int) -> None:
    """The work in one of several processes; the first tells what it does, each why it failed."""

    def report(line: str) -> None:
        there.send(line)
        there.recv()  # heard; nobody is there any more where the training is to end

    warnings.simplefilter("ignore")  # of torch, on strides
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(number)}
    try:
        fabric = fabric_of(settings)
        fabric.launch()
        work(fabric, report if fabric.is_global_zero else lambda _: None)
    except ThawmapError as error:
        there.send(error)
        raise


def _listen(here: Connection, report: Report) -> ThawmapError | None:
    """Hand on what the first process says, as long as there are processes; why the first of them failed that did."""
    failure: ThawmapError | None = None
    with here:
        while True:
            try:
                said = here.recv()
            except EOFError:
                return failure
            if isinstance(said, ThawmapError):
                failure = failure or said
            else:
                report(said)
                here.send(None)
