"""Random changes of training tiles: image, target and valid move together, exactly (law 5).

They work on batches, on whatever device those are, in physical units, before anything is scaled or clipped.
All randomness comes from a generator on the CPU, so a seed means the same on every device.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Generator, Tensor

from thawmap.config import AugmentSettings
from thawmap.errors import ConfigError
from thawmap.layers import Layer
from thawmap.train.tiles import Batch

BLUR_PX = (3, 5)
"""Sides of the blurs, each as likely as the other."""


def check(settings: AugmentSettings, layers: Sequence[Layer]) -> None:
    """Refuse flips and turns of layers that have a direction.

    Raises:
        ConfigError: If there are such layers.
    """
    turned = [layer.name for layer in layers if layer.directional]
    if turned and (settings.flip or settings.rotate90):
        msg = (
            f"layer {turned[0]!r} has a direction, which flips and quarter turns would falsify; set "
            "augment.flip and augment.rotate90 to 0, or leave the layer out"
        )
        raise ConfigError(msg)


def augment(batch: Batch, settings: AugmentSettings, generator: Generator) -> Batch:
    """The batch with every tile changed by chance, each on its own (the paper's choice, section 2.3.2).

    Tiles must be square. What is missing, ignored or not valid moves along and stays so.
    """
    number = len(batch.image)
    leftright = _chosen(number, settings.flip, generator)
    topbottom = _chosen(number, settings.flip, generator)
    turned = _chosen(number, settings.rotate90, generator)
    quarters = torch.randint(1, 4, (number,), generator=generator) * turned
    blurred = _chosen(number, settings.blur, generator)
    sides = torch.tensor(BLUR_PX)[torch.randint(len(BLUR_PX), (number,), generator=generator)] * blurred

    def move(values: Tensor) -> Tensor:
        moves = zip(values, quarters.tolist(), leftright.tolist(), topbottom.tolist(), strict=True)
        return torch.stack([_move(*one) for one in moves])

    image = torch.stack([blur(one, side) for one, side in zip(move(batch.image), sides.tolist(), strict=True)])
    return replace(batch, image=image, target=move(batch.target), valid=move(batch.valid))


def blur(image: Tensor, side: int) -> Tensor:
    """An image (C, H, W) under a Gaussian of ``side`` x ``side`` px; 0 leaves it as it is.

    NaN = missing, and stays so: a missing pixel, or one beyond the border, gives its weight to the others.
    The width follows from the side as in OpenCV: sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8.
    """
    if not side:
        return image
    known = ~torch.isnan(image)
    weights = _smooth(known.float(), side)
    values = _smooth(torch.where(known, image, 0.0), side)
    return torch.where(known, values / weights, torch.nan)


def _smooth(values: Tensor, side: int) -> Tensor:
    """Weighted sums of (C, H, W), zeros beyond the border; sums and no convolution, so GPUs keep all digits."""
    reach = side // 2
    sigma = 0.3 * (reach - 1) + 0.8
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)]
    for axis in (-2, -1):
        length = values.shape[axis]
        padded = F.pad(values, (0, 0, reach, reach) if axis == -2 else (reach, reach))
        values = torch.zeros_like(values)
        for first, weight in enumerate(weights):
            values += weight / sum(weights) * padded.narrow(axis, first, length)
    return values


def _move(values: Tensor, quarters: int, leftright: bool, topbottom: bool) -> Tensor:  # noqa: FBT001 - three switches
    """A square (..., H, W), turned by quarters against the clock, then mirrored."""
    mirrored = [axis for axis, wanted in ((-1, leftright), (-2, topbottom)) if wanted]
    return torch.rot90(values, quarters, (-2, -1)).flip(mirrored)


def _chosen(number: int, probability: float, generator: Generator) -> Tensor:
    """Which of ``number`` tiles are changed, bool."""
    return torch.rand(number, generator=generator) < probability
