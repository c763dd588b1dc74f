"""The scenes that a model maps best, middling and worst, as examples to look at."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thawmap.data.labels.polygons import Labels
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import assemble
from thawmap.geo.geobox import window_geobox
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps.colours import FALSE_COLOUR, brightness, brightness_limits
from thawmap.maps.item import MapItem
from thawmap.maps.read import MapFolder
from thawmap.report.evaluation.result import Evaluation
from thawmap.report.evaluation.score import Scored

COMPOSITES = (FALSE_COLOUR, ("red", "green", "blue"))
"""Layers shown as red, green and blue: the first of these that a project has."""

_MISSING = 139  # grey of a pixel without data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A window of a scene, with everything that is drawn of it.

    Attributes:
        rank: What it is an example of, such as "best".
        scored: The scene's counts.
        layers: The layers that the image shows as red, green and blue.
        image: (y, x, 3) uint8.
        probability: (y, x) float32, 0..1; NaN = missing.
        target: (y, x) uint8; 1 object, 0 not, 255 not scored.
        mapped: (y, x) bool, where the map has objects; None where it has no mask.
        pixel_m: Side of a pixel in metres.
    """

    rank: str
    scored: Scored
    layers: tuple[str, ...]
    image: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]
    mapped: npt.NDArray[np.bool_] | None
    pixel_m: float


def choose_examples(
    evaluation: Evaluation, *, threshold_name: str, regions: Collection[str] | None = None
) -> dict[str, Scored]:
    """Return the scored scenes by "best", "median" and "worst" IoU at a threshold.

    Scenes without an IoU have no rank; of one scene there is only the best, of two no median.

    Args:
        evaluation: What was scored.
        threshold_name: The threshold whose IoU ranks them.
        regions: Where to look; None, or names of which none was scored: everywhere.
    """
    table = evaluation.table
    inside = table["region"].isin(regions or ())
    table = table[inside] if inside.any() else table
    rows = table[(table["scope"] == "scene") & (table["threshold_name"] == threshold_name)]
    ranked = rows.dropna(subset=["iou"]).sort_values(["iou", "scene"], ascending=[False, True])["scene"].tolist()
    if not ranked:
        return {}
    scenes = {item.scene: item for item in evaluation.scenes}
    last = len(ranked) - 1
    wanted = {"best": 0} | ({"median": last // 2} if last > 1 else {}) | ({"worst": last} if last else {})
    return {rank: scenes[ranked[position]] for rank, position in wanted.items()}


def open_example(
    scored: Scored, scene: Scene, *, rank: str, maps: Path, labels: Labels, sources: Sequence[Source]
) -> Example:
    """Read layers, probability, labels and mask in the richest window of a scene.

    Raises:
        DataError: If a file cannot be read.
    """
    folder = maps / scene.id
    scene_map = MapFolder.open(folder, item=MapItem.read(folder, optional=True))
    geobox = window_geobox(scene_map.grid, scored.richest)
    layers = composite(frozenset[str]().union(*(source.layers for source in sources)))
    stack = assemble(scene, layers, geobox, sources)
    return Example(
        rank=rank,
        scored=scored,
        layers=layers,
        image=stretch(np.stack([stack[name] for name in layers], axis=-1)),
        probability=scene_map.read(scored.richest),
        target=labels.burn(scene, geobox),
        mapped=scene_map.mask(scored.richest),
        pixel_m=ground_pixel_m(geobox)[1],
    )


def composite(available: Collection[str]) -> tuple[str, ...]:
    """Return three of the available layers' names, to show as red, green, blue.

    NIR, red, green, else red, green, blue. One layer, three times, where no composite is among them.
    """
    return next((layers for layers in COMPOSITES if set(layers) <= set(available)), (min(available),) * 3)


def stretch(bands: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return three bands (y, x, 3) as an 8-bit picture, stretched; grey where missing.

    uint8. Each band from its 2nd to its 98th percentile; missing is where any band is NaN.
    """
    image = np.full(bands.shape, _MISSING, np.uint8)
    is_known = np.isfinite(bands).all(axis=-1)
    if is_known.any():
        image[is_known] = (brightness(bands[is_known], *brightness_limits(bands[is_known])) * 255).astype(np.uint8)
    return image
