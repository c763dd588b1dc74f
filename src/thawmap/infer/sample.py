"""Images cut out of real scenes, on which backends are compared and timed."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import Stack, as_array, assemble, preview
from thawmap.errors import DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle

_COARSE_PX = 256  # side of the overview that tells where a scene is valid


def cut_out(
    scene: Scene, bundle: "Bundle", sources: Sequence[Source], side: int, *, overview: Stack | None = None
) -> npt.NDArray[np.float32] | None:
    """Read a bundle's layers amid a scene's valid ground as an image; else None.

    Args:
        scene: What is going to be mapped.
        bundle: Its layers are read, at full resolution.
        sources: Where layers come from.
        side: Most rows and columns.
        overview: The scene on a coarser grid, where it was read already.

    Returns:
        Image (C, H, W) float32, physical units, NaN = missing; smaller than ``side`` only where the scene is.

    Raises:
        DataError: If a layer is missing, or cannot be read.
    """
    names = [layer.name for layer in bundle.layers]
    if overview is None:
        overview = preview(scene, names, sources, size=_COARSE_PX, optional=bundle.optional)
    valid = overview["valid"]
    if not valid.any():
        return None
    factor = math.ceil(max(scene.geobox.shape) / max(valid.shape))
    cells = np.argwhere(valid)
    central = cells[((cells - cells.mean(axis=0)) ** 2).sum(axis=1).argmin()]  # the mean itself may lie in a gap
    height, width = (min(side, length) for length in scene.geobox.shape)
    row, col = (
        min(max(int((cell + 0.5) * factor) - extent // 2, 0), length - extent)
        for cell, extent, length in zip(central, (height, width), scene.geobox.shape, strict=True)
    )
    geobox = window_geobox(scene.geobox, Window(row=row, col=col, height=height, width=width))
    stack = assemble(scene, names, geobox, sources, optional=bundle.optional)
    return as_array(stack, names) if stack["valid"].any() else None


def first_cut_out(
    scenes: Iterable[Scene], bundle: "Bundle", sources: Sequence[Source], side: int
) -> tuple[Scene, npt.NDArray[np.float32]] | None:
    """Return the first scene with valid ground and an image cut out of it, else None.

    The image is that of `cut_out`. A scene that cannot be read is left out without a word: whoever maps it will say so
    (law 9).
    """
    for scene in scenes:
        try:
            image = cut_out(scene, bundle, sources, side)
        except DataError:
            continue
        if image is not None:
            return scene, image
    return None
