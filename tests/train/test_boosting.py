"""Training of boosted trees: pixels that are drawn, phases, what is kept, bundles, refusals, and the way to maps."""

import sys

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from toy_training import configuration, ignore, make_project, make_store

import thawmap
from thawmap.config import TreeSettings, load
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.boosting import BoostedTrees
from thawmap.model.bundle_folder import load as load_bundle
from thawmap.model.forest import sum_of_leaves
from thawmap.train.boosting.fit import STAGE
from thawmap.train.boosting.grow import grow_trees
from thawmap.train.boosting.samples import Samples, _chosen_pixels
from thawmap.train.fit import fit
from thawmap.train.inference import predict_tiles
from thawmap.train.obeyed import check_obeyed
from thawmap.train.split import split_tiles

BOOSTING = ("model.architecture=boosting", "training.optimiser.lr=0.001", "training.phases.0.epochs=25")


def toy(*overrides, **changes):
    return configuration(*BOOSTING, *overrides, **changes)


def train(store, out, *overrides, report=lambda _: None, **changes):
    config = toy(*overrides)
    return fit(store, split_tiles(store.index, config.split), config, out, report=report, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"), toy())


def samples(store, config, phase=0):
    return Samples.draw(store, split_tiles(store.index, config.split).train, config, phase=phase)


def test_trees_learn_the_toy_and_are_calibrated_and_kept(store, tmp_path):
    lines = []
    bundle = train(store, tmp_path / "model", score_test=True, report=lines.append)
    assert bundle.metrics["validation_iou_at_threshold"] > 0.95
    assert bundle.thresholds["validation"] != 0.5
    assert (bundle.architecture, bundle.encoder, bundle.stride) == ("boosting", "", 1)
    assert bundle.provenance["config"]["model"]["architecture"] == "boosting"
    log = pd.read_csv(tmp_path / "model" / "metrics.csv")
    assert list(log[log["split"] == "validation"]["epoch"]) == [10, 20, 25]
    losses = log[log["split"] == "train"]["loss"]
    assert losses.is_monotonic_decreasing
    assert len(load_bundle(tmp_path / "model" / "last").network.trees) == 25
    assert not (tmp_path / "model" / "unfinished.txt").exists()
    assert any("validation IoU" in line for line in lines)


def test_stages_score_what_bundles_of_so_many_trees_score(store, tmp_path):
    train(store, tmp_path / "model", "training.phases.0.epochs=12")
    log = pd.read_csv(tmp_path / "model" / "metrics.csv").query("split == 'validation'").set_index("epoch")
    bundle, config = load_bundle(tmp_path / "model" / "last"), toy()
    tiles = split_tiles(store.index, config.split).validation
    for number in (STAGE, 12):
        network = bundle.network
        fewer = BoostedTrees(3, network.trees[:number], base=network.base.item())
        object.__setattr__(bundle, "network", fewer.eval())
        predicted = list(predict_tiles(bundle, store, tiles, device=torch.device("cpu"), batch_size=1))
        hits = sum(int(((one.logits > 0) & (one.batch.target == 1) & one.batch.valid).sum()) for one in predicted)
        assert hits == log.loc[number, "tp"]
        object.__setattr__(bundle, "network", network)


def test_a_seed_decides_everything_and_another_one_draws_others(store, tmp_path):
    weights = []
    for seed in (0, 0, 1):
        train(store, tmp_path / "model", f"training.seed={seed}")
        weights.append((tmp_path / "model" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_phase_goes_on_after_the_best_trees_and_has_its_own_tiles_and_rate(store, tmp_path):
    sparse, hard = "{name: sparse, epochs: 10, tiles: positive}", "{name: hard, epochs: 10, tiles: mined, lr: 0.05}"
    train(store, tmp_path / "model", f"training.phases=[{sparse}, {hard}]")
    log = pd.read_csv(tmp_path / "model" / "metrics.csv")
    assert list(dict.fromkeys(log["phase"])) == ["sparse", "hard"]
    assert list(log[log["split"] == "train"]["lr"]) == [0.1, 0.05]
    last = load_bundle(tmp_path / "model" / "last").network
    assert len(last.trees) == 20
    alone = tmp_path / "alone"
    train(store, alone, f"training.phases=[{sparse}]")
    first = load_bundle(alone / "last").network
    assert all((one.value == other.value).all() for one, other in zip(first.trees, last.trees, strict=False))
    assert first.base == last.base


def test_all_of_an_object_and_so_many_near_and_far_pixels_are_drawn():
    target = np.zeros((60, 60), bool)
    target[10:20, 10:20] = True
    counted = np.ones((60, 60), bool)
    counted[12, :] = False
    settings, rng = TreeSettings(near_px=3, near=0.5, far=2, least=10), np.random.default_rng(0)
    chosen = _chosen_pixels(target, counted, settings, rng)
    assert len(set(chosen.tolist())) == len(chosen) == 90 + 45 + 180
    assert counted.ravel()[chosen].all()
    assert target.ravel()[chosen].sum() == 90
    rows, cols = np.divmod(chosen, 60)
    away = np.hypot(np.maximum(np.maximum(10 - rows, rows - 19), 0), np.maximum(np.maximum(10 - cols, cols - 19), 0))
    assert ((away > 0) & (away <= 3)).sum() == 45
    nothing = _chosen_pixels(np.zeros((60, 60), bool), counted, settings, rng)
    assert len(nothing) == 10  # of a tile without an object, far from all


def test_regions_count_by_the_root_of_their_objects(store):
    drawn = samples(store, toy("model.trees={near: 0.1, far: 0.1, least: 5}"))
    assert drawn.weight.mean() == pytest.approx(1, abs=1e-5)
    tiles = split_tiles(store.index, toy().split).train
    objects = np.sort([positive.sum() for _, positive in tiles.groupby("region")["positive_pixels"]])
    ratio = drawn.weight.max() / drawn.weight.min()
    assert ratio == pytest.approx(np.sqrt(objects[-1] / objects[0]), rel=1e-4)
    sampled = drawn.weight[drawn.target].sum() / drawn.weight[~drawn.target].sum()
    assert drawn.log_odds == pytest.approx(np.log(sampled), abs=1e-5)


def test_trees_as_arrays_say_what_lightgbm_says(store):
    lightgbm = pytest.importorskip("lightgbm")
    drawn = samples(store, toy())
    trees = grow_trees(drawn, np.zeros(len(drawn.target), np.float32), TreeSettings(), number=20, rate=0.3, seed=0)
    kept = []
    original = lightgbm.train

    def watched(*arguments, **keywords):
        kept.append(original(*arguments, **keywords))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightgbm, "train", watched)
        grow_trees(drawn, np.zeros(len(drawn.target), np.float32), TreeSettings(), number=20, rate=0.3, seed=0)
    rng = np.random.default_rng(0)
    codes = np.concatenate([drawn.codes, rng.integers(-32768, 32768, (5000, 3)).astype(np.int16)])
    expected = kept[0].predict(codes.astype(np.float32), raw_score=True)
    np.testing.assert_allclose(sum_of_leaves(trees, codes.T), expected, atol=1e-5)
    assert max(len(tree.value) for tree in trees) <= 24


def test_a_layer_that_is_dropped_now_and_then_is_optional(store, tmp_path):
    config = toy("augment.drop={probability: 0.5, layers: [nir]}")
    drawn = samples(store, config)
    red, nir = drawn.codes[:, 0], drawn.codes[:, 1]
    assert (nir == 0).any()
    assert (nir != 0).any()
    assert (red != 0).all()
    bundle = fit(store, split_tiles(store.index, config.split), config, tmp_path / "model")
    assert bundle.optional == {"nir", "ndvi"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.loss=focal", None),  # the recipe's own
        ("training.loss=bce", "training.loss has no meaning for boosting"),
        ("training.ema=0.9", "training.ema has no meaning for boosting"),
        ("augment.noise={}", "augment.noise has no meaning for boosting"),
        ("augment.flip=0", None),
        ("augment.flip=0.7", "augment.flip has no meaning for boosting"),
        ("training.phases.0.sampler={}", "training.phases.0.sampler has no meaning for boosting"),
        ("training.device=cuda", "training.device: cuda has no meaning for boosting"),
        ("model.weights=imagenet", None),  # refused where networks are built
    ],
)
def test_settings_that_trees_would_not_obey_are_refused(override, message):
    if message is None:
        check_obeyed(toy(override))
        return
    with pytest.raises(ConfigError, match=message):
        check_obeyed(toy(override))


def test_settings_of_trees_are_refused_beside_a_network():
    with pytest.raises(ConfigError, match="'trees' has no meaning for architecture pixel"):
        configuration("model.trees={leaves: 5}")


def test_training_without_lightgbm_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sys.modules["thawmap.train.obeyed"], "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'thawmap\[boosting\]'"):
        check_obeyed(toy())
    check_obeyed(configuration())


