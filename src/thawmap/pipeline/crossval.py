"""Cross-validation as a recipe: tiles are cut once, every training is an item of the engine, then the report."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.errors import ConfigError, DataError
from thawmap.files.lock import hold
from thawmap.files.results import check_result
from thawmap.pipeline.progress import Progress, Silence, Summary, run_all
from thawmap.text import before, counted

if TYPE_CHECKING:
    from thawmap.train.experiments.crossval import Fit
    from thawmap.train.split import Fold


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
    """Hold every fold out once, with every setting of the grid and every seed; then the report.

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
    from thawmap.pipeline import _tiles  # noqa: PLC0415
    from thawmap.pipeline.tiles import tiles  # noqa: PLC0415
    from thawmap.train.experiments import crossval as search  # noqa: PLC0415 - torch loads slowly, here and below
    from thawmap.train.split import fold_notes  # noqa: PLC0415
    from thawmap.train.tiles.store import TileStore  # noqa: PLC0415

    progress, place = progress or Silence(), store or out / "tiles"
    search.check_begun(out, config, resume=resume or report_only or dry_run)
    Project(config).check_outputs([out, place])
    check_result(out / "report", ("index.html", "scores.parquet"))
    if report_only:
        return _report(config, out, place)
    search.check(config)
    if dry_run:
        return _plan(config, out, place, progress)
    with alone(out, "cross-validation"):
        made = tiles(search.to_cut(config), place, progress=progress)
        opened = TileStore.open(place)
        search.check_begun(out, config, tiles=opened.identity, resume=resume)
        planned = search.fits(config, opened.index)
        search.begin(out, config, opened.identity)
        todo = [fit for fit in planned if not search.is_finished(out, fit)]
        scenes, _ = run_all(Project(config).open, Project(config).candidates(), config, None, "scenes", here=True)
        for line in fold_notes(_distinct_folds(planned), opened.index, [scene.region for scene in scenes]):
            progress.say(line)
        work = partial(search.run, config=config, store=place, scenes=_tiles.footprints(scenes), out=out)
        _, failed = run_all(work, todo, config, progress, "trainings")
        search.gather(out, planned)
    kept, done = len(planned) - len(todo), len(todo) - len(failed)
    line = f"{done + kept} of {counted(len(planned), 'training')} are finished{before(kept)}: {out}"
    told = crossval_report(out).lines if done + kept else ()
    return Summary(lines=(*made.lines, line, *told), done=done, skipped=kept, failed={**made.failed, **failed})


def crossval_report(out: Path) -> Summary:
    """Tables, figures and the page of a cross-validation, from what is finished, into its folder 'report'.

    Raises:
        DataError: If there is none, or nothing of it is finished.
    """
    from thawmap.report.crossval import analysis, page  # noqa: PLC0415 - figures load slowly

    found = analysis.read(out)
    lines = page.write(found, out / "report", made=datetime.now(UTC))
    return Summary(lines=(*lines, f"page: {out / 'report' / 'index.html'}"), done=len(found.fits))


def _report(config: Config, out: Path, store: Path) -> Summary:
    """The report of what is finished by now; others may be training meanwhile."""
    from thawmap.train.experiments import crossval as search  # noqa: PLC0415
    from thawmap.train.tiles.store import TileStore  # noqa: PLC0415

    if not search.is_begun(out):
        msg = f"{out} holds no cross-validation to report on; begin one without --report-only"
        raise ConfigError(msg)
    opened = TileStore.open(store)
    search.check_begun(out, config, tiles=opened.identity, resume=True)
    search.gather(out, search.fits(config, opened.index))
    return crossval_report(out)


def _plan(config: Config, out: Path, store: Path, progress: Progress) -> Summary:
    """What would be cut and trained; until tiles are cut, scenes stand for them."""
    from thawmap.pipeline.tiles import tiles  # noqa: PLC0415
    from thawmap.train.experiments import crossval as search  # noqa: PLC0415
    from thawmap.train.split import fold_notes  # noqa: PLC0415

    cut = tiles(search.to_cut(config), store, dry_run=True, progress=progress)
    index = _known(config, store)
    planned = search.fits(config, index)
    finished = sum(search.is_finished(out, fit) for fit in planned)
    epochs = sum(phase.epochs for phase in config.training.phases)
    settings = {fit.setting.name for fit in planned}
    line = (
        f"would train {counted(len(planned) - finished, 'time')}, {counted(epochs, 'epoch')} each, into {out}: "
        f"{counted(len(planned) // len(settings) // len(config.crossval.seeds), 'fold')}, "
        f"{counted(len(settings), 'setting')}, {counted(len(config.crossval.seeds), 'seed')}; {finished} are finished"
    )
    told = fold_notes(_distinct_folds(planned), index)
    return Summary(lines=(*cut.lines, *told, line), skipped=finished, failed=cut.failed, rows=_folds(planned))


def _known(config: Config, store: Path) -> pd.DataFrame:
    """The index of the tile store, or one row per scene where there is none; each then is a place of its own."""
    from thawmap.train.tiles.store import TileStore  # noqa: PLC0415

    try:
        return pd.DataFrame(TileStore.open(store).index)
    except DataError:
        project = Project(config)
        scenes, _ = run_all(project.open, project.labelled_candidates(), config, None, "scenes", here=True)
        rows = [{"scene": one.id, "place": one.id, "region": one.region, "positive_pixels": 1} for one in scenes]
        return pd.DataFrame(rows)


def _folds(planned: Sequence["Fit"]) -> list[dict[str, str]]:
    """What each fold holds out, and what chooses meanwhile."""
    columns = ("fold", "holds out", "chooses epoch and threshold")
    rows = [
        (fold.name, ", ".join(fold.test), ", ".join(fold.validation) or "nobody") for fold in _distinct_folds(planned)
    ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _distinct_folds(planned: Sequence["Fit"]) -> tuple["Fold", ...]:
    """The folds of trainings, each once."""
    return tuple(dict.fromkeys(fit.fold for fit in planned))


@contextmanager
def alone(out: Path, what: str) -> Iterator[None]:
    """The folder, for one cross-validation (``what``) at a time; a disk without locks is written to without.

    Raises:
        ConfigError: If another runs in it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(out / f".{what}.lock", wait=False))
        except BlockingIOError as error:
            msg = f"another {what} runs in {out}; wait for its end, or name another --out"
            raise ConfigError(msg) from error
        except OSError as error:
            msg = f"{out} cannot be written ({error.strerror}); name another --out, or free some room"
            raise ConfigError(msg) from error
        yield
