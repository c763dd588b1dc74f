"""Tuning through the command line: what is tried, what is given up, killed anywhere, and what is refused."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import yaml
from rasterio.transform import from_origin

from thawmap.cli import _run as thawmap
from thawmap.config import load
from thawmap.errors import ConfigError
from thawmap.model.bundle_folder import load as load_bundle
from thawmap.train.experiments import tune
from thawmap.train.experiments.folder import alone
from thawmap.train.experiments.trials import Trial, best_trial, read_trials

pytestmark = pytest.mark.slow

pytest.importorskip("optuna", reason="optuna is not installed; pip install 'thawmap[tune]'")
torch.set_num_threads(1)

RANDOM, AFTER, EPOCHS, TRIALS = 2, 1, 3, 6
YAML = f"""
scenes:
  kind: rasters
  path: "scenes/*"
  files: {{image.tif: {{red: {{band: 1, scale: 0.0001}}, nir: {{band: 2, scale: 0.0001}}}}}}
layers: [red, nir]
labels: {{raster: mask.tif}}
tiles: {{size: 32, overlap: 8}}
model: {{architecture: pixel}}
training: {{device: cpu, phases: [{{name: all, epochs: {EPOCHS}}}]}}
split: {{by: scene, validation: [Yamal], test: [Horton]}}
tune:
  keys:
    training.optimiser.lr: {{low: 1e-4, high: 1, log: true}}
    training.loss: [focal, {{name: tversky, alpha: 0.3}}]
    training.batch_size: {{low: 2, high: 6, step: 2}}
    layers: [[red, nir], [red, nir, ndvi]]
  trials: {TRIALS}
  random: {RANDOM}
  prune_after: {AFTER}