def test_nothing_to_learn_from_is_said(store, tmp_path):
    empty = make_store(tmp_path / "store", toy(), silent=(0, 1))
    with pytest.raises(TrainingError, match="there is none with an object"):
        train(empty, tmp_path / "model", "training.phases.0.tiles=positive")
    ignored = make_store(tmp_path / "ignored", toy())
    for region in ("Lena-1", "Horton-1"):
        ignore(ignored, region, (0, 1))
    with pytest.raises(TrainingError, match="no labelled, usable pixel"):
        train(ignored, tmp_path / "other")


def test_from_scenes_to_maps_without_lightgbm(tmp_path, monkeypatch):
    """The verbs train and predict, with context layers; mapping loads no LightGBM."""
    yaml = make_project(tmp_path)
    text = yaml.read_text().replace("architecture: pixel", "architecture: boosting")
    text = text.replace(
        "layers: [red, nir]", "layers: [red, nir, ndvi, {of: [ndvi], context: [mean_15m, deviation_30m]}]"
    )
    yaml.write_text(text)
    config = load(yaml)
    summary = thawmap.train(config, tmp_path / "model")
    assert not summary.failed
    assert (tmp_path / "model" / "report" / "index.html").exists()
    again = thawmap.train(config, tmp_path / "model")
    assert again.skipped == 1
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    mapped = thawmap.predict(config, tmp_path / "model", tmp_path / "maps")
    assert not mapped.failed
    assert mapped.done == 3
    with rasterio.open(next((tmp_path / "maps").glob("*/*probability.tif"))) as file:
        assert file.read(1, masked=True).count() == 48 * 48


def test_a_cross_validation_compares_trees_with_a_network(tmp_path):
    text = make_project(tmp_path).read_text().replace("epochs: 15", "epochs: 10")
    crossval = "crossval: {folds: {by: scene}, inner: 1, grid: {model.architecture: [pixel, boosting]}}\n"
    (tmp_path / "crossval.yaml").write_text(text + crossval)
    summary = thawmap.crossval(load(tmp_path / "crossval.yaml"), tmp_path / "out")
    assert not summary.failed
    fits = [load_bundle(path.parent) for path in (tmp_path / "out" / "fits").rglob("bundle.json")]
    assert sorted(bundle.architecture for bundle in fits) == ["boosting"] * 3 + ["pixel"] * 3
