"""Borders and gaps make no slumps: a constant scene has no frame, and a part of a scene is mapped as in the whole.

With a network of random weights that pads with zeros and reaches so many pixels, as real ones do, but no farther.
"""

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import nn

from thawmap.config import InferenceSettings
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.infer.member import Member
from thawmap.infer.predict import predict
from thawmap.layers import layer
from thawmap.model.network import probability
from thawmap.model.reading import Reading

LAYERS = (layer("nir"), layer("slope"))
REACH = 24


@pytest.fixture(scope="module")
def network():
    """Convolutions of 7 x 7 px, padded with zeros, whose answers are spread out."""
    torch.manual_seed(3)
    parts = [part for _ in range(REACH // 3 - 1) for part in (nn.Conv2d(4, 4, 7, padding=3), nn.Tanh())]
    net = nn.Sequential(nn.Conv2d(2, 4, 7, padding=3), nn.Tanh(), *parts, nn.Conv2d(4, 1, 1))
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.Conv2d):
                part.weight *= 1.5
        answers = net(torch.rand(1, 2, 128, 128))
        net[-1].weight *= 2 / answers.std()
    return net.eval()


def mapped(network, layers, *, fill="near", valid=None, margin=32, row=0, col=0):
    """Probability (y, x) of a scene that begins at a row and column of a larger one."""
    nir, slope = layers
    geobox = GeoBox(nir.shape, Affine(10, 0, 500_000 + 10 * col, 0, -10, 7_700_000 - 10 * row), "EPSG:32608")
    source = ArraySource({"nir": nir, "slope": slope}, geobox, **({} if valid is None else {"valid": valid}))
    reading = Reading(layers=LAYERS, fill=fill)

    @torch.inference_mode()
    def answer(images):
        return probability(network, torch.from_numpy(images), reading).numpy()

    member = Member(layers=LAYERS, tile=128, stride=32, fill=fill, network=answer)
    scene = Scene(id="s1", sensor="test", geobox=geobox, files={})
    settings = InferenceSettings(margin=margin, overlap=64, memory_gb=6)
    return np.concatenate([rows.probability for rows in predict(scene, [member], [source], settings)])


def constant(shape):
    return np.full(shape, 0.25, np.float32), np.full(shape, 10, np.float32)


@pytest.mark.parametrize("shape", [(120, 120), (40, 200), (9, 7)])
def test_a_constant_scene_has_no_frame(network, shape):
    assert np.ptp(mapped(network, constant(shape), margin=0)) > 0.05
    assert np.ptp(mapped(network, constant(shape))) < 1e-5


def test_a_gap_in_a_constant_scene_has_no_rim_be_it_missing_or_a_cloud(network):
    shape = (160, 150)
    nir, slope = constant(shape)
    usable = np.ones(shape, bool)
    usable[50:110, 60:100] = False
    expected = np.where(usable, mapped(network, constant(shape)), np.nan)
    holed, clouded = np.where(usable, nir, np.float32(np.nan)), np.where(usable, nir, np.float32(0.9))
    np.testing.assert_allclose(mapped(network, (holed, slope)), expected, atol=1e-5)
    np.testing.assert_allclose(mapped(network, (clouded, slope), valid=usable), expected, atol=1e-5)
    for layers, valid in (((holed, slope), None), ((clouded, slope), usable)):
        rim = mapped(network, layers, valid=valid, fill="zero") - expected
        assert np.nanmax(np.abs(rim)) > 0.05


def test_a_scene_cut_out_of_a_larger_one_is_mapped_as_there_but_for_the_networks_reach(network):
    random = np.random.default_rng(1)
    whole = random.uniform(0, 0.5, (230, 260)).astype(np.float32), random.uniform(0, 40, (230, 260)).astype(np.float32)
    part = slice(40, 200), slice(30, 230)
    there, here = mapped(network, whole), mapped(network, tuple(one[part] for one in whole), row=40, col=30)
    inside = slice(REACH, -REACH), slice(REACH, -REACH)
    np.testing.assert_allclose(here[inside], there[part][inside], atol=1e-5)
    assert np.ptp(there) > 0.3
    assert np.abs(here - there[part]).max() > 0.01
