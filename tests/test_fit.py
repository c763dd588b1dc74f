"""Training: everything that is accepted runs, the same seed gives the same, and it does learn."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from thawmap.config import OptimiserSettings, TrainingSettings, parse
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.bundle import load
from thawmap.model.losses import LOSSES
from thawmap.model.metrics import SCORES
from thawmap.model.network import ARCHITECTURES
from thawmap.train.fit import OPTIMISERS, SCHEDULES, _batches, _Best, fit
from thawmap.train.folds import split
from thawmap.train.tiles import TileStore, collect, write_tiles

torch.set_num_threads(1)

REGIONS = ("Lena", "Horton", "Yamal")


def configuration(*overrides, size=32, layers="[red, nir, ndvi]"):
    text = f"""
scenes: {{kind: rasters, path: any, files: {{a.tif: {{red: {{band: 1}}}}}}}}
layers: {layers}
labels: {{path: any.gpkg}}
tiles: {{size: {size}, overlap: 0}}
model: {{architecture: pixel, encoder: resnet18}}
training:
  batch_size: 2
  optimiser: {{lr: 0.1}}
  phases: [{{name: full, epochs: 2}}]
  device: cpu
split: {{validation: [Yamal]}}
"""
    return parse(text, name="test", folder=Path(), overrides=overrides)


class GreenIsObject:
    """An object is where NDVI is above 0.4, which a network without neighbours can learn."""

    def __init__(self, values):
        red, nir = values["red"], values["nir"]
        self.target = ((nir - red) / (nir + red) > 0.4).astype(np.uint8)

    def burn(self, scene, geobox):
        col, row = ~scene.geobox.affine * (geobox.affine.c, geobox.affine.f)
        row, col = round(row), round(col)
        return self.target[row : row + geobox.height, col : col + geobox.width]


def make_store(folder, config, *, across=2, highest=0.4):
    """Three regions far from each other, each one scene of ``across`` x 1 tiles."""
    size = config.tiles.size
    for number, region in enumerate(REGIONS):
        rng = np.random.default_rng(number)
        shape = (size, size * across)
        geobox = GeoBox(shape, Affine(10, 0, 500_000 + number * 50_000, 0, -10, 7_800_000), "EPSG:32640")
        values = {name: rng.uniform(0.02, highest, shape).astype(np.float32) for name in ("red", "nir")}
        scene = Scene(id=f"{region}-1", sensor="test", geobox=geobox, files={}, region=region)
        source, labels = ArraySource(values, geobox), GreenIsObject(values)
        write_tiles(folder, scene, config=config, sources=[source], labels=labels, fingerprint="made")
    collect(folder, [f"{region}-1" for region in REGIONS], config.input_layers)
    return TileStore.open(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("small"), configuration())


def run(store, out, *overrides, report=lambda _: None, **changes):
    config = configuration(*overrides, **changes)
    return fit(store, split(store.index, config.split), config, out, report=report)


def log_of(out):
    return pd.read_csv(out / "metrics.csv")


def test_a_network_without_neighbours_learns_an_ndvi_threshold(store, tmp_path):
    bundle = run(store, tmp_path, "training.phases=[{name: full, epochs: 15, lr: 0.3}]", "augment.blur=0")
    assert bundle.metrics["validation_iou_at_threshold"] > 0.9
    assert log_of(tmp_path)["loss"].iloc[-1] < 0.5 * log_of(tmp_path)["loss"].iloc[0]


def test_the_registries_are_what_the_configuration_accepts():
    fields = TrainingSettings.model_fields
    assert set(SCHEDULES) == set(fields["schedule"].annotation.__args__)
    assert set(OPTIMISERS) == set(OptimiserSettings.model_fields["name"].annotation.__args__)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_optimiser_and_schedule_trains_and_loads(store, tmp_path, loss, optimiser, schedule):
    chosen = (f"training.loss={loss}", f"training.optimiser.name={optimiser}", f"training.schedule={schedule}")
    bundle = run(store, tmp_path, *chosen)
    assert load(tmp_path).id == bundle.id
    assert bundle.metrics["train_loss"] > 0


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("larger"), configuration(size=64), across=1)


@pytest.fixture(scope="module")
def largest(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("largest"), configuration(size=128), across=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_on_a_lone_tile_and_loads(larger, largest, tmp_path, name):
    encoder = "tu-vit_tiny_patch16_224" if name == "dpt" else "resnet18"
    chosen = (
        f"model.architecture={name}",
        f"model.encoder={encoder}",
        "training.phases=[{name: one, epochs: 1, lr: 0.001}]",
    )
    used = largest if name == "pan" else larger
    bundle = run(used, tmp_path, *chosen, "split.test=[Horton]", size=used.size)
    assert (bundle.architecture, bundle.tile) == (name, used.size)


def test_two_runs_give_the_same_numbers_and_another_seed_others(store, tmp_path):
    chosen = (
        "model.architecture=pspnet",
        "training.phases=[{name: one, epochs: 1}]",
    )  # which has batch norm and dropout
    bundles = [
        run(store, tmp_path / name, *chosen, f"training.seed={seed}")
        for name, seed in zip("abc", (1, 1, 2), strict=True)
    ]
    logs = [log_of(tmp_path / name).drop(columns="seconds") for name in "abc"]
    assert bundles[0].id == bundles[1].id != bundles[2].id
    pd.testing.assert_frame_equal(logs[0], logs[1], check_exact=True)
    assert (logs[0]["loss"] != logs[2]["loss"]).all()
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_a_run_leaves_torchs_own_randomness_alone(store, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(store, tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_what_a_run_leaves_behind(store, tmp_path):
    lines = []
    bundle = run(store, tmp_path, "split.test=[Horton]", report=lines.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bundle.json", "last", "metrics.csv", "selftest.safetensors", "weights.safetensors",
    ]  # fmt: skip
    log = log_of(tmp_path)
    assert list(log) == ["phase", "epoch", "split", "loss", *SCORES, "lr", "seconds"]
    assert list(zip(log["epoch"], log["split"], strict=True)) == [
        (1, "train"), (1, "validation"), (2, "train"), (2, "validation"),
    ]  # fmt: skip
    assert bundle.provenance["regions"] == {
        "train": ["Lena"],
        "validation": ["Yamal"],
        "test": ["Horton"],
        "dropped": [],
    }
    assert bundle.provenance["config"]["training"]["batch_size"] == 2
    assert bundle.thresholds == {"paper": 0.5, "validation": bundle.threshold}
    assert load(tmp_path / "last").provenance["from"] == "phase full, epoch 2"
    assert lines[0] == "train: 2 tiles, 2 with objects, from Lena"
    assert lines[-1].startswith("phase full, epoch 2 of 2: train loss")


def test_the_best_epoch_is_kept_and_the_next_phase_starts_from_it(store, tmp_path):
    phases = "[{name: calm, epochs: 3}, {name: wild, epochs: 2, lr: 100}, {name: still, epochs: 1, lr: 1.0e-30}]"
    lines = []
    bundle = run(store, tmp_path, f"training.phases={phases}", "augment.blur=0", report=lines.append)
    scores = [float(line.split("IoU ")[1].split(" ")[0]) for line in lines if "IoU" in line]
    kept = [line.endswith("kept") for line in lines if "IoU" in line]
    assert scores[4] < max(scores)
    assert scores[5] == max(scores) == round(bundle.metrics["validation_iou_at_threshold"], 3)
    assert kept[5]  # as good as the best, and later
    best = max(number for number in range(5) if kept[number])
    checked = log_of(tmp_path).query("split == 'validation'").reset_index(drop=True)
    for name in ("loss", *SCORES):
        assert checked[name].fillna(-1)[5] == checked[name].fillna(-1)[best]


def test_among_equals_the_later_is_better_and_unknown_scores_always_are():
    network, best = torch.nn.Conv2d(1, 1, 1), _Best()
    assert [best.improves(network, score) for score in (math.nan, math.nan, 0.2, 0.1, 0.2, math.nan)] == [
        True, True, True, False, True, False,
    ]  # fmt: skip


def test_without_validation_the_last_epoch_is_the_best(store, tmp_path):
    bundle = run(store, tmp_path, "split.validation=[]")
    assert bundle.provenance["from"] == "phase full, epoch 2"
    assert bundle.thresholds == {"paper": 0.5}
    assert set(log_of(tmp_path)["split"]) == {"train"}
    assert bundle.id == load(tmp_path / "last").id


def test_the_learning_rate_follows_schedule_and_phase(store, tmp_path):
    phases = "training.phases=[{name: a, epochs: 3, lr: 0.5}, {name: b, epochs: 1}]"
    run(store, tmp_path / "cosine", phases, "training.schedule=cosine")
    run(store, tmp_path / "constant", phases)
    # two steps per epoch: the last of each has 1/6, 3/6 and 5/6 of its phase behind it
    cosine = [0.5 * (1 + math.cos(math.pi * share)) / 2 for share in (1 / 6, 3 / 6, 5 / 6)]
    last = {name: log_of(tmp_path / name).query("split == 'train'")["lr"].tolist() for name in ("cosine", "constant")}
    assert last["cosine"] == pytest.approx([*cosine, 0.1 * (1 + math.cos(math.pi / 2)) / 2], rel=1e-5)
    assert last["constant"] == [0.5, 0.5, 0.5, 0.1]


def test_a_sparse_phase_sees_positive_tiles_only(tmp_path):
    bare = make_store(tmp_path / "tiles", configuration(), across=1, highest=0.021)
    assert not bare.index["positive_pixels"].any()
    sparse = "training.phases=[{name: sparse, epochs: 1, tiles: positive}]"
    with pytest.raises(TrainingError, match="phase 'sparse' trains on positive tiles"):
        run(bare, tmp_path / "out", sparse)
    assert not (tmp_path / "out").exists()
    bundle = run(bare, tmp_path / "out")  # no object in validation either: nothing to choose by
    assert bundle.thresholds == {"paper": 0.5}


def test_a_batch_that_is_all_ignored_does_no_harm(tmp_path):
    changed = make_store(tmp_path / "tiles", configuration())
    target = zarr.open_group(tmp_path / "tiles" / "Lena-1.zarr", mode="r+")["target"]
    target[:] = np.full(target.shape, 255, np.uint8)
    run(changed, tmp_path / "out", "training.batch_size=1")
    assert np.isfinite(log_of(tmp_path / "out")["loss"]).all()


def test_a_loss_that_is_not_finite_stops_says_where_and_keeps_the_best(store, tmp_path):
    phases = "training.phases=[{name: calm, epochs: 1}, {name: wild, epochs: 3, lr: 3.0e+37}]"
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in phase wild, epoch 1, batch 2 of 2; lower"):
        run(store, tmp_path, phases)
    assert load(tmp_path).provenance["from"] == "phase calm, epoch 1"
    assert set(log_of(tmp_path)["phase"]) == {"calm"}


def test_an_interruption_leaves_whole_bundles(store, tmp_path):
    def interrupt(line):
        if "epoch 1" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path, report=interrupt)
    assert load(tmp_path).id == load(tmp_path / "last").id
    assert not list(tmp_path.rglob(".*"))


def test_half_precision_trains_on_a_cpu_too(store, tmp_path):
    assert run(store, tmp_path, "training.precision=bfloat16").metrics["train_loss"] > 0


def test_what_does_not_suit_is_refused_before_anything_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match="cannot take tiles of 32 px"):
        run(store, tmp_path / "out", "model.architecture=pan")
    with pytest.raises(ConfigError, match="'aspect' has a direction"):
        run(store, tmp_path / "out", layers="[red, aspect]")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="0 GPUs"):
            run(store, tmp_path / "out", "training.device=cuda")
    assert not (tmp_path / "out").exists()


@given(number=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_tile_once_and_a_lone_one_twice(number, size, seed):
    parts = _batches(pd.DataFrame({"tile": range(number)}), size, torch.Generator().manual_seed(seed))
    assert all(2 <= len(part) <= max(size, 2) for part in parts)
    assert len(parts) == math.ceil(number / size)
    assert sorted(tile for part in parts for tile in part["tile"].unique()) == list(range(number))
    assert all(part["tile"].is_unique or len(part) == 2 for part in parts)
