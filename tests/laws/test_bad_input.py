"""Bad input through the command line: one sentence or a defined result, never a traceback or half an output."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
import yaml
from affine import Affine
from bundles import a_bundle
from odc.geo.geobox import GeoBox

from thawmap import cli
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.vector.io import write_vector
from thawmap.layers import layer
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save

torch.set_num_threads(1)

UTM = "EPSG:32608"
SHAPE = (40, 48)
VERBS = ("scenes", "labels", "tiles", "train", "predict", "evaluate")


def grid(number):
    """The grid of a scene; the scenes lie beside each other."""
    return GeoBox(SHAPE, Affine(3, 0, 570_000 + 1000 * number, 0, -3, 7_720_000), UTM)


def square(number, left, top, size):
    a = grid(number).affine
    return shapely.box(*(a * (left, top + size)), *(a * (left + size, top)))


@dataclass(frozen=True)
class Project:
    """Two small scenes with a square slump each, a model, and a YAML that maps them; all of it can be spoilt."""

    folder: Path
    content: dict

    @property
    def yaml(self):
        return self.folder / "thawmap.yaml"

    def write(self, **changes):
        """The YAML, with other sections."""
        self.yaml.write_text(yaml.safe_dump(self.content | changes, sort_keys=False))

    def words(self, verb):
        """A command line for a verb."""
        out, model = str(self.folder / "out"), str(self.folder / "model")
        return {
            "tiles": ["tiles", str(self.yaml), "--out", out],
            "train": ["train", str(self.yaml), "--out", out],
            "predict": ["predict", str(self.yaml), "--model", model, "--out", out],
            "evaluate": ["evaluate", str(self.folder / "maps"), "--config", str(self.yaml), "--out", out],
        }.get(verb, [verb, str(self.yaml)])

    def image(self, name="s0"):
        return self.folder / "scenes" / name / "image.tif"

    def mapped(self):
        """Names of the scenes that have a map."""
        return sorted(path.name for path in (self.folder / "out").glob("*") if path.is_dir())


def stored(number):
    """Stored numbers (band, y, x) of red and near infrared: a bright slump on dark ground, never 0."""
    rng = np.random.default_rng(number)
    values = rng.integers(500, 900, (2, *SHAPE)).astype(np.uint16)
    values[1] += 1500
    values[0, 10:20, 12:22] += 1500
    return values


def save_image(path, values, number, **encoding):
    write_raster(path, values, grid(number), encoding=Encoding(dtype=str(values.dtype), bands=len(values), **encoding))


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A project without a fault."""
    folder = tmp_path_factory.mktemp("bad") / "project"
    rows = ["id,region,path,acquired"]
    for number in range(2):
        save_image(folder / "scenes" / f"s{number}" / "image.tif", stored(number), number, nodata=0)
        rows.append(f"s{number},Region{number},scenes/s{number},2019-07-1{number}T22:00:00Z")
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    frame = gpd.GeoDataFrame(
        {"image_id": ["s0", "s1"]}, geometry=[square(number, 12, 10, 10) for number in range(2)], crs=UTM
    )
    write_vector(folder / "labels.gpkg", frame)
    bands = {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 2, "scale": 0.0001}}
    project = Project(
        folder,
        {
            "scenes": {"kind": "rasters", "table": "scenes.csv", "files": {"image.tif": bands}},
            "layers": ["red", "nir", "ndvi"],
            "labels": {"path": "labels.gpkg", "scene": "image_id"},
            "tiles": {"size": 32, "overlap": 4},
            "model": {"architecture": "pixel"},
            "training": {"phases": [{"name": "all", "epochs": 1}]},
            "inference": {"overlap": 8},
        },
    )
    project.write()
    save(a_bundle(), folder / "model")
    return project


@pytest.fixture
def project(whole, tmp_path):
    """A copy of the project, to be spoilt."""
    shutil.copytree(whole.folder, tmp_path / "project")
    return Project(tmp_path / "project", whole.content)


