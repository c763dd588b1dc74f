"""Cross-validation: what trains and what is held out, what is resumed, and what the report says of it."""

import fcntl
import json
import math
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from scipy import ndimage
from scipy.stats import bootstrap
from stopping import stopped

from thawmap.cli import _run as thawmap
from thawmap.config import load, parse
from thawmap.errors import DataError
from thawmap.model import bundle_folder
from thawmap.pipeline.crossval import crossval_report
from thawmap.pipeline.tiles import tiles
from thawmap.report.crossval import analysis
from thawmap.report.crossval import figures as draw
from thawmap.train.experiments import crossval
from thawmap.train.experiments.folder import write_plan
from thawmap.train.experiments.grid import folder_name, grid_settings
from thawmap.train.tiles.store import TileStore

torch.set_num_threads(1)

REGIONS = ("Banks Island", "Herschel", "Horton", "Lena")
SIZE = 32
KEYS = ["fold", "configuration", "seed"]
TIDY = ["fold", "configuration", "seed", "phase", "epoch", "split", "metric", "value"]
YAML = """
project: toy
scenes:
  kind: rasters
  path: "scenes/*/*"
  region: "{parent}"
  files: {image.tif: {red: {band: 1, scale: 0.0001}, nir: {band: 2, scale: 0.0001}}}
layers: [red, nir]
labels: {raster: mask.tif, ignore: 255}
tiles: {size: 32, overlap: 0}
model: {architecture: pixel}
training:
  device: cpu
  batch_size: 2
  optimiser: {lr: 0.2}
  phases: [{name: sparse, epochs: 10, tiles: positive}, {name: full, epochs: 1}]
crossval: {inner: 1, grid: {training.loss: [focal, dice]}}
"""


FOLDS = "{given: {east: [Lena], west: [Horton]}}"
SMALL = (f"crossval.folds={FOLDS}", "training.phases=[{name: all, epochs: 2}]")
SHORT = ("training.phases=[{name: all, epochs: 1}]", "crossval={inner: 1}")


def write_scene(folder, number, *, seed, highest=4000, labels=None):
    """Two tiles: an object is where near infrared is above twice the red; the second tile has none."""
    rng = np.random.default_rng(seed)
    bands = rng.integers(200, highest, (2, SIZE, 2 * SIZE)).astype(np.uint16)
    bands[1, :, SIZE:] = bands[0, :, SIZE:]
    mask = (bands[1] > 2 * bands[0]).astype(np.uint8) if labels is None else np.full(bands.shape[1:], labels, np.uint8)
    about = {"driver": "GTiff", "height": SIZE, "width": 2 * SIZE, "crs": "EPSG:32640"}
    grid = from_origin(500_000 + number * 20_000, 7_800_000, 10, 10)
    folder.mkdir(parents=True)
    with rasterio.open(folder / "image.tif", "w", count=2, dtype="uint16", transform=grid, **about) as file:
        file.write(bands)
    with rasterio.open(folder / "mask.tif", "w", count=1, dtype="uint8", transform=grid, **about) as file:
        file.write(mask, 1)


