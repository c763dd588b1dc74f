"""Choice of the fastest backend for a bundle on this machine.

It is measured once and remembered.

Every candidate runs in a process of its own, on the same image. One whose answer is not PyTorch's within the bounds of
`thawmap.model.backends.agreement`, or that crashes, or that does not come back, is not chosen, and why is said.
"""

import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import write_json
from thawmap.files.hashes import json_sha256
from thawmap.model.backends.agreement import Agreement, Precision, RealImage, comparison_image
from thawmap.model.backends.devices import BACKENDS, device_type, processor, resolve_device, threads
from thawmap.model.backends.openvino import convert
from thawmap.model.backends.sandbox import (
    SandboxError,
    cache_folder,
    identity,
    run_in_sandbox,
    sandbox,
    sandboxed_bundle,
    sandboxed_task,
    versions,
)
from thawmap.model.bundle import Bundle
from thawmap.model.forest import BOOSTING
from thawmap.system import keep_freed_memory

if TYPE_CHECKING:
    from thawmap.model.backends.open import Backend

WORTH_PX = {"cpu": 50_000_000, "cuda": 5_000_000_000}
"""Pixels from which on measuring saves more time than it takes, by device type.

They are some minutes of computing.
"""

TILE_PX = 1024
"""Side of the image that candidates are timed on, for networks that take any."""

LIMIT_S = 300.0
"""Seconds after which a candidate is given up."""

_REPEATS, _ENOUGH_S = (3, 7), 10.0  # timed runs after the first: at least, at most, and when no more are needed

_IMAGE, _TRUTH, _ANSWER, _SECONDS = "image.npy", "truth.npy", "answer.npy", "seconds.txt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backend that was chosen, with measured times and refusals.

    Attributes:
        backend: Its name.
        seconds: Seconds per million pixels of each candidate that may be used; empty where none was measured.
        refused: Reasons why the others may not be used, by name.
    """

    backend: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The choice as a sentence for a person; empty where nothing was tried."""
        if not self.seconds and not self.refused:
            return ""
        others = [f"{name} {seconds:.3g}" for name, seconds in self.seconds.items() if name != self.backend]
        beside = f" ({', '.join(others)})" if others else ""
        refused = "".join(f"; {name} is not used: {reason}" for name, reason in self.refused.items())
        taken = f": {self.seconds[self.backend]:.3g} s per million pixels" if self.seconds else ""
        return f"backend {self.backend}{taken}{beside}{refused}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Time and agreement of one backend on one image.

    Attributes:
        backend: Its name.
        precision: Of its multiplications.
        seconds: What it takes for a million pixels, the median of some runs; None where it gave no answer.
        agreement: With PyTorch in float32; None where it gave no answer.
        refused: Why it may not be used; None where it may.
    """

    backend: str
    precision: Precision
    seconds: float | None = None
    agreement: Agreement | None = None
    refused: str | None = None


def choose(
    bundle: Bundle,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    pixels: float = np.inf,
    image: RealImage | None = None,
    limit_s: float = LIMIT_S,
) -> Choice:
    """Return the fastest backend for a bundle here, remembered or measured now.

    On this machine, at the present number of PyTorch's threads. The choice that is measured is written into the cache
    folder.

    Args:
        bundle: The model.
        device: As for `thawmap.model.backends.open.open_backend`.
        precision: Of multiplications; only candidates of that precision compete.
        pixels: Pixels that are to be computed; for fewer than `WORTH_PX` nothing is measured, and unless a choice is
            remembered it is eager PyTorch.
        image: Reads a real image, mirrored where it is smaller than what is timed; it is asked only where something is
            measured. None: one made up.
        limit_s: Seconds that each candidate is given.

    Raises:
        ConfigError: If there is no such device.
        BundleError: If the network's answers are not numbers.
    """
    if bundle.architecture == BOOSTING:  # whose bits no compiler knows
        return Choice(backend="eager")
    name, side = resolve_device(device), timed_side(bundle)
    question = _question(bundle, name, precision, side)
    path = cache_folder() / "choices" / f"{json_sha256(question, digits=16)}.json"
    remembered = _recall(path, question)
    if remembered is not None:
        return remembered
    if pixels < WORTH_PX[device_type(name)]:
        return Choice(backend="eager")
    try:
        sample = comparison_image(bundle.layers, side, image)
        tried = trials(bundle, sample, device=name, precisions=(precision,), limit_s=limit_s)
        choice = _fastest(tried, precision)
    except ConfigError as error:
        return Choice(backend="eager", refused={"any other": str(error)})
    _remember(path, question, choice)
    return choice


def timed_side(bundle: Bundle) -> int:
    """Return the side in pixels of the image that candidates are timed on."""
    return bundle.tile if bundle.fixed_tile else TILE_PX


def trials(
    bundle: Bundle,
    sample: npt.NDArray[np.float32],
    *,
    device: str,
    precisions: Sequence[Precision],
    limit_s: float = LIMIT_S,
) -> Iterator[Trial]:
    """Yield each backend's time on an image and agreement with PyTorch, one by one.

    PyTorch in float32 is the first. Each is timed, and compared with that, when its trial is asked for.

    Args:
        bundle: The model.
        sample: The image (1, C, H, W) that they are timed and compared on, physical units, NaN = missing.
        device: Device that they run on.
        precisions: Those that compete. PyTorch in float32 is timed in any case; where it fails nothing else is.
        limit_s: Seconds that each candidate is given.

    Raises:
        ConfigError: If the cache folder cannot be written.
        BundleError: If the network's answers are not numbers.
    """
    pairs: list[tuple[str, Precision]] = [(name, precision) for precision in precisions for name in candidates(device)]
    with sandbox(bundle) as folder:
        np.save(folder / _IMAGE, sample)
        common = {"device": device, "threads": threads()}
        first = _try("eager", "float32", bundle, folder, common, limit_s)
        yield first
        if first.refused is None:
            (folder / _ANSWER).replace(folder / _TRUTH)
            for name, precision in pairs:
                if (name, precision) != ("eager", "float32"):
                    yield _try(name, precision, bundle, folder, common, limit_s)


def candidates(device: str) -> list[str]:
    """Return the names of the backends that a device may run, "eager" first."""
    if device_type(device) == "cpu" and find_spec("openvino") is not None:
        return ["eager", "compile", "openvino"]
    return ["eager", "compile"]


def _try(
    name: str, precision: Precision, bundle: Bundle, folder: Path, common: Mapping[str, Any], limit_s: float
) -> Trial:
    """Run a backend in a sandbox, and return its time and agreement, or its failure.

    The agreement is with PyTorch's answer, which lies in ``folder``, but for the first candidate, which is compared
    with itself.
    """
    try:
        if name == "openvino":
            convert(bundle, limit_s=limit_s)
        task = {"backend": name, "precision": precision, **common}
        run_in_sandbox("thawmap.model.backends.select", folder, task, limit_s=limit_s)
    except (SandboxError, ConfigError) as error:
        return Trial(backend=name, precision=precision, refused=str(error))
    answer = np.load(folder / _ANSWER)
    truth = np.load(folder / _TRUTH) if (folder / _TRUTH).exists() else answer
    agreement = Agreement.of(answer, truth, threshold=bundle.threshold)
    return Trial(
        backend=name,
        precision=precision,
        seconds=float((folder / _SECONDS).read_text()) / answer.size * 1e6,
        agreement=agreement,
        refused=agreement.fault(precision),
    )


def _fastest(tried: Iterator[Trial], precision: Precision) -> Choice:
    """Return the fastest backend that was not refused, of the trials in a precision.

    Eager PyTorch where all were.
    """
    first = next(tried)
    if first.refused is not None:
        return Choice(backend="eager", refused={"eager": first.refused})
    competing = [trial for trial in (first, *tried) if trial.precision == precision]
    refused = {trial.backend: trial.refused for trial in competing if trial.refused is not None}
    usable = [trial for trial in competing if trial.refused is None]
    seconds = {trial.backend: trial.seconds for trial in usable if trial.seconds is not None}
    fastest = min(seconds, key=seconds.__getitem__, default="eager")
    return Choice(backend=fastest, seconds=seconds, refused=refused)


def _question(bundle: Bundle, device: str, precision: Precision, side: int) -> dict[str, Any]:
    """Return all that a choice depends on, as JSON: network, machine, versions."""
    return {
        "network": identity(bundle),
        "tile": side,
        "precision": precision,
        "device": " ".join(processor()) if device_type(device) == "cpu" else hardware_name(device),
        "processors": os.cpu_count(),
        "threads": threads(),
        "candidates": candidates(device),
        "versions": versions(),
    }


def hardware_name(device: str) -> str:
    """Return the maker's name of a processor or GPU."""
    if device_type(device) == "cpu":
        return processor()[0]
    import torch  # noqa: PLC0415 - it loads slowly, here and below

    return torch.cuda.get_device_name(device)


