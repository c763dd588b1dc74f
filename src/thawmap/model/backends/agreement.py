"""Whether a backend's answers are PyTorch's, within stated bounds, and on what that is seen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from thawmap.layers import Layer

Precision = Literal["float32", "bfloat16"]

RealImage = Callable[[int], npt.NDArray[np.float32]]
"""Gives a real image (C, H, W) in physical units, NaN = missing, of about so many pixels a side; asked when needed."""

TOLERANCE = 1e-3
"""Largest difference in probability from PyTorch in float32 that a float32 backend may have."""

BFLOAT16_TOLERANCE, BFLOAT16_SHARE, BFLOAT16_IOU = 0.02, 0.999, 0.99
"""In bfloat16: so large a difference for all but so few pixels, and masks of at least this intersection over union."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near a backend's answer is to PyTorch's in float32.

    Attributes:
        worst: Largest difference in probability; NaN where an answer is no number.
        near: Share of the pixels that differ by at most `BFLOAT16_TOLERANCE`.
        overlap: Intersection over union of the two masks; 1 where both are empty.
    """

    worst: float
    near: float
    overlap: float

    @classmethod
    def of(cls, answer: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], *, threshold: float) -> Self:
        """Of an answer (N, H, W) and PyTorch's in float32, with the probability above which a pixel is an object."""
        difference = np.abs(answer - truth)
        ours, theirs = answer > threshold, truth > threshold
        union = int((ours | theirs).sum())
        return cls(
            worst=float(difference.max()),
            near=float((difference <= BFLOAT16_TOLERANCE).mean()),
            overlap=int((ours & theirs).sum()) / union if union else 1.0,
        )

    def fault(self, precision: Precision) -> str | None:
        """By what it differs more than a backend of this precision may, in words; None where it does not."""
        if not math.isfinite(self.worst):
            return "answers that are not numbers"
        if precision == "float32":
            if self.worst <= TOLERANCE:
                return None
            return f"probabilities that differ by up to {self.worst:.2g}, allowed {TOLERANCE:g}"
        if self.near < BFLOAT16_SHARE:
            return (
                f"{self.near:.2%} of pixels within {BFLOAT16_TOLERANCE:g} of its probability, due {BFLOAT16_SHARE:.1%}"
            )
        return None if self.overlap >= BFLOAT16_IOU else f"masks of IoU {self.overlap:.3f}, due {BFLOAT16_IOU:g}"


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
    return Agreement.of(answer, truth, threshold=threshold).fault(precision)


def seen(layers: Sequence[Layer], side: int, image: RealImage | None) -> npt.NDArray[np.float32]:
    """What backends are compared on (1, C, side, side): the middle of a real image, or one made up."""
    return plausible(layers, side) if image is None else middle(image(side), side)


def plausible(layers: Sequence[Layer], side: int) -> npt.NDArray[np.float32]:
    """An image (1, C, side, side) in physical units, NaN = missing, as a scene might be; always the same.

    Every layer is a sum of random fields from coarse to fine across its range; one corner and some pixels are missing.
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