def write_project(folder, *, labels=None):
    """A YAML with one scene in each region; ``labels`` of a region replace its mask."""
    for number, region in enumerate(REGIONS):
        mask = (labels or {}).get(region)
        place = folder / "scenes" / region / f"scene-{number}"
        write_scene(place, number, seed=number, highest=3000 + 500 * number, labels=mask)
    path = folder / "thawmap.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def done(project, tmp_path_factory):
    """A cross-validation that nothing interrupted."""
    out = tmp_path_factory.mktemp("done") / "cv"
    assert thawmap(["crossval", str(project), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def small(project, tmp_path_factory):
    """A smaller one: two folds, two settings, two epochs."""
    out = tmp_path_factory.mktemp("small") / "cv"
    assert run(project, out, *SMALL) == 0
    return out


@pytest.fixture
def copy(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "cv"))


def run(project, out, *sets, words=()):
    return thawmap(["crossval", str(project), "--out", str(out), *words, *setting(sets)])


def setting(sets):
    return [word for one in sets for word in ("--set", one)]


def tidy(out):
    return pd.read_parquet(out / "metrics.parquet")


def timeless(out):
    """All numbers but the seconds that they took."""
    table = tidy(out)
    return table[table["metric"] != "seconds"].sort_values(TIDY[:-1]).reset_index(drop=True)


def bundles(out):
    return {path.parent.parent.parent.name: json.loads(path.read_text()) for path in out.glob("fits/*/*/*/bundle.json")}


# What trains, and what is held out


@pytest.mark.slow
def test_objects_by_size_are_those_of_the_held_out_tiles(small):
    """One pixel of a tile is 100 m2: hardly any object is large, and each is counted in one fold."""
    fits = [json.loads(path.read_text()) for path in sorted(small.glob("fits/*/dice/*/fit.json"))]
    table = pd.read_csv(small / "report" / "tables" / "sizes.csv").set_index(["configuration", "size"])
    store = TileStore.open(small / "tiles")
    tiles = store.index[store.index["region"].isin(["Lena", "Horton"])]
    stored = store.read(tiles)
    labelled = sum(
        ndimage.label((tile == 1) & valid)[1] for tile, valid in zip(stored.target, stored.valid, strict=True)
    )
    assert table.loc[("dice", "all"), "labelled"] == labelled > 100
    for kind in ("labelled", "found", "mapped", "false"):
        by_class = [sum(fit["sizes"][kind][number] for fit in fits) for number in range(3)]
        sizes = ("under 0.5 ha", "0.5 to 1 ha", "1 ha and more")
        assert [table.loc[("dice", size), kind] for size in sizes] == by_class
        assert table.loc[("dice", "all"), kind] == sum(by_class)
    ground_m2 = sum(fit["ground_m2"] for fit in fits)
    assert ground_m2 == pytest.approx((stored.valid & (stored.target < 2)).sum() * 100, rel=0.01)
    assert table.loc[("dice", "all"), "false_per_100km2"] == pytest.approx(
        sum(sum(fit["sizes"]["false"]) for fit in fits) / ground_m2 * 1e8, rel=1e-4
    )


def test_folds_are_scored_by_the_decisions_of_their_inner_folds(small):
    fits = [json.loads(path.read_text()) for path in sorted(small.glob("fits/*/dice/*/fit.json"))]
    table = pd.read_csv(small / "report" / "tables" / "decided.csv").set_index(["configuration", "views"])
    row = table.loc[("dice", "single tiles")]
    tp, fp, fn = (sum(fit["decided"]["tile"][kind] for fit in fits) for kind in ("tp", "fp", "fn"))
    assert row["iou"] == pytest.approx(tp / (tp + fp + fn), rel=1e-5)
    assert set(table.index.get_level_values("views")) == {"single tiles"}  # there is one date, and no overlap
    for fit, fold in zip(fits, ("east", "west"), strict=True):
        bundle = bundle_folder.load(small / "fits" / fold / "dice" / "seed-0")
        assert fit["decisions"] == {kind: chosen.as_json() for kind, chosen in bundle.decisions.items()}
        assert sum(fit["decided"]["tile"].values()) == sum(fit["negative"]) + sum(fit["positive"])


def test_trainings_that_counted_no_objects_have_no_table_of_them(copy, project):
    for path in copy.glob("fits/*/*/*/fit.json"):
        result = json.loads(path.read_text())
        del result["sizes"], result["ground_m2"], result["decided"], result["decisions"]
        path.write_text(json.dumps(result))
    assert run(project, copy, *SMALL, words=("--report-only",)) == 0
    tables = {path.stem for path in (copy / "report" / "tables").glob("*.csv")}
    assert "result" in tables
    assert not {"sizes", "decided"} & tables


def test_every_region_is_held_out_from_all_but_its_score(done):
    """By what the bundles themselves say."""
    known = bundles(done)
    assert set(known) == {folder_name(region) for region in REGIONS}
    for place, bundle in known.items():
        regions = bundle["provenance"]["regions"]
        assert [folder_name(name) for name in regions["test"]] == [place]
        assert len(regions["validation"]) == 1
        assert not regions["dropped"]
        assert sorted(regions["train"] + regions["validation"] + regions["test"]) == sorted(REGIONS)


@pytest.mark.slow
def test_one_tidy_table_holds_every_number(done):
    table = tidy(done)
    assert list(table.columns) == TIDY
    assert not table.duplicated(TIDY[:-1]).any()
    assert set(table["fold"]) == set(REGIONS)
    assert set(table["configuration"]) == {"focal", "dice"}
    assert set(table["split"]) == {"train", "validation", "test"}
    assert {"loss", "iou", "precision", "recall", "f1", "kappa", "overall_accuracy", "seconds"} <= set(table["metric"])
    losses = table[table["metric"] == "loss"]
    assert len(losses) == 4 * 2 * 11 * 3
    for _, epochs in losses.groupby([*KEYS, "split"])["epoch"]:
        assert list(epochs) == list(range(1, 12))
    own = pd.read_csv(done / "fits" / "Lena" / "dice" / "seed-0" / "metrics.csv")
    mine = table[(table["fold"] == "Lena") & (table["configuration"] == "dice") & (table["metric"] == "iou")]
    np.testing.assert_array_equal(mine.sort_values(["epoch"], kind="stable")["value"], own["iou"].dropna())


@pytest.mark.slow
def test_what_is_finished_keeps_one_network(done):
    for fit in done.glob("fits/*/*/*/fit.json"):
        assert (fit.parent / "weights.safetensors").exists()
        assert not (fit.parent / "last").exists()


values = st.lists(st.sampled_from(["focal", "dice", "bce", 1, 0.5, True]), min_size=1, max_size=3, unique_by=repr)


@given(grid=st.dictionaries(st.sampled_from(["training.loss", "augment.flip", "model.encoder"]), values, max_size=3),
       seeds=st.lists(st.integers(0, 5), min_size=1, unique=True))  # fmt: skip
@settings(max_examples=50)
def test_every_fold_with_every_combination_and_seed_is_one_training(grid, seeds):
    if any(True in listed and 1 in listed for listed in grid.values()):
        return  # YAML's 1 and true are one
    text = YAML.replace("crossval: {inner: 1, grid: {training.loss: [focal, dice]}}", "")
    config = parse(text + yaml.safe_dump({"crossval": {"grid": grid, "seeds": seeds}}), name="t", folder=Path())
    index = pd.DataFrame({"scene": REGIONS, "region": REGIONS, "positive_pixels": 1})
    planned = crossval.plan_fits(config, index)
    combinations = list(product(*grid.values()))
    assert len(planned) == len(REGIONS) * len(combinations) * len(seeds)
    assert len({fit.folder for fit in planned}) == len({fit.id for fit in planned}) == len(planned)
    assert len({one.name for one in grid_settings(config)}) == len(combinations)
    assert [fit.seed for fit in planned] == [seed for seed in seeds for _ in range(len(planned) // len(seeds))]


# Interrupted, changed, broken


def finished(out):
    return len(list(out.glob("fits/*/*/*/fit.json")))


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_table(small, project, tmp_path):
    """Also where one process made what several make."""
    out = tmp_path / "cv"
    words = ["crossval", project, "--out", out, "--resume", *setting(SMALL)]
    for reached in (1, 2):
        process = stopped(words, files=out / "fits/*/*/*/fit.json", number=reached)
        process.kill()
        process.communicate()
        assert finished(out) == reached
    kept = {path: path.stat().st_mtime_ns for path in out.glob("fits/*/*/*/fit.json")}
    assert run(project, out, *SMALL, "engine.workers=2", words=["--resume"]) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    pd.testing.assert_frame_equal(timeless(out), timeless(small), check_exact=True)
    for weights in small.glob("fits/*/*/*/weights.safetensors"):
        assert (out / weights.relative_to(small)).read_bytes() == weights.read_bytes()
    chosen = [*KEYS, "threshold", "epoch"]
    one, other = (pd.read_parquet(place / "fits.parquet")[chosen] for place in (out, small))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_what_is_there_is_not_trained_over_unasked(done, project, capsys):
    assert run(project, done) == 2
    assert "holds a cross-validation; add --resume to go on with it" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (["training.batch_size=3"], "training.batch_size"),
        (["crossval.inner=0", "tiles.min_valid=0.1"], "tiles.min_valid and crossval.inner"),
        (["crossval.folds.buffer_m=50"], "crossval.folds.buffer_m"),
    ],
)
def test_another_yaml_is_refused_by_its_keys(done, project, capsys, change, keys):
    assert run(project, done, *change, words=["--resume"]) == 2
    assert f"holds a cross-validation with other {keys}; set it back" in capsys.readouterr().err


@pytest.mark.slow
def test_settings_and_seeds_may_be_added(copy, project, capsys):
    before = timeless(copy)
    more = [*SMALL, "crossval.seeds=[0, 1]", "crossval.grid={training.loss: [focal, dice, bce]}"]
    assert run(project, copy, *more, words=["--resume", "--dry-run"]) == 0
    assert "would train 8 times" in capsys.readouterr().out
    assert run(project, copy, *more, words=["--resume"]) == 0
    assert "12 of 12 trainings are finished, 4 of them before" in capsys.readouterr().out
    after = timeless(copy)
    assert len(after[["configuration", "seed"]].drop_duplicates()) == 6
    first, second = (after[(after["seed"] == seed) & (after["metric"] == "loss")]["value"] for seed in (0, 1))
    assert not np.isin(second, first).any()  # a seed is used, not only named
    old = after[(after["seed"] == 0) & (after["configuration"] != "bce")].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before, check_exact=True)


