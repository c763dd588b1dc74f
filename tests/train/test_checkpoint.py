"""A training that is killed at any moment goes on to the same result (law 8); what else can go wrong with two runs."""

import fcntl
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stopping import stopped
from toy_training import configuration, make_project, make_store, run

from thawmap.cli import _run as thawmap
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.bundle_folder import load
from thawmap.provenance import differences
from thawmap.train.checkpoint import UNFINISHED, claimed, describe_checkpoint

torch.set_num_threads(1)

STATE = "state.safetensors"
CHOSEN = (
    "model.architecture=pspnet",  # with batch norm and dropout; below: all else that has a state
    "training.phases=[{name: a, epochs: 3, tiles: positive}, {name: b, epochs: 2, tiles: mined, sampler: {}}]",
    "training.optimiser={name: adamw, lr: 0.01, weight_decay: 0.01}",
    "training.schedule={name: plateau, patience: 0}",
    "training.ema=0.9",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("tiles"), configuration(), across=3, silent=[1], barren=[2])


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    run(store, out, *CHOSEN)
    return out


def log_of(out):
    return pd.read_csv(out / "metrics.csv").drop(columns="seconds")


def beside(out):
    return out.with_name(f"{out.name}-unbroken")


def same(one, other):
    """Whether two trainings gave the same, bit by bit."""
    for folder in (".", "last"):
        weights, others = (load_file(out / folder / "weights.safetensors") for out in (one, other))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
        assert load(one / folder).id == load(other / folder).id
    pd.testing.assert_frame_equal(log_of(one), log_of(other), check_exact=True)
    assert {path.name for path in one.rglob("*")} == {path.name for path in other.rglob("*")}
    return True


KILLED = """
    import sys
    from pathlib import Path
    import torch
    from killing import killed_again_and_again
    from toy_training import run
    from thawmap.train.tiles.store import TileStore

    torch.set_num_threads(1)
    tiles, out, *chosen = sys.argv[1:]

    def attempt():
        run(TileStore.open(Path(tiles)), Path(out), *chosen, resume=True)

    # within a bundle, between bundles and log, before the state
    print(killed_again_and_again(attempt, (2, 4, 9, 11, 7, 17, 1000)))
"""


@pytest.mark.slow
def test_a_training_killed_again_and_again_gives_the_same(store, tmp_path):
    chosen = CHOSEN[1:]
    run(store, tmp_path / "unbroken", *chosen)
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(store.path), str(tmp_path / "out"), *chosen]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1] / "support")
    statuses = json.loads(done.stdout)
    assert statuses[-1] == 0
    assert statuses.count(signal.SIGKILL) == len(statuses) - 1 == 6
    assert same(tmp_path / "unbroken", tmp_path / "out")


class Stopped(BaseException):
    """What nobody catches."""


@pytest.mark.slow
@pytest.mark.parametrize("last", [3, 4])
def test_a_training_stopped_after_any_epoch_goes_on(store, unbroken, tmp_path, last):
    def stop(line):
        stop.epochs += line.startswith("phase")
        if stop.epochs == last:
            raise Stopped

    stop.epochs = 0
    with pytest.raises(Stopped):
        run(store, tmp_path, *CHOSEN, report=stop)
    assert (tmp_path / UNFINISHED).exists()
    lines = []
    run(store, tmp_path, *CHOSEN, report=lines.append, resume=True)
    begun = "epoch {} of phase {}".format(*((last, "a") if last < 4 else (last - 3, "b")))
    assert f"goes on after {begun}" in lines
    assert same(unbroken, tmp_path)


def stop_at_once(line):
    if line.startswith("phase"):
        raise Stopped


def interrupted(store, out, *chosen):
    with pytest.raises(Stopped):
        run(store, out, *chosen, report=stop_at_once)