def run(project, verb, capsys, *more):
    """The exit status and what was said; nothing half-written stays, and nobody sees a traceback."""
    before = snapshot(project.folder)
    capsys.readouterr()
    status = cli._run([*project.words(verb), *more])
    said = capsys.readouterr()
    after = snapshot(project.folder)
    assert not [path for path in after if ".tmp" in path.name], "a temporary file is left"
    assert {path: after.get(path) for path in before} == before, "an input was changed"
    for text in (said.out, said.err):
        assert "Traceback" not in text
        assert "Error" not in text
    return status, said.out, said.err


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def refused(project, verb, capsys):
    """The one sentence with which a whole request is refused; nothing was written."""
    before = snapshot(project.folder)
    status, _, error = run(project, verb, capsys)
    sentences = [line for line in error.splitlines() if line.startswith("thawmap: ")]
    assert status == 2
    assert len(sentences) == 1
    assert snapshot(project.folder) == before
    return sentences[0]


def failed(project, verb, capsys, name="s0"):
    """The one sentence with which one scene of two is refused; the other one is done."""
    status, _, error = run(project, verb, capsys)
    sentences = [line for line in error.splitlines() if line.startswith(f"thawmap: {name} failed: ")]
    assert status == 1
    assert len(sentences) == 1
    assert "1 failed, 1 done" in error
    if verb == "predict":
        assert project.mapped() == ["s1"]
        made = {path.name for path in (project.folder / "out" / "s1").iterdir()}
        assert made >= {"probability.tif", "mask.tif", "slumps.gpkg", "quicklook.png", "item.json"}
        assert not any(name.startswith(".") for name in made)
    return sentences[0]


def test_a_project_without_a_fault_runs(project, capsys):
    for verb in ("scenes", "labels", "tiles", "predict"):
        assert run(project, verb, capsys)[0] == 0
    shutil.move(project.folder / "out", project.folder / "maps")
    assert run(project, "evaluate", capsys)[0] == 0


# The YAML


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_key(project, capsys, verb):
    project.write(inference={"overlapp": 8})
    number = next(n for n, line in enumerate(project.yaml.read_text().splitlines(), 1) if "overlapp" in line)
    said = refused(project, verb, capsys)
    assert f"{project.yaml}:{number}: unknown key 'inference.overlapp'; did you mean 'overlap'?" in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_yaml(project, capsys, verb):
    project.yaml.unlink()
    assert "thawmap.yaml cannot be read (No such file or directory)" in refused(project, verb, capsys)


def test_no_scene_at_all(project, capsys):
    (project.folder / "scenes.csv").write_text("id,path\n")
    for verb in VERBS:
        assert "scenes.csv lists no scene" in refused(project, verb, capsys)
    (project.folder / "scenes.csv").unlink()
    for verb in VERBS:
        assert "scenes.csv cannot be read" in refused(project, verb, capsys)


# Files of scenes


@pytest.mark.parametrize("verb", ["scenes", "labels", "tiles", "predict"])
def test_a_missing_file(project, capsys, verb):
    project.image().unlink()
    before = failed(project, verb, capsys)
    assert "file 'image.tif' is not there in" in before
    assert "scenes/s0" in before


@pytest.mark.parametrize("verb", ["scenes", "labels", "tiles", "predict"])
def test_a_raster_without_crs(project, capsys, verb):
    with rasterio.open(project.image()) as file:
        values, transform = file.read(), file.transform
    profile = {"driver": "GTiff", "count": 2, "height": 40, "width": 48, "dtype": "uint16", "transform": transform}
    with rasterio.open(project.image(), "w", **profile) as file:
        file.write(values)
    assert "image.tif has no CRS" in failed(project, verb, capsys)


@pytest.mark.parametrize("verb", ["scenes", "labels", "tiles", "predict"])
def test_a_band_that_does_not_exist(project, capsys, verb):
    save_image(project.image(), stored(0)[:1], 0)
    assert "image.tif has no band 2 for layer 'nir'; it has 1 to 1" in failed(project, verb, capsys)


def test_a_band_that_exists_nowhere_names_the_reason_for_every_scene(project, capsys):
    files = {"image.tif": {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 7, "scale": 0.0001}}}
    project.write(scenes=project.content["scenes"] | {"files": files})
    why = "image.tif has no band 7 for layer 'nir'; it has 1 to 2"
    for verb in ("scenes", "predict"):
        status, _, error = run(project, verb, capsys)
        assert status == 1
        assert error.count(why) == 2
        assert project.mapped() == []
    for verb in ("tiles", "train"):
        said = refused(project, verb, capsys)
        assert "none of 2 scenes could be cut" in said
        assert why in said


