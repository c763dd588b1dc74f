"""Training: everything that is accepted runs, the same seed gives the same, and it does learn."""

import math
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from toy_training import configuration, ignore, make_store, run

from thawmap.config import AugmentSettings, OptimiserSettings, TrainingSettings
from thawmap.config.training import ScheduleName
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import as_array, assemble
from thawmap.errors import ConfigError, DataError, TrainingError
from thawmap.model.backends.open import open_backend
from thawmap.model.bundle_folder import load
from thawmap.model.losses import LOSSES
from thawmap.model.metrics.pixels import SCORES, Counts, Histogram, histogram, plateau_threshold, scores
from thawmap.model.network import architectures
from thawmap.train.checkpoint import BestNetwork
from thawmap.train.inference import predict_tiles
from thawmap.train.log import EpochResult, best_threshold_of
from thawmap.train.schedule import OPTIMISERS, SCHEDULES

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("small"), configuration())


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """Three tiles to train on, of which nothing is known of two: a batch of one, and one that is all ignored."""
    store = make_store(tmp_path_factory.mktemp("hard"), configuration(), across=3)
    ignore(store, "Lena-1", [0, 1])
    return store


def log_of(out):
    return pd.read_csv(out / "metrics.csv")


@pytest.mark.slow
def test_a_network_without_neighbours_learns_an_ndvi_threshold(store, tmp_path):
    bundle = run(store, tmp_path, "training.phases=[{name: full, epochs: 15, lr: 0.3}]", "augment.blur=0")
    assert bundle.metrics["validation_iou_at_threshold"] > 0.9
    assert log_of(tmp_path)["loss"].iloc[-1] < 0.5 * log_of(tmp_path)["loss"].iloc[0]


def test_the_registries_are_what_the_configuration_accepts():
    assert set(SCHEDULES) == set(ScheduleName.__args__)
    assert set(OPTIMISERS) == set(OptimiserSettings.model_fields["name"].annotation.__args__)


@pytest.mark.parametrize(
    "chosen",
    [
        *(f"training.loss={name}" for name in LOSSES),
        "training.loss=[focal, {name: tversky, weight: 2}]",
        *(f"training.optimiser.name={name}" for name in OPTIMISERS),
        "training.optimiser={name: sgd, momentum: 0.5, nesterov: true}",
        *(f"training.schedule={name}" for name in SCHEDULES),
        "training.schedule={name: cosine, warmup: 0.5}",
        "training.accumulate=3",
        "training.clip_norm=0.1",
        "training.ema=0.9",
        "training.stop_after=1",
        "training.phases=[{name: one, epochs: 1, loss: dice, sampler: {positive: 2, regions: equal}}]",
        "training.phases=[{name: one, epochs: 1}, {name: two, epochs: 1, tiles: mined}]",
        *(f"training.precision={name}" for name in TrainingSettings.model_fields["precision"].annotation.__args__),
        *(f"augment.{name}=1" for name in ("flip", "rotate90", "paste", "blur")),
        *(f"augment.{name}={{probability: 1}}" for name in ("contrast", "brightness", "radiometry", "noise", "gaps")),
        *(f"model.fill={name}" for name in ("near", "zero")),
        "augment.drop={probability: 1, layers: [nir]}",
    ],
)
def test_every_accepted_name_trains_and_loads(hard, tmp_path, chosen):
    """Law 7, with a last batch of one and a batch of which nothing is known."""
    bundle = run(hard, tmp_path, "split.test=[Horton]", chosen)
    assert load(tmp_path).id == bundle.id
    assert bundle.metrics["train_loss"] > 0
    assert np.isfinite(log_of(tmp_path)["loss"]).all()


def test_no_augmentation_is_forgotten():
    assert set(AugmentSettings.model_fields) == {
        "flip", "rotate90", "paste", "blur", "contrast", "brightness", "radiometry", "noise", "drop", "gaps",
    }  # fmt: skip


def test_a_network_that_learnt_without_a_layer_maps_scenes_that_do_not_have_it(store, tmp_path):
    bundle = run(store, tmp_path, "augment.drop={layers: [nir]}")
    assert load(tmp_path).optional == {"nir", "ndvi"}  # which is made from it
    grid = GeoBox((32, 32), Affine(10, 0, 500_000, 0, -10, 7_800_000), "EPSG:32640")
    scene = Scene(id="s", sensor="test", geobox=grid, files={}, region=None)
    source = ArraySource({"red": np.full((32, 32), 0.1, np.float32)}, grid)
    names = [layer.name for layer in bundle.layers]
    stack = assemble(scene, names, grid, [source], optional=bundle.optional)
    assert stack["valid"].all()
    assert np.isfinite(open_backend(bundle)(as_array(stack, names)[np.newaxis])).all()
    needs = run(store, tmp_path / "needs")
    with pytest.raises(DataError, match="'nir' is in no source"):
        assemble(scene, names, grid, [source], optional=needs.optional)


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("larger"), configuration(size=64), across=1)


