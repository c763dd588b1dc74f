"""The verb labels: what is labelled in every scene."""

from functools import partial

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.pipeline import _scenes
from thawmap.pipeline.progress import Progress, Summary, run_all
from thawmap.text import counted


def labels(config: Config, *, progress: Progress | None = None) -> Summary:
    """What is labelled in every scene, and what is wrong with it.

    Raises:
        ConfigError: If the configuration has no labels, or no scene is found.
        LabelError: If the labels cannot be used.
    """
    project = Project(config)
    found = project.labelled_candidates()
    values, failed = run_all(partial(_scenes.count_labels, project=project), found, config, progress, "labels")
    opened, _ = run_all(project.open, found, config, None, "scenes", here=True)
    lost = _scenes.lost_labels(project, opened, needed=False)
    lines = (
        *lost,
        f"{sum(row['object px'] for row in values)} object pixels in {counted(len(values), 'scene')}",
    )
    return Summary(lines=lines, done=len(values), failed=failed, rows=values)