@pytest.mark.slow
def test_keys_that_are_younger_than_a_cross_validation_do_not_stop_it(copy, project):
    plan = json.loads((copy / "crossval.json").read_text())
    del plan["config"]["augment"]["blur"]
    (copy / "crossval.json").write_text(json.dumps(plan))
    assert run(project, copy, *SMALL, words=["--resume"]) == 0


@pytest.mark.slow
def test_a_training_that_fails_costs_itself_and_is_named(project, tmp_path, capsys):
    grid = "crossval.grid={training.optimiser.lr: [0.2, 1.0e+35]}"
    beyond = "training.loss={name: bce, weight: 1.0e+6}"  # which makes that more than float32 holds, in every kernel
    assert run(project, tmp_path / "cv", *SMALL, grid, beyond) == 1
    printed = capsys.readouterr()
    assert "2 of 4 trainings are finished" in printed.out
    failures = [line for line in printed.err.splitlines() if "failed: the loss is" in line]
    assert len(failures) == 2
    failed = "lr=1e+35, east held out, seed 0"
    assert f"{failed} failed: the loss is" in printed.err
    page = (tmp_path / "cv" / "report" / "index.html").read_text()
    assert "2 trainings are not finished" in page
    assert failed in page


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused(project, tmp_path, capsys):
    out = tmp_path / "cv"
    out.mkdir()
    with (out / ".cross-validation.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(project, out, *SMALL) == 2
    assert f"another cross-validation runs in {out}; wait for its end" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_of_what_is_finished_by_now(copy, project, capsys):
    """Also while another holds the folder."""
    before = timeless(copy)
    (copy / "fits" / "east" / "dice" / "seed-0" / "fit.json").unlink()
    with (copy / ".cross-validation.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(project, copy, *SMALL, words=["--report-only"]) == 0
    assert "1 training is not finished; the numbers are of the 3 others" in capsys.readouterr().out
    rest = before[~((before["fold"] == "east") & (before["configuration"] == "dice"))].reset_index(drop=True)
    pd.testing.assert_frame_equal(timeless(copy), rest, check_exact=True)
    assert finished(copy) == 3


@pytest.mark.slow
def test_nothing_to_report_on_is_said(project, tmp_path, capsys):
    assert run(project, tmp_path / "none", words=["--report-only"]) == 2
    assert "holds no cross-validation to report on" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match=r"holds no cross-validation .* make one with 'thawmap crossval'"):
        analysis.read(tmp_path)


@pytest.mark.slow
def test_nothing_finished_is_said(copy, project, capsys):
    shutil.rmtree(copy / "fits")
    assert run(project, copy, *SMALL, words=["--report-only"]) == 2
    assert "no training of" in capsys.readouterr().err


# Bad folds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("{folds: {given: {x: [Lena], y: [Lena]}}}", "'Lena' is held out twice in 'given'; keep one"),
        ("{folds: {given: {x: [Lena, Lena], y: [Horton]}}}", "'Lena' is held out twice in 'given'; keep one"),
        ("{folds: {given: {x: [Leno], y: [Horton]}}}", "names the region 'Leno', which has no tile; there are Banks"),
        ("{folds: {number: 9}}", "cross-validation in 9 folds needs as many regions, and 4 have tiles"),
        ("{folds: {number: 2, given: {x: [Lena]}}}", "folds are either dealt ('number') or 'given'; keep one"),
        ("{inner: 3}", "no region with an object is left to train on while"),
        ("{inner: 4}", "crossval.inner asks for 4 folds that choose while"),
        ("{grid: {tiles.size: [32, 64]}}", "'grid' cannot vary 'tiles.size'; use augment, layers, model, training"),
        ("{grid: {training.seed: [0, 1]}}", "list seeds in 'crossval.seeds'"),
        ("{grid: {training.loss: [dice, dice]}}", "'grid' lists a value of 'training.loss' twice; keep one"),
        ("{grid: {training.los: [dice]}}", "unknown key 'training.los'; did you mean 'loss'?"),
        ("{grid: {model.architecture: [unett]}}", "architecture 'unett' does not exist; did you mean 'unet'?"),
        ("{seeds: [1, 1]}", "'seeds' has one twice; keep one"),
    ],
)
def test_folds_and_grids_that_cannot_be_are_refused_in_one_sentence(project, tmp_path, capsys, change, sentence):
    assert run(project, tmp_path / "cv", f"crossval={change}") == 2
    printed = capsys.readouterr().err.splitlines()
    assert sentence in printed[-1]
    assert not (tmp_path / "cv" / "fits").exists()


