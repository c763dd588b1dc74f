"""Whether a backend's answers are PyTorch's, within stated bounds, and on what that is seen."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from thawmap.layers import Layer

Precision = Literal["float32", "bfloat16"]

TOLERANCE = 1e-3
"""Largest difference in probability from PyTorch in float32 that a float32 backend may have."""

BFLOAT16_TOLERANCE, BFLOAT16_SHARE, BFLOAT16_IOU = 0.02, 0.999, 0.99
"""In bfloat16: so large a difference for all but so few pixels, and masks of at least this intersection over union."""


def disagreement(
    answer: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], *, precision: Precision, threshold: float
) -> str | None:
    """How an answer differs from PyTorch's in float32 by more than is allowed, in words; None where it does not.

    Args:
        answer: Probability (N, H, W) of a backend.
        truth: Of the same shape, PyTorch's in float32.
        precision: Of the backend; decides the bounds.
        threshold: Probability above which a pixel is an object.
    """
    difference = np.abs(answer - truth)
    if not np.isfinite(difference).all():
        return "answers that are not numbers"
    if precision == "float32":
        worst = float(difference.max())
        return None if worst <= TOLERANCE else f"probabilities that differ by up to {worst:.2g}, allowed {TOLERANCE:g}"
    near = float((difference <= BFLOAT16_TOLERANCE).mean())
    if near < BFLOAT16_SHARE:
        return f"{near:.2%} of pixels within {BFLOAT16_TOLERANCE:g} of its probability, due {BFLOAT16_SHARE:.1%}"
    ours, theirs = answer > threshold, truth > threshold
    union = int((ours | theirs).sum())
    overlap = int((ours & theirs).sum()) / union if union else 1.0
    return None if overlap >= BFLOAT16_IOU else f"masks of IoU {overlap:.3f}, due {BFLOAT16_IOU:g}"


def plausible(layers: Sequence[Layer], side: int) -> npt.NDArray[np.float32]:
    """An image (1, C, side, side) in physical units, NaN = missing, as a scene might be; always the same.

    Every layer is a sum of random fields from coarse to fine across its range; one corner and some pixels are missing.
    """
    generator = torch.Generator().manual_seed(0)
    fields = torch.zeros(1, len(layers), side, side)
    for cells in (2, 8, 32, side):
        coarse = torch.randn((1, len(layers), min(cells, side), min(cells, side)), generator=generator)
        fields += interpolate(coarse, size=(side, side), mode="bilinear") / 4
    low = torch.tensor([layer.low for layer in layers]).view(1, -1, 1, 1)
    width = torch.tensor([layer.high - layer.low for layer in layers]).view(1, -1, 1, 1)
    images = low + width * (0.5 + fields)
    images[..., : side // 8, : side // 8] = torch.nan
    found: npt.NDArray[np.float32] = images.masked_fill(
        torch.rand((1, 1, side, side), generator=generator) < 0.01, torch.nan
    ).numpy()
    return found


def middle(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """The middle of an image (C, H, W), as (1, C, side, side); what it lacks is mirrored."""
    _, height, width = image.shape
    row, col = max(height - side, 0) // 2, max(width - side, 0) // 2
    part = image[:, row : row + side, col : col + side]
    missing = [(0, 0), (0, side - part.shape[1]), (0, side - part.shape[2])]
    return np.pad(part, missing, mode="symmetric")[None].astype(np.float32)
