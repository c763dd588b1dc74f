"""The verb tune: tiles are cut once, then trials are run one after the other."""

from pathlib import Path

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.files.results import check_result, result
from thawmap.pipeline.labels import labelled_scenes
from thawmap.pipeline.progress import Progress, Silence, Summary, records
from thawmap.pipeline.tiles import cut_tiles, footprints
from thawmap.report.style import write_figure
from thawmap.report.tuning import trials_figure
from thawmap.text import counted
from thawmap.train.experiments import trials
from thawmap.train.experiments import tune as tuning
from thawmap.train.experiments.folder import alone, write_plan
from thawmap.train.experiments.trials import Trial
from thawmap.train.split import split_tiles
from thawmap.train.tiles.store import TileStore

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
    """Search the keys of ``tune.keys`` for the best validation; write ``best.yaml``.

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
    project, progress, tile_folder = Project(config), progress or Silence(), store or out / "tiles"
    tuning.check(config)
    tuning.check_begun(out, config, resume=resume)
    project.check_outputs([out, tile_folder])
    check_result(out, trials.RESULTS)
    if dry_run:
        return _plan(project, out, tile_folder, progress)
    with alone(out, "tuning"):
        scenes, unusable = labelled_scenes(project, progress)
        all_layers = Project(tuning.tiling_config(config))
        cut = cut_tiles(all_layers, scenes, unusable, tile_folder, dry_run=False, progress=progress)
        tile_store = TileStore.open(tile_folder)
        tuning.check_begun(out, config, store=tile_store.identity, resume=resume)
        split = split_tiles(tile_store.index, config.split, scenes=footprints(scenes))
        tuning.check_validation(split)
        write_plan(out / tuning.PLAN, config, tile_store.identity)
        todo = trials.remaining_trials(out, config)
        for line in split.lines():
            progress.say(line)
        ended: list[Trial] = []
        for number in todo:
            trial = tuning.run_trial(number, config=config, store=tile_store, split=split, out=out, report=progress.say)
            ended.append(trial)
            trials.write_results(out, config)
            progress.say(_sentence(trial, trials.best_trial(trials.read_trials(out))))
            progress.step("trials", len(ended), len(todo))
    failed = {trial.id: trial.reason for trial in ended if trial.state == "failed"}
    report = _report(out)
    return Summary(
        lines=(*cut.lines, *report.lines),
        done=len(ended) - len(failed),
        skipped=config.tune.trials - len(todo),
        failed={**cut.failed, **failed},
        rows=report.rows,
    )


def _report(out: Path) -> Summary:
    """Write the figure of a tuning's trials; return a table of the best and sentences.

    Raises:
        DataError: If a trial's file is damaged.
    """
    finished = trials.read_trials(out)
    table, chosen = trials.trials_table(finished), trials.best_trial(finished)
    if chosen is None:
        return Summary(lines=(f"no trial is finished: {out / 'trials.csv'}",))
    keys = list(chosen.values)
    with result(out) as draft:
        write_figure(draft / "trials.png", trials_figure(table, keys))
    first = table.sort_values("validation_iou", ascending=False, kind="stable").head(_SHOWN)
    states = " and ".join(f"{number} {state}" for state, number in table["state"].value_counts().items())
    reached = f"validation IoU {chosen.score:.3f} after epoch {chosen.epoch}, with {chosen.describe_values()}"
    lines = (
        f"best of {counted(len(finished), 'trial')} ({states}): trial {chosen.number}, {reached}",
        f"table: {out / 'trials.csv'}; figure: {out / 'trials.png'}; its bundle: {out / chosen.folder}",
        f"configuration: {out / 'best.yaml'}; next: thawmap train {out / 'best.yaml'} --out model",
    )
    columns = ["trial", "state", "validation_iou", "epoch", "epochs", *keys]
    return Summary(lines=lines, done=len(finished), rows=records(first[columns].round({"validation_iou": 4})))


def _plan(project: Project, out: Path, tile_folder: Path, progress: Progress) -> Summary:
    """Return a summary of what would be cut and trained, and do neither."""
    config = project.config
    scenes, unusable = labelled_scenes(project, progress)
    all_layers = Project(tuning.tiling_config(config))
    cut = cut_tiles(all_layers, scenes, unusable, tile_folder, dry_run=True, progress=progress)
    todo, epochs = len(trials.remaining_trials(out, config)), sum(phase.epochs for phase in config.training.phases)
    finished = config.tune.trials - todo
    line = (
        f"would train {counted(todo, 'time')}, up to {counted(epochs, 'epoch')} each, into {out}: "
        f"trials of {', '.join(config.tune.keys)}; {finished} are finished"
    )
    return Summary(lines=(*cut.lines, line), skipped=finished, failed=cut.failed)


def _sentence(trial: Trial, best: Trial | None) -> str:
    """Return a sentence on how a trial ended, and on which is the best so far."""
    reached = f"validation IoU {trial.score:.3f} after epoch {trial.epoch}" if trial.scores else "nothing reached"
    endings = {"pruned": f"given up after {counted(len(trial.scores), 'epoch')}", "failed": f"failed: {trial.reason}"}
    sentence = f"{trial.id} {endings.get(trial.state, 'is finished')}, {reached}"
    if best is not None and trial.number != best.number:
        return f"{sentence}; the best is {best.id} with {best.score:.3f}"
    return sentence if best is None else f"{sentence}, the best so far"
