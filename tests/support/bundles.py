"""Bundles for tests, and images that they may be asked about."""

import numpy as np
import torch

from thawmap.config import ModelSettings
from thawmap.layers import layer
from thawmap.model.bundle import Bundle
from thawmap.model.network import build, traits

LAYERS = (layer("red"), layer("ndvi"), layer("relative_elevation"))


def a_bundle(seed=0):
    """A network that knows red from the rest."""
    torch.manual_seed(seed)
    network = build(ModelSettings(architecture="pixel"), channels=3).eval()
    about = traits(network, channels=3)
    return Bundle(
        layers=(layer("red"), layer("nir"), layer("ndvi")),
        architecture="pixel",
        encoder="resnet34",
        tile=32,
        stride=about.stride,
        fixed_tile=about.fixed_tile,
        network=network,
    )


def random_bundle(architecture, **options):
    """A network of random weights on three layers, with the encoder resnet18."""
    network = build(ModelSettings(architecture=architecture, encoder="resnet18"), channels=3).eval()
    return Bundle(
        architecture=architecture,
        encoder="resnet18",
        layers=LAYERS,
        tile=64,
        stride=32,
        fixed_tile=False,
        network=network,
        **options,
    )


def random_images(number, side=64):
    """Images (number, 3, side, side) within the ranges of `LAYERS`, two in a hundred values missing."""
    rng = np.random.default_rng(1)
    low, high = (np.array([getattr(item, end) for item in LAYERS])[:, None, None] for end in ("low", "high"))
    images = low + (high - low) * rng.random((number, 3, side, side))
    return np.where(rng.random(images.shape) < 0.02, np.nan, images).astype(np.float32)
