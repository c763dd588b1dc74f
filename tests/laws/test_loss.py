"""Nothing that thawmap did not make is lost: outputs on and in what a user has, and results that people edited."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
import torch
import yaml
from affine import Affine
from bundles import a_bundle
from full_disk import room_for
from odc.geo.geobox import GeoBox

from thawmap import cli
from thawmap.config import ModelSettings
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.errors import DataError
from thawmap.files.guard import changed_files, content_hashes
from thawmap.files.results import check_result, result
from thawmap.layers import layer
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save
from thawmap.model.network import build
from thawmap.train import checkpoint

torch.set_num_threads(1)

UTM, SHAPE = "EPSG:32608", (32, 40)
BANDS = {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 2, "scale": 0.0001}}


def grid(number):
    return GeoBox(SHAPE, Affine(3, 0, 570_000 + 1000 * number, 0, -3, 7_720_000), UTM)


def image(path, number):
    values = np.random.default_rng(number).integers(500, 900, (2, *SHAPE)).astype(np.uint16)
    values[1] += 1500
    values[0, 10:20, 12:22] += 1500  # as red as near infrared: an object for the model
    write_raster(path, values, grid(number), encoding=Encoding(dtype="uint16", bands=2, nodata=0))


def square(number):
    a = grid(number).affine
    return shapely.box(*(a * (12, 20)), *(a * (22, 10)))


def write_yaml(folder, **more):
    content = {
        "scenes": {"kind": "rasters", "path": "scenes/*", "files": {"img.tif": BANDS}},
        "layers": ["red", "nir", "ndvi"],
        "labels": {"path": "labels.gpkg"},
        "tiles": {"size": 32, "overlap": 0},
        "model": {"architecture": "pixel"},
        "training": {"phases": [{"name": "all", "epochs": 1, "tiles": "all"}]},
        "inference": {"overlap": 8, "backend": "eager"},
        "polygons": {"threshold": 0.01},
    }
    path = folder / "thawmap.yaml"
    path.write_text(yaml.safe_dump(content | more, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A project of two scenes with notes beside their images, a model, and maps of both."""
    folder = tmp_path_factory.mktemp("loss") / "project"
    for number, name in enumerate(("s0", "s1")):
        image(folder / "scenes" / name / "img.tif", number)
        (folder / "scenes" / name / "notes.txt").write_text("field notes")
    gpd.GeoDataFrame(geometry=[square(0), square(1)], crs=UTM).to_file(folder / "labels.gpkg")
    write_yaml(folder)
    save(a_bundle(), folder / "model")
    assert run("predict", folder / "thawmap.yaml", "--model", folder / "model", "--out", folder / "maps") == 0
    return folder


@pytest.fixture
def project(whole, tmp_path, monkeypatch):
    """A copy of the project, in whose folder the shell is."""
    shutil.copytree(whole, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def run(*words):
    return cli._run([str(word) for word in words])


def contents(folder):
    """What every file below a folder holds."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


PREDICT = ("predict", "thawmap.yaml", "--model", "model")
AGAIN = ("--set", "polygons.threshold=0.02")  # another map of the same scenes


def sentence(capsys):
    """The one sentence with which a request is refused."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("thawmap: ")]
    return line


# An output on, in or around what is read


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("out", ["scenes", "scenes/../scenes", "link", "scenes/"])
def test_maps_never_take_the_place_of_their_scenes(project, capsys, out, dry):
    (project / "link").symlink_to("scenes")
    before = contents(project)
    assert run(*PREDICT, "--out", out, *dry) == 2
    assert "img.tif, which is read" in sentence(capsys)
    assert contents(project) == before


def test_nor_where_the_scene_is_a_link_to_the_place(project, capsys):
    shutil.move("scenes/s0", "s0")
    Path("scenes/s0").symlink_to(project / "s0")
    before = contents(project)
    assert run(*PREDICT, "--out", ".") == 2
    assert "s0 would be replaced, and holds " in sentence(capsys)
    assert contents(project) == before


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("model", "model is model, which is read"),
        ("model/maps", "model/maps lies in model, which is read"),
        ("thawmap.yaml", "thawmap.yaml is a file where a folder is due"),
        ("scenes/s0/img.tif/maps", "lies in"),
        ("dem/maps", "dem/maps lies in"),
        ("scenes/maps", "scenes/maps would be taken for a scene, as it is like 'scenes.path'"),
        ("new/../scenes/maps/deeper", "would be taken for a scene"),
    ],
)
def test_outputs_lie_in_nothing_that_is_read(project, capsys, out, says):
    heights, encoding = np.ones(SHAPE, np.float32), Encoding(dtype="float32", nodata=-1.0)
    write_raster(Path("dem/t.tif"), heights, grid(0), encoding=encoding)
    more = ("--set", "sources={elevation: {path: dem}}")
    before = contents(project)
    assert run(*PREDICT, "--out", out, "--dry-run", *more) == 2
    assert says in sentence(capsys)
    assert contents(project) == before


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_is_no_map_is_never_replaced_and_costs_one_scene(project, capsys, dry):
    Path("other/s0").mkdir(parents=True)
    Path("other/s0/field.gpkg").write_bytes(b"points")
    Path("other/s1").mkdir()  # empty: nothing to lose
    assert run(*PREDICT, "--out", "other", *dry) == 1
    said = capsys.readouterr().err
    assert "s0 failed: other/s0 holds field.gpkg, which is no map of s0" in said
    assert contents(Path("other/s0")).keys() == {Path("field.gpkg")}
    assert Path("other/s1/item.json").exists() == (not dry)


