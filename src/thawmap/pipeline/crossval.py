"""The verb crossval: tiles are cut once, every fold is trained, then the report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError
from thawmap.files.results import check_result
from thawmap.pipeline.labels import labelled_scenes
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.pipeline.tiles import cut_tiles, footprints
from thawmap.report.crossval import analysis, page
from thawmap.text import before, counted
from thawmap.train.experiments import crossval as trainings
from thawmap.train.experiments.folder import alone, write_plan
from thawmap.train.split import Fold, fold_notes
from thawmap.train.tiles.store import TileStore


def crossval(
    config: Config,
    out: Path,
    *,
    store: Path | None = None,
    resume: bool = False,
    report_only: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Train once for each held-out fold, setting and seed, and report on all.

    Args:
        config: Everything that decides the result.
        out: Folder of the cross-validation.
        store: Folder of the tile store; by default 'tiles' in ``out``.
        resume: Go on with the one in ``out``: what is finished stays, what was interrupted goes on.
        report_only: Train nothing; only make tables, figures and page again, from what is finished by now.
        dry_run: Say what would be trained, and train nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If a setting does not exist, there are too few folds, or ``out`` holds another cross-validation.
        DataError: If the report in ``out`` was changed since it was made.
        LabelError: If the labels cannot be used.
    """
    project, progress, tile_folder = Project(config), progress or Silence(), store or out / "tiles"
    trainings.check_begun(out, config, resume=resume or report_only or dry_run)
    project.check_outputs([out, tile_folder])
    check_result(out / "report", ("index.html", "scores.parquet"))
    if report_only:
        return _report_so_far(config, out, tile_folder)
    trainings.check(config)
    if dry_run:
        return _plan(project, out, tile_folder, progress)
    with alone(out, "cross-validation"):
        scenes, unusable = labelled_scenes(project, progress)
        all_layers = Project(trainings.tiling_config(config))
        cut = cut_tiles(all_layers, scenes, unusable, tile_folder, dry_run=False, progress=progress)
        tile_store = TileStore.open(tile_folder)
        trainings.check_begun(out, config, store=tile_store.identity, resume=resume)
        fits = trainings.plan_fits(config, tile_store.index)
        write_plan(out / trainings.PLAN, config, tile_store.identity)
        todo = [fit for fit in fits if not trainings.is_finished(out, fit)]
        for line in fold_notes(_folds(fits), tile_store.index, [scene.region for scene in scenes]):
            progress.say(line)
        work = partial(trainings.run_fit, config=config, store=tile_folder, scenes=footprints(scenes), out=out)
        _, failed = run_all(work, todo, config, progress, "trainings")
        trainings.write_tables(out, fits)
    finished, done = len(fits) - len(todo), len(todo) - len(failed)
    line = f"{done + finished} of {counted(len(fits), 'training')} are finished{before(finished)}: {out}"
    report_lines = crossval_report(out).lines if done + finished else ()
    lines = (*cut.lines, line, *report_lines)
    return Summary(lines=lines, done=done, skipped=finished, failed={**cut.failed, **failed})


def crossval_report(out: Path) -> Summary:
    """Write the report of a cross-validation's finished trainings; return sentences.

    It is tables, figures and a page, in the folder 'report'.

    Raises:
        DataError: If there is none, or nothing of it is finished.
    """
    experiment = analysis.read(out)
    lines = page.write(experiment, out / "report", made=datetime.now(UTC))
    return Summary(lines=(*lines, f"page: {out / 'report' / 'index.html'}"), done=len(experiment.fits))


def _report_so_far(config: Config, out: Path, tile_folder: Path) -> Summary:
    """Write tables and report of a cross-validation's finished trainings.

    Others may be running meanwhile.
    """
    if not (out / trainings.PLAN).exists():
        msg = f"{out} holds no cross-validation to report on; begin one without --report-only"
        raise ConfigError(msg)
    tile_store = TileStore.open(tile_folder)
    trainings.check_begun(out, config, store=tile_store.identity, resume=True)
    trainings.write_tables(out, trainings.plan_fits(config, tile_store.index))
    return crossval_report(out)


def _plan(project: Project, out: Path, tile_folder: Path, progress: Progress) -> Summary:
    """Return a summary of what would be cut and trained, and do neither.

    Until tiles are cut, scenes stand for them.
    """
    config = project.config
    scenes, unusable = labelled_scenes(project, progress)
    all_layers = Project(trainings.tiling_config(config))
    cut = cut_tiles(all_layers, scenes, unusable, tile_folder, dry_run=True, progress=progress)
    index = _tiles_or_scenes(tile_folder, scenes)
    fits = trainings.plan_fits(config, index)
    finished = sum(trainings.is_finished(out, fit) for fit in fits)
    epochs = sum(phase.epochs for phase in config.training.phases)
    settings, seeds = {fit.setting.name for fit in fits}, len(config.crossval.seeds)
    line = (
        f"would train {counted(len(fits) - finished, 'time')}, {counted(epochs, 'epoch')} each, into {out}: "
        f"{counted(len(fits) // len(settings) // seeds, 'fold')}, "
        f"{counted(len(settings), 'setting')}, {counted(seeds, 'seed')}; {finished} are finished"
    )
    columns = ("fold", "holds out", "chooses epoch and threshold")
    rows = [(fold.name, ", ".join(fold.test), ", ".join(fold.validation) or "nobody") for fold in _folds(fits)]
    return Summary(
        lines=(*cut.lines, *fold_notes(_folds(fits), index), line),
        skipped=finished,
        failed=cut.failed,
        rows=[dict(zip(columns, row, strict=True)) for row in rows],
    )


def _tiles_or_scenes(tile_folder: Path, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Return the tile store's index as a table; without one, a row for each scene.

    Every scene is then taken for a place of its own, with objects.
    """
    try:
        return pd.DataFrame(TileStore.open(tile_folder).index)
    except DataError:
        rows = [
            {"scene": scene.id, "place": scene.id, "region": scene.region, "positive_pixels": 1} for scene in scenes
        ]
        return pd.DataFrame(rows)


def _folds(fits: Sequence[trainings.Fit]) -> tuple[Fold, ...]:
    """Return the folds of trainings, each fold once, in order of appearance."""
    return tuple(dict.fromkeys(fit.fold for fit in fits))