def _recall(path: Path, question: Mapping[str, Any]) -> Choice | None:
    """Read a remembered choice from a file; None if damaged or for another question."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        seconds = {str(name): float(measured) for name, measured in record["seconds"].items()}
        refused = {str(name): str(reason) for name, reason in record["refused"].items()}
        if record["question"] != question or record["chosen"] not in BACKENDS:
            return None
        return Choice(backend=record["chosen"], seconds=seconds, refused=refused)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(path: Path, question: Mapping[str, Any], choice: Choice) -> None:
    """Write a choice and its question to a JSON file; only warn where that fails.

    The next run measures again then.
    """
    content = {"question": question, "chosen": choice.backend, "seconds": choice.seconds, "refused": choice.refused}
    try:
        write_json(path, content, indent=1)
    except DataError as error:
        _log.warning("the choice of a backend is not remembered: %s", error)


def _seconds(backend: "Backend", image: npt.NDArray[np.float32]) -> float:
    """Measure the median seconds of some runs of a backend on an image."""
    taken: list[float] = []
    while len(taken) < _REPEATS[0] or (len(taken) < _REPEATS[1] and sum(taken) < _ENOUGH_S):
        begin = time.perf_counter()
        backend(image)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main(folder: Path) -> None:
    """Write a backend's answer and time for the image in a sandbox's folder."""
    import torch  # noqa: PLC0415

    from thawmap.model.backends.open import first_answer, open_unchecked  # noqa: PLC0415

    keep_freed_memory()
    with sandboxed_task(folder) as task:
        torch.set_num_threads(task["threads"])
        image, name = np.load(folder / _IMAGE), task["backend"]
        backend = open_unchecked(sandboxed_bundle(folder), torch.device(task["device"]), name, task["precision"])
        np.save(folder / _ANSWER, first_answer(backend, image, name))  # whoever asked compares it
        (folder / _SECONDS).write_text(str(_seconds(backend, image)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
