"""What lies between images and a network, and between its logits and probabilities."""

from dataclasses import dataclass

from thawmap.config import Fill
from thawmap.layers import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How images become a network's input, and its logits probabilities.

    Attributes:
        layers: Inputs in the network's order, each with its range.
        fill: What missing pixels look like to the network: "near", as the pixels near them, so that no edge is where
            known ground ends; or "zero", 0 after scaling.
        temperature: What logits are divided by before the sigmoid (Guo et al. 2017, arXiv 1706.04599); above 1 for
            networks that are too sure of themselves.
    """

    layers: tuple[Layer, ...]
    fill: Fill = "near"
    temperature: float = 1.0
