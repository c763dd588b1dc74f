"""Comparison of a backend's answers with PyTorch's, and images for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from thawmap.layers import Layer

Precision = Literal["float32", "bfloat16"]

RealImage = Callable[[int], npt.NDArray[np.float32]]
"""Function that reads a real image of about so many pixels a side when needed.

The image is (C, H, W) in physical units, NaN = missing.
"""

TOLERANCE = 1e-3
"""Largest difference in probability that a float32 backend may have.

From PyTorch in float32.
"""

BFLOAT16_TOLERANCE, BFLOAT16_SHARE, BFLOAT16_IOU = 0.02, 0.999, 0.99
"""Bounds for bfloat16: a difference, the share of pixels within it, masks' IoU.

At least so many pixels differ by at most so much, and the masks have at least this intersection over union.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Measures of how a backend's answer differs from PyTorch's in float32.

    Attributes:
        largest_difference: Largest difference in probability; NaN where an answer is no number.
        close_share: Share of the pixels that differ by at most `BFLOAT16_TOLERANCE`.
        mask_iou: Intersection over union of the two masks; 1 where both are empty.
    """

    largest_difference: float
    close_share: float
    mask_iou: float

    @classmethod
    def of(cls, answer: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], *, threshold: float) -> Self:
        """Return largest difference, close share and mask IoU of two probability arrays.

        A backend's (N, H, W), and PyTorch's in float32. Pixels above ``threshold`` are objects.
        """
        difference = np.abs(answer - truth)
        mask, true_mask = answer > threshold, truth > threshold
        union = int((mask | true_mask).sum())
        return cls(
            largest_difference=float(difference.max()),
            close_share=float((difference <= BFLOAT16_TOLERANCE).mean()),
            mask_iou=int((mask & true_mask).sum()) / union if union else 1.0,
        )

    def fault(self, precision: Precision) -> str | None:
        """Return in words how the answers break a precision's bounds; None if they do not."""
        if not math.isfinite(self.largest_difference):
            return "answers that are not numbers"
        if precision == "float32":
            if self.largest_difference <= TOLERANCE:
                return None
            return f"probabilities that differ by up to {self.largest_difference:.2g}, allowed {TOLERANCE:g}"
        if self.close_share < BFLOAT16_SHARE:
            share, due = f"{self.close_share:.2%}", f"{BFLOAT16_SHARE:.1%}"
            return f"{share} of pixels within {BFLOAT16_TOLERANCE:g} of its probability, due {due}"
        return None if self.mask_iou >= BFLOAT16_IOU else f"masks of IoU {self.mask_iou:.3f}, due {BFLOAT16_IOU:g}"


def disagreement(
    answer: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], *, precision: Precision, threshold: float
) -> str | None:
    """Return in words how a probability differs too much from PyTorch's, or None.

    PyTorch's in float32; None where the answer is within the bounds.

    Args:
        answer: Probability (N, H, W) of a backend.
        truth: Of the same shape, PyTorch's in float32.
        precision: Of the backend; decides the bounds.
        threshold: Probability above which a pixel is an object.
    """
    return Agreement.of(answer, truth, threshold=threshold).fault(precision)


def comparison_image(layers: Sequence[Layer], side: int, image: RealImage | None) -> npt.NDArray[np.float32]:
    """Return the middle of a real image, or a synthetic one, as (1, C, side, side).

    Backends are compared on it. It is synthetic where ``image`` is None.
    """
    return synthetic_image(layers, side) if image is None else central_square(image(side), side)


def synthetic_image(layers: Sequence[Layer], side: int) -> npt.NDArray[np.float32]:
    """Return a synthetic image (1, C, side, side) of layers with NaN, always the same.

    As a scene might be, in physical units, NaN = missing. Every layer is a sum of random fields from coarse to fine
    across its range; one corner and some pixels are missing.
    """
    import torch  # noqa: PLC0415 - it loads slowly, and what is compared with it needs it
    from torch.nn.functional import interpolate  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    fields = torch.zeros(1, len(layers), side, side)
    for cells in (2, 8, 32, side):
        coarse = torch.randn((1, len(layers), min(cells, side), min(cells, side)), generator=generator)
        fields += interpolate(coarse, size=(side, side), mode="bilinear") / 4
    low = torch.tensor([layer.low for layer in layers]).view(1, -1, 1, 1)
    width = torch.tensor([layer.high - layer.low for layer in layers]).view(1, -1, 1, 1)
    images = low + width * (0.5 + fields)
    images[..., : side // 8, : side // 8] = torch.nan
    is_missing = torch.rand((1, 1, side, side), generator=generator) < 0.01
    drawn: npt.NDArray[np.float32] = images.masked_fill(is_missing, torch.nan).numpy()
    return drawn


def central_square(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Cut the middle (1, C, side, side) out of an image (C, H, W), mirrored if small.

    That is at its lower and right ends.
    """
    _, height, width = image.shape
    row, col = max(height - side, 0) // 2, max(width - side, 0) // 2
    square = image[:, row : row + side, col : col + side]
    padding = [(0, 0), (0, side - square.shape[1]), (0, side - square.shape[2])]
    return np.pad(square, padding, mode="symmetric")[None].astype(np.float32)