@pytest.fixture(scope="module")
def largest(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("largest"), configuration(size=128), across=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
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


@pytest.mark.slow
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
        "bundle.json", "item.json", "last", "metrics.csv", "selftest.safetensors", "weights.safetensors",
    ]  # fmt: skip
    log = log_of(tmp_path)
    assert list(log) == ["phase", "epoch", "split", "loss", *SCORES, "object_f1", "threshold", "iou_at_threshold",
        "tp", "fp", "fn", "tn", "lr", "seconds",
    ]  # fmt: skip
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
    assert lines[-2].startswith("phase full, epoch 2 of 2: train loss")
    assert lines[-1] == (f"calibrated: logits are divided by {bundle.temperature:g}, threshold {bundle.threshold:.2f}")


def test_validation_regions_count_each_for_itself(store, tmp_path):
    """Epochs are scored by the mean of the regions' IoU, at the threshold where that mean is best."""
    run(store, tmp_path, "split.validation=[Yamal, Horton]")
    last, logged = load(tmp_path / "last"), log_of(tmp_path).query("split == 'validation'").iloc[-1]
    regions = [pixels_of(last, store, region) for region in ("Yamal", "Horton")]
    assert logged["threshold"] == plateau_threshold(regions)
    means = [np.mean([scores(pixels.counts(step / 100))["iou"] for pixels in regions]) for step in range(101)]
    assert logged["iou_at_threshold"] == pytest.approx(means[round(100 * logged["threshold"])], rel=1e-5)
    assert logged["iou_at_threshold"] >= 0.98 * max(means)
    pooled = sum(regions).counts(0.5)
    assert [logged[name] for name in ("tp", "fp", "fn", "tn")] == [pooled.tp, pooled.fp, pooled.fn, pooled.tn]


def pixels_of(bundle, store, region):
    tiles = store.index[store.index["region"] == region]
    found = [
        histogram(prediction.probability, prediction.batch.target, prediction.batch.valid)
        for prediction in predict_tiles(bundle, store, tiles, device=torch.device("cpu"), batch_size=2)
    ]
    return sum(found)


def test_a_region_counts_once_however_many_pixels_it_has():
    """Nine times the pixels of one region change neither threshold nor score; pooled they would."""
    random = np.random.default_rng(3)
    spread = np.arange(101)
    easy = Histogram(1000 * (spread < 20), random.integers(50, 90, 101) * (spread > 50))
    hard = Histogram(random.integers(50, 200, 101) * (spread < 90), random.integers(1, 30, 101) * (spread > 20))

    def result(first, second):
        return EpochResult(
            split="validation", loss=0.0, counts=Counts(), objects=Counts(), histograms={"a": first, "b": second}
        )

    once, more = result(easy, hard), result(easy, sum([hard] * 9))
    assert best_threshold_of(once) == best_threshold_of(more)
    assert best_threshold_of(once) != plateau_threshold([easy + sum([hard] * 9)])
    at = best_threshold_of(once)
    assert replace(once, threshold=at).score == pytest.approx(replace(more, threshold=at).score)
    empty = Histogram(hard.negative, np.zeros(101, np.int64))
    assert replace(result(easy, empty), threshold=at).score == scores(easy.counts(at))["iou"]


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_the_next_phase_starts_from_it(store, tmp_path):
    phases = "[{name: calm, epochs: 3}, {name: wild, epochs: 2, lr: 100}, {name: still, epochs: 1, lr: 1.0e-30}]"
    lines = []
    bundle = run(store, tmp_path, f"training.phases={phases}", "augment.blur=0", report=lines.append)
    scores = [float(line.split("IoU ")[1].split(" ")[0]) for line in lines if "IoU" in line]
    improved = [line.endswith("kept") for line in lines if "IoU" in line]
    assert scores[4] < max(scores)
    assert scores[5] == max(scores)
    assert bundle.metrics["validation_iou_at_threshold"] == pytest.approx(max(scores), rel=0.03)
    assert improved[5]  # as good as the best, and later
    best = max(number for number in range(5) if improved[number])
    checked = log_of(tmp_path).query("split == 'validation'").reset_index(drop=True)
    for name in ("loss", *SCORES):
        assert checked[name].fillna(-1)[5] == checked[name].fillna(-1)[best]