@pytest.mark.slow
def test_a_region_without_objects_is_named_before_and_after(tmp_path, capsys):
    project = write_project(tmp_path, labels={"Lena": 0})
    assert run(project, tmp_path / "cv", *SHORT) == 0
    printed = capsys.readouterr()
    assert "nothing is labelled as an object in Lena: held out, it shows false alarms only" in printed.err
    assert "Nothing is labelled as an object in Lena" in printed.out
    result = pd.read_csv(tmp_path / "cv" / "report" / "tables" / "result.csv").set_index("fold")
    assert result["validation"].notna().all()  # it never chooses
    assert math.isnan(result.loc["Lena", "recall"])


@pytest.mark.slow
def test_a_region_without_tiles_is_named(tmp_path, capsys):
    """A scene of which nothing is labelled gives no tile."""
    project = write_project(tmp_path, labels={"Lena": 255})
    assert run(project, tmp_path / "cv", *SHORT) == 0
    assert "region Lena has scenes but no tile" in capsys.readouterr().err
    assert set(tidy(tmp_path / "cv")["fold"]) == set(REGIONS) - {"Lena"}


# The report, against slow obvious sums


def held_out_ious(out, phase):
    """(fold, configuration, seed) to the IoU of every epoch of a phase where it was held out."""
    table = tidy(out)
    chosen = table[(table["split"] == "test") & (table["metric"] == "iou") & (table["phase"] == phase)]
    found = {}
    for row in chosen.itertuples():
        found.setdefault((row.fold, row.configuration, row.seed), []).append((row.value, row.epoch))
    return found