def test_a_layer_that_no_file_has(project, capsys):
    files = {"image.tif": {"red": {"band": 1, "scale": 0.0001}}}
    project.write(scenes=project.content["scenes"] | {"files": files})
    status, _, error = run(project, "predict", capsys)
    assert status == 1
    assert error.count("'nir' is in no source and no recipe makes it; sources have red") == 2
    assert project.mapped() == []


@pytest.mark.parametrize("verb", ["scenes", "tiles", "predict"])
def test_reflectance_as_digital_numbers(project, capsys, verb):
    save_image(project.image(), (stored(0).astype(np.float32) * 10000), 0)
    said = failed(project, verb, capsys)
    assert "scene s0: the median of red is" in said
    assert "range -0.1 .. 0.5" in said
    assert "'scale'" in said


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("verb", ["scenes", "tiles", "predict"])
def test_a_truncated_tiff(project, capsys, verb, share):
    rng = np.random.default_rng(0)
    noise = rng.integers(500, 900, (2, 400, 480)).astype(np.uint16) + np.array([0, 1500], np.uint16)[:, None, None]
    large = GeoBox((400, 480), Affine(0.3, 0, 570_000, 0, -0.3, 7_720_000), UTM)
    write_raster(project.image(), noise, large, encoding=Encoding(dtype="uint16", bands=2))
    cut(project.image(), share)
    assert str(project.image()) in failed(project, verb, capsys)


def test_a_file_that_breaks_when_its_map_is_half_written(project, capsys):
    """The preview reads the overviews, which are whole; only the full pixels are cut off."""
    rng = np.random.default_rng(0)
    values = rng.integers(500, 900, (2, 1100, 1200)).astype(np.uint16) + np.array([0, 1500], np.uint16)[:, None, None]
    profile = {"driver": "GTiff", "count": 2, "height": 1100, "width": 1200, "dtype": "uint16", "tiled": True}
    with rasterio.open(project.image(), "w", **profile, crs=UTM, transform=grid(0).affine) as file:
        file.write(values)
    cut(project.image(), 0.6)
    said = failed(project, "predict", capsys)
    assert "cannot be read to its end" in said


# Scenes at the edge of what is possible


@pytest.mark.slow
def test_a_scene_smaller_than_a_tile(project, capsys):
    values = stored(0)[:, 5:25, 5:17]
    small = GeoBox(values.shape[1:], grid(0).affine * Affine.translation(5, 5), UTM)
    write_raster(project.image(), values, small, encoding=Encoding(dtype="uint16", bands=2))
    project.write(tiles={"size": 32, "overlap": 4, "min_valid": 0.1})
    for verb in ("scenes", "tiles"):
        assert run(project, verb, capsys)[0] == 0
    index = gpd.read_parquet(project.folder / "out" / "index.parquet")
    assert list(index["scene"]).count("s0") == 1
    assert index.set_index("scene").loc["s0", "positive_pixels"] == 5 * 10
    shutil.rmtree(project.folder / "out")
    assert run(project, "predict", capsys)[0] == 0
    with rasterio.open(project.folder / "out" / "s0" / "probability.tif") as file:
        assert file.shape == (20, 12)
        assert (file.read(1) != 255).all()


@pytest.mark.slow
def test_a_scene_without_a_valid_pixel(project, capsys):
    save_image(project.image(), np.zeros((2, *SHAPE), np.uint16), 0, nodata=0)
    assert "s0 has no pixel with red or nir or ndvi" in failed(project, "scenes", capsys)
    assert run(project, "tiles", capsys)[0] == 0
    assert list(gpd.read_parquet(project.folder / "out" / "index.parquet")["scene"].unique()) == ["s1"]
    shutil.rmtree(project.folder / "out")
    assert run(project, "predict", capsys)[0] == 0
    assert project.mapped() == ["s0", "s1"]
    for name in ("probability", "mask"):
        with rasterio.open(project.folder / "out" / "s0" / f"{name}.tif") as file:
            assert (file.read(1) == 255).all()
    assert gpd.read_file(project.folder / "out" / "s0" / "slumps.gpkg").empty
    shutil.move(project.folder / "out", project.folder / "maps")
    assert "s0 has no pixel with both a probability and a label" in failed(project, "evaluate", capsys)
    assert set(pd.read_csv(project.folder / "out" / "scores.csv")["scene"].dropna()) == {"s1"}


