"""Processes of a training: this one, or one for each of several devices.

Several processes each have the whole network and a share of every batch; gradients are averaged at every step, and
counts are summed. This process starts them, passes on the messages of the first of them, and ends with them. A script
that trains on several devices must be guarded by ``if __name__ == "__main__"``, as with every Python that starts
processes.
"""

import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
"""A function that takes the messages of a training, a line each."""

Work = Callable[[Fabric, Report], None]
"""A training in one process, or the share of one of several processes in it."""


def launch(work: Work, settings: TrainingSettings, report: Report) -> None:
    """Run a training in this process, or in one process for each of several devices.

    On several devices ``work`` must be pickleable, and only the first process reports. What ``report`` raises ends all
    processes, and is raised here.

    Raises:
        ConfigError: If there are no such devices.
        ThawmapError: If one of the processes fails with it.
        TrainingError: If one ends without an error of its own.
    """
    if settings.devices == 1:
        work(fabric_of(settings), report)
        return
    fabric_of(settings)  # which fails here rather than in every process
    receiver, sender = get_context("spawn").Pipe()
    ended: ProcessException | None = None
    with ThreadPoolExecutor(1) as thread:
        failure = thread.submit(_pass_on_messages, receiver, report)
        port = LightningEnvironment().main_port
        try:
            start_processes(_take_part, (work, settings, sender, port), settings.devices)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            ended = error
        finally:
            sender.close()  # the listening thread ends with the last sender
        error_of_process = failure.result()
    if error_of_process is not None:
        raise error_of_process
    if ended is not None:
        reason = str(ended).strip().splitlines()[-1]
        msg = (
            f"one of the {settings.devices} processes of the training has ended ({reason}), often for want of memory; "
            "lower training.batch_size or training.devices, and go on with --resume"
        )
        raise TrainingError(msg) from ended


def fabric_of(settings: TrainingSettings) -> Fabric:
    """Return a Lightning Fabric with a training's devices, processes and precision.

    Raises:
        ConfigError: If there are no such devices.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs the precision
    device, number = find_device(settings.device), settings.devices
    if device.type == "cuda" and number > torch.cuda.device_count():
        msg = (
            f"training.devices is {number}, but this machine has {torch.cuda.device_count()} GPUs that torch can use; "
            "lower it"
        )
        raise ConfigError(msg)
    single = 1 if device.type == "cpu" else [device.index or 0]
    return Fabric(
        accelerator=device.type,
        devices=single if number == 1 else number,
        strategy="auto" if number == 1 else "ddp",
        plugins=LightningEnvironment(),  # also where this machine belongs to a cluster
        precision=precision(settings, device),
    )


def precision(settings: TrainingSettings, device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Return "bf16-mixed" or "32-true", as the settings and a device's abilities say."""
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and _has_bfloat16(device))
    return "bf16-mixed" if half else "32-true"


def _has_bfloat16(device: torch.device) -> bool:
    """Return True if a device has bfloat16 arithmetic of its own, not emulated.

    On others it is slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def _take_part(number: int, work: Work, settings: TrainingSettings, sender: Connection, port: int) -> None:
    """Run one process's share of a training; send its messages and errors to a pipe.

    Only the first process sends messages.
    """

    def report(line: str) -> None:
        sender.send(line)
        sender.recv()  # wait for the answer; it fails where the training is to end

    warnings.simplefilter("ignore")  # torch warns of strides
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(number)}
    try:
        fabric = fabric_of(settings)
        fabric.launch()
        work(fabric, report if fabric.is_global_zero else lambda _: None)
    except ThawmapError as error:
        sender.send(error)
        raise


def _pass_on_messages(receiver: Connection, report: Report) -> ThawmapError | None:
    """Report a pipe's messages until processes end; return the first error or None."""
    failure: ThawmapError | None = None
    with receiver:
        while True:
            try:
                message = receiver.recv()
            except EOFError:
                return failure
            if isinstance(message, ThawmapError):
                failure = failure or message
            else:
                report(message)
                receiver.send(None)