def test_a_file_or_a_link_where_a_map_is_due(project, capsys):
    Path("other").mkdir()
    Path("other/s0").write_text("mine")
    Path("elsewhere").mkdir()
    Path("other/s1").symlink_to(project / "elsewhere")
    assert run(*PREDICT, "--out", "other") == 1
    assert "other/s0 is a file" in capsys.readouterr().err
    assert Path("other/s0").read_text() == "mine"
    assert Path("other/s1").is_symlink()
    assert Path("elsewhere/item.json").exists()


def test_fused_maps_take_no_place_but_their_own(project, capsys):
    before = contents(project)
    assert run("fuse", "maps", "--out", "scenes") == 1  # folders of the same names, that hold other files
    said = capsys.readouterr().err
    assert "s0 failed: scenes/s0 holds img.tif, notes.txt, which is no map" in said
    assert "s1 failed" in said
    shutil.copytree("maps", "others")
    assert run("fuse", "maps", "--out", "others") == 1  # single maps, of which another verb made each
    assert "others/s0 holds" in capsys.readouterr().err
    assert run("fuse", "maps", "--out", "maps/s0/fused") == 2
    assert "lies in maps/s0, which is read" in sentence(capsys)
    shutil.rmtree("others")
    assert contents(project) == before


@pytest.mark.slow
def test_tiles_take_no_place_but_their_own(project, capsys):
    Path("store/s0.zarr").mkdir(parents=True)
    Path("store/s0.zarr/mine.txt").write_text("mine")
    assert run("tiles", "thawmap.yaml", "--out", "store") == 1
    assert "s0 failed: store/s0.zarr holds mine.txt, which is no scene's tiles" in capsys.readouterr().err
    assert Path("store/s0.zarr/mine.txt").exists()
    assert run("tiles", "thawmap.yaml", "--out", "store/../store") == 1
    shutil.rmtree("store/s0.zarr")
    assert run("tiles", "thawmap.yaml", "--out", "store") == 0
    Path("store/s1.zarr/mine.txt").write_text("mine")
    assert run("tiles", "thawmap.yaml", "--out", "store", "--set", "tiles.min_valid=0.4") == 1
    assert "store/s1.zarr holds mine.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("labels", "check", "labels.gpkg", "--out", "mine.gpkg"),
        ("labels", "check", "thawmap.yaml", "--repaired", "mine.gpkg"),
        ("labels", "convert", "labels.gpkg", "mine.gpkg", "--to", "thawmap"),
        ("labels", "convert", "labels.gpkg", "table.shp", "--to", "thawmap"),
        ("labels", "convert", "labels.gpkg", "dangling.gpkg", "--to", "thawmap"),
        ("model", "export", "model", "mine.gpkg"),
        ("bench", "--model", "model", "--json", "mine.gpkg"),
    ],
)
def test_a_file_that_exists_is_never_replaced(project, capsys, words):
    for name in ("lakes", "checked"):
        frame = gpd.GeoDataFrame(geometry=[square(0)], crs=UTM)
        pyogrio.write_dataframe(frame, "mine.gpkg", layer=name, append=name == "checked")
    Path("table.dbf").write_bytes(b"a table of the user's")
    Path("dangling.gpkg").symlink_to("nowhere.gpkg")
    before = contents(project)
    assert run(*words) == 2
    assert "exists; name another file, or remove it" in sentence(capsys)
    assert contents(project) == before


