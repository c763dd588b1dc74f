"""Filling of missing pixels, so that networks see no edge where values end."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A float32 numpy array or torch tensor; torch is not imported for arrays."""

REACH_PX = 256
"""Largest distance in pixels from which a gap is filled."""

_HALVINGS = REACH_PX.bit_length() - 1
_FEW = 1 / 8  # less than the weight of one valid pixel among four


def fill_gaps(images: Array) -> Array:
    """Fill missing pixels (NaN) of images (..., H, W) with means of near pixels.

    Layer by layer; NaN stays where no pixel is near. A pyramid of means: a missing pixel takes the mean of the others
    in its square of 2 x 2 px, where all are missing of that of 4 x 4 px, and so on up to `REACH_PX`. So a layer that is
    constant stays constant, values that are not missing stay as they are, and pixels farther away change nothing.
    Images without a gap are given back as they are.
    """
    arrays = _library(images)
    missing = arrays.isnan(images)
    is_traced = arrays is not np and arrays.compiler.is_compiling()  # then no step may depend on values
    if not is_traced and not missing.any():
        return images
    # up the pyramid, from pixels to ever larger squares, and down it again, filling each level from the one above
    levels = [(arrays.where(missing, 0.0, images), missing)]
    for _ in range(_HALVINGS):
        values, missing = levels[-1]
        weights = _halved(arrays.where(missing, 0.0, arrays.ones_like(values)))
        means = _halved(values) / weights.clip(min=_FEW)
        levels.append((means, weights == 0))
    values, missing = levels.pop()
    filled = arrays.where(missing, float("nan"), values)
    for values, missing in reversed(levels):
        height, width = values.shape[-2:]
        filled = arrays.where(missing, _doubled(filled)[..., :height, :width], values)
    return filled


def _halved(values: Array) -> Array:
    """Return images of half the size, each pixel a sum of 2 x 2 pixels.

    Of fewer at a border of odd length.
    """
    columns = _sum(values[..., ::2], values[..., 1::2], axis=-1)
    return _sum(columns[..., ::2, :], columns[..., 1::2, :], axis=-2)


def _sum(first: Array, second: Array, *, axis: int) -> Array:
    """Add two arrays; keep the first's last row or column where it has one more."""
    if first.shape[axis] == second.shape[axis]:
        return first + second
    rest = (..., slice(-1, None)) if axis == -1 else (..., slice(-1, None), slice(None))
    most = (..., slice(None, -1)) if axis == -1 else (..., slice(None, -1), slice(None))
    return _library(first).concatenate([first[most] + second, first[rest]], axis=axis)


def _doubled(values: Array) -> Array:
    """Return images with each pixel repeated as 2 x 2 px."""
    if isinstance(values, np.ndarray):
        return values.repeat(2, axis=-1).repeat(2, axis=-2)
    return values.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def _library(values: Array) -> Any:
    """Return the module that an array is of, numpy or torch."""
    if isinstance(values, np.ndarray):
        return np
    import torch  # noqa: PLC0415 - whoever has a tensor has loaded it

    return torch
