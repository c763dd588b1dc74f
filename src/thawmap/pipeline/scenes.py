"""The verb scenes: the grid, date, region and faults of every scene."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from thawmap.config import Config
from thawmap.data.overview import look
from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate
from thawmap.geo.crs import crs_name, crs_of
from thawmap.pipeline.progress import Progress, Summary, run_all
from thawmap.text import counted

_NUMBERED = re.compile(r"[^\s,;:']*\d[^\s,;:']*")  # a number, or a name with one


def scenes(config: Config, *, progress: Progress | None = None) -> Summary:
    """List every scene with its grid, date, region, usable share, and faults.

    Raises:
        ConfigError: If no scene is found, or two have one id.
    """
    project = Project(config)
    rows, failed = run_all(partial(_described, project=project), project.candidates(), config, progress, "scenes")
    lines = (
        *notes({row["scene"]: row.pop("notes") for row in rows}),
        f"{len(rows)} of {counted(len(rows) + len(failed), 'scene')} can be used",
    )
    return Summary(lines=lines, done=len(rows), failed=failed, rows=rows)


def _described(candidate: Candidate, project: Project) -> dict[str, Any]:
    """Open a scene; return its table row, with notes, or refuse if nothing is usable.

    Raises:
        DataError: If the scene cannot be used.
    """
    scene = project.open(candidate, labelled=False)
    overview = look(scene, project.config.input_layers, project.sources)
    rows, cols = scene.geobox.shape
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "acquired": f"{scene.acquired:%Y-%m-%d}" if scene.acquired else "",
        "px": f"{cols}x{rows}",
        "crs": crs_name(crs_of(scene.geobox)),
        "usable": f"{overview.usable:.0%}",
        "notes": (*scene.notes, *overview.notes),
    }


def notes(sentences_of: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Merge like sentences on scenes into one line each, with its number of scenes.

    Sentences that differ in nothing but numbers and names with numbers are alike. ``sentences_of`` is scene id to
    sentences.
    """
    kinds: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for scene, sentences in sentences_of.items():
        forms = [_NUMBERED.sub("#", sentence) for sentence in sentences]
        for index, (form, sentence) in enumerate(zip(forms, sentences, strict=True)):
            # the second sentence of a form in one scene is a kind of its own: else the scene would count twice
            kinds.setdefault((form, forms[:index].count(form)), []).append((scene, sentence))
    lines = []
    for members in kinds.values():
        scene, first = members[0]
        own = "" if all(sentence == first for _, sentence in members) else ", each with its own numbers"
        several = f"{len(members)} scenes{own}, such as " if len(members) > 1 else ""
        lines.append(f"{several}{scene}: {first}")
    return tuple(lines)
