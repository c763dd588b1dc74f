"""Missing pixels, as a network sees them: filled from the pixels near them, so that no edge is where ground ends."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A numpy array or a torch tensor, float32; torch is not imported for the one."""

REACH_PX = 256
"""Pixels from which a gap is filled lie at most so far away."""

_HALVINGS = REACH_PX.bit_length() - 1
_FEW = 1 / 8  # less than the weight of one known pixel among four


def fill_gaps(images: Array) -> Array:
    """Fill missing pixels (NaN) of images (..., H, W) from near ones, layer by layer; NaN where none is near.

    A pyramid of means: a missing pixel takes the mean of the known ones in its square of 2 x 2 px, where it has none of
    that of 4 x 4 px, and so on up to `REACH_PX`. So a layer that is constant stays constant, what is known stays as it
    is, and what is farther away changes nothing. Images without a gap are given back as they are.
    """
    arrays = _library(images)
    missing = arrays.isnan(images)
    if not _is_traced(images) and not missing.any():
        return images
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
    """Halve both sides: sums of 2 x 2 px, of fewer at a border of odd length."""
    columns = _sum(values[..., ::2], values[..., 1::2], axis=-1)
    return _sum(columns[..., ::2, :], columns[..., 1::2, :], axis=-2)


def _sum(first: Array, second: Array, *, axis: int) -> Array:
    """Add neighbours; the first may be longer by one, and keeps it."""
    if first.shape[axis] == second.shape[axis]:
        return first + second
    rest = (..., slice(-1, None)) if axis == -1 else (..., slice(-1, None), slice(None))
    most = (..., slice(None, -1)) if axis == -1 else (..., slice(None, -1), slice(None))
    return _library(first).concatenate([first[most] + second, first[rest]], axis=axis)


def _doubled(values: Array) -> Array:
    """Double both sides: each pixel four times."""
    if isinstance(values, np.ndarray):
        return values.repeat(2, axis=-1).repeat(2, axis=-2)
    return values.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def _library(values: Array) -> Any:
    """The module that an array is of."""
    if isinstance(values, np.ndarray):
        return np
    import torch  # noqa: PLC0415 - whoever has a tensor has loaded it

    return torch


def _is_traced(values: Array) -> bool:
    """Whether an exporter or compiler follows, for which nothing may depend on values."""
    return not isinstance(values, np.ndarray) and bool(_library(values).compiler.is_compiling())
