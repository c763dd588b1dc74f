"""Mapping that is broken off midway: Ctrl-C, kill -9, a full disk, a lost file, no memory; and what a rerun makes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from bundles import a_bundle
from odc.geo.geobox import GeoBox
from stopping import stopped

from thawmap import cli
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.model.bundle_folder import save

pytestmark = pytest.mark.slow
torch.set_num_threads(1)

SHAPES = {"s0": (40, 48), "s1": (420, 480), "s2": (40, 48)}
MIDWAY = ".s1.*.tmp/s1/.probability.tif.*.tmp/*/plain.tif"


def write_scene(folder, name, values):
    """An image (band, y, x) of stored red and near infrared, where its scene lies."""
    geobox = GeoBox(values.shape[1:], Affine(3, 0, 570_000 + 5000 * int(name[1:]), 0, -3, 7_720_000), "EPSG:32608")
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
    """Three scenes, the second of which takes many windows, and a model that makes slumps of them."""
    folder = tmp_path_factory.mktemp("broken") / "project"
    for name, shape in SHAPES.items():
        write_scene(folder, name, stored(shape))
    (folder / "scenes.csv").write_text("id,path\n" + "".join(f"{name},scenes/{name}\n" for name in SHAPES))
    bands = {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 2, "scale": 0.0001}}
    content = {
        "scenes": {"kind": "rasters", "table": "scenes.csv", "files": {"image.tif": bands}},
        "layers": ["red", "nir", "ndvi"],
        "inference": {"tile": 96, "overlap": 16, "backend": "eager", "device": "cpu"},
    }
    (folder / "thawmap.yaml").write_text(yaml.safe_dump(content))
    save(red_or_not(), folder / "model")
    return folder


def red_or_not(weight=40.0):
    """A network that knows bright red from the rest."""
    bundle = a_bundle()
    with torch.no_grad():
        bundle.network.weight[:] = torch.tensor([weight, -weight, 0.0])[:, None, None]
        bundle.network.bias[:] = 0.1 * weight
    return bundle


def words(project, out, *more):
    return ["predict", str(project / "thawmap.yaml"), "--model", str(project / "model"), "--out", str(out), *more]


def begun(project, out, *more):
    """The command in a process and a session of its own, which has stopped while it writes the second scene."""
    return stopped(words(project, out, *more), files=out / MIDWAY)


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
            del item["properties"]["thawmap:files"]["item.json"]  # which holds when it was made
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
    os.killpg(process.pid, signal.SIGCONT)
    said, complained = process.communicate(timeout=900)
    assert process.returncode == 130
    assert said == ""
    lines = [line for line in complained.splitlines() if line.startswith("thawmap: ")]
    assert lines == ["thawmap: stopped; what is finished stays, run the same command to go on"]
    if workers == 1:  # a worker that is stopped while it starts has no other words
        assert "Traceback" not in complained
    assert hidden(out) == []
    assert "s1" not in {path.name for path in out.iterdir()}
    check_rerun(project, out, unbroken)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGCONT])
def test_another_process_waits_for_one_that_lives_and_clears_up_after_one_that_was_killed(
    project, unbroken, tmp_path, ending, caplog
):
    out = tmp_path / "maps"
    process = begun(project, out)  # it lives, and does nothing
    first = content(out / "s0")
    (draft,) = out.glob(".s1.*.tmp")
    with ThreadPoolExecutor(1) as pool:
        rerun = pool.submit(cli._run, words(project, out))
        while not caplog.records:
            assert not wait_for([rerun], timeout=0.01).done, rerun.result()
        assert draft.exists()
        process.send_signal(ending)
        assert rerun.result(900) == 0
    assert caplog.records[0].message == f"another process holds {out / '.s1.lock'}; waiting for it to end"
    _, complained = process.communicate(timeout=900)
    assert process.returncode == (0 if ending == signal.SIGCONT else -signal.SIGKILL), complained
    assert content(out / "s0") == first
    assert content(out) == unbroken  # now that neither holds a scene any more
    assert hidden(out) == []


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


def test_a_file_that_vanishes_midway_costs_its_scene(project, unbroken, tmp_path, capsys, monkeypatch):
    copy, out = tmp_path / "project", tmp_path / "maps"
    shutil.copytree(project, copy)
    image = copy / "scenes" / "s1" / "image.tif"

    forward = torch.nn.Conv2d.forward

    def losing(self, images):
        if image.exists() and list(out.glob(MIDWAY)):
            image.rename(copy / "lost.tif")
        return forward(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", losing)
        status = cli._run(words(copy, out))
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


def test_a_killed_fusing_is_cleared_up_by_the_next(project, unbroken, tmp_path, capsys):
    maps, out = tmp_path / "maps", tmp_path / "fused"
    assert cli._run(words(project, maps)) == 0
    fuse = ["fuse", str(maps), "--out", str(out)]
    killed = """
        import sys
        from killing import killed_again_and_again
        from thawmap.cli import _run
        print(killed_again_and_again(lambda: _run(sys.argv[1:]), (3, 9, 16)), file=sys.__stdout__)
    """
    command = [sys.executable, "-c", textwrap.dedent(killed), *fuse]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1] / "support"
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [signal.SIGKILL] * 3
    assert [name for name in hidden(out) if name.endswith(".tmp")]
    assert cli._run(fuse) == 0
    assert hidden(out) == []
    assert {path.name for path in out.iterdir()} == set(SHAPES)


# What a scene or a network may be like


def alone_in(project, folder, values, bundle=None):
    """A project with one scene only."""
    shutil.copytree(project, folder)
    write_scene(folder, "s0", values)
    (folder / "scenes.csv").write_text("id,path\ns0,scenes/s0\n")
    if bundle is not None:
        save(bundle, folder / "model")
    return folder


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (1, 1)])
def test_a_scene_of_one_pixels_width(project, tmp_path, shape):
    out = tmp_path / "maps"
    values = np.broadcast_to(np.array([2200, 2100], np.uint16)[:, None, None], (2, *shape)).copy()
    command = words(alone_in(project, tmp_path / "project", values), out, "--set", "polygons.min_area_m2=0")
    assert cli._run(command) == 0
    with rasterio.open(out / "s0" / "mask.tif") as file:
        assert (file.read(1) == np.ones(shape)).all()
    assert list(gpd.read_file(out / "s0" / "slumps.gpkg")["pixels"]) == [max(shape)]


def test_a_hole_as_large_as_tiles_stays_a_hole(project, unbroken, tmp_path):
    out = tmp_path / "maps"
    values = stored((160, 170))
    whole = values.copy()
    values[:, 40:120, 50:150] = 0
    found = {}
    for name, image in (("whole", whole), ("holed", values)):
        command = words(alone_in(project, tmp_path / name, image), out / name, "--set", "inference.tile=32")
        assert cli._run(command) == 0
        with rasterio.open(out / name / "s0" / "probability.tif") as file:
            found[name] = file.read(1)
    hole = np.zeros((160, 170), np.bool_)
    hole[40:120, 50:150] = True
    assert (found["holed"][hole] == 255).all()
    np.testing.assert_array_equal(found["holed"][~hole], found["whole"][~hole])


def test_a_network_that_answers_nan_is_named(project, tmp_path, capsys):
    """One pixel's red is infinite in network range; zero times that is NaN, whatever kernel adds the products."""
    bundle = red_or_not(weight=0.0)
    bundle = replace(bundle, layers=tuple(replace(one, clip=False) for one in bundle.layers))
    values = stored((60, 70)).astype(np.float32) / 10_000
    values[0, 30, 40] = 3e38  # still a number; divided by the width of the range, 0.6, it is none
    folder = alone_in(project, tmp_path / "project", values, bundle)
    yaml_file = folder / "thawmap.yaml"
    yaml_file.write_text(yaml_file.read_text().replace("scale: 0.0001", "scale: 1"))
    assert cli._run(words(folder, tmp_path / "maps")) == 1
    said = capsys.readouterr().err
    assert "thawmap: s0 failed: scene s0: the network answers nan where a probability from 0 to 1 is due" in said
    assert list((tmp_path / "maps").iterdir()) == []


