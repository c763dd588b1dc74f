"""A look at a whole scene, coarsened: how much of it can be used, and what is odd."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import Stack, check_ranges, preview
from thawmap.errors import DataError
from thawmap.layers import LAYERS, Layer

OVERVIEW_PX = 256
"""Longer side of the preview that a scene is judged by at first, in pixels."""

_MOST_MISSING = 0.25  # share of a scene's ground that a layer may lack without a word
_MOST_BLACK = 0.01  # share of a scene's ground that may be 0 in all bands without a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What a look at a scene shows.

    Attributes:
        usable: Share of its pixels in which all layers can be used, above 0 and up to 1.
        notes: Sentences that a user should know.
    """

    usable: float
    notes: tuple[str, ...]


def look(scene: Scene, layers: Sequence[Layer], sources: Sequence[Source]) -> Overview:
    """Look at a scene's layers, coarsened; refuse it if nothing is usable.

    Raises:
        DataError: If a layer is missing or far outside of its range, a file cannot be read, or no pixel is usable.
    """
    names = [layer.name for layer in layers]
    overview = preview(scene, names, sources, size=OVERVIEW_PX)
    check_ranges(overview, layers, scene_id=scene.id)
    usable = float(overview["valid"].mean())
    if usable == 0:
        empty = [name for name in names if not np.isfinite(overview[name]).any()]
        reason = f"no pixel with {' or '.join(empty)}" if empty else "no pixel where all layers are usable"
        msg = f"scene {scene.id} has {reason}; see its mask and whether its files overlap"
        raise DataError(msg)
    return Overview(usable=usable, notes=(*_lacking_layers(overview, names), *_unflagged_zeros(overview, scene)))


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
