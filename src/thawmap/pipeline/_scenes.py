"""What there is to say of one scene before anything is trained or mapped: a row of a table each."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thawmap.data.project import Project
from thawmap.data.sources.base import Candidate, Scene
from thawmap.data.stack import Stack, check_ranges, preview
from thawmap.errors import DataError, LabelError
from thawmap.geo.crs import crs_name, crs_of
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.layers import LAYERS
from thawmap.text import counted

_OVERVIEW = 256  # side of what a scene is judged by at first, in pixels
_MOST_MISSING = 0.25  # share of a scene's ground that a layer may lack without a word
_MOST_BLACK = 0.01  # share of a scene's ground that may be 0 in all bands without a word
_NUMBERED = re.compile(r"[^\s,;:']*\d[^\s,;:']*")  # a number, or a name with one
_SIDE = 2048  # of the parts in which labels are counted, in pixels


def describe(candidate: Candidate, project: Project) -> dict[str, Any]:
    """One row of the table of scenes.

    Raises:
        DataError: If the scene cannot be used.
    """
    scene = project.open(candidate, labelled=False)
    overview = preview(scene, project.layers, project.sources, size=_OVERVIEW)
    check_ranges(overview, project.config.input_layers, scene_id=scene.id)
    usable = float(overview["valid"].mean())
    if usable == 0:
        empty = [name for name in project.layers if not np.isfinite(overview[name]).any()]
        why = f"no pixel with {' or '.join(empty)}" if empty else "no pixel where all layers are usable"
        msg = f"scene {scene.id} has {why}; see its mask and whether its files overlap"
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
        "notes": (*scene.notes, *_gaps(overview, project.layers), *_zeros(overview, scene)),
    }


def _gaps(overview: Stack, layers: Sequence[str]) -> list[str]:
    """Which layers lack a large part of the ground that the best known of them shows."""
    known = {name: float(np.isfinite(overview[name]).mean()) for name in layers}
    best = max(known.values())
    poor = [name for name, share in known.items() if share < (1 - _MOST_MISSING) * best]
    return [f"it has no {name} for {round(100 - 100 * known[name] / best)}% of its ground" for name in poor]


def _zeros(overview: Stack, scene: Scene) -> list[str]:
    """How much of a scene's ground is stored as 0 in all of its optical bands, and was not called missing."""
    optical = {name for name, layer in LAYERS.items() if layer.optical}
    names = [name for name in scene.readings if name in overview and name in optical]
    if not names:
        return []
    black = np.logical_and.reduce([overview[name] == np.float32(scene.readings[name].offset) for name in names])
    if black.mean() < _MOST_BLACK:
        return []
    return [f"{black.mean():.0%} of it is 0 in {', '.join(names)}; if that means missing, set 'nodata: 0' for them"]


def notes(said: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What there is to know of scenes (id to sentences), each once, with how many scenes it is true of.

    Sentences that differ in nothing but numbers and names with numbers are one.
    """
    alike: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for scene, sentences in said.items():
        forms = [_NUMBERED.sub("#", sentence) for sentence in sentences]
        for index, (form, sentence) in enumerate(zip(forms, sentences, strict=True)):
            alike.setdefault((form, forms[:index].count(form)), []).append((scene, sentence))
    return tuple(map(_note, alike.values()))


def _note(alike: Sequence[tuple[str, str]]) -> str:
    """A line on scenes and what is said of each."""
    name, sentence = alike[0]
    if len(alike) == 1:
        return f"{name}: {sentence}"
    own = "" if all(other == sentence for _, other in alike) else ", each with its own numbers"
    return f"{len(alike)} scenes{own}, such as {name}: {sentence}"


def count_labels(candidate: Candidate, project: Project) -> dict[str, Any]:
    """One row of the table of labels."""
    from thawmap.data.labels.polygons import IGNORE  # noqa: PLC0415 - loads slowly, and lists of scenes need no labels

    scene = project.open(candidate)
    counts = np.zeros(256, np.int64)
    for block in Window.of_shape((scene.geobox.height, scene.geobox.width)).blocks(_SIDE):
        target = project.labels.burn(scene, window_geobox(scene.geobox, block))
        counts += np.bincount(target.ravel(), minlength=256)
    outlines = project.labels.outlines(scene)
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "polygons": "" if outlines is None else len(outlines),
        "object px": int(counts[1]),
        "ignored px": int(counts[IGNORE]),
        "object share": f"{counts[1] / counts.sum():.2%}",
    }


def lost_labels(project: Project, scenes: Sequence[Scene], *, needed: bool) -> tuple[str, ...]:
    """What is to be said where labels lie on none of the scenes, or hardly any; nothing where they do.

    Args:
        project: Whose labels.
        scenes: The scenes.
        needed: Whether such labels are of no use, even where nothing explains where they lie.

    Raises:
        LabelError: If they are needed, or it is known what is wrong with them.
    """
    from thawmap.data.labels.polygons import PolygonLabels  # noqa: PLC0415 - loads slowly

    labels = project.labels
    lost = labels.astray(scenes) if isinstance(labels, PolygonLabels) else None
    if lost is None:
        return ()
    if needed or lost.explained:
        remedy = "correct that" if lost.explained else "see its CRS, and whether the scenes show its ground"
        msg = f"{lost.message}; {remedy}"
        raise LabelError(msg)
    return (lost.message,)


def plan_tiles(scene: Scene, project: Project) -> dict[str, Any]:
    """One row of the table of what would be cut: most tiles that there can be, and what they take.

    Raises:
        DataError: If the scene cannot be cut.
        LabelError: If its labels cannot be used.
    """
    from thawmap.data.labels.polygons import IGNORE  # noqa: PLC0415 - loads slowly, here and below
    from thawmap.train.tiles.cut import disk_bytes, tile_count  # noqa: PLC0415 - torch loads slowly

    config, shape = project.config, (scene.geobox.height, scene.geobox.width)
    overview = preview(scene, project.layers, project.sources, size=_OVERVIEW)
    check_ranges(overview, config.input_layers, scene_id=scene.id)
    coarse = scene.geobox.zoom_to(min(_OVERVIEW, max(shape)))
    labelled = project.labels.burn(scene, coarse) != IGNORE
    most = tile_count(shape, config.tiles)
    return {
        "scene": scene.id,
        "region": scene.region or "",
        "part": project.part(scene),
        "px": f"{shape[1]}x{shape[0]}",
        "usable": f"{overview['valid'].mean():.0%}",
        "labelled": f"{labelled.mean():.0%}",
        "tiles": most,
        "MB": round(most * disk_bytes(config, project.sources) / 1e6, 1),
        "Mpx": shape[0] * shape[1] / 1e6,
    }


def total(plan: Sequence[dict[str, Any]]) -> str:
    """What is planned for all scenes together, in words."""
    tiles, megabytes, pixels = (sum(row[name] for row in plan) for name in ("tiles", "MB", "Mpx"))
    return (
        f"{counted(len(plan), 'scene')} of {pixels:.1f} million pixels: at most {counted(tiles, 'tile')}, which take "
        f"about {megabytes / 1000:.2g} GB"
    )