def test_among_equals_the_later_is_better_and_unknown_scores_always_are():
    network, best = torch.nn.Conv2d(1, 1, 1), BestNetwork()
    assert [best.update(network, score) for score in (math.nan, math.nan, 0.2, 0.1, 0.2, math.nan)] == [
        True, True, True, False, True, False,
    ]  # fmt: skip


def test_without_validation_the_last_epoch_is_the_best(store, tmp_path):
    bundle = run(store, tmp_path, "split.validation=[]")
    assert bundle.provenance["from"] == "phase full, epoch 2"
    assert bundle.thresholds == {"paper": 0.5}
    assert set(log_of(tmp_path)["split"]) == {"train"}
    assert bundle.id == load(tmp_path / "last").id


@pytest.mark.slow
def test_the_learning_rate_follows_schedule_and_phase(store, tmp_path):
    phases = "training.phases=[{name: a, epochs: 3, lr: 0.5}, {name: b, epochs: 1}]"
    run(store, tmp_path / "cosine", phases, "training.schedule=cosine")
    run(store, tmp_path / "constant", phases)
    # two steps per epoch: the last of each has 1/6, 3/6 and 5/6 of its phase behind it
    cosine = [0.5 * (1 + math.cos(math.pi * share)) / 2 for share in (1 / 6, 3 / 6, 5 / 6)]
    last = {name: log_of(tmp_path / name).query("split == 'train'")["lr"].tolist() for name in ("cosine", "constant")}
    assert last["cosine"] == pytest.approx([*cosine, 0.1 * (1 + math.cos(math.pi / 2)) / 2], rel=1e-5)
    assert last["constant"] == [0.5, 0.5, 0.5, 0.1]


@pytest.mark.slow
def test_a_sparse_phase_sees_positive_tiles_only(tmp_path):
    bare = make_store(tmp_path / "tiles", configuration(), across=1, highest=0.021)
    assert not bare.index["positive_pixels"].any()
    sparse = "training.phases=[{name: sparse, epochs: 1, tiles: positive}]"
    with pytest.raises(TrainingError, match="phase 'sparse' trains on positive tiles"):
        run(bare, tmp_path / "out", sparse)
    assert not (tmp_path / "out").exists()
    bundle = run(bare, tmp_path / "out")  # no object in validation either: nothing to choose by
    assert bundle.thresholds == {"paper": 0.5}


def test_a_loss_that_is_not_finite_stops_says_where_and_keeps_the_best(store, tmp_path):
    """A mean of some 1e34, a million times over: beyond float32 in whatever kernel and order it is summed."""
    wild = "{name: wild, epochs: 3, lr: 1.0e+35, loss: {name: bce, weight: 1.0e+6}}"
    phases = f"training.phases=[{{name: calm, epochs: 1}}, {wild}]"
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


def test_what_does_not_suit_is_refused_before_anything_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match="cannot take tiles of 32 px"):
        run(store, tmp_path / "out", "model.architecture=pan")
    with pytest.raises(ConfigError, match="'aspect' has a direction"):
        run(store, tmp_path / "out", layers="[red, aspect]")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="0 GPUs"):
            run(store, tmp_path / "out", "training.device=cuda")
    assert not (tmp_path / "out").exists()


def test_a_validation_region_without_a_tile_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"split\.validation names the region 'Banks', which has no tile"):
        run(store, tmp_path / "out", "split.validation=[Banks]")
    assert not (tmp_path / "out").exists()


SCARCE = """
    import resource, sys
    from pathlib import Path
    import torch
    from toy_training import run
    from thawmap.errors import TrainingError
    from thawmap.train.tiles.store import TileStore

    torch.set_num_threads(1)

    def fill(line):
        if line.startswith("train:"):
            taken = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (taken + 600 * 2**20, resource.RLIM_INFINITY))

    try:
        chosen = ("model.architecture=unet", "training.batch_size=8", "training.precision=float32")
        run(TileStore.open(Path(sys.argv[1])), Path(sys.argv[2]), *chosen, size=256, report=fill)
    except TrainingError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_a_batch_that_memory_does_not_hold_is_said_with_what_to_lower(tmp_path):
    store = make_store(tmp_path / "tiles", configuration(size=256), across=4)
    words = [sys.executable, "-c", textwrap.dedent(SCARCE), str(store.path), str(tmp_path / "out")]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1] / "support")
    assert "memory does not hold a batch of 8 tiles; lower training.batch_size" in done.stdout, done.stderr