def test_two_results_are_not_one_file(project, capsys):
    assert run("labels", "check", "labels.gpkg", "--out", "a.gpkg", "--repaired", "a.gpkg") == 2
    assert "a.gpkg is named for two results" in sentence(capsys)
    assert not Path("a.gpkg").exists()


# What people wrote into a map


def edit_rows(folder):
    with closing(sqlite3.connect(folder / "slumps.gpkg")) as base:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):  # which its triggers call
            base.create_function(name, 1, lambda _: 0)
        assert base.execute("update slumps set status = 'confirmed', reviewer = 'me'").rowcount
        base.commit()


def edit_an_outline(folder):
    frame = gpd.read_file(folder / "slumps.gpkg")
    frame.geometry = frame.geometry.buffer(1)
    frame.to_file(folder / "slumps.gpkg")


def add_a_layer(folder):
    frame = gpd.GeoDataFrame(geometry=[square(0)], crs=UTM)
    pyogrio.write_dataframe(frame, folder / "slumps.gpkg", layer="lakes", append=True)


def edit_in_a_log(folder):
    """What a program that is still running has written, and not yet put into the file."""
    log = folder / "slumps.gpkg-wal"
    with closing(sqlite3.connect(folder / "slumps.gpkg")) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table notes (text)")
        base.execute("insert into notes values ('mine')")
        base.commit()
        kept = log.read_bytes()
        whole = (folder / "slumps.gpkg").read_bytes()
    (folder / "slumps.gpkg").write_bytes(whole)
    log.write_bytes(kept)


def edit_a_style(folder):
    (folder / "slumps.qml").write_text("<qgis/>")


def add_a_file(folder):
    (folder / "deeper").mkdir()
    (folder / "deeper" / "photo.jpg").write_bytes(b"photo")


def edit_the_item(folder):
    item = json.loads((folder / "item.json").read_text())
    item["properties"]["comment"] = "checked"
    (folder / "item.json").write_text(json.dumps(item))


def forget_what_was_made(folder):
    """As a version wrote it that noted nothing."""
    item = json.loads((folder / "item.json").read_text())
    del item["properties"]["thawmap:files"]
    (folder / "item.json").write_text(json.dumps(item))


def rename(folder):
    item = json.loads((folder / "item.json").read_text())
    (folder / "item.json").write_text(json.dumps(item | {"id": "another"}))


