"""The files of a map: names, styles, memory; and nothing half-written, whatever ends the writing."""

import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.qgis import OUTLINES, PROBABILITY
from thawmap.maps.replacing import is_finished
from thawmap.maps.rows import Rows
from thawmap.maps.write import write_map

SHAPE = (60, 40)


def scene_of(name="s1", shape=SHAPE):
    geobox = GeoBox(shape, Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
    return Scene(id=name, sensor="test", geobox=geobox, files={}, region="Yukon")


def rows_of(probability, height=5):
    for row in range(0, len(probability), height):
        yield Rows(first_row=row, probability=probability[row : row + height].astype(np.float32))


def probability_of(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random(shape)


def job_of(scene, **outputs):
    polygons = PolygonSettings(min_area_m2=0, threshold=0.5)
    made_from = Provenance(bundle="b1")
    return MapJob(scene=scene, polygons=polygons, outputs=OutputSettings(**outputs), provenance=made_from)


def made(folder, scene=None, rows=None, **outputs):
    scene = scene or scene_of()
    coarse = replace(scene, geobox=scene.geobox.zoom_to((30, 20)))
    image = ArraySource({"red": probability_of((30, 20)).astype(np.float32)}, coarse.geobox)
    return write_map(
        job_of(scene, **outputs),
        rows or rows_of(probability_of(scene.geobox.shape)),
        folder,
        picture=preview(coarse, ["red"], [image]),
    )


@pytest.fixture(scope="module")
def darts(tmp_path_factory):
    return made(tmp_path_factory.mktemp("maps"), names="darts", vectors=("gpkg", "parquet", "shp")).folder


def test_names_of_darts(darts):
    files = {path.name for path in darts.iterdir()}
    assert files >= {
        "probabilities.tif",
        "binarized.tif",
        "prediction_segments.gpkg",
        "prediction_segments.parquet",
        "probabilities.qml",
        "binarized.qml",
        "prediction_segments.qml",
    }
    item = pystac.Item.from_file(darts / "item.json")
    assert item.assets["probability"].href.endswith("probabilities.tif")
    assert all((darts / asset.href).exists() for asset in item.assets.values())
    assert is_finished(job_of(scene_of()), darts)
    assert len(gpd.list_layers(darts / "prediction_segments.gpkg")) == 1
    (darts / "binarized.tif").rename(darts / "moved.tif")
    assert not is_finished(job_of(scene_of()), darts)
    (darts / "moved.tif").rename(darts / "binarized.tif")


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["uint8", "float32"])
def test_the_spread_between_networks_has_a_raster(tmp_path, storage):
    probability, spread = probability_of(), (probability_of(seed=1) / 2).astype(np.float32)
    probability[:7] = spread[:7] = np.nan
    rows = [replace(part, spread=spread[part.first_row :][:5]) for part in rows_of(probability)]
    folder = made(tmp_path, rows=rows, probability=storage).folder
    item = pystac.Item.from_file(folder / "item.json")
    assert item.assets["spread"].href.endswith("spread.tif")
    with rasterio.open(folder / "spread.tif") as file:
        stored = np.ma.filled(file.read(1, masked=True).astype(float), np.nan) * file.scales[0]
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    np.testing.assert_allclose(stored, spread, atol=0.00501 if storage == "uint8" else 0)
    assert not (made(tmp_path).folder / "spread.tif").exists()


def style(path):
    """A style as QGIS 3 reads it: its root, after its document type."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>")
    root = ET.fromstring(text)
    assert root.tag == "qgis"
    assert root.get("version").startswith("3.")
    return root


def test_the_style_of_probabilities_is_a_ramp_over_the_scaled_values(darts):
    renderer = style(darts / "probabilities.qml").find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("band")) == ("singlebandpseudocolor", "1")
    shader = renderer.find("rastershader/colorrampshader")
    assert shader.get("colorRampType") == "INTERPOLATED"
    values = [float(item.get("value")) for item in shader.findall("item")]
    with rasterio.open(darts / "probabilities.tif") as file:
        assert file.scales == (0.01,)
        assert (values[0], values[-1]) == (0, 100 * file.scales[0])
    assert values == sorted(values) == list(PROBABILITY)
    opacity = [int(item.get("alpha")) for item in shader.findall("item")]
    assert opacity[0] == 0
    assert opacity == sorted(opacity)
    assert all(re.fullmatch("#[0-9a-f]{6}", item.get("color")) for item in shader.findall("item"))


def test_the_style_of_the_mask_has_the_colours_of_its_file(darts):
    renderer = style(darts / "binarized.qml").find("pipe/rasterrenderer")
    assert renderer.get("type") == "paletted"
    with rasterio.open(darts / "binarized.tif") as file:
        colours = file.colormap(1)
    for entry in renderer.findall("colorPalette/paletteEntry"):
        assert entry.get("color") == "#{:02x}{:02x}{:02x}".format(*colours[int(entry.get("value"))])
    entries = [(entry.get("label"), entry.get("alpha")) for entry in renderer.iter("paletteEntry")]
    assert entries == [("no slump", "0"), ("slump", "255")]


def test_the_style_of_slumps_names_columns_of_every_format(darts):
    renderer = style(darts / "prediction_segments.qml").find("renderer-v2")
    assert renderer.get("type") == "graduatedSymbol"
    named = set(re.findall(r"'(\w+)'", renderer.get("attr")))
    for kind in ("gpkg", "parquet", "shp"):
        path = darts / f"prediction_segments.{kind}"
        frame = gpd.read_parquet(path) if kind == "parquet" else gpd.read_file(path)
        assert len(named & set(frame.columns)) == 1
    ranges = [(float(one.get("lower")), float(one.get("upper"))) for one in renderer.findall("ranges/range")]
    assert ranges == list(OUTLINES)
    assert [upper for _, upper in ranges[:-1]] == [lower for lower, _ in ranges[1:]]
    assert (ranges[0][0], ranges[-1][1]) == (0, 1)
    symbols = {symbol.get("name"): symbol for symbol in renderer.findall("symbols/symbol")}
    assert [one.get("symbol") for one in renderer.findall("ranges/range")] == list(symbols)
    for symbol in symbols.values():
        assert symbol.get("type") == "fill"
        layer = symbol.find("layer")
        assert layer.get("class") == "SimpleLine"
        options = {option.get("name"): option.get("value") for option in layer.findall("Option/Option")}
        assert options == {prop.get("k"): prop.get("v") for prop in layer.findall("prop")}
        assert {"line_color", "line_width"} <= set(options)


IN_A_PROCESS = """
import os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from test_map_files import Rows, made, rows_of, scene_of
folder = Path({folder!r})
"""


def run(code, folder):
    begin = IN_A_PROCESS.format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=False)


KILLED = """
def rows():
    for number, part in enumerate(rows_of(np.full((60, 40), 0.75))):
        if number == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        yield part
made(folder, rows=rows())
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path, before):
    if before:
        made(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run(KILLED.format(after=7), tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["s1"] * before
    assert all(path.read_bytes() == content for path, content in files.items())
    assert is_finished(job_of(scene_of()), tmp_path / "s1") == before
    made(tmp_path)
    assert is_finished(job_of(scene_of()), tmp_path / "s1")


FULL = """
from concurrent.futures import Future
from thawmap.engine.run import run
sys.dont_write_bytecode = True  # Python would keep modules that are cut
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
shapes = {"a": (60, 40), "b": (1200, 1100), "c": (60, 40)}
def work(name):
    noise = np.random.default_rng(0).random(shapes[name])
    return made(folder, scene_of(name, shapes[name]), rows_of(noise, 100)).slumps
for outcome in run(work, list(shapes)):
    print(outcome.item, "failed:" if outcome.value is None else "done", outcome.error or "")
"""


@pytest.mark.slow
def test_a_full_disk_costs_one_scene_and_leaves_nothing_of_it(tmp_path):
    done = run(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split()[:2] for line in said] == [["a", "done"], ["b", "failed:"], ["c", "done"]]
    assert re.search(r"cannot be written \(.*\); (free some room|choose another place)", said[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    for name in ("a", "c"):
        assert is_finished(job_of(scene_of(name)), tmp_path / name)


MEMORY = """
from thawmap.data.raster import io
io.CACHE_BYTES = 8 * 2**20
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
def rows(height):
    for row in range(0, height, 500):
        part = np.zeros((500, 1000), np.float32)
        part[100:120, 50:80] = 0.9
        yield Rows(first_row=row, probability=part)
made(folder, scene_of("short", (1000, 1000)), rows(1000))
before = peak()
made(folder, scene_of("tall", (40_000, 1000)), rows(40_000))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_a_scene(tmp_path):
    done = run(MEMORY, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1024 < 25, "MB, where each of the two rasters has 38 MB, and their rows had 153"
    with rasterio.open(tmp_path / "tall" / "mask.tif") as file:
        assert file.overviews(1)
        assert file.read(1, window=((39_600, 39_601), (0, 1000))).sum() == 30
