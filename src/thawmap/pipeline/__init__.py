"""The verbs as recipes: each is a list of calls. Here, and only here, the halls meet."""

import os
import platform
import shutil
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pandas as pd

from thawmap import __version__
from thawmap.config import Config
from thawmap.config import load as load
from thawmap.data.io import write_text
from thawmap.data.project import Project
from thawmap.data.simulate import Simulation
from thawmap.data.simulate import simulate as make_project
from thawmap.errors import ConfigError, DataError
from thawmap.pipeline import look, origin
from thawmap.pipeline.benching import bench as bench
from thawmap.pipeline.fusion import fuse as fuse
from thawmap.pipeline.inventories import check_labels as check_labels
from thawmap.pipeline.inventories import convert_labels as convert_labels
from thawmap.pipeline.inventories import label_stats as label_stats
from thawmap.pipeline.mapping import predict as predict
from thawmap.pipeline.models import export_model as export_model
from thawmap.pipeline.models import import_model as import_model
from thawmap.pipeline.models import model_info as model_info
from thawmap.pipeline.models import read_ranges as read_ranges
from thawmap.pipeline.progress import Progress, Silence, run_all
from thawmap.pipeline.progress import Summary as Summary
from thawmap.pipeline.training import train as train
from thawmap.pipeline.tuning import tune as tune
from thawmap.pipeline.validation import crossval as crossval
from thawmap.pipeline.validation import crossval_report as crossval_report

Split = Literal["test", "validation"]


def demo(out: Path, *, progress: Progress | None = None) -> Summary:
    """The whole flow on simulated scenes: train, map a region that was left out, score it.

    What is there and still true is kept, so that a second run takes seconds.

    Raises:
        ThawmapError: If the folder holds something else.
    """
    progress = progress or Silence()
    yaml = out / "project" / "thawmap.yaml"
    if not yaml.exists():
        progress.say("simulating scenes in four regions")
        simulate(out / "project", progress=progress)
    config = load(yaml)
    model, maps, report = out / "model", out / "maps", out / "report"
    train(config, model, resume=True, progress=progress)
    mapped = predict(config, model, maps, part="test", progress=progress)
    scored = evaluate(config, maps, report, model=model, progress=progress)
    lines = (*mapped.lines, *scored.lines, f"Open {(report / 'index.html').resolve()} in a browser.")
    return Summary(lines=lines, done=mapped.done, skipped=mapped.skipped, failed={**mapped.failed, **scored.failed})