EDITS = (
    edit_rows, edit_an_outline, add_a_layer, edit_in_a_log, edit_a_style, add_a_file, edit_the_item,
    forget_what_was_made, rename,
)  # fmt: skip


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A project with a map for every edit, edited so, and one more that nobody touches; the edits by scene."""
    monkeypatch.chdir(tmp_path)
    for number in range(len(EDITS) + 1):
        image(Path(f"scenes/s{number}/img.tif"), number)
    write_yaml(tmp_path)
    save(a_bundle(), tmp_path / "model")
    assert run(*PREDICT, "--out", "maps") == 0
    edits = {f"s{number}": edit for number, edit in enumerate(EDITS)}
    for name, edit in edits.items():
        edit(Path("maps") / name)
    return edits


@pytest.mark.slow
def test_what_people_wrote_into_maps_stays(edited, capsys):
    before, untouched = contents(Path("maps")), Path("maps") / f"s{len(EDITS)}"
    for dry in (("--dry-run",), ()):
        assert run(*PREDICT, "--out", "maps", *AGAIN, *dry) == 1
        said = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
        named = [name for name in edited if any(f"{name} failed: maps/{name} " in line for line in said)]
        assert named == list(edited)
        assert all("move it away" in line for line in said)
    after = contents(Path("maps"))
    assert {path for path in before if before[path] != after.get(path)} >= {untouched.relative_to("maps") / "item.json"}
    assert all(after[path] == held for path, held in before.items() if path.parts[0] != untouched.name)
    shutil.move("maps/s0", "kept")
    assert run(*PREDICT, "--out", "maps", *AGAIN, "--set", "scenes.path=scenes/s0") == 0


def test_a_map_that_nobody_changes_is_finished_whatever_was_noted(project, capsys):
    """Maps of before, and maps with verdicts, need not be made again."""
    forget_what_was_made(Path("maps/s0"))
    edit_rows(Path("maps/s1"))
    before = contents(Path("maps"))
    assert run(*PREDICT, "--out", "maps") == 0
    assert "2 of them before" in capsys.readouterr().out
    assert contents(Path("maps")) == before


def open_in_a_gis(folder):
    """What QGIS and GDAL leave without a change: other bytes of the GeoPackage, statistics, notes."""
    with closing(sqlite3.connect(folder / "slumps.gpkg")) as base:
        for mode in ("wal", "delete"):
            base.execute(f"pragma journal_mode={mode}")
        base.execute("update gpkg_contents set last_change = '2030-01-01T00:00:00.000Z'")
        base.commit()
    (folder / "slumps.gpkg-wal").write_bytes(b"")
    (folder / "slumps.gpkg-shm").write_bytes(b"")
    for name in ("probability.tif.aux.xml", ".DS_Store"):
        (folder / name).write_text("anything")
    (folder / "probability.qmd").write_text("<qgis>noted</qgis>")


@pytest.mark.slow
def test_a_map_that_was_only_looked_at_is_made_again(project):
    before = Path("maps/s0/slumps.gpkg").read_bytes()
    open_in_a_gis(Path("maps/s0"))
    assert Path("maps/s0/slumps.gpkg").read_bytes() != before
    assert run(*PREDICT, "--out", "maps", *AGAIN) == 0
    assert json.loads(Path("maps/s0/item.json").read_text())["properties"]["thawmap:threshold"] == 0.02
    assert Path("maps/s0/probability.qmd").read_text() == "<qgis>noted</qgis>"
    assert not Path("maps/s0/probability.tif.aux.xml").exists()
    assert run(*PREDICT, "--out", "maps", "--set", "polygons.threshold=0.03") == 0
    assert Path("maps/s0/probability.qmd").exists()


@pytest.mark.slow
@pytest.mark.parametrize("edit", [edit_rows, add_a_file, edit_the_item, forget_what_was_made])
def test_what_people_wrote_into_a_fused_map_stays(project, capsys, edit):
    assert run("fuse", "maps", "--out", "fused", "--spread") == 0
    assert run("fuse", "maps", "--out", "fused") == 0  # as it was made, it is made anew
    edit(Path("fused/s0"))
    before = contents(Path("fused/s0"))
    assert run("fuse", "maps", "--out", "fused", "--how", "maximum") == 1
    assert "s0 failed: fused/s0 " in capsys.readouterr().err
    assert contents(Path("fused/s0")) == before


def test_reading_a_geopackage_with_a_log_changes_neither(project):
    edit_in_a_log(Path("maps/s0"))
    before = contents(Path("maps/s0"))
    assert before.keys() >= {Path("slumps.gpkg"), Path("slumps.gpkg-wal")}
    made = content_hashes(Path("maps/s0"))
    assert changed_files(Path("maps/s0"), made) == []
    assert contents(Path("maps/s0")) == before


# One item costs one item


@pytest.fixture
def uneven(project):
    """A project whose second scene has no elevation under it."""
    heights = np.full((300, 300), 10, np.float32)
    dem = GeoBox(heights.shape, Affine(2, 0, 569_800, 0, -2, 7_720_200), UTM)
    write_raster(project / "dem" / "t.tif", heights, dem, encoding=Encoding(dtype="float32", nodata=-9999.0))
    write_yaml(
        project,
        layers=["red", "nir", "slope"],
        sources={"elevation": {"path": "dem"}},
        crossval={"folds": {"by": "scene"}, "grid": {}},
    )
    return project


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["tiles", "train"])
def test_a_scene_without_elevation_costs_that_scene(uneven, capsys, verb):
    assert run(verb, "thawmap.yaml", "--out", "out", "--dry-run") == 1
    assert "s1 failed: scene s1: no raster of " in capsys.readouterr().err
    assert run(verb, "thawmap.yaml", "--out", "out") == 1
    said = capsys.readouterr().err
    assert "s1 failed: scene s1: no raster of " in said
    assert "Error" not in said
    store = Path("out") if verb == "tiles" else Path("out/tiles")
    assert sorted(path.name for path in store.glob("*.zarr")) == ["s0.zarr"]
    assert verb == "tiles" or Path("out/bundle.json").exists()
    assert run("predict", "thawmap.yaml", "--model", "model", "--out", "new") == 1
    assert sorted(path.name for path in Path("new").iterdir()) == ["s0"]


@pytest.mark.slow
def test_tiles_that_are_damaged_are_cut_again(project, capsys):
    assert run("tiles", "thawmap.yaml", "--out", "store") == 0
    before, index = contents(Path("store")), Path("store/s0.zarr/index.parquet")
    index.write_bytes(index.read_bytes()[:-100])
    Path("store/s1.zarr/zarr.json").write_text("{")
    Path("store/store.json").unlink()
    assert run("tiles", "thawmap.yaml", "--out", "store") == 0
    assert contents(Path("store")).keys() == before.keys()
    assert contents(Path("store"))[Path("store.json")] == before[Path("store.json")]
    assert len(gpd.read_parquet(index))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [Path.unlink, lambda item: item.write_text("{")])
def test_a_map_that_says_nothing_costs_that_map(project, capsys, spoil):
    spoil(Path("maps/s0/item.json"))
    assert run("evaluate", "maps", "--config", "thawmap.yaml", "--out", "report") == 1
    said = capsys.readouterr()
    assert "s0 failed: maps/s0" in said.err
    assert Path("report/index.html").exists()


@pytest.mark.slow
def test_an_image_that_cannot_be_shown_costs_its_picture(project, capsys):
    whole = Path("scenes/s0/img.tif").read_bytes()
    Path("scenes/s0/img.tif").write_bytes(whole[:-2000])  # the header is as it was
    assert run("evaluate", "maps", "--config", "thawmap.yaml", "--out", "report") == 1
    assert "s0 failed: " in capsys.readouterr().err
    assert Path("report/index.html").exists()


# Reports, tables and best.yaml


EVALUATE = ("evaluate", "maps", "--config", "thawmap.yaml", "--out")


@pytest.mark.slow
def test_a_report_is_made_again_and_others_files_stay(project):
    assert run(*EVALUATE, "report") == 0
    first = contents(Path("report"))
    Path("report/notes.txt").write_text("mine")
    Path("report/scores.csv").unlink()
    assert run(*EVALUATE, "report") == 0
    assert contents(Path("report")).keys() == {*first, Path("notes.txt")}
    assert not [path for path in Path("report").iterdir() if path.suffix in (".tmp", ".lock")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "scores.csv", "curves.parquet", "scores.json"])
def test_a_report_that_somebody_changed_stays(project, capsys, name):
    assert run(*EVALUATE, "report") == 0
    with (Path("report") / name).open("ab") as file:
        file.write(b" ")
    before = contents(Path("report"))
    capsys.readouterr()
    assert run(*EVALUATE, "report") == 2
    assert f"report holds {name}, which was not made here, or was changed since" in sentence(capsys)
    assert contents(Path("report")) == before


def test_files_of_others_with_the_names_of_a_report_stay(project, capsys):
    Path("scores.csv").write_text("mine")
    before = contents(project)
    assert run(*EVALUATE, ".") == 2
    assert ". holds scores.csv, which was not made here" in sentence(capsys)
    for out, says in (("model", "model is model"), ("model/report", "lies in model"), ("maps/s0", "is maps/s0")):
        words = (*EVALUATE, out, "--model", "model")
        assert run(*words) == 2
        assert f"{says}, which is read" in sentence(capsys)
    assert contents(project) == before


def test_a_result_that_was_killed_between_two_files_is_known(tmp_path):
    """Whichever of the old and the new files a kill leaves."""
    for text in ("1", "2", "3"):
        with result(tmp_path) as draft:
            for name in ("a", "b"):
                (draft / name).write_text(text)
    (tmp_path / "a").write_text("2")  # as if the last run had not come to it
    check_result(tmp_path)
    (tmp_path / "a").write_text("1")
    with pytest.raises(DataError, match="holds a, which"):
        check_result(tmp_path)


def test_a_complete_result_takes_back_what_it_lacks(tmp_path):
    for names in ("ab", "b"):
        with result(tmp_path, complete=True) as draft:
            (draft / "deeper").mkdir()
            for name in names:
                (draft / "deeper" / name).write_text(name)
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["b"]
    (tmp_path / "deeper" / "b").write_text("mine")
    with pytest.raises(DataError, match="holds deeper/b, which"), result(tmp_path, complete=True) as draft:
        (draft / "c").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".made.json", "b"]


TUNE = ("--set", "tune={keys: {training.optimiser.lr: {low: 1.0e-3, high: 1.0e-2}}, trials: 1}")
LEFT_OUT = ("--set", "split={by: scene, validation: [s1]}")


@pytest.mark.slow
def test_a_best_yaml_that_somebody_changed_stays(project, capsys):
    pytest.importorskip("optuna")
    words = ("tune", "thawmap.yaml", "--out", "tuned", *LEFT_OUT, *TUNE, "--resume")
    assert run(*words) == 0
    for name in ("notes.txt", "trials/0000/notes.txt"):
        (Path("tuned") / name).write_text("mine")
    assert run(*words, "--trials", "2") == 0
    assert Path("tuned/notes.txt").exists()
    assert Path("tuned/trials/0000/notes.txt").exists()
    with Path("tuned/best.yaml").open("a") as file:
        file.write("# mine\n")
    before = contents(Path("tuned"))
    for more in ((), ("--dry-run",)):
        assert run(*words, "--trials", "3", *more) == 2
        assert "tuned holds best.yaml, which was not made here" in capsys.readouterr().err
    assert contents(Path("tuned")) == before


@pytest.mark.parametrize("verb", ["train", "crossval", "tune", "model"])
def test_trainings_and_imports_write_over_no_file(project, capsys, verb):
    names = {"train": "metrics.csv", "crossval": "fits.parquet", "tune": "best.yaml", "model": "weights.safetensors"}
    Path("taken").mkdir()
    (Path("taken") / names[verb]).write_text("mine")
    (Path("taken") / "item.json").write_text("a STAC item of mine")
    before = contents(project)
    words = [verb, "thawmap.yaml", "--out", "taken", *LEFT_OUT, *TUNE]
    if verb == "model":
        words = ["model", "import", "model/weights.safetensors", "--out", "taken"]
    assert run(*words) == 2
    assert names[verb] in sentence(capsys)
    assert contents(project) == before


@pytest.mark.slow
def test_what_lies_in_the_folders_of_a_training_stays(project):
    assert run("train", "thawmap.yaml", "--out", "trained", *LEFT_OUT) == 0
    for folder in ("trained", "trained/last", "trained/report", "trained/tiles"):
        (Path(folder) / "notes.txt").write_text("mine")
    checkpoint.discard(Path("trained"))
    left = {
        str(path) for path in Path("trained").rglob("*") if path.name in ("notes.txt", "bundle.json", "metrics.csv")
    }
    notes = {f"{folder}/notes.txt" for folder in ("trained", "trained/last", "trained/report", "trained/tiles")}
    assert left == notes | {"trained/metrics.csv"}


@pytest.mark.parametrize("name", ["index.parquet", "store.json"])
def test_files_of_others_with_the_names_of_a_store_stay(project, capsys, name):
    Path("store").mkdir()
    (Path("store") / name).write_text("mine")
    assert run("tiles", "thawmap.yaml", "--out", "store") == 2
    assert f"store holds {name} of something else than tiles" in sentence(capsys)
    assert (Path("store") / name).read_text() == "mine"


# A full disk


@pytest.fixture
def _little_room():
    """No file can have more than 20 kB, which is what a full disk is to a library."""
    with room_for(20_000):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_little_room")
@pytest.mark.parametrize("to", ["darts", "onnx"])
def test_a_model_that_the_disk_does_not_hold_is_one_sentence(whole, tmp_path, capsys, to, monkeypatch):
    small = build(ModelSettings(architecture="unet", encoder="resnet18"), channels=4).eval()
    names = ("blue", "green", "red", "nir")
    about = {"tile": 32, "stride": 32, "fixed_tile": False, "encoder": "resnet18"}
    layers = tuple(layer(name) for name in names)
    made = Bundle(id="b", layers=layers, architecture="unet", network=small, **about)
    monkeypatch.setattr("thawmap.pipeline.model.load", lambda _: made)  # saving it would meet the same disk
    assert run("model", "export", "anything", tmp_path / "m.pt", "--to", to) == 2
    assert "m.pt cannot be written (" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


# What is said when a run is stopped


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("train", "x.yaml", "--out", "m"), "add --resume to the same command to go on"),
        (("crossval", "x.yaml", "--out", "m"), "add --resume to the same command to go on"),
        (("tune", "x.yaml", "--out", "m"), "add --resume to the same command to go on"),
        (("train", "x.yaml", "--out", "m", "--resume"), "run the same command to go on"),
        (("predict", "x.yaml", "--model", "m", "--out", "maps"), "run the same command to go on"),
    ],
)
def test_who_stops_a_run_is_told_what_goes_on(monkeypatch, capsys, words, remedy):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("thawmap.config.load", stop)
    assert run(*words) == 130
    assert capsys.readouterr().err == f"\nthawmap: stopped; what is finished stays, {remedy}\n"


def test_a_stop_after_the_last_line_is_silent():
    code = (
        "import atexit, os, signal, sys; sys.argv[1:] = ['--version']; "
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); from thawmap.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout
