"""Several processes share a training: the same batches, the same steps, counts that add, one that writes."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toy_training import configuration, make_project, make_store, run

from thawmap.config import TrainingSettings
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.bundle_folder import load
from thawmap.train.devices import fabric_of

torch.set_num_threads(1)

ALIKE = (  # nothing that depends on who draws it
    "training.precision=float32",
    "training.batch_size=4",
    "training.phases=[{name: a, epochs: 3, tiles: positive}, {name: b, epochs: 2, tiles: mined}]",
    "augment={flip: 0, rotate90: 0, blur: 0}",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("tiles"), configuration(), across=4, silent=[1], barren=[2])


def log_of(out):
    return pd.read_csv(out / "metrics.csv").drop(columns="seconds")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(store, tmp_path):
    lines = {1: [], 2: []}
    for number, messages in lines.items():
        chosen = (*ALIKE, f"training.devices={number}", "training.ema=0.5")
        run(store, tmp_path / str(number), *chosen, report=messages.append)
    words = {number: [re.sub(r"\d+\.\d+", "#", line) for line in messages] for number, messages in lines.items()}
    assert words[1] == words[2]  # the numbers, which may differ in their last digit, are compared below
    pd.testing.assert_frame_equal(log_of(tmp_path / "1"), log_of(tmp_path / "2"), rtol=1e-4)
    single, shared = (load_file(tmp_path / number / "weights.safetensors") for number in "12")
    for name in single:
        torch.testing.assert_close(single[name], shared[name], rtol=1e-4, atol=1e-5)
    assert {path.name for path in (tmp_path / "1").iterdir()} == {path.name for path in (tmp_path / "2").iterdir()}


class Stopped(BaseException):
    """What nobody catches."""


@pytest.mark.slow
def test_processes_end_with_who_listens_and_go_on_to_the_same(store, tmp_path):
    """Batch norm sees other tiles in each process; its means are shared, so all of them go on alike."""
    chosen = ("model.architecture=pspnet", "training.devices=2", "training.phases=[{name: a, epochs: 2, lr: 0.001}]")

    def stop(line):
        if line.startswith("phase"):
            raise Stopped

    with pytest.raises(Stopped):
        run(store, tmp_path / "broken", *chosen, report=stop)
    run(store, tmp_path / "broken", *chosen, resume=True)
    run(store, tmp_path / "unbroken", *chosen)
    assert load(tmp_path / "broken").id == load(tmp_path / "unbroken").id
    pd.testing.assert_frame_equal(log_of(tmp_path / "broken"), log_of(tmp_path / "unbroken"), check_exact=True)


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_said_here(store, tmp_path):
    wild = "{name: wild, epochs: 2, lr: 1.0e+35, loss: {name: bce, weight: 1.0e+6}}"
    phases = f"training.phases=[{{name: calm, epochs: 1}}, {wild}]"
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in phase wild, epoch 1"):
        run(store, tmp_path, phases, "training.devices=2")
    assert load(tmp_path).provenance["from"] == "phase calm, epoch 1"


@pytest.mark.slow
def test_the_command_line_trains_on_two_processes(tmp_path):
    yaml, out = make_project(tmp_path), tmp_path / "model"
    sets = ["training.devices=2", "training.phases=[{name: all, epochs: 1}]"]
    words = [sys.executable, "-m", "thawmap", "train", str(yaml), "--out", str(out), "--set", sets[0], "--set", sets[1]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "phase all, epoch 1 of 1: train loss" in done.stderr
    assert "arning" not in done.stderr
    assert np.isfinite(log_of(out)["loss"]).all()


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="devices is 3 and batch_size 2: each needs a tile"):
        TrainingSettings(devices=3, batch_size=2)
    if torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"training.devices is 64, but this machine has"):
            fabric_of(TrainingSettings(device="cuda", devices=64, batch_size=64))
