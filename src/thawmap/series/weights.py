"""Weights of maps in a mean: how clear each is, and how far a pixel lies from its edge.

Where clouds cover most of an image, what is left of it lies beside clouds, in their shadow or haze; and near the edge
of a map a network has seen less of what surrounds a pixel.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from thawmap.grid import Window
from thawmap.maps.read import MapFolder

EDGE_PX = 32
"""Distance from the edge of a map, in pixels, from which on a pixel has its full weight."""

_SIDE = 512  # longest side of the coarse grid on which clear pixels are counted


def clear_share(maps: Iterable[MapFolder]) -> float:
    """Return the share of several maps' pixels that have a probability, 0..1.

    Counted on a coarse grid.
    """
    known = pixels = 0.0
    for scene_map in maps:
        grid = scene_map.grid
        factor = max(1.0, max(grid.shape) / _SIDE)
        rows, cols = (max(1, round(side / factor)) for side in grid.shape)
        coarse = grid if factor == 1 else grid.zoom_to((rows, cols))
        known += float(np.isfinite(scene_map.read(coarse)).mean()) * grid.height * grid.width
        pixels += grid.height * grid.width
    return known / pixels


def edge_weight(pixels: Window, window: Window) -> npt.NDArray[np.float32]:
    """Return the weights (y, x) of a map's pixels in a window, from above 0 to 1.

    They rise linearly from the edge of the map, which lies under ``pixels`` of the same grid; beyond it they are those
    of the edge.
    """
    down, across = (
        _distance(np.arange(first, first + length) - begin, size)
        for first, length, begin, size in (
            (window.row, window.height, pixels.row, pixels.height),
            (window.col, window.width, pixels.col, pixels.width),
        )
    )
    weight: npt.NDArray[np.float32] = np.minimum(down[:, None], across[None]).astype(np.float32)
    return weight


def _distance(position: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.float64]:
    """Return positions' distance from either end, 1 at most, as a share of `EDGE_PX`."""
    nearest = np.minimum(position, length - 1 - position) + 1
    share: npt.NDArray[np.float64] = np.clip(nearest / min(EDGE_PX, (length + 1) // 2), 1 / EDGE_PX, 1)
    return share


def weighted_mean(
    values: Sequence[npt.NDArray[np.floating]], weights: Sequence[npt.NDArray[np.floating] | float]
) -> npt.NDArray[np.float32]:
    """Return the weighted mean (y, x) of arrays, NaN left out; NaN where all are."""
    total, weight = np.zeros(values[0].shape), np.zeros(values[0].shape)
    for array, of_array in zip(values, weights, strict=True):
        is_known = np.isfinite(array)
        total += np.where(is_known, array, 0) * of_array
        weight += is_known * np.asarray(of_array)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: npt.NDArray[np.float32] = np.where(weight > 0, total / weight, np.nan).astype(np.float32)
    return mean