@pytest.mark.slow
@pytest.mark.parametrize("written", ["", "a summer day"])
def test_a_scene_without_acquisition_time(project, capsys, written):
    table = project.folder / "scenes.csv"
    table.write_text(f"id,region,path,acquired\ns0,Region0,scenes/s0,{written}\ns1,Region1,scenes/s1,2019-07-11\n")
    assert run(project, "scenes", capsys)[0] == 0
    assert run(project, "predict", capsys, "--set", "polygons.threshold=0.01")[0] == 0
    item = json.loads((project.folder / "out" / "s0" / "item.json").read_text())
    assert item["properties"]["datetime"] is None
    slumps = gpd.read_file(project.folder / "out" / "s0" / "slumps.gpkg")
    assert len(slumps)
    assert slumps["acquired"].isna().all()


# Labels


def rewrite(project, frame):
    (project.folder / "labels.gpkg").unlink()
    write_vector(project.folder / "labels.gpkg", frame)


def label_frame(project):
    return gpd.read_file(project.folder / "labels.gpkg")


def test_labels_in_another_crs(project, capsys):
    expected = run(project, "labels", capsys)[1]
    assert " 100 " in expected
    rewrite(project, label_frame(project).to_crs("EPSG:4326"))
    assert run(project, "labels", capsys)[1] == expected


@pytest.mark.slow
def test_an_empty_label_file(project, capsys):
    rewrite(project, label_frame(project).iloc[:0])
    for verb in ("labels", "tiles", "train", "evaluate"):
        assert "labels.gpkg holds no polygon" in refused(project, verb, capsys)
    assert run(project, "predict", capsys)[0] == 0  # which needs no labels


def test_labels_that_are_missing_or_no_polygons(project, capsys):
    frame = label_frame(project)
    (project.folder / "labels.gpkg").write_text("nothing")
    for verb in ("labels", "tiles", "train", "evaluate"):
        assert "labels.gpkg is not a vector file" in refused(project, verb, capsys)
    rewrite(project, frame.set_geometry(frame.centroid))
    assert "labels.gpkg holds a Point; labels are polygons" in refused(project, "labels", capsys)
    (project.folder / "labels.gpkg").unlink()
    for verb in ("labels", "tiles", "train", "evaluate"):
        assert "labels.gpkg does not exist" in refused(project, verb, capsys)


def test_labels_with_another_column(project, capsys):
    rewrite(project, label_frame(project).rename(columns={"image_id": "image"}))
    assert "no column 'image_id' for labels.scene; it has image" in refused(project, "tiles", capsys)


def test_no_labels_where_they_are_needed(project, capsys):
    project.write(labels=None)
    for verb in ("labels", "tiles", "train", "evaluate"):
        assert "has no 'labels'" in refused(project, verb, capsys)


def masks(project, first):
    """Label rasters, the first scene's as given."""
    for number, values in enumerate((first, (stored(1)[0] > 1500).astype(np.uint8))):
        save_image(project.image(f"s{number}").with_name("mask.tif"), values[None], number)
    project.write(labels={"raster": "mask.tif", "ignore": 255})


@pytest.mark.parametrize("verb", ["labels", "tiles"])
def test_a_mask_with_a_strange_value(project, capsys, verb):
    values = np.zeros(SHAPE, np.uint8)
    values[7, 7] = 42
    masks(project, values)
    said = failed(project, verb, capsys)
    assert "mask.tif holds the value 42" in said
    assert "labels.positive" in said


@pytest.mark.slow
def test_a_strange_value_is_not_scored_either(project, capsys):
    values = np.full(SHAPE, 3, np.uint8)
    assert run(project, "predict", capsys)[0] == 0
    shutil.move(project.folder / "out", project.folder / "maps")
    masks(project, values)
    status, _, error = run(project, "evaluate", capsys)
    assert status == 1
    assert "mask.tif holds the value 3" in error


