"""Which backend is the fastest for a bundle on this machine: measured once, remembered, and said.

Every candidate runs in a process of its own, on the same image. One whose answer is not PyTorch's within the bounds of
`thawmap.model.agreement`, or that crashes, or that does not come back, is not chosen, and why is said.
"""

import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thawmap.errors import ConfigError
from thawmap.model.agreement import Precision, disagreement, middle, plausible
from thawmap.model.aside import (
    AsideError,
    bundle_of,
    cache_folder,
    digest,
    identity,
    room,
    run_aside,
    task_of,
    versions,
)
from thawmap.model.backends import BACKENDS, Backend, find_device, open_backend
from thawmap.model.bundle import Bundle
from thawmap.model.openvino import convert

WORTH_PX = {"cpu": 50_000_000, "cuda": 5_000_000_000}
"""Pixels from which on measuring takes less time than it saves, by the kind of device: some minutes of computing."""

TILE_PX = 1024
"""Side of the image that candidates are timed on, for networks that take any."""

LIMIT_S = 300.0
"""Seconds after which a candidate is given up."""

_REPEATS, _ENOUGH_S = 5, 10.0  # timed runs after the first, and when fewer do

_IMAGE, _ANSWER, _SECONDS = "image.npy", "answer.npy", "seconds.txt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A backend, and why it is that one.

    Attributes:
        chosen: Its name.
        seconds: What each candidate that may be used takes per million pixels; empty where none was measured.
        refused: Why the others may not, by name.
    """

    chosen: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """For a person; empty where nothing was tried."""
        others = [f"{name} {found:.3g}" for name, found in self.seconds.items() if name != self.chosen]
        beside = f" ({', '.join(others)})" if others else ""
        refused = "".join(f"; {name} is not used: {why}" for name, why in self.refused.items())
        taken = f": {self.seconds[self.chosen]:.3g} s per million pixels" if self.seconds else ""
        return f"backend {self.chosen}{taken}{beside}{refused}" if self.seconds or self.refused else ""


def choose(
    bundle: Bundle,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    pixels: float = np.inf,
    image: npt.NDArray[np.float32] | None = None,
    limit_s: float = LIMIT_S,
) -> Choice:
    """The fastest backend for a bundle on this machine, at this number of PyTorch's threads.

    Args:
        bundle: The model.
        device: As for `thawmap.model.backends.open_backend`.
        precision: Of multiplications; only candidates of that precision compete.
        pixels: How many are to be computed; for fewer than `WORTH_PX` nothing is measured, and PyTorch as it is taken
            unless an answer is remembered.
        image: A real one (C, H, W) in physical units, NaN = missing; as large a part of it is used as is needed, by
            mirroring where it is smaller. None: one made up.
        limit_s: Seconds that each candidate is given.

    Raises:
        ConfigError: If there is no such device.
        BundleError: If the network's answers are not numbers.
    """
    where = find_device(device)
    side = bundle.tile if bundle.fixed_tile else TILE_PX
    question = _question(bundle, where, precision, side)
    kept = cache_folder() / "choices" / f"{digest(question)}.json"
    remembered = _recall(kept, question)
    if remembered is not None:
        return remembered
    if pixels < WORTH_PX[where.type]:
        return Choice(chosen="eager")
    sample = plausible(bundle.layers, side) if image is None else middle(image, side)
    try:
        found = _measure(bundle, sample, where, precision, limit_s)
    except ConfigError as error:
        return Choice(chosen="eager", refused={"any other": str(error)})
    _remember(kept, question, found)
    return found


def _candidates(device: torch.device) -> list[str]:
    """Names of the backends that a device may run; PyTorch as it is first."""
    if device.type == "cpu" and find_spec("openvino") is not None:
        return ["eager", "compile", "openvino"]
    return ["eager", "compile"]


def _measure(
    bundle: Bundle, sample: npt.NDArray[np.float32], device: torch.device, precision: Precision, limit_s: float
) -> Choice:
    """Candidates one after the other, each in a process of its own, compared with PyTorch in float32."""
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    with room(bundle) as folder:
        np.save(folder / _IMAGE, sample)

        def attempt(name: str, precision: str) -> tuple[float, npt.NDArray[np.float32]]:
            if name == "openvino":
                convert(bundle, limit_s=limit_s)
            task = {"backend": name, "precision": precision, "device": str(device), "threads": torch.get_num_threads()}
            run_aside("thawmap.model.choosing", folder, task, limit_s=limit_s)
            return float((folder / _SECONDS).read_text()) / sample[0, 0].size * 1e6, np.load(folder / _ANSWER)

        try:
            first, truth = attempt("eager", "float32")
        except AsideError as error:
            return Choice(chosen="eager", refused={"eager": str(error)})
        for name in _candidates(device):
            try:
                found = (first, truth) if (name, precision) == ("eager", "float32") else attempt(name, precision)
            except (AsideError, ConfigError) as error:
                refused[name] = str(error)
                continue
            wrong = disagreement(found[1], truth, precision=precision, threshold=bundle.threshold)
            if wrong is None:
                seconds[name] = found[0]
            else:
                refused[name] = wrong
    chosen = min(seconds, key=seconds.__getitem__, default="eager")
    return Choice(chosen=chosen, seconds=seconds, refused=refused)


def _question(bundle: Bundle, device: torch.device, precision: Precision, side: int) -> dict[str, Any]:
    """Everything that an answer depends on."""
    return {
        "network": identity(bundle),
        "tile": side,
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "candidates": _candidates(device),
        "versions": versions(),
    }


def _processor(place: Path = Path("/proc/cpuinfo")) -> str:
    """Its name and what it can do."""
    try:
        lines = dict(line.split(":", 1) for line in place.read_text().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    said = {key.strip(): value.strip() for key, value in lines.items()}
    flags = hashlib.sha256(said.get("flags", "").encode()).hexdigest()[:8]
    return f"{said.get('model name', platform.machine())} {flags}"


def _recall(path: Path, question: Mapping[str, Any]) -> Choice | None:
    """The answer that was remembered for this question; None where there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        seconds = {str(name): float(found) for name, found in kept["seconds"].items()}
        refused = {str(name): str(why) for name, why in kept["refused"].items()}
        if kept["question"] != question or kept["chosen"] not in BACKENDS:
            return None
        return Choice(chosen=kept["chosen"], seconds=seconds, refused=refused)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(path: Path, question: Mapping[str, Any], choice: Choice) -> None:
    """Keep the answer, whole or not at all; without it the next one measures again."""
    content = {"question": question, "chosen": choice.chosen, "seconds": choice.seconds, "refused": choice.refused}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        _log.warning("the choice of a backend is not remembered: %s", error)


def _seconds(backend: Backend, image: npt.NDArray[np.float32]) -> float:
    """The shortest of some runs."""
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < _REPEATS and sum(taken) < _ENOUGH_S):
        begin = time.perf_counter()
        backend(image)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def main(folder: Path) -> None:
    """In a process of its own: time one candidate on the image in ``folder``."""
    with task_of(folder) as task:
        torch.set_num_threads(task["threads"])
        wanted = {name: task[name] for name in ("backend", "precision", "device")}
        backend, image = open_backend(bundle_of(folder), **wanted), np.load(folder / _IMAGE)
        np.save(folder / _ANSWER, backend(image))
        (folder / _SECONDS).write_text(str(_seconds(backend, image)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