LITTLE_MEMORY = """
    import resource, sys, torch
    from dataclasses import replace
    from thawmap import cli
    from thawmap.pipeline import _predict_scene

    torch.set_num_threads(1)
    member_of = _predict_scene.member_of

    def with_little_memory(*words):
        member = member_of(*words)

        def network(images):
            pages = int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 150 * 2**20, -1))
            try:
                return member.network(images)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

        return replace(member, network=network)

    _predict_scene.member_of = with_little_memory
    sys.exit(cli._run(sys.argv[1:]))
"""


def test_a_batch_that_memory_does_not_hold_is_halved(project, tmp_path):
    folder = alone_in(project, tmp_path / "project", stored((2300, 2300)))
    tile = ("--set", "inference.tile=1024")
    little = words(folder, tmp_path / "little", *tile, "--set", "inference.batch_size=8")
    command = [sys.executable, "-c", textwrap.dedent(LITTLE_MEMORY), *little]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "memory" in line]
    assert said[0] == "memory does not hold 8 tiles at once; from here on 4"
    assert len(said) == len(set(said)) <= 3
    assert cli._run(words(folder, tmp_path / "enough", *tile)) == 0
    rasters = [(tmp_path / name / "s0" / "probability.tif").read_bytes() for name in ("little", "enough")]
    assert rasters[0] == rasters[1]
