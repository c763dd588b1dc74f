"""The verb scenes: the grid, date, region and faults of every scene."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from thawmap.config import Config
from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate, Scene
from thawmap.data.stack import Stack, check_ranges, preview
from thawmap.errors import DataError
from thawmap.geo.crs import crs_name, crs_of
from thawmap.layers import LAYERS
from thawmap.pipeline.progress import Progress, Summary, run_all
from thawmap.text import counted

OVERVIEW_PX = 256
"""Longer side of the preview that a scene is judged by at first, in pixels."""

_MOST_MISSING = 0.25  # share of a scene's ground that a layer may lack without a word
_MOST_BLACK = 0.01  # share of a scene's ground that may be 0 in all bands without a word
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
    overview = preview(scene, project.layers, project.sources, size=OVERVIEW_PX)
    check_ranges(overview, project.config.input_layers, scene_id=scene.id)
    usable = float(overview["valid"].mean())
    if usable == 0:
        empty = [name for name in project.layers if not np.isfinite(overview[name]).any()]
        reason = f"no pixel with {' or '.join(empty)}" if empty else "no pixel where all layers are usable"
        msg = f"scene {scene.id} has {reason}; see its mask and whether its files overlap"
        raise DataError(msg)
    rows, cols = scene.geobox.shape
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "acquired": f"{scene.acquired:%Y-%m-%d}" if scene.acquired else "",
        "px": f"{cols}x{rows}",
        "crs": crs_name(crs_of(scene.geobox)),
        "usable": f"{usable:.0%}",
        "notes": (*scene.notes, *_lacking_layers(overview, project.layers), *_unflagged_zeros(overview, scene)),
    }


def _lacking_layers(overview: Stack, layers: Sequence[str]) -> list[str]:
    """Return a note on each layer that covers 25 % less than the fullest layer."""
    coverage = {name: float(np.isfinite(overview[name]).mean()) for name in layers}
    most = max(coverage.values())
    poor = [name for name, share in coverage.items() if share < (1 - _MOST_MISSING) * most]
    return [f"it has no {name} for {round(100 - 100 * coverage[name] / most)}% of its ground" for name in poor]


def _unflagged_zeros(overview: Stack, scene: Scene) -> list[str]:
    """Return a list of one note if over 1 % of pixels are 0 in all bands, else empty.

    Bands are the optical ones; such ground was not called missing by the scene.
    """
    optical = {name for name, layer in LAYERS.items() if layer.optical}
    names = [name for name in scene.readings if name in overview and name in optical]
    if not names:
        return []
    black = np.logical_and.reduce([overview[name] == np.float32(scene.readings[name].offset) for name in names])
    if black.mean() < _MOST_BLACK:
        return []
    return [f"{black.mean():.0%} of it is 0 in {', '.join(names)}; if that means missing, set 'nodata: 0' for them"]


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
