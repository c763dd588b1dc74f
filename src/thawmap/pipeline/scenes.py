"""The verb scenes: the grid, date, region and faults of every scene."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from thawmap.config import Config
from thawmap.data.catalogue.records import KnownScene, Seen
from thawmap.data.overview import look
from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate, Scene
from thawmap.errors import DataError
from thawmap.geo.crs import crs_name, crs_of
from thawmap.layers import LAYERS
from thawmap.pipeline.progress import Progress, Summary, run_all
from thawmap.text import counted

_NUMBERED = re.compile(r"[^\s,;:']*\d[^\s,;:']*")  # a number, or a name with one


def scenes(config: Config, *, look_at_all: bool = False, progress: Progress | None = None) -> Summary:
    """List every scene with its grid, date, region, usable share, and faults.

    Scenes that a true catalogue knows are listed as it says, and none of their files is opened.

    Args:
        config: Which scenes, and how they are read.
        look_at_all: Open all scenes, and look at the pixels of all layers.
        progress: Is told after each scene that is opened.

    Raises:
        ConfigError: If no scene is found, or two have one id.
    """
    project = Project(config)
    candidates = project.candidates()
    listed = {} if look_at_all else _listed(candidates, project)
    others = [candidate for candidate in candidates if candidate.id not in listed]
    opened, failed = run_all(partial(_described, project=project), others, config, progress, "scenes")
    by_id = listed | {row["scene"]: row for row in opened}
    rows = [by_id[candidate.id] for candidate in candidates if candidate.id in by_id]
    told = f"{counted(len(listed), 'scene is', 'scenes are')} listed as the catalogue says, of their own bands alone"
    lines = (
        *notes({row["scene"]: row.pop("notes") for row in rows}),
        *([f"{told}; --look opens all, and looks at all layers"] if listed else []),
        f"{len(rows)} of {counted(len(rows) + len(failed), 'scene')} can be used",
    )
    return Summary(lines=lines, done=len(rows), failed=failed, rows=rows)


def _listed(candidates: Sequence[Candidate], project: Project) -> dict[str, dict[str, Any]]:
    """Return table rows, with notes, of the scenes that a catalogue knows, by id.

    Left out are scenes that it has not looked at, or that lack a layer which is asked for: who opens them is told why.
    """
    try:
        needed = project.own_layers
    except DataError:  # nothing has a layer that is asked for: each scene is told so
        return {}
    names_of_crs: dict[str, str] = {}
    rows = {}
    for candidate in candidates:
        if not isinstance(candidate.record, KnownScene) or candidate.fault is not None:
            continue
        seen = candidate.record.seen()
        if seen.usable and needed <= seen.layers & LAYERS.keys() and not project.is_placed_by_labels(candidate):
            if seen.crs not in names_of_crs:
                names_of_crs[seen.crs] = crs_name(seen.crs)
            rows[candidate.id] = _row(candidate, project, seen, names_of_crs[seen.crs])
    return rows


def _row(scene: Scene | Candidate, project: Project, seen: Seen, crs: str) -> dict[str, Any]:
    """Return the table row of a scene, with its notes, by what was seen of it."""
    rows, cols = seen.shape
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "acquired": f"{seen.acquired:%Y-%m-%d}" if seen.acquired else "",
        "px": f"{cols}x{rows}",
        "crs": crs,
        "usable": f"{seen.usable:.0%}",
        "notes": seen.notes,
    }


def _described(candidate: Candidate, project: Project) -> dict[str, Any]:
    """Open a scene; return its table row, with notes, or refuse if nothing is usable.

    Raises:
        DataError: If the scene cannot be used.
    """
    scene = project.open(candidate, labelled=False)
    overview = look(scene, project.config.input_layers, project.sources)
    seen = Seen(
        acquired=scene.acquired,
        shape=(scene.geobox.height, scene.geobox.width),
        crs=crs_of(scene.geobox),
        layers=frozenset(scene.readings),
        usable=overview.usable,
        notes=(*scene.notes, *overview.notes),
    )
    return _row(scene, project, seen, crs_name(seen.crs))


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