"""


def make_project(folder, *, barren=(), test_labels=1):
    """A YAML with three regions of one scene each, an object where NIR is twice red; barren ones have none."""
    rng = np.random.default_rng(0)
    for place, region in enumerate(("Lena", "Horton", "Yamal")):
        scene = folder / "scenes" / region
        scene.mkdir(parents=True)
        bands = rng.integers(200, 4000, (2, 48, 48)).astype(np.uint16)
        mask = (bands[1] > 2 * bands[0]).astype(np.uint8) * (region not in barren)
        mask = mask if region != "Horton" else mask * test_labels
        about = {"driver": "GTiff", "width": 48, "height": 48, "crs": "EPSG:32640"}
        grid = from_origin(500_000 + place * 50_000, 7_800_000, 10, 10)
        for name, values in (("image.tif", bands), ("mask.tif", mask[None])):
            with rasterio.open(
                scene / name, "w", count=len(values), dtype=values.dtype, transform=grid, **about
            ) as file:
                file.write(values)
    path = folder / "thawmap.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def unbroken(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "tune"
    assert thawmap(["tune", str(project), "--out", str(out)]) == 0
    return out


def table_of(out):
    return pd.read_csv(out / "trials.csv").drop(columns="seconds")


def scores_of(out, number):
    log = pd.read_csv(out / "trials" / f"{number:04d}" / "metrics.csv")
    assert set(log["split"]) == {"train", "validation"}, "no test tile is looked at"
    return log.loc[log["split"] == "validation", "iou_at_threshold"].tolist()


def same(one, other):
    """Whether two tunings gave the same, bit by bit."""
    pd.testing.assert_frame_equal(table_of(one), table_of(other), check_exact=True)
    assert (one / "best.yaml").read_bytes() == (other / "best.yaml").read_bytes()
    bundles = [[load_bundle(path.parent).id for path in sorted(out.rglob("bundle.json"))] for out in (one, other)]
    assert bundles[0] == bundles[1]
    assert [path.relative_to(one) for path in sorted((one / "trials").rglob("*"))] == [
        path.relative_to(other) for path in sorted((other / "trials").rglob("*"))
    ]
    return True


# what comes out


def test_the_best_is_the_trial_with_the_highest_validation_score(unbroken):
    table = table_of(unbroken)
    assert table["trial"].tolist() == list(range(TRIALS))
    for row in table.to_dict("records"):
        scores = scores_of(unbroken, row["trial"])
        assert row["validation_iou"] == max(scores)
        assert row["epochs"] == len(scores)
        assert scores[row["epoch"] - 1] == max(scores)
    finished = table[table["state"] == "finished"]
    chosen = finished.loc[finished["validation_iou"].idxmax()]
    assert (unbroken / "trials" / f"{chosen['trial']:04d}" / "bundle.json").exists()
    assert len(list((unbroken / "trials").glob("*/weights.safetensors"))) == 1, "of the others only numbers are kept"
    resolved = load(unbroken / "best.yaml")
    assert f"{resolved.training.optimiser.lr:.4g}" == f"{chosen['training.optimiser.lr']:.4g}"
    assert resolved.training.batch_size == chosen["training.batch_size"]
    assert str(list(resolved.layers)).replace("'", "") == chosen["layers"]
    assert f"validation IoU {chosen['validation_iou']:.4f}" in (unbroken / "best.yaml").read_text()
    assert "tune" not in yaml.safe_load((unbroken / "best.yaml").read_text())


def test_values_are_within_what_was_asked_for(unbroken):
    table = table_of(unbroken)
    assert table["training.optimiser.lr"].between(1e-4, 1).all()
    assert set(table["training.batch_size"]) <= {2, 4, 6}
    assert set(table["training.loss"]) <= {"focal", "{name: tversky, alpha: 0.3}"}
    assert table["training.optimiser.lr"].nunique() == TRIALS


@pytest.mark.slow
def test_the_answer_trains_to_the_score_that_it_promises(unbroken, tmp_path):
    assert thawmap(["train", str(unbroken / "best.yaml"), "--out", str(tmp_path / "model")]) == 0
    promised = best_trial(read_trials(unbroken))
    log = pd.read_csv(tmp_path / "model" / "metrics.csv").drop(columns="seconds")
    known = pd.read_csv(unbroken / promised.folder / "metrics.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(log, known, check_exact=True)
    assert load_bundle(tmp_path / "model").threshold == load_bundle(unbroken / promised.folder).threshold


def test_the_hopeless_are_given_up_and_no_others(unbroken):
    """The rule, slowly: worse at its best than the median of the finished ones before it at the same epoch."""
    table = table_of(unbroken).set_index("trial")
    for number, state in table["state"].items():
        before = [one for one in range(number) if table.loc[one, "state"] == "finished"]
        scores = scores_of(unbroken, number)
        hopeless = [
            epoch
            for epoch in range(AFTER, len(scores) + 1)
            if len(before) >= RANDOM
            and epoch < EPOCHS
            and max(scores[:epoch]) < np.median([scores_of(unbroken, one)[epoch - 1] for one in before])
        ]
        assert hopeless == ([len(scores)] if state == "pruned" else [])
        assert len(scores) == EPOCHS or state == "pruned"
    assert set(table["state"]) == {"finished", "pruned"}


@pytest.mark.slow
def test_it_says_what_it_does(project, unbroken, capsys):
    assert thawmap(["tune", str(project), "--out", str(unbroken), "--resume"]) == 0
    said = capsys.readouterr()
    assert f"best of {TRIALS} trials" in said.out
    assert f"next: thawmap train {unbroken / 'best.yaml'}" in said.out
    assert "epoch 1 of" not in said.err, "nothing is trained again"
    with (unbroken / "trials.png").open("rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_what_is_labelled_in_the_test_part_changes_nothing(unbroken, tmp_path):
    other = make_project(tmp_path, test_labels=0)
    assert thawmap(["tune", str(other), "--out", str(tmp_path / "tune"), "--trials", "2"]) == 0
    pd.testing.assert_frame_equal(table_of(tmp_path / "tune"), table_of(unbroken).head(2), check_exact=True)


# interruptions

KILLED = """
    import sys
    import optuna, torch
    from killing import killed_again_and_again
    from thawmap.cli import _run
    from thawmap.pipeline import tune as _
    from thawmap.report import tuning as _
    from thawmap.train.experiments import tune as _

    torch.set_num_threads(1)
    # within tiles, trials, epochs and bundles
    statuses = killed_again_and_again(lambda: _run(["tune", *sys.argv[1:], "--resume"]), (4, 9, 14, 26, 0, 10_000))
    print(statuses, file=sys.__stdout__)
