"""Which backend is the fastest for a bundle on this machine: measured once, remembered, and said.

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
from thawmap.model.backends.agreement import Agreement, Precision, RealImage, seen
from thawmap.model.backends.devices import BACKENDS, kind, named, processor, threads
from thawmap.model.backends.openvino import convert
from thawmap.model.backends.sandbox import (
    AsideError,
    bundle_of,
    cache_folder,
    identity,
    room,
    run_aside,
    task_of,
    versions,
)
from thawmap.model.bundle import Bundle
from thawmap.system import keep_freed_memory

if TYPE_CHECKING:
    from thawmap.model.backends.open import Backend

WORTH_PX = {"cpu": 50_000_000, "cuda": 5_000_000_000}
"""Pixels from which on measuring takes less time than it saves, by the kind of device: some minutes of computing."""

TILE_PX = 1024
"""Side of the image that candidates are timed on, for networks that take any."""

LIMIT_S = 300.0
"""Seconds after which a candidate is given up."""

_REPEATS, _ENOUGH_S = (3, 7), 10.0  # timed runs after the first: at least, at most, and when no more are needed

_IMAGE, _TRUTH, _ANSWER, _SECONDS = "image.npy", "truth.npy", "answer.npy", "seconds.txt"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a backend did on one image.

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
    """The fastest backend for a bundle on this machine, at this number of PyTorch's threads.

    Args:
        bundle: The model.
        device: As for `thawmap.model.backends.open.open_backend`.
        precision: Of multiplications; only candidates of that precision compete.
        pixels: How many are to be computed; for fewer than `WORTH_PX` nothing is measured, and PyTorch as it is taken
            unless an answer is remembered.
        image: Gives a real one, mirrored where it is smaller than what is timed; it is asked only where something is
            measured. None: one made up.
        limit_s: Seconds that each candidate is given.

    Raises:
        ConfigError: If there is no such device.
        BundleError: If the network's answers are not numbers.
    """
    where = named(device)
    side = timed_side(bundle)
    question = _question(bundle, where, precision, side)
    kept = cache_folder() / "choices" / f"{json_sha256(question, digits=16)}.json"
    remembered = _recall(kept, question)
    if remembered is not None:
        return remembered
    if pixels < WORTH_PX[kind(where)]:
        return Choice(chosen="eager")
    try:
        found = _fastest(
            trials(bundle, seen(bundle.layers, side, image), device=where, precisions=(precision,), limit_s=limit_s),
            precision,
        )
    except ConfigError as error:
        return Choice(chosen="eager", refused={"any other": str(error)})
    _remember(kept, question, found)
    return found


def timed_side(bundle: Bundle) -> int:
    """Side in pixels of the image that candidates are timed on."""
    return bundle.tile if bundle.fixed_tile else TILE_PX


def trials(
    bundle: Bundle,
    sample: npt.NDArray[np.float32],
    *,
    device: str,
    precisions: Sequence[Precision],
    limit_s: float = LIMIT_S,
) -> Iterator[Trial]:
    """PyTorch in float32, then every other candidate, compared with it; one after the other as they are asked for.

    Args:
        bundle: The model.
        sample: The image (1, C, H, W) that they are timed and compared on, physical units, NaN = missing.
        device: Where.
        precisions: Those that compete. PyTorch in float32 is timed in any case; where it fails nothing else is.
        limit_s: Seconds that each candidate is given.

    Raises:
        ConfigError: If the cache folder cannot be written.
        BundleError: If the network's answers are not numbers.
    """
    wanted: list[tuple[str, Precision]] = [(name, one) for one in precisions for name in candidates(device)]
    with room(bundle) as folder:
        np.save(folder / _IMAGE, sample)
        common = {"device": device, "threads": threads()}
        first = _try("eager", "float32", bundle, folder, common, limit_s)
        yield first
        if first.refused is None:
            (folder / _ANSWER).replace(folder / _TRUTH)
            for name, precision in wanted:
                if (name, precision) != ("eager", "float32"):
                    yield _try(name, precision, bundle, folder, common, limit_s)


def candidates(device: str) -> list[str]:
    """Names of the backends that a device may run; PyTorch as it is first."""
    if kind(device) == "cpu" and find_spec("openvino") is not None:
        return ["eager", "compile", "openvino"]
    return ["eager", "compile"]


def _try(
    name: str, precision: Precision, bundle: Bundle, folder: Path, common: Mapping[str, Any], limit_s: float
) -> Trial:
    """One candidate in a process of its own, compared with PyTorch's answer in ``folder`` where that is known."""
    try:
        if name == "openvino":
            convert(bundle, limit_s=limit_s)
        task = {"backend": name, "precision": precision, **common}
        run_aside("thawmap.model.backends.select", folder, task, limit_s=limit_s)
    except (AsideError, ConfigError) as error:
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
    """Of the candidates of a precision that agree."""
    first = next(tried)
    if first.refused is not None:
        return Choice(chosen="eager", refused={"eager": first.refused})
    competing = [one for one in (first, *tried) if one.precision == precision]
    seconds = {one.backend: one.seconds for one in competing if one.refused is None and one.seconds is not None}
    refused = {one.backend: one.refused for one in competing if one.refused is not None}
    chosen = min(seconds, key=seconds.__getitem__, default="eager")
    return Choice(chosen=chosen, seconds=seconds, refused=refused)


def _question(bundle: Bundle, device: str, precision: Precision, side: int) -> dict[str, Any]:
    """Everything that an answer depends on."""
    return {
        "network": identity(bundle),
        "tile": side,
        "precision": precision,
        "device": " ".join(processor()) if kind(device) == "cpu" else device_name(device),
        "processors": os.cpu_count(),
        "threads": threads(),
        "candidates": candidates(device),
        "versions": versions(),
    }


def device_name(device: str) -> str:
    """What the maker calls it."""
    if kind(device) == "cpu":
        return processor()[0]
    import torch  # noqa: PLC0415 - it loads slowly, here and below

    return torch.cuda.get_device_name(device)


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
    try:
        write_json(path, content, indent=1)
    except DataError as error:
        _log.warning("the choice of a backend is not remembered: %s", error)


def _seconds(backend: "Backend", image: npt.NDArray[np.float32]) -> float:
    """The median of some runs."""
    taken: list[float] = []
    while len(taken) < _REPEATS[0] or (len(taken) < _REPEATS[1] and sum(taken) < _ENOUGH_S):
        begin = time.perf_counter()
        backend(image)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main(folder: Path) -> None:
    """In a process of its own: time one candidate on the image in ``folder``."""
    import torch  # noqa: PLC0415

    from thawmap.model.backends.open import first_answer, open_unchecked  # noqa: PLC0415

    keep_freed_memory()
    with task_of(folder) as task:
        torch.set_num_threads(task["threads"])
        image, name = np.load(folder / _IMAGE), task["backend"]
        backend = open_unchecked(bundle_of(folder), torch.device(task["device"]), name, task["precision"])
        np.save(folder / _ANSWER, first_answer(backend, image, name))  # whoever asked compares it
        (folder / _SECONDS).write_text(str(_seconds(backend, image)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