def test_a_resumed_run_with_another_yaml_is_refused_by_its_keys(store, tmp_path):
    interrupted(store, tmp_path)
    before = (tmp_path / STATE).read_bytes()
    other = ("training.optimiser.lr=0.2", "augment.blur=0")
    with pytest.raises(ConfigError, match=r"other augment.blur and training.optimiser.lr; set it back to go on"):
        run(store, tmp_path, *other, resume=True)
    with pytest.raises(ConfigError, match=r"other split.test and folds.train and folds.test"):
        run(store, tmp_path, "split.test=[Horton]", resume=True)
    assert (tmp_path / STATE).read_bytes() == before
    run(store, tmp_path, resume=True)
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.slow
def test_without_resume_it_begins_again_and_says_so(store, tmp_path):
    interrupted(store, tmp_path)
    lines = []
    run(store, tmp_path, "training.seed=7", report=lines.append)
    assert any("interrupted after epoch 1 of phase full; --resume would have gone on" in line for line in lines)
    run(store, beside(tmp_path), "training.seed=7")
    assert same(beside(tmp_path), tmp_path)


def test_a_state_that_is_damaged_is_refused(store, tmp_path):
    interrupted(store, tmp_path)
    content = (tmp_path / STATE).read_bytes()
    for damaged in (content[:100], content[:-10], b"", b"x" * 1000):
        (tmp_path / STATE).write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"damaged.*begin again without --resume"):
            run(store, tmp_path, resume=True)


def test_two_runs_into_one_folder_are_refused(store, tmp_path):
    with claimed(tmp_path), pytest.raises(TrainingError, match="another training runs in"):
        run(store, tmp_path)
    assert not (tmp_path / UNFINISHED).exists()
    run(store, tmp_path)


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path):
        assert (tmp_path / UNFINISHED).exists()


TWELVE = "training.phases=[{name: full, epochs: 12}]"
ROOMS = {"50": "last", "5000": "last", "6700": STATE}  # bytes to what does not fit: weights, bundle.json, state
FULL = """
    import resource, sys
    from pathlib import Path
    import torch
    from toy_training import run
    from thawmap.errors import ThawmapError
    from thawmap.train.tiles.store import TileStore

    torch.set_num_threads(1)
    tiles, out, chosen, *rooms = sys.argv[1:]
    for room in rooms:
        def fill(line):
            if line.startswith("phase full, epoch 1"):
                sys.dont_write_bytecode = True  # Python would keep modules that are cut
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
        try:
            run(TileStore.open(Path(tiles)), Path(out, room), chosen, report=fill)
        except ThawmapError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_the_epoch_before(store, tmp_path):
    """A file may not grow beyond some bytes, which is how a disk is full without being one's own."""
    run(store, tmp_path / "unbroken", TWELVE)
    words = [sys.executable, "-c", textwrap.dedent(FULL), str(store.path), str(tmp_path), TWELVE, *ROOMS]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1] / "support")
    for (room, file), line in zip(ROOMS.items(), done.stdout.splitlines(), strict=True):
        assert f"{file} cannot be written" in line
        reached = describe_checkpoint(tmp_path / room)
        assert reached == "epoch 1 of phase full" if file == "last" else reached > "epoch 1 of phase full"
        assert load(tmp_path / room)
        run(store, tmp_path / room, TWELVE, resume=True)
        assert same(tmp_path / room, tmp_path / "unbroken")


def test_differences_are_named_by_their_keys():
    before = {"training": {"lr": 1, "phases": [{"name": "a"}]}, "gone": 1}
    assert differences(before, before) == []
    wanted = {"training": {"lr": 2, "phases": [{"name": "b"}]}, "new": None, "model": {"a": 1}}
    assert differences(before, wanted) == ["training.lr", "training.phases", "model", "gone"]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


@pytest.mark.slow
def test_the_command_line_goes_on_after_a_kill(project, tmp_path, capsys):
    assert thawmap(["train", str(project), "--out", str(tmp_path / "unbroken")]) == 0
    out = tmp_path / "killed"
    process = stopped(["train", project, "--out", out], files=out / STATE)
    process.kill()
    process.communicate()
    assert (out / UNFINISHED).exists()
    reached = describe_checkpoint(out)
    assert thawmap(["train", str(project), "--out", str(out), "--resume"]) == 0
    assert f"goes on after {reached}" in capsys.readouterr().err
    assert same(tmp_path / "unbroken", out)
    assert thawmap(["train", str(project), "--out", str(out), "--resume"]) == 0
    assert "trained before" in capsys.readouterr().out
