"""The settings between images and a network, and its logits and probabilities."""

from dataclasses import dataclass

from thawmap.config import Fill
from thawmap.layers import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Scaling from images to a network's input, and from logits to probability.

    Attributes:
        layers: Inputs in the network's order, each with its range.
        fill: Values of missing pixels in the network's input: "near", those of the pixels near them, so that no edge is
            where valid pixels end; or "zero", 0 after scaling.
        temperature: Divisor of logits before the sigmoid (Guo et al. 2017, arXiv 1706.04599); above 1 for
            networks that are too sure of themselves.
    """

    layers: tuple[Layer, ...]
    fill: Fill = "near"
    temperature: float = 1.0