@pytest.mark.slow
def test_table_5_has_the_first_fifth_and_tenth_best_epoch(done):
    table = pd.read_csv(done / "report" / "tables" / "table5.csv")
    assert list(table["fold"]) == sorted(REGIONS)
    ious, numbers = held_out_ious(done, "sparse"), tidy(done).set_index(TIDY[:-1])["value"]
    for row in table.itertuples():
        mine = {name: sorted(values, reverse=True) for name, values in ious.items() if name[0] == row.fold}
        name, best = max(mine.items(), key=lambda one: one[1][0][0])
        assert row.configuration == name[1]
        np.testing.assert_allclose([row.iou1, row.iou5, row.iou10], [best[rank][0] for rank in (0, 4, 9)], rtol=1e-5)
        for metric in ("precision", "recall", "f1"):
            there = numbers.loc[(*name, "sparse", row.epoch, "test", metric)]
            assert getattr(row, metric) == pytest.approx(there, rel=1e-5)


def slow_counts(fit, threshold):
    """Pixels by prediction and label, hundredth by hundredth."""
    above = [step / 100 > threshold for step in range(101)]
    return [
        sum(pixels for pixels, counted in zip(fit[label], above, strict=True) if counted is wanted)
        for label, wanted in (("positive", True), ("negative", True), ("positive", False))
    ]


@pytest.mark.slow
def test_the_result_is_what_inner_folds_chose_and_nothing_else(done):
    fits = pd.read_parquet(done / "fits.parquet").to_dict("records")
    checked = tidy(done).set_index(TIDY[:-1])["value"]
    table = pd.read_csv(done / "report" / "tables" / "result.csv").set_index("fold")
    for region in REGIONS:
        mine = [fit for fit in fits if fit["fold"] == region]
        reached = []
        for fit in mine:
            place = (*(fit[key] for key in KEYS), fit["phase"], fit["epoch"], "validation", "iou_at_threshold")
            bundle = json.loads((done / fit["folder"] / "bundle.json").read_text())
            assert fit["threshold"] == pytest.approx(bundle["thresholds"]["validation"])
            reached.append(checked.loc[place])
        best = mine[int(np.argmax(reached))]
        tp, fp, fn = slow_counts(best, best["threshold"])
        row = table.loc[region]
        assert row["configuration"] == best["configuration"]
        assert [row["tp"], row["fp"], row["fn"]] == [tp, fp, fn]
        np.testing.assert_allclose(row["iou"], tp / (tp + fp + fn), rtol=1e-5)


def test_what_did_best_where_it_was_held_out_is_not_what_is_chosen():
    rows = [("a", "x", 0.9, 0.1), ("a", "y", 0.2, 0.3), ("b", "x", 0.1, 0.5), ("b", "y", 0.6, math.nan)]
    scored = pd.DataFrame(rows, columns=["fold", "configuration", "iou", "validation"]).assign(choice="chosen")
    assert list(analysis.nested(scored)["iou"]) == [0.2, 0.1]
    unknown = scored.assign(validation=math.nan)
    assert analysis.nested(unknown).empty  # nothing could choose among several
    assert list(analysis.nested(unknown[unknown["configuration"] == "x"])["iou"]) == [0.9, 0.1]


@pytest.mark.slow
def test_configurations_add_counts_and_average_folds(done):
    fits = pd.read_parquet(done / "fits.parquet").to_dict("records")
    table = pd.read_csv(done / "report" / "tables" / "configurations.csv").set_index("configuration")
    regions = pd.read_csv(done / "report" / "tables" / "regions.csv").set_index("configuration")
    for name, row in table.iterrows():
        counted = {fit["fold"]: slow_counts(fit, fit["threshold"]) for fit in fits if fit["configuration"] == name}
        ious = {fold: one[0] / sum(one) for fold, one in counted.items()}
        tp, fp, fn = np.sum(list(counted.values()), axis=0)
        assert row["iou_pooled"] == pytest.approx(tp / (tp + fp + fn), rel=1e-5)
        assert row["iou_mean"] == pytest.approx(np.mean(list(ious.values())), rel=1e-5)
        assert row["iou_std"] == pytest.approx(np.std(list(ious.values())), rel=1e-4)
        assert regions.loc[name].to_dict() == pytest.approx(ious, rel=1e-5)
    assert list(table["iou_pooled"]) == sorted(table["iou_pooled"], reverse=True)


@pytest.mark.slow
def test_choosing_in_hindsight_never_does_worse(done):
    scored = pd.read_parquet(done / "report" / "scores.parquet").pivot_table(index=KEYS, columns="choice", values="iou")
    assert (scored["oracle"] >= scored[["chosen", "half"]].max(axis=1)).all()
    assert (scored["paper"] >= scored["half"] - 1e-6).all()
    ious = [held_out_ious(done, phase) for phase in ("sparse", "full")]
    for name, iou in scored["paper"].items():
        assert iou == pytest.approx(max(value for phase in ious for value, _ in phase[name]), rel=1e-5)