def simulate(
    folder: Path,
    *,
    regions: int = 4,
    scenes: int = 2,
    dates: int = 1,
    size: int = 384,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Make a project of simulated scenes with labels; the path of its YAML.

    Args:
        folder: What to make.
        regions: Number of regions, 2 to 6.
        scenes: Places in each region, 1 to 20.
        dates: Images of each place, 1 to 10, a year apart.
        size: Side of an image in pixels of 3 m, 96 to 20000.
        seed: Another number, another Arctic.
        progress: Is told what happens.

    Raises:
        ConfigError: If the folder is not empty, or a number is out of bounds.
    """
    settings = Simulation(regions=regions, scenes_per_region=scenes, dates=dates, size=size, seed=seed)
    return make_project(folder, settings, made=partial((progress or Silence()).step, "places"))


def init(folder: Path) -> Path:
    """Write a commented YAML to start from; its path.

    Raises:
        ConfigError: If there is one.
    """
    path = folder / "thawmap.yaml"
    if path.exists():
        msg = f"{path} exists; edit it, or name another folder"
        raise ConfigError(msg)
    write_text(path, (Path(__file__).parents[1] / "template.yaml").read_text(encoding="utf-8"))
    return path


def doctor() -> dict[str, str]:
    """What this machine has, by name, for a person to read."""
    import rasterio  # noqa: PLC0415 - only this verb needs it
    import torch  # noqa: PLC0415

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
        "optional parts": ", ".join(_installed_extras()) or "none",
    }


def _installed_extras() -> list[str]:
    """The optional parts (extras) whose library is there."""
    libraries = {
        "openvino": "openvino",
        "cluster": "distributed",
        "acquire": "pystac_client",
        "earthengine": "ee",
        "onnx": "onnx",
        "review": "nicegui",
        "tune": "optuna",
    }
    return [extra for extra, library in libraries.items() if find_spec(library) is not None]


def scenes(config: Config, *, progress: Progress | None = None) -> Summary:
    """Every scene with its grid, date, region, share of usable pixels, and what is wrong with it.

    Raises:
        ConfigError: If no scene is found, or two have one id.
    """
    project = Project(config)
    values, failed = run_all(partial(look.describe, project=project), project.candidates(), config, progress, "scenes")
    notes = look.notes({row["scene"]: row.pop("notes") for row in values})
    lines = (*notes, f"{len(values)} of {len(values) + len(failed)} scenes can be used")
    return Summary(lines=lines, done=len(values), failed=failed, table=pd.DataFrame(values))


def labels(config: Config, *, progress: Progress | None = None) -> Summary:
    """What is labelled in every scene, and what is wrong with it.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        LabelError: If the labels cannot be used.
    """
    project = Project(config)
    values, failed = run_all(
        partial(look.count_labels, project=project), project.labelled_candidates(), config, progress, "labels"
    )
    table = pd.DataFrame(values)
    lines = (f"{table['object px'].sum() if values else 0} object pixels in {len(values)} scenes",)
    return Summary(lines=lines, done=len(values), failed=failed, table=table)


def tiles(config: Config, out: Path, *, dry_run: bool = False, progress: Progress | None = None) -> Summary:
    """Cut the labelled scenes into a tile store; only what is missing or made from something else is cut.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        LabelError: If the labels cannot be used.
    """
    from thawmap.pipeline import cut  # noqa: PLC0415
    from thawmap.train.tiles import collect, is_finished  # noqa: PLC0415 - zarr loads slowly

    project = Project(config)
    opened, failed = run_all(project.open, project.labelled_candidates(), config, progress, "scenes", here=True)
    todo = [scene for scene in opened if not is_finished(out, scene, cut.tiles_from(scene, config))]
    kept = len(opened) - len(todo)
    if dry_run:
        plan, wrong = run_all(partial(look.plan_tiles, project=project), todo, config, progress, "plan")
        failed |= wrong
        line = f"would cut {look.total(plan)} into {out}; {kept} are there, {len(failed)} cannot be used"
        return Summary(lines=(line,), skipped=kept, failed=failed, table=pd.DataFrame(plan))
    _, broken = run_all(partial(cut.cut, project=project, out=out), todo, config, progress, "tiles")
    failed |= broken
    whole = [scene.id for scene in opened if scene.id not in broken]
    if not whole:
        msg = f"none of {len(failed)} scenes could be cut; the first: {next(iter(failed.values()))}"
        raise DataError(msg)
    index = collect(out, whole, config.input_layers)
    of = f"of {index['scene'].nunique()} scenes at {index['place'].nunique()} places"
    line = f"{len(index)} tiles, {index['positive'].sum()} with objects, {of}: {out}"
    return Summary(lines=(line,), done=len(todo) - len(broken), skipped=kept, failed=failed)


def evaluate(
    config: Config, maps: Path, out: Path, *, model: Path | None = None, progress: Progress | None = None
) -> Summary:
    """Score maps against labels, by scene and region: tables and a page with pictures.

    Args:
        config: The scenes and their labels.
        maps: Folder that `predict` made; scenes of the configuration without a map in it are not scored.
        out: Folder of the report.
        model: Folder of the bundle, for its training curves and its threshold.
        progress: Is told what happens.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        DataError: If no scene could be scored.
    """
    from thawmap.report import evaluate as scoring  # noqa: PLC0415
    from thawmap.report import gallery, page  # noqa: PLC0415

    project, progress = Project(config), progress or Silence()
    labelled = project.labels
    mapped = [one for one in project.labelled_candidates() if (maps / one.id).is_dir()]
    opened, failed = run_all(project.open, mapped, config, progress, "scenes", here=True)
    made = origin.maker(maps, opened)
    bundle = origin.bundle_of(model, made)
    thresholds = {"polygons": made["thawmap:threshold"], "paper": 0.5} if bundle is None else bundle.thresholds
    evaluation = scoring.evaluate(maps, opened, labelled, thresholds=thresholds)
    scoring.write_scores(evaluation, out)
    about = page.About(
        project=config.project,
        made=datetime.now(UTC),
        roles=origin.roles(opened, bundle),
        facts=origin.facts(bundle),
    )
    scenes = {scene.id: scene for scene in opened}
    chosen = gallery.examples(
        evaluation,
        threshold_name=page.main_threshold(evaluation),
        regions=page.regions_that_count(evaluation, about),
    )
    places = [
        gallery.look(scored, scenes[scored.scene], rank=rank, maps=maps, labels=labelled, sources=project.sources)
        for rank, scored in chosen.items()
    ]
    page.write_page(out / "index.html", evaluation, about, places=places, training=origin.training(model))
    unmapped = len(project.candidates()) - len(mapped)
    lines = (
        *page.summary(evaluation, about),
        *([f"{unmapped} scenes of the configuration have no map in {maps} and are not scored"] if unmapped else []),
        f"page: {out / 'index.html'}; table: {out / 'scores.csv'}",
    )
    return Summary(lines=lines, done=len(evaluation.scenes), failed={**failed, **evaluation.left_out})
