"""The engine on a Dask cluster: a real scheduler and real workers on this machine give what one process gives."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import rasterio
from toy_training import make_project

from thawmap.cli import _run as thawmap
from thawmap.model.bundle_folder import load

pytest.importorskip("distributed", reason="distributed is not installed; pip install 'thawmap[cluster]'")
pytestmark = pytest.mark.slow

QUICK = os.environ | {"OMP_NUM_THREADS": "1"}
BY_SCENE = ("--set", "crossval.folds.by=scene", "--set", "crossval.inner=1")


@contextmanager
def started(*words, until, log):
    """A process of this cluster, from when it says that it stands; it is ended as it was started."""
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=file, stderr=file, env=QUICK)
        try:
            deadline = time.monotonic() + 120
            while not (found := re.search(until, log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield process, found
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(600)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the scheduler of a cluster of two workers is."""
    folder = tmp_path_factory.mktemp("cluster")
    alone = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    with started("scheduler", *alone, until=r"Scheduler at:\s+(tcp://\S+)", log=folder / "scheduler") as (_, found):
        one = ("worker", found[1], "--nthreads", "1", "--nworkers", "2", "--no-dashboard")
        place = ("--local-directory", str(folder))
        with started(*one, *place, until=r"(?s)(Registered to.*){2}", log=folder / "workers"):
            yield found[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def on(address):
    return ("--set", f"engine={{kind: dask, address: '{address}', workers: 2}}")


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "thawmap", *map(str, words)], capture_output=True, text=True, env=QUICK, check=False
    )


def numbers(out):
    table = pd.read_parquet(out / "metrics.parquet")
    table = table[table["metric"] != "seconds"]
    return table.sort_values([name for name in table if name != "value"]).reset_index(drop=True)


def test_a_cross_validation_on_a_cluster_is_that_of_one_process(project, address, tmp_path):
    there = command("crossval", project, "--out", tmp_path / "there", *BY_SCENE, *on(address))
    assert there.returncode == 0, there.stderr
    assert thawmap(["crossval", str(project), "--out", str(tmp_path / "here"), *BY_SCENE]) == 0
    pd.testing.assert_frame_equal(numbers(tmp_path / "there"), numbers(tmp_path / "here"))
    fits = json.loads(next((tmp_path / "there").rglob("fit.json")).read_text())
    assert fits["peak_memory_mb"] > 0


def test_maps_made_on_a_cluster_are_those_of_one_process_and_a_broken_scene_costs_itself(project, address, tmp_path):
    assert thawmap(["train", str(project), "--out", str(tmp_path / "model")]) == 0
    assert load(tmp_path / "model").layers
    broken = next(iter(sorted(project.parent.glob("**/*.tif"))))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    try:
        words = ("predict", project, "--model", tmp_path / "model")
        there = command(*words, "--out", tmp_path / "there", *on(address))
        assert thawmap([*map(str, words), "--out", str(tmp_path / "here")]) == there.returncode == 1
    finally:
        broken.write_bytes(content)
    maps = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("probability.tif"))
    assert len(maps) == 2
    for path in maps:
        with rasterio.open(tmp_path / "here" / path) as one, rasterio.open(tmp_path / "there" / path) as other:
            assert (one.read() == other.read()).all()


def test_without_a_scheduler_the_remedy_is_said(project, tmp_path):
    said = command("tiles", project, "--out", tmp_path / "tiles", *on("tcp://127.0.0.1:9"))
    assert said.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9 within 10 s; start one" in " ".join(said.stderr.split())
    assert not Path(tmp_path / "tiles" / "store.json").exists()