@pytest.mark.slow
def test_phases_are_averaged_at_their_own_best_epochs(done):
    table = pd.read_csv(done / "report" / "tables" / "phases.csv").set_index(["fold", "phase"])
    wide = tidy(done).pivot_table(index=[*KEYS, "phase", "epoch"], columns=["split", "metric"], values="value")
    for (fold, phase), row in table.iterrows():
        own, hindsight = [], []
        for name in ("focal", "dice"):
            part = wide.loc[fold, name, 0, phase]
            best = part["validation", "iou_at_threshold"][::-1].idxmax()  # the later among equals, as in training
            own.append(part.loc[best, ("test", "iou")])
            hindsight.append(part["test", "iou"].max())
        assert row["iou"] == pytest.approx(np.mean(own), rel=1e-5)
        assert row["iou_paper"] == pytest.approx(np.mean(hindsight), rel=1e-5)


def cross_validation(fits, *, keys=("model.architecture",), epochs=None):
    """A cross-validation of numbers made up."""
    columns = [*KEYS, "phase", "epoch", "split", "seconds"]
    return analysis.Crossval(
        project="made up", keys=keys, inner=1, fits=fits, missing=(),
        epochs=pd.DataFrame(columns=columns) if epochs is None else epochs,
    )  # fmt: skip


def test_time_and_memory_are_relative_to_a_u_net_with_all_else_the_same():
    rows = [
        (fold, architecture, encoder, factor * depth * machine)
        for fold, machine in (("a", 1.0), ("b", 3.0))  # one machine is slower than the other
        for architecture, factor in (("UNet", 1.0), ("unetplusplus", 1.6), ("deeplabv3", 2.3))
        for encoder, depth in (("resnet34", 1.0), ("resnet50", 1.5))
    ]
    fits = pd.DataFrame(
        {
            "fold": fold, "configuration": f"{architecture} {encoder}", "seed": 0, "model.architecture": architecture,
            "model.encoder": encoder, "peak_memory_mb": 100 * cost, "device": "cpu",
        }
        for fold, architecture, encoder, cost in rows
    )  # fmt: skip
    epochs = pd.DataFrame(
        {
            "fold": fold, "configuration": f"{architecture} {encoder}", "seed": 0, "phase": "sparse", "epoch": epoch,
            "split": "train", "seconds": cost * slow,
        }
        for fold, architecture, encoder, cost in rows
        for epoch, slow in ((1, 40.0), (2, 1.0), (3, 1.0))  # the first is slow, as it often is
    )  # fmt: skip
    cv = cross_validation(fits, keys=("model.architecture", "model.encoder"), epochs=epochs)
    found = analysis.training_cost(cv, by="model.architecture").set_index("model.architecture")
    for name, ratio in (("UNet", 1.0), ("unetplusplus", 1.6), ("deeplabv3", 2.3)):
        assert found.loc[name, "epoch_s_ratio"] == pytest.approx(ratio)
        assert found.loc[name, "peak_memory_mb_ratio"] == pytest.approx(ratio)
    each = analysis.training_cost(cv).set_index("configuration")
    assert each.loc["deeplabv3 resnet50", "epoch_s"] == pytest.approx(2.3 * 1.5 * 2)


