"""Boosted trees: against going down every tree pixel by pixel, as state, as bundles, and what is damaged refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from thawmap.config import ModelSettings
from thawmap.errors import BundleError, ConfigError
from thawmap.files.hashes import file_sha256
from thawmap.layers import layer
from thawmap.model.backends.memory import bytes_per_pixel
from thawmap.model.backends.open import open_backend
from thawmap.model.backends.select import choose
from thawmap.model.boosting import STEPS, BoostedTrees, as_codes
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import _identify, load, save
from thawmap.model.forest import Tree, sum_of_leaves
from thawmap.model.network import build, probability, traits

LAYERS = ("red", "nir", "slope_mean_40m")


def grown(rng, leaves, layers=3):
    """A tree of a random shape with random thresholds."""
    nodes, slots = np.zeros((leaves - 1, 4), np.int32), []
    for node in range(leaves - 1):
        if node:
            above, side = slots.pop(rng.integers(len(slots)))
            nodes[above, side] = node
        nodes[node, :2] = rng.integers(layers), rng.integers(-2000, STEPS + 2000)
        slots += [(node, 2), (node, 3)]
    for leaf, (above, side) in enumerate(slots):
        nodes[above, side] = -1 - leaf
    value = rng.normal(0, 1, leaves).astype(np.float32)
    return Tree(
        layer=nodes[:, 0], threshold=nodes[:, 1].astype(np.int16), left=nodes[:, 2], right=nodes[:, 3], value=value
    )


def forest(seed=0, sizes=(2, 3, 24, 1, 31, 40), layers=3):
    rng = np.random.default_rng(seed)
    return [grown(rng, size, layers) for size in sizes]


def go_down(tree, pixel):
    """The value of the leaf that a pixel falls into, step by step."""
    node = 0 if len(tree.layer) else -1
    while node >= 0:
        node = (tree.left if pixel[tree.layer[node]] <= tree.threshold[node] else tree.right)[node]
    return tree.value[-1 - node]


def bundle(trees=None, **changes):
    given = {
        "layers": tuple(map(layer, LAYERS)), "architecture": "boosting", "encoder": "", "tile": 64, "stride": 1,
        "fixed_tile": False, "network": BoostedTrees(3, forest() if trees is None else trees, base=-1.5).eval(),
    }  # fmt: skip
    return Bundle(**given | changes)


@given(seed=st.integers(0, 999), leaves=st.integers(1, 256), pixels=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_bits_say_of_every_pixel_what_going_down_the_tree_says(seed, leaves, pixels):
    rng = np.random.default_rng(seed)
    trees = [grown(rng, leaves), grown(rng, 5)]
    codes = rng.integers(-3000, STEPS + 3000, (3, pixels)).astype(np.int16)
    codes[:, ::3] = np.resize(trees[1].threshold, codes[:, ::3].shape)  # on a threshold is left
    expected = [sum(go_down(tree, pixel) for tree in trees) for pixel in codes.T]
    np.testing.assert_allclose(sum_of_leaves(trees, codes), expected, rtol=1e-6)


@pytest.mark.parametrize("trees", [(), forest(3)])
def test_what_compilers_and_gpus_are_given_answers_the_same(trees):
    network = BoostedTrees(3, trees, base=-0.5).eval()
    images = torch.rand(2, 3, 37, 41) * 3 - 1
    answer = network(images)
    assert answer.shape == (2, 1, 37, 41)
    torch.testing.assert_close(answer[:, 0], network._gathered(as_codes(images)), atol=1e-5, rtol=0)


def test_an_answer_depends_on_neither_batch_nor_threads_nor_blocks(monkeypatch):
    network, images = BoostedTrees(3, forest()).eval(), torch.rand(3, 3, 65, 33)
    together = network(images)
    torch.testing.assert_close(torch.cat([network(image[None]) for image in images]), together, rtol=0, atol=0)
    monkeypatch.setattr("thawmap.model.boosting.BLOCK_PX", 100)
    torch.testing.assert_close(network(images), together, rtol=0, atol=0)


def test_a_network_of_any_number_of_layers_is_built_without_a_tree_and_has_no_neighbours():
    network = build(ModelSettings(architecture="boosting"), channels=5)
    assert (network(torch.rand(1, 5, 8, 9)) == 0).all()
    assert traits(network, channels=5).stride == 1
    assert not traits(network, channels=5).fixed_tile
    with pytest.raises(ConfigError, match="architecture 'boosting' has no encoder; leave it unset"):
        build(ModelSettings(architecture="boosting", weights="imagenet"), channels=5)


def test_a_bundle_of_trees_is_itself_again(tmp_path):
    saved = save(bundle(), tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert (loaded.id, loaded.architecture, loaded.network_name) == (saved.id, "boosting", "boosting")
    images = torch.rand(1, 3, 20, 30)
    torch.testing.assert_close(
        probability(loaded.network, images, loaded.reading), probability(saved.network, images, saved.reading)
    )
    opened = open_backend(loaded, device="cpu")
    assert opened(images.numpy()).shape == (1, 20, 30)
    assert choose(loaded, device="cpu", precision="float32", pixels=10**9).backend == "eager"  # and nothing is measured
    assert 0 < bytes_per_pixel(loaded, "eager") < 1000


def swap(folder, **changes):
    """Change tensors of a bundle's weights, and every checksum with them, as a stranger could."""
    weights = load_file(folder / "weights.safetensors") | changes
    save_file(weights, folder / "weights.safetensors")
    content = json.loads((folder / "bundle.json").read_text())
    content["sha256"]["weights.safetensors"] = file_sha256(folder / "weights.safetensors")
    rest = {key: value for key, value in content.items() if key != "id"}
    (folder / "bundle.json").write_text(json.dumps({"id": _identify(rest)} | rest))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("left", lambda left: left.clone().fill_(0), "do not lead to all others"),  # a circle
        ("right", lambda right: right.flip(0), "do not lead to all others"),
        ("layer", lambda layer: layer + 3, "asks for layer 6 of 3"),
        ("layer", lambda layer: layer - 3, "asks for a layer below 0"),
        ("value", lambda value: value * torch.nan, "a leaf without a number"),
        ("value", lambda value: value[:-1], "are not those of 6 trees"),
        ("nodes", lambda nodes: nodes.flip(0), "do not lead to all others"),
        ("nodes", lambda nodes: nodes - 5, "are not those of 6 trees"),
        ("nodes", lambda nodes: nodes.float(), "cannot be rebuilt"),
        ("value", lambda value: value + 1, "fails its self-test"),
    ],
)
def test_damaged_trees_are_refused_even_where_the_checksums_agree(tmp_path, name, change, message):
    save(bundle(), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "weights.safetensors")
    swap(tmp_path / "model", **{name: change(weights[name]).contiguous()})
    with pytest.raises(BundleError, match=message):
        load(tmp_path / "model")


def test_a_cut_file_and_other_layers_are_refused(tmp_path):
    save(bundle(), tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BundleError, match=r"weights.safetensors is not the file"):
        load(tmp_path / "model")
    with pytest.raises(ValueError, match="asks for layer 3 of 2"):
        BoostedTrees(2, forest())
