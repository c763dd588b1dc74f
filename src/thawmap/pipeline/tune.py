"""Tuning as a recipe: tiles are cut once, then one trial after the other, each from what was learnt before."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.files.results import check_result, result
from thawmap.pipeline.crossval import alone
from thawmap.pipeline.progress import Progress, Silence, Summary, records, run_all
from thawmap.text import counted

if TYPE_CHECKING:
    from thawmap.train.experiments.trials import Trial

_SHOWN = 10  # trials in the table that the terminal shows; trials.csv has all


def tune(
    config: Config,
    out: Path,
    *,
    store: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Search the keys of ``tune.keys`` for the best validation; the answer is ``best.yaml``.

    Args:
        config: Everything that decides the result.
        out: Folder of the tuning.
        store: Folder of the tile store; by default 'tiles' in ``out``.
        resume: Go on with the one in ``out``: what is finished stays, what was interrupted goes on.
        dry_run: Say what would be searched, and train nothing.
        progress: Is told what happens.

    Raises:
        ConfigError: If optuna is missing, a key or value does not exist, there is no validation part, or ``out`` holds
            another tuning.
        DataError: If a result of the tuning in ``out`` was changed since it was made.
        LabelError: If the labels cannot be used.
    """
    from thawmap.pipeline import _tiles  # noqa: PLC0415
    from thawmap.pipeline.tiles import tiles  # noqa: PLC0415
    from thawmap.train.experiments import trials  # noqa: PLC0415 - torch loads slowly, here and below
    from thawmap.train.experiments import tune as tuning  # noqa: PLC0415 - torch loads slowly, here and below
    from thawmap.train.split import split_tiles  # noqa: PLC0415
    from thawmap.train.tiles.store import TileStore  # noqa: PLC0415

    progress, place = progress or Silence(), store or out / "tiles"
    tuning.check(config)
    tuning.check_begun(out, config, resume=resume)
    Project(config).check_outputs([out, place])
    check_result(out, trials.RESULTS)
    if dry_run:
        return _plan(config, out, place, progress)
    with alone(out, "tuning"):
        made = tiles(tuning.to_cut(config), place, progress=progress)
        opened = TileStore.open(place)
        tuning.check_begun(out, config, tiles=opened.identity, resume=resume)
        scenes, _ = run_all(Project(config).open, Project(config).candidates(), config, None, "scenes", here=True)
        split = split_tiles(opened.index, config.split, scenes=_tiles.footprints(scenes))
        tuning.check_validation(split)
        tuning.begin(out, config, opened.identity)
        todo = trials.missing(out, config)
        run = partial(tuning.run, config=config, store=opened, split=split, out=out)
        for line in split.lines():
            progress.say(line)
        ended: list[Trial] = []
        for number in todo:
            ended.append(run(number, report=progress.say))
            trials.gather(out, config)
            progress.say(_sentence(ended[-1], trials.best(trials.trials(out))))
            progress.step("trials", len(ended), len(todo))
    failed = {**made.failed, **{one.id: one.reason for one in ended if one.state == "failed"}}
    told = _report(out)
    return Summary(
        lines=(*made.lines, *told.lines),
        done=sum(one.state != "failed" for one in ended),
        skipped=config.tune.trials - len(todo),
        failed=failed,
        rows=told.rows,
    )


def _report(out: Path) -> Summary:
    """Figure and sentences of a tuning, from what is finished.

    Raises:
        DataError: If a trial's file is damaged.
    """
    from thawmap.report.style import write_figure  # noqa: PLC0415 - figures load slowly
    from thawmap.report.tuning import trials_figure  # noqa: PLC0415
    from thawmap.train.experiments import trials  # noqa: PLC0415

    known = trials.trials(out)
    table, chosen = trials.table(known), trials.best(known)
    if chosen is None:
        return Summary(lines=(f"no trial is finished: {out / 'trials.csv'}",))
    keys = list(chosen.values)
    with result(out) as draft:
        write_figure(draft / "trials.png", trials_figure(table, keys))
    first = table.sort_values("validation_iou", ascending=False, kind="stable").head(_SHOWN)
    states = " and ".join(f"{number} {state}" for state, number in table["state"].value_counts().items())
    reached = f"validation IoU {chosen.score:.3f} after epoch {chosen.epoch}, with {chosen.said()}"
    lines = (
        f"best of {counted(len(known), 'trial')} ({states}): trial {chosen.number}, {reached}",
        f"table: {out / 'trials.csv'}; figure: {out / 'trials.png'}; its bundle: {out / chosen.folder}",
        f"configuration: {out / 'best.yaml'}; next: thawmap train {out / 'best.yaml'} --out model",
    )
    shown = first[["trial", "state", "validation_iou", "epoch", "epochs", *keys]]
    return Summary(lines=lines, done=len(known), rows=records(shown.round({"validation_iou": 4})))


def _plan(config: Config, out: Path, store: Path, progress: Progress) -> Summary:
    """What would be cut and trained."""
    from thawmap.pipeline.tiles import tiles  # noqa: PLC0415
    from thawmap.train.experiments import trials  # noqa: PLC0415
    from thawmap.train.experiments import tune as tuning  # noqa: PLC0415

    cut = tiles(tuning.to_cut(config), store, dry_run=True, progress=progress)
    todo, epochs = len(trials.missing(out, config)), sum(phase.epochs for phase in config.training.phases)
    line = (
        f"would train {counted(todo, 'time')}, up to {counted(epochs, 'epoch')} each, into {out}: "
        f"trials of {', '.join(config.tune.keys)}; "
        f"{config.tune.trials - todo} are finished"
    )
    return Summary(lines=(*cut.lines, line), skipped=config.tune.trials - todo, failed=cut.failed)


def _sentence(trial: "Trial", best: "Trial | None") -> str:
    """What became of a trial."""
    reached = f"validation IoU {trial.score:.3f} after epoch {trial.epoch}" if trial.scores else "nothing reached"
    what = {"pruned": f"given up after {counted(len(trial.scores), 'epoch')}", "failed": f"failed: {trial.reason}"}
    said = f"{trial.id} {what.get(trial.state, 'is finished')}, {reached}"
    if best is not None and trial.number != best.number:
        return f"{said}; the best is {best.id} with {best.score:.3f}"
    return said if best is None else f"{said}, the best so far"