@pytest.mark.slow
def test_labels_on_a_part_of_a_scene(project, capsys):
    values = np.full(SHAPE, 255, np.uint8)
    values[:, :16] = 0
    values[12:14, 2:7] = 1
    masks(project, values)
    status, out, _ = run(project, "labels", capsys)
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["s0"])
    assert status == 0
    assert "10" in row
    assert str(40 * 32) in row
    assert run(project, "predict", capsys)[0] == 0
    shutil.move(project.folder / "out", project.folder / "maps")
    assert run(project, "evaluate", capsys)[0] == 0
    scores = pd.read_csv(project.folder / "out" / "scores.csv")
    mine = scores[(scores["scene"] == "s0") & (scores["threshold_name"] == "paper")].iloc[0]
    assert mine[["tp", "fp", "fn", "tn"]].sum() == 40 * 16


def test_an_extent_that_covers_a_part(project, capsys):
    extent = gpd.GeoDataFrame(geometry=[square(0, 0, 0, 20)], crs=UTM).to_crs("EPSG:3413")
    write_vector(project.folder / "extent.gpkg", extent)
    project.write(labels=project.content["labels"] | {"extent": "extent.gpkg"})
    status, out, _ = run(project, "labels", capsys)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "Region" in line}
    assert status == 0
    assert str(40 * 48 - 400 - 2 * 10) in rows["s0"]  # of the slump's 10 columns, 2 lie outside
    assert str(40 * 48 - 10 * 10) in rows["s1"]


# Bundles


def spoil_weights(folder):
    cut(folder / "weights.safetensors", 0.7)


def swap_weights(folder):
    other = folder.parent / "other"
    save(a_bundle(seed=1), other)
    shutil.copy(other / "weights.safetensors", folder / "weights.safetensors")


def swap_weights_and_checksum(folder):
    other = folder.parent / "other"
    save(a_bundle(seed=1), other)
    shutil.copy(other / "weights.safetensors", folder / "weights.safetensors")
    content = json.loads((folder / "bundle.json").read_text())
    theirs = json.loads((other / "bundle.json").read_text())
    content["sha256"]["weights.safetensors"] = theirs["sha256"]["weights.safetensors"]
    (folder / "bundle.json").write_text(json.dumps(content))


def lose_weights(folder):
    (folder / "weights.safetensors").unlink()


def spoil_json(folder):
    cut(folder / "bundle.json", 0.5)


def lose_all(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_weights, "weights.safetensors is not the file it was saved with"),
        (swap_weights, "weights.safetensors is not the file it was saved with"),
        (swap_weights_and_checksum, "was changed after it was saved"),
        (lose_weights, "is not whole"),
        (spoil_json, "is not JSON"),
        (lose_all, "holds no bundle"),
    ],
)
def test_a_bundle_that_was_swapped_or_cut(project, capsys, spoil, told):
    spoil(project.folder / "model")
    assert told in refused(project, "predict", capsys)


def test_a_bundle_that_needs_what_the_scenes_do_not_have(project, capsys):
    save(a_bundle_with_slope(), project.folder / "model")
    status, _, error = run(project, "predict", capsys)
    assert status == 1
    assert error.count("layer 'slope' is in no source") == 2
    assert project.mapped() == []


def a_bundle_with_slope():
    bundle = a_bundle()
    return Bundle(
        **{name: getattr(bundle, name) for name in ("architecture", "encoder", "tile", "stride", "fixed_tile")},
        layers=(layer("red"), layer("nir"), layer("slope")),
        network=bundle.network,
    )


# As a user runs it


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["key", "scene"])
def test_the_real_command(project, fault):
    if fault == "key":
        project.write(sceness={})
    else:
        cut(project.image(), 0.5)
    done = subprocess.run(
        [sys.executable, "-m", "thawmap", *project.words("predict")], capture_output=True, text=True, check=False
    )
    assert done.returncode == {"key": 2, "scene": 1}[fault]
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert project.mapped() == {"key": [], "scene": ["s1"]}[fault]


@pytest.mark.parametrize("verb", ["labels", "tiles", "train", "evaluate"])
def test_labels_that_name_none_of_the_scenes(project, capsys, verb):
    """Every pixel would count as empty, without a word."""
    rewrite(project, label_frame(project).assign(image_id=["other_a", "other_b"]))
    assert "labels.scene" in refused(project, verb, capsys)
