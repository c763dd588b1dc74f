"""The verb bench: what this machine does with a bundle, backend by backend."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thawmap.config import Config, InferenceSettings
from thawmap.files.atomic import write_json
from thawmap.files.guard import check_new
from thawmap.pipeline.progress import Progress, Silence, Summary

if TYPE_CHECKING:
    from thawmap.pipeline._speeds import Speed


def bench(
    model: Path | Sequence[Path] = (),
    *,
    config: Config | None = None,
    precisions: Sequence[Literal["float32", "bfloat16"]] = ("float32", "bfloat16"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Time every backend with a bundle on this machine, and compare its answers with PyTorch's in float32.

    Args:
        model: Folder of the bundle, or of each of several; none: U-Net with ResNet-34 for the paper's layers, with
            random weights.
        config: The middle of its first usable scene is what backends are timed and compared on, and its inference
            says how a site is cut; None: an image that is made up, and the defaults.
        precisions: Of multiplications; which to try.
        device: Where; auto: a GPU where there is one.
        json: File for all of it.
        progress: Is told what happens.

    Raises:
        ConfigError: If the file of ``json`` exists, there is no such device, the configuration names no scenes, or
            the cache folder cannot be written.
        BundleError: If a bundle is damaged.
        DataError: If no scene is usable.
    """
    from thawmap.model.backends.devices import find_device  # noqa: PLC0415 - torch loads slowly, here and below
    from thawmap.pipeline import _speeds as measuring  # noqa: PLC0415

    if json is not None:
        check_new(json)
    models = (model,) if isinstance(model, Path) else (tuple(model) or (None,))
    place, progress = find_device(device), progress or Silence()
    subjects = [measuring.subject(one, config) for one in models]
    machine = measuring.Machine.of(place)
    settings = InferenceSettings() if config is None else config.inference
    total = len(subjects) * measuring.number_of_trials(place, precisions)
    found: list[Speed] = []
    for subject in subjects:
        for speed in measuring.speeds(subject, machine, place, precisions, settings):
            found.append(speed)
            progress.step("backends", len(found), total)
    if json is not None:
        write_json(json, measuring.as_json(machine, subjects, found))
    lines = [*(one.line for one in subjects), machine.line, *_notes(found, real=config is not None, settings=settings)]
    broken = {one.model: one.refused for one in found if one.refused and _is_reference(one)}
    rows = [speed.row() for speed in found]
    if len(subjects) == 1:
        rows = [{name: value for name, value in row.items() if name != "model"} for row in rows]
    return Summary(lines=tuple(lines), done=len(subjects) - len(broken), failed=broken, rows=rows)


def _is_reference(speed: "Speed") -> bool:
    return (speed.backend, speed.precision) == ("eager", "float32")


def _notes(found: Sequence["Speed"], *, real: bool, settings: InferenceSettings) -> list[str]:
    """What the columns are, and why a backend is not usable."""
    from thawmap.pipeline._speeds import SITE_PX  # noqa: PLC0415

    cut = f"at overlap {settings.overlap}, within {settings.memory_gb:g} GB"
    notes = [
        "times faster, differs by, within 0.02, mask IoU: beside eager (PyTorch) in float32",
        "of limit: what the same operations take as float32 matrix products, over what they take here",
        f"site, min: minutes of the network for a PlanetScope site of {SITE_PX} x {SITE_PX} px, {cut}",
    ]
    if not real and any(one.precision == "bfloat16" for one in found):
        notes.append("what bfloat16 loses depends on the image: name your scenes with --config")
    if any(one.precision == "float32" and (one.of_limit or 0) > 1 for one in found):
        notes.append("above 100 % in float32: folding saves products; far above, other work slowed the limit")
    several = len({one.model for one in found}) > 1
    for one in found:
        if one.refused and not _is_reference(one):
            model = f"{one.model}: " * several
            fault = "disagrees with PyTorch on this image" if one.seconds_per_mpx else "gives no answer"
            notes.append(f"{model}{one.backend} in {one.precision} {fault}: {one.refused}")
    return notes