def made_up(counts):
    """Scores of trainings with these counts: (fold, architecture) to tp, fp, fn."""
    rows = [
        {
            "fold": fold, "configuration": name, "seed": 0, "model.architecture": name, "choice": "chosen",
            "tp": tp, "fp": fp, "fn": fn, "tn": 0, "iou": tp / (tp + fp + fn),
        }
        for (fold, name), (tp, fp, fn) in counts.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def drawn(rng, folds, *, better=0.0):
    """Counts of two architectures in many folds, of which one is better by ``better`` on average."""
    counts = {}
    for fold in range(folds):
        base = rng.uniform(0.2, 0.5)
        for name, iou in (("unet", base), ("other", base + better + rng.normal(0, 0.08))):
            tp = round(1000 * min(max(iou, 0.01), 0.99))
            counts[f"fold {fold:02}", name] = (tp, (1000 - tp) // 2, 1000 - tp - (1000 - tp) // 2)
    return counts


def test_the_interval_of_paired_differences_is_scipys():
    counts = drawn(np.random.default_rng(1), 9, better=0.05)
    compared = analysis.compare(cross_validation(None), made_up(counts)).iloc[0]
    assert (compared["a"], compared["b"], compared["folds"]) == ("other", "unet", 9)
    folds = sorted({fold for fold, _ in counts})
    sides = [np.array([counts[fold, name] for fold in folds], float) for name in ("other", "unet")]
    difference = sides[0][:, 0] / 1000 - sides[1][:, 0] / 1000
    assert compared["mean"] == pytest.approx(difference.mean())
    assert (compared["better"], compared["worse"]) == ((difference > 0).sum(), (difference < 0).sum())
    about = {"method": "percentile", "n_resamples": 20_000, "rng": np.random.default_rng(0), "vectorized": False}
    oracle = bootstrap((difference,), np.mean, **about).confidence_interval
    np.testing.assert_allclose([compared["mean_low"], compared["mean_high"]], [oracle.low, oracle.high], atol=0.004)

    def pooled(chosen):
        first, second = (side[chosen.astype(int)].sum(0) for side in sides)
        return first[0] / first.sum() - second[0] / second.sum()

    oracle = bootstrap((np.arange(9),), pooled, **(about | {"n_resamples": 5000})).confidence_interval
    np.testing.assert_allclose([compared["pooled_low"], compared["pooled_high"]], [oracle.low, oracle.high], atol=0.006)
    assert compared["pooled"] == pytest.approx(pooled(np.arange(9)))


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(analysis, "RESAMPLES", 500)
    rng, held = np.random.default_rng(3), 0
    for _ in range(100):
        compared = analysis.compare(cross_validation(None), made_up(drawn(rng, 20, better=0.05))).iloc[0]
        held += compared["mean_low"] <= 0.05 <= compared["mean_high"]
    assert 85 <= held <= 99


def test_pairs_need_both_sides_and_a_single_fold_has_no_interval():
    counts = {("a", "unet"): (1, 1, 0), ("a", "other"): (1, 0, 0), ("b", "unet"): (1, 0, 0)}
    compared = analysis.compare(cross_validation(None), made_up(counts)).iloc[0]
    assert (compared["folds"], compared["mean"]) == (1, 0.5)
    assert math.isnan(compared["mean_low"])
    assert math.isnan(compared["pooled_high"])


def test_curves_have_a_row_for_each_training_and_a_hole_where_an_epoch_is_missing():
    rows = [("a", "x", 0, 1, 0.1), ("a", "x", 0, 2, 0.3), ("b", "x", 0, 2, 0.5), ("a", "y", 0, 3, 0.9)]
    frame = pd.DataFrame(rows, columns=[*KEYS, "epoch", "iou"])
    found = draw.curves(frame, "configuration", ["x", "y", "z"])
    assert set(found) == {"x", "y"}
    np.testing.assert_array_equal(found["x"], [[0.1, 0.3, np.nan], [np.nan, 0.5, np.nan]])


def test_a_figure_draws_mean_and_spread_by_epoch_and_sorted():
    values = np.array([[0.1, 0.5, 0.3, 0.9], [0.2, 0.2, 0.7, np.nan]])
    figure = draw.by_epoch_and_rank({"x": values}, begins={"sparse": 1, "full": 4}, sorted_until=3)
    left, right = (axes.get_lines()[0].get_ydata() for axes in figure.axes)
    np.testing.assert_allclose(left, [0.15, 0.35, 0.5, 0.9])
    np.testing.assert_allclose(right, [(0.5 + 0.7) / 2, (0.3 + 0.2) / 2, (0.1 + 0.2) / 2])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.9)  # a single training has no spread
    assert pytest.approx(sorted({round(y, 9) for x, y in band if x == 1})) == [0.15 - 0.05, 0.15 + 0.05]


@pytest.mark.slow
def test_a_paper_finds_its_files(done):
    report = done / "report"
    page = (report / "index.html").read_text()
    tables = {path.stem for path in (report / "tables").glob("*.csv")}
    figures = {path.stem for path in (report / "figures").iterdir()}
    assert {
        "result",
        "decided",
        "sizes",
        "table5",
        "configurations",
        "regions",
        "comparison",
        "phases",
        "compute",
    } == tables
    assert {"choices", "region", "loss", "phases", "differences"} == figures
    for name in tables:
        assert f'href="tables/{name}.csv"' in page
        latex = (report / "tables" / f"{name}.tex").read_text()
        assert f"\\label{{tab:{name}}}" in latex
        heads = next(line for line in latex.splitlines() if line.endswith("\\\\"))
        rows = latex[latex.index("\\midrule") : latex.index("\\bottomrule")].strip().splitlines()[1:]
        assert len(rows) == len(pd.read_csv(report / "tables" / f"{name}.csv"))
        assert {line.count(" & ") for line in rows} == {heads.count(" & ")}
        assert not [part for part in latex.split("%")[:-1] if not part.endswith("\\")]
    for name in figures:
        assert (report / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert f'href="figures/{name}.pdf"' in page
    assert page.count("<img") == len(figures)
    assert "http" not in page.split("<body>")[1]
    assert "paper&#39;s Figure 4" in page


@pytest.mark.slow
def test_without_inner_folds_the_last_epoch_counts_and_nothing_chooses(project, tmp_path, capsys):
    assert run(project, tmp_path / "cv", *SMALL, "crossval.inner=0", "training.phases=[{name: all, epochs: 3}]") == 0
    printed = capsys.readouterr().out
    assert "No fold chose epoch and threshold: the last epoch counts, at a threshold of 0.5." in printed
    fits = pd.read_parquet(tmp_path / "cv" / "fits.parquet")
    assert (fits["epoch"] == 3).all()
    assert (fits["threshold"] == 0.5).all()
    assert all(not len(names) for names in fits["validation"])
    assert set(tidy(tmp_path / "cv")["split"]) == {"train", "test"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of memory")
def test_memory_is_what_a_training_took_whoever_was_before_it():
    code = """
import numpy as np, torch
from thawmap.train.experiments import crossval
device = torch.device("cpu")
for size_mb in (40, 240, 40):
    held = crossval._reset_peak_memory(device)
    parts = [np.ones(2**18) for _ in range(size_mb // 2)]
    del parts
    print((crossval._peak_memory(device) - held) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], [40, 240, 40], atol=25)


# The paper's experiment

NITZE = Path(__file__).parents[3] / "examples" / "nitze2021.yaml"


def test_the_papers_experiment_has_the_papers_numbers(capsys):
    assert thawmap(["config", str(NITZE)]) == 0
    config = parse(NITZE.read_text(), name="nitze2021", folder=NITZE.parent)
    assert yaml.safe_load(capsys.readouterr().out) == config.as_json()
    regions = ("Banks_Island", "Herschel", "Horton", "Kolguev", "Lena", "Tuktoyaktuk")
    index = pd.DataFrame({"scene": regions, "region": regions, "positive_pixels": 1})
    planned = crossval.plan_fits(config, index)
    assert len(planned) == 54
    assert {fit.setting.name for fit in planned} == {
        f"{architecture} {encoder}"
        for architecture in ("unet", "unetplusplus", "deeplabv3")
        for encoder in ("resnet34", "resnet50", "resnet101")
    }
    assert all(len(fit.fold.test) == 1 and not fit.fold.validation for fit in planned)
    training, optimiser = config.training, config.training.optimiser
    assert [(phase.tiles, phase.epochs) for phase in training.phases] == [("positive", 100), ("all", 20)]
    assert (training.batch_size, config.tiles.size, config.tiles.overlap) == (6, 256, 25)
    assert (optimiser.name, optimiser.lr, optimiser.betas, optimiser.eps) == ("adam", 0.001, (0.9, 0.999), 1e-8)
    assert [one.name for one in training.loss] == ["focal"]
    assert (config.augment.flip, config.augment.rotate90, config.augment.blur) == (0.5, 0.5, 0.5)
    assert len(config.input_layers) == 9
    assert (config.inference.tile, config.inference.overlap, config.polygons.threshold) == (1024, 128, 0.5)
    assert config.model.weights is None


@pytest.mark.slow
def test_every_network_and_every_fold_of_the_paper_takes_a_step_on_a_small_arctic(tmp_path):
    """The file itself, with fewer epochs and smaller tiles; each network takes a step, and each region is held out."""
    arctic = tmp_path / "arctic"
    assert thawmap(["simulate", str(arctic), "--regions", "6", "--scenes", "1", "--size", "128"]) == 0
    labels = str(next(arctic.glob("labels*.gpkg")))
    places = {
        "scenes.path": str(arctic / "scenes"),
        "sources": {
            "elevation": {"path": str(arctic / "aux" / "arcticdem")},
            "trends": {"path": str(arctic / "aux" / "tcvis")},
        },
        "labels": {"path": labels, "scene": "image_id", "region": "region", "target": "label"},
        "tiles": {"size": 64, "overlap": 0},
        "training.phases": [{"name": "sparse", "epochs": 1, "tiles": "positive"}],
        "training.device": "cpu",
    }
    sets = [f"{key}={json.dumps(value)}" for key, value in places.items()]
    config, out = load(NITZE, overrides=sets), tmp_path / "cv"
    tiles(crossval.tiling_config(config), out / "tiles")
    store = one_tile_each(TileStore.open(out / "tiles"))
    write_plan(out / crossval.PLAN, config, store.identity)
    planned = crossval.plan_fits(config, store.index)
    scenes = store.index[["scene", "region", "geometry"]]
    assert len(planned) == 54
    chosen = planned[::5]
    assert {fit.setting.name for fit in chosen} == {fit.setting.name for fit in planned}
    assert {fit.fold.name for fit in chosen} == {fit.fold.name for fit in planned}
    for fit in chosen:
        crossval.run_fit(fit, config=config, store=store.path, scenes=scenes, out=out)
        (out / fit.folder / "weights.safetensors").unlink()
    crossval.write_tables(out, planned)
    crossval_report(out)
    table = tidy(out)
    assert len(table[(table["metric"] == "loss") & (table["split"] == "train")]) == len(chosen)
    assert len(pd.read_csv(out / "report" / "tables" / "compute.csv")) == 9
    assert len(pd.read_csv(out / "report" / "tables" / "compute_architectures.csv")) == 3
    assert {"region", "architecture", "encoder"} <= {path.stem for path in (out / "report" / "figures").iterdir()}


def one_tile_each(store):
    """The store, with the tile of each region that has the most of its objects."""
    index = store.index.sort_values("positive_pixels", ascending=False).drop_duplicates("region").sort_index()
    assert len(index) == 6
    assert (index["positive_pixels"] > 0).all()
    index.to_parquet(store.path / "index.parquet")
    return TileStore.open(store.path)