"""


@pytest.mark.slow
def test_tuning_killed_again_and_again_gives_the_same(project, unbroken, tmp_path):
    out = tmp_path / "tune"
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(project), "--out", str(out)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2] / "support")
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses[-1] == 0
    assert statuses.count(signal.SIGKILL) == len(statuses) - 1 == 5
    assert same(unbroken, out)


@pytest.mark.slow
def test_more_trials_may_be_added_to_the_same_answer(project, unbroken, tmp_path, capsys):
    out = tmp_path / "tune"
    assert thawmap(["tune", str(project), "--out", str(out), "--trials", "3"]) == 0
    assert thawmap(["tune", str(project), "--out", str(out)]) == 2
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert thawmap(["tune", str(project), "--out", str(out), "--resume"]) == 0
    assert same(unbroken, out)


def test_another_yaml_is_refused_by_its_keys(project, unbroken, capsys):
    words = ["tune", str(project), "--out", str(unbroken), "--resume"]
    assert thawmap([*words, "--set", "tune.seed=1", "--set", "augment.blur=0"]) == 2
    assert "holds a tuning with other augment.blur and tune.seed; set it back" in capsys.readouterr().err
    ends = "tune.keys={training.optimiser.lr: {low: 1e-4, high: 0.5, log: true}}"
    assert thawmap([*words, "--set", ends]) == 2
    assert "other tune.keys.training.optimiser.lr.high and tune.keys.training.loss" in capsys.readouterr().err


def test_two_at_once_are_refused(project, unbroken, capsys):
    with alone(unbroken, "tuning"):
        assert thawmap(["tune", str(project), "--out", str(unbroken), "--resume"]) == 2
    assert "another tuning runs in" in capsys.readouterr().err


def test_a_damaged_trial_is_named(project, unbroken, capsys):
    path = unbroken / "trials" / "0000" / "trial.json"
    whole = path.read_text()
    try:
        path.write_text(whole[:40])
        assert thawmap(["tune", str(project), "--out", str(unbroken), "--resume"]) == 2
        assert f"{path} is damaged; remove the folder {path.parent}" in capsys.readouterr().err
    finally:
        path.write_text(whole)


@pytest.mark.slow
def test_a_trial_that_fails_costs_one_trial_and_is_tried_again(project, tmp_path, capsys):
    out = tmp_path / "tune"
    keys = "tune.keys={training.optimiser.lr: [0.01, 1.0e+35, 0.1]}"
    beyond = "training.loss={name: bce, weight: 1.0e+6}"  # which makes that more than float32 holds, in every kernel
    words = ["tune", str(project), "--out", str(out), "--trials", "3", "--set", keys, "--set", beyond]
    assert thawmap(words) == 1
    table, said = table_of(out), capsys.readouterr()
    failed = table[table["state"] == "failed"]
    assert failed["training.optimiser.lr"].astype(float).tolist() == [1e35]
    assert failed["reason"].str.startswith("the loss is ").all()
    assert f"trial {failed['trial'].iloc[0]} failed: the loss is " in said.err
    assert "1 failed, 2 done" in said.err
    assert thawmap([*words, "--resume"]) == 1
    pd.testing.assert_frame_equal(table_of(out), table)


# bad input


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("tune.keys={training.optimiser.rate: [1]}", "unknown key 'training.optimiser.rate'; known here: name, lr"),
        ("tune.keys={training.optimiser.lr: {low: -1, high: 1}}", "'training.optimiser.lr' is -1"),
        ("tune.keys={model.encoder: {low: 1, high: 3}}", 'model.encoder, which is "resnet34" and no number; list'),
        ("tune.keys={training.phases: {low: 1, high: 3}}", "training.phases, which is [{"),
        ("tune.keys={training.optimiser.lr: {low: 0.1, high: 0.01}}", "'low' must be below 'high'"),
        ("tune.keys={training.optimiser.lr: {low: 0, high: 1, log: true}}", "needs a 'low' above 0"),
        ("tune.keys={training.optimiser.lr: {low: 1, high: 2, step: 3}}", "'step' is 3; it must fit between 1 and 2"),
        ("tune.keys={training.optimiser.lr: 0.1}", "must be a range such as {low: 1, high: 8}, or a list"),
        ("tune.keys={training.optimiser.lr: []}", "must be a range such as {low: 1, high: 8}, or a list"),
        ("tune.keys={training.loss: [focal, foccal]}", "'training.loss' is 'foccal'"),
        ("tune.keys={training.loss: [focal, focal]}", "lists a value of 'training.loss' twice"),
        ("tune.keys={tiles.size: [64]}", "'keys' cannot vary 'tiles.size'"),
        ("tune.keys={training.seed: [1, 2]}", "'keys' cannot vary 'training.seed'"),
        ("tune.keys={training.optimiser: [{lr: 1}], training.optimiser.lr: [2]}", "which is a part of it; keep one"),
        ("tune.keys={model: [{architecture: unet, encoder: resnet43}]}", "did you mean 'resnet34'"),
        ("tune.keys={}", "'tune.keys' names nothing to search"),
        ("split.validation=[]", "'split.validation' names nothing"),
        ("split.validation=[Atlantis]", "names the scene 'Atlantis'"),
    ],
)
def test_what_cannot_be_searched_is_refused(project, tmp_path, capsys, settings, said):
    assert thawmap(["tune", str(project), "--out", str(tmp_path / "tune"), "--set", settings]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("thawmap: ")
    assert said in error
    assert not (tmp_path / "tune" / "trials").exists()


@pytest.mark.slow
def test_a_validation_without_objects_is_refused(tmp_path, capsys):
    path = make_project(tmp_path, barren=["Yamal"])
    assert thawmap(["tune", str(path), "--out", str(tmp_path / "tune")]) == 2
    assert "no object is labelled in the validation part" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(project, tmp_path, capsys):
    words = ["tune", str(project), "--out", str(tmp_path / "tune"), "--dry-run", "--trials", "7"]
    assert thawmap(words) == 0
    assert f"would train 7 times, up to {EPOCHS} epochs each" in capsys.readouterr().out
    assert not (tmp_path / "tune").exists()


def test_without_optuna_it_says_what_to_install(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "find_spec", lambda _: None)
    assert thawmap(["tune", str(project), "--out", str(tmp_path)]) == 2
    assert "pip install 'thawmap[tune]'" in capsys.readouterr().err


# the parts


def test_nothing_is_tried_twice_as_long_as_there_is_something_else(project):
    config = load(project, overrides=["tune.keys={model.encoder: [a, b, c], training.batch_size: {low: 1, high: 3}}"])
    known = []
    for number in range(9):
        values = tune.propose_trial(config, number, known).params
        known.append(Trial(number=number, values=values, state="finished", scores=(0.1 * number,)))
    assert len({tuple(one.values.items()) for one in known}) == 9


def test_whole_numbers_stay_whole_and_unset_ones_follow_the_ends(project):
    keys = "{training.batch_size: {low: 2, high: 9}, training.stop_after: {low: 1, high: 4}, training.clip_norm: {low: 0.5, high: 4}}"  # noqa: E501
    found = tune.search_space(load(project, overrides=[f"tune.keys={keys}"]))
    kinds = {key: type(one).__name__ for key, one in found.items()}
    assert list(kinds.values()) == ["IntDistribution", "IntDistribution", "FloatDistribution"]
    assert list(tune.search_space(load(project)).keys()) == list(load(project).tune.keys)


def test_the_best_of_equals_is_the_first_and_pruned_ones_are_never_the_best():
    def made(number, score, state="finished"):
        return Trial(number=number, values={}, state=state, scores=(0.1, score, score))

    ended = [made(0, 0.2), made(1, 0.4), made(2, 0.4), made(3, 0.9, "pruned"), made(4, 0.9, "failed")]
    assert best_trial(ended).number == 1
    assert made(0, 0.2).epoch == 3
    assert best_trial([made(0, 0.2, "pruned")]) is None


def test_values_that_do_not_go_together_are_said(project):
    trial = Trial(number=0, values={"training.optimiser.name": '"sgd"', "training.optimiser.eps": 0.1})
    with pytest.raises(ConfigError, match="'eps' is no setting of sgd"):
        trial.apply(load(project))
