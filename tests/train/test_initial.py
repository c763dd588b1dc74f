"""What a training begins from: a bundle's whole network, only where it suits, and never where it would leak."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_training import configuration, make_store, run

from thawmap.config import parse
from thawmap.errors import ConfigError
from thawmap.model.bundle_folder import load
from thawmap.train.initial import initial_network

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

STILL = ("training.phases=[{name: still, epochs: 1}]", "training.optimiser={name: sgd, lr: 1.0e-12}", "augment.blur=0")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("tiles"), configuration())


@pytest.fixture(scope="module")
def first(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("first")
    run(store, out, "model.architecture=unet", "training.phases=[{name: full, epochs: 3}]", "split.test=[Horton]")
    return out


@pytest.mark.slow
def test_training_goes_on_from_all_that_a_bundle_has_learnt(store, first, tmp_path):
    run(store, tmp_path, "model.architecture=unet", "split.test=[Horton]", f"model.weights={first}", *STILL)
    before, after = (load_file(out / "weights.safetensors") for out in (first, tmp_path))
    learnt = [name for name in before if "running" not in name and "tracked" not in name]
    assert any(name.startswith("decoder") for name in learnt)
    for name in learnt:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_bundle_says_what_it_was_begun_from_and_so_do_its_children(store, first, tmp_path):
    common = ("model.architecture=unet", *STILL)
    child = run(store, tmp_path / "child", f"model.weights={first}", "split.test=[Horton]", *common)
    assert child.provenance["begun_from"] == {"bundle": load(first).id, "regions": ["Lena"]}
    own = ("split.validation=[Horton]", "split.test=[Lena]")  # trains on Yamal alone, and comes from Lena
    with pytest.raises(ConfigError, match=f"bundle {child.id}, which was trained on Lena, and that is in test here"):
        run(store, tmp_path / "grandchild", f"model.weights={tmp_path / 'child'}", *own, *common)
    both = ("split.validation=[Horton]", "split.test=[]")
    grandchild = run(store, tmp_path / "grandchild", f"model.weights={tmp_path / 'child'}", *both, *common)
    assert grandchild.provenance["begun_from"] == {"bundle": child.id, "regions": ["Lena"]}
    with pytest.raises(ConfigError, match="was trained on Yamal, and that is in validation here"):
        run(store, tmp_path / "other", f"model.weights={tmp_path / 'grandchild'}", "split.test=[Horton]", *common)


def test_without_a_bundle_nothing_is_said_of_one(first):
    assert "begun_from" not in load(first).provenance


@pytest.mark.parametrize(
    ("asked", "changes", "said"),
    [
        (["model.encoder=resnet34"], {}, "a bundle of unet with resnet18, and this is unet with resnet34; name its"),
        (["model.architecture=fpn"], {}, "a bundle of unet with resnet18, and this is fpn with resnet18"),
        ([], {"layers": "[red, nir]"}, "a bundle of 3 layers, and here are 2; ask for the same"),
        ([], {"layers": "[nir, red, ndvi]"}, r"layer 1 is red of -0.1 to 0.5 clipped, and here it is nir"),
        ([], {"layers": "[{name: red, high: 0.3}, nir, ndvi]"}, "layer 1 is red of -0.1 to 0.5 .* to 0.3"),
    ],
)
def test_a_bundle_that_does_not_suit_is_refused(first, asked, changes, said):
    config = configuration("model.architecture=unet", f"model.weights={first}", *asked, **changes)
    with pytest.raises(ConfigError, match=said):
        initial_network(config)


def test_a_folder_without_a_bundle_and_one_that_is_damaged_are_refused(first, tmp_path):
    with pytest.raises(ConfigError, match=r"model.weights: .*nowhere holds no bundle"):
        initial_network(configuration("model.architecture=unet", f"model.weights={tmp_path / 'nowhere'}"))
    for name in ("bundle.json", "selftest.safetensors"):
        (tmp_path / name).write_bytes((first / name).read_bytes())
    save_file({"some": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"is damaged: weights.safetensors"):
        initial_network(configuration("model.architecture=unet", f"model.weights={tmp_path}"))


def test_names_with_a_slash_count_from_the_yaml(tmp_path):
    text = "layers: [red]\nmodel: {architecture: unet, encoder: resnet18, weights: models/first}\n"
    text += "scenes: {kind: rasters, path: any, files: {a.tif: {red: {band: 1}}}}\n"
    assert parse(text, name="test", folder=tmp_path).model.weights == str(tmp_path / "models/first")
    named = parse(text.replace("models/first", "imagenet"), name="test", folder=tmp_path).model
    assert named.weights == "imagenet"
    assert not named.begins_from_a_bundle
