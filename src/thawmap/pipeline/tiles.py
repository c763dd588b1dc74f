"""The verb tiles: cut the labelled scenes into a tile store."""

from functools import partial
from pathlib import Path

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.errors import DataError
from thawmap.pipeline import _scenes, _tiles
from thawmap.pipeline.progress import Progress, Summary, run_all, still_due
from thawmap.text import counted
from thawmap.train.tiles.store import check_store, collect_index


def tiles(config: Config, out: Path, *, dry_run: bool = False, progress: Progress | None = None) -> Summary:
    """Cut the labelled scenes into a tile store; only what is missing or made from something else is cut.

    Raises:
        ConfigError: If the configuration has no labels, no scene is found, or ``out`` is where inputs lie.
        DataError: If ``out`` holds something else, or no scene could be cut.
        LabelError: If the labels cannot be used.
    """
    project = Project(config)
    opened, failed = run_all(project.open, project.labelled_candidates(), config, progress, "scenes", here=True)
    project.check_outputs([out], opened, replaced=[out / f"{scene.id}.zarr" for scene in opened])
    check_store(out)
    _scenes.lost_labels(project, opened, needed=True)
    todo, stuck = still_due(partial(_tiles.is_due, config=config, out=out), opened, config)
    kept, failed = len(opened) - len(todo) - len(stuck), {**failed, **stuck}
    if dry_run:
        plan, wrong = run_all(partial(_scenes.plan_tiles, project=project), todo, config, progress, "plan")
        failed |= wrong
        line = f"would cut {_scenes.total(plan)} into {out}; {kept} are there, {len(failed)} cannot be used"
        return Summary(lines=(line,), skipped=kept, failed=failed, rows=plan)
    _, broken = run_all(partial(_tiles.cut, project=project, out=out), todo, config, progress, "tiles")
    failed |= broken
    whole = [scene.id for scene in opened if scene.id not in failed]
    if not whole:
        msg = f"none of {counted(len(failed), 'scene')} could be cut; the first: {next(iter(failed.values()))}"
        raise DataError(msg)
    index = collect_index(out, whole, config.input_layers)
    of = f"of {counted(index['scene'].nunique(), 'scene')} at {counted(index['place'].nunique(), 'place')}"
    line = f"{counted(len(index), 'tile')}, {index['positive'].sum()} with objects, {of}: {out}"
    return Summary(lines=(line,), done=len(todo) - len(broken), skipped=kept, failed=failed)
