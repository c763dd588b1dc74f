"""The verb scenes: what there is to say of every scene before anything runs."""

from functools import partial

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.pipeline import _scenes
from thawmap.pipeline.progress import Progress, Summary, run_all
from thawmap.text import counted


def scenes(config: Config, *, progress: Progress | None = None) -> Summary:
    """Every scene with its grid, date, region, share of usable pixels, and what is wrong with it.

    Raises:
        ConfigError: If no scene is found, or two have one id.
    """
    project = Project(config)
    values, failed = run_all(
        partial(_scenes.describe, project=project), project.candidates(), config, progress, "scenes"
    )
    notes = _scenes.notes({row["scene"]: row.pop("notes") for row in values})
    lines = (*notes, f"{len(values)} of {counted(len(values) + len(failed), 'scene')} can be used")
    return Summary(lines=lines, done=len(values), failed=failed, rows=values)
