"""Mapping that is broken off midway: Ctrl-C, kill -9, a full disk, a lost file, no memory; and what a rerun makes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import geopandas as gpd
import numpy as np
import pytest
import torch
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox

from test_bad_input import a_bundle
from thawmap import cli
from thawmap.data.io import Encoding, write_raster
from thawmap.model.bundle import save

torch.set_num_threads(1)

SHAPES = {"s0": (40, 48), "s1": (260, 300), "s2": (40, 48)}
MIDWAY = ".s1.*.tmp/s1/.probability.tif.*.tmp/*/plain.tif"


def write_scene(folder, name, values):
    """An image (band, y, x) of stored red and near infrared, where its scene lies."""
    geobox = GeoBox(values.shape[1:], Affine(3, 0, 570_000 + 1000 * int(name[1:]), 0, -3, 7_720_000), "EPSG:32608")
    encoding = Encoding(dtype=str(values.dtype), bands=2, nodata=0)
    write_raster(folder / "scenes" / name / "image.tif", values, geobox, encoding=encoding)


def stored(shape):
    """Bright squares on dark ground, never 0."""
    values = np.random.default_rng(0).integers(500, 900, (2, *shape)).astype(np.uint16)
    values[1] += 1500
    for row in range(8, shape[0] - 16, 40):
        values[0, row : row + 12, 10:30] += 1500
    return values


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three scenes, the second of which takes some hundred windows, and a model that makes slumps of them."""
    folder = tmp_path_factory.mktemp("broken") / "project"
    for name, shape in SHAPES.items():
        write_scene(folder, name, stored(shape))
    (folder / "scenes.csv").write_text("id,path\n" + "".join(f"{name},scenes/{name}\n" for name in SHAPES))
    bands = {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 2, "scale": 0.0001}}
    content = {
        "scenes": {"kind": "rasters", "table": "scenes.csv", "files": {"image.tif": bands}},
        "layers": ["red", "nir", "ndvi"],
        "inference": {"tile": 32, "overlap": 16, "backend": "eager", "device": "cpu"},
    }
    (folder / "thawmap.yaml").write_text(yaml.safe_dump(content))
    save(red_or_not(), folder / "model")
    return folder


def red_or_not(weight=40.0, **layers):
    """A network that knows bright red from the rest."""
    bundle = a_bundle()
    with torch.no_grad():
        bundle.network.weight[:] = torch.tensor([weight, -weight, 0.0])[:, None, None]
        bundle.network.bias[:] = 0.1 * weight
    return bundle


def words(project, out, *more):
    return ["predict", str(project / "thawmap.yaml"), "--model", str(project / "model"), "--out", str(out), *more]


def begun(project, out, *more):
    """The command in a process and a session of its own, as soon as it writes the second scene."""
    command = [sys.executable, "-m", "thawmap", *words(project, out, *more)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob(MIDWAY)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


def hidden(out):
    return sorted(path.name for path in out.rglob(".*"))


def content(out):
    """All that a map says but when it was made, by file."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".gpkg":
            found[name] = gpd.read_file(path).to_json()
        elif path.name == "item.json":
            item = json.loads(path.read_text())
            found[name] = {**item, "properties": {**item["properties"], "created": None, "end_datetime": None}}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def unbroken(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "maps"
    assert cli._run(words(project, out)) == 0
    found = content(out)
    assert {name.split("/")[0] for name in found} == set(SHAPES)
    assert len(gpd.read_file(out / "s1" / "slumps.gpkg")) >= 6
    return found


def check_rerun(project, out, unbroken):
    """The same command goes on to what an unbroken run makes, and leaves what is finished as it is."""
    finished = {path: path.stat().st_ino for path in out.glob("s*/*")}
    assert cli._run(words(project, out)) == 0
    assert content(out) == unbroken
    assert finished.items() <= {path: path.stat().st_ino for path in out.glob("s*/*")}.items()
    assert hidden(out) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_what_is_finished_and_nothing_else(project, unbroken, tmp_path, workers):
    out = tmp_path / "maps"
    process = begun(project, out, "--set", f"engine.workers={workers}")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == ""
    lines = [line for line in complained.splitlines() if line.startswith("thawmap: ")]
    assert lines == ["thawmap: stopped; what is finished stays, run the same command to go on"]
    assert "Traceback" not in complained
    assert hidden(out) == []
    assert "s1" not in {path.name for path in out.iterdir()}
    check_rerun(project, out, unbroken)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGCONT])
def test_another_process_waits_for_one_that_lives_and_clears_up_after_one_that_was_killed(
    project, unbroken, tmp_path, ending, caplog
):
    out = tmp_path / "maps"
    process = begun(project, out)
    process.send_signal(signal.SIGSTOP)  # it lives, and does nothing
    first = content(out / "s0")
    (draft,) = out.glob(".s1.*.tmp")
    with ThreadPoolExecutor(1) as pool:
        rerun = pool.submit(check_rerun, project, out, unbroken)
        while not caplog.records:
            assert not wait_for([rerun], timeout=0.01).done, rerun.result()
        assert draft.exists()
        process.send_signal(ending)
        rerun.result(60)
    assert caplog.records[0].message == f"another process holds {out / '.s1.lock'}; waiting for it to end"
    _, complained = process.communicate(timeout=60)
    assert process.returncode == (0 if ending == signal.SIGCONT else -signal.SIGKILL), complained
    assert content(out / "s0") == first
    assert content(out) == unbroken


@pytest.fixture
def disk(tmp_path):
    """A disk that may be made small: a function of its bytes that mounts it."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size):
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("size", [4096, 100_000, 240_000, 420_000])
def test_a_full_disk_costs_the_scenes_that_do_not_fit(project, unbroken, disk, capsys, size):
    """Whatever file is the one that does not fit: rasters, polygons, a picture; all three take half a megabyte."""
    out = disk(size) / "maps"
    assert cli._run(words(project, out)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("thawmap: ")]
    mapped = {path.name for path in out.iterdir()} if out.exists() else set()
    assert len(mapped) == {4096: 0, 100_000: 0, 240_000: 1, 420_000: 2}[size]
    assert said[-1] == f"thawmap: {3 - len(mapped)} failed, {len(mapped)} done"
    why = r"cannot be written \(No space left on device\); choose another place or free some room"
    for name, line in zip(sorted(SHAPES.keys() - mapped), said[:-1], strict=True):
        assert re.fullmatch(rf"thawmap: {name} failed: {out}/{name}(/[a-z.]+)? {why}", line)
    assert hidden(out) == []
    assert content(out) == {name: made for name, made in unbroken.items() if name[:2] in mapped}


def test_a_file_that_vanishes_midway_costs_its_scene(project, unbroken, tmp_path, capsys):
    copy, out = tmp_path / "project", tmp_path / "maps"
    shutil.copytree(project, copy)
    image = copy / "scenes" / "s1" / "image.tif"

    def lose():
        while not list(out.glob(MIDWAY)):
            time.sleep(0.002)
        image.rename(copy / "lost.tif")

    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(lose)
        status = cli._run(words(copy, out))
        lost.result(60)
    said = capsys.readouterr().err
    assert status == 1
    assert f"thawmap: s1 failed: {image} does not exist" in said
    assert "1 failed, 2 done" in said
    assert hidden(out) == []
    assert {path.name for path in out.iterdir()} == {"s0", "s2"}
    (copy / "lost.tif").rename(image)
    check_maps = content(out)
    assert cli._run(words(copy, out)) == 0
    assert check_maps.items() <= content(out).items()
