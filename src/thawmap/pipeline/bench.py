"""The verb bench: the speed and the answers of every backend on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from thawmap.config import Config, InferenceSettings
from thawmap.files.atomic import write_json
from thawmap.files.guard import check_new
from thawmap.model.backends.devices import find_device
from thawmap.pipeline import _speeds as measuring
from thawmap.pipeline._speeds import SITE_PX, Speed
from thawmap.pipeline.progress import Progress, Silence, Summary


def bench(
    model: Path | Sequence[Path] = (),
    *,
    config: Config | None = None,
    precisions: Sequence[Literal["float32", "bfloat16"]] = ("float32", "bfloat16"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Time every backend with a bundle on this machine, and compare their answers.

    The answers are compared with those of PyTorch in float32. A backend that fails becomes a row with its reason.

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
    if json is not None:
        check_new(json)
    models = (model,) if isinstance(model, Path) else (tuple(model) or (None,))
    torch_device, progress = find_device(device), progress or Silence()
    subjects = [measuring.subject(folder, config) for folder in models]
    machine = measuring.Machine.of(torch_device)
    settings = InferenceSettings() if config is None else config.inference
    total = len(subjects) * measuring.number_of_trials(torch_device, precisions)
    speeds: list[Speed] = []
    for subject in subjects:
        for speed in measuring.speeds(subject, machine, torch_device, precisions, settings):
            speeds.append(speed)
            progress.step("backends", len(speeds), total)
    if json is not None:
        write_json(json, measuring.as_json(machine, subjects, speeds))
    lines = [
        *(subject.line for subject in subjects),
        machine.line,
        *_notes(speeds, on_scene=config is not None, settings=settings),
    ]
    broken = {speed.model: speed.refused for speed in speeds if speed.refused and _is_reference(speed)}
    rows = [speed.row() for speed in speeds]
    if len(subjects) == 1:
        rows = [{name: value for name, value in row.items() if name != "model"} for row in rows]
    return Summary(lines=tuple(lines), done=len(subjects) - len(broken), failed=broken, rows=rows)


def _is_reference(speed: Speed) -> bool:
    """Return whether a speed is that of PyTorch in float32."""
    return (speed.backend, speed.precision) == ("eager", "float32")


def _notes(speeds: Sequence[Speed], *, on_scene: bool, settings: InferenceSettings) -> list[str]:
    """Return sentences on the table's columns, and on backends that cannot be used."""
    tiling = f"at overlap {settings.overlap}, within {settings.memory_gb:g} GB"
    notes = [
        "times faster, differs by, within 0.02, mask IoU: beside eager (PyTorch) in float32",
        "of limit: what the same operations take as float32 matrix products, over what they take here",
        f"site, min: minutes of the network for a PlanetScope site of {SITE_PX} x {SITE_PX} px, {tiling}",
    ]
    if not on_scene and any(speed.precision == "bfloat16" for speed in speeds):
        notes.append("what bfloat16 loses depends on the image: name your scenes with --config")
    if any(speed.precision == "float32" and (speed.of_limit or 0) > 1 for speed in speeds):
        notes.append("above 100 % in float32: folding saves products; far above, other work slowed the limit")
    several = len({speed.model for speed in speeds}) > 1
    for speed in speeds:
        if speed.refused and not _is_reference(speed):
            model = f"{speed.model}: " * several
            fault = "disagrees with PyTorch on this image" if speed.seconds_per_mpx else "gives no answer"
            notes.append(f"{model}{speed.backend} in {speed.precision} {fault}: {speed.refused}")
    return notes
