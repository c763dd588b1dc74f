"""Labels that lie on none of the scenes are said, with what would put them there, before anything is made of them."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.affinity import translate

from thawmap import cli
from thawmap.config import LabelSettings
from thawmap.data.labels.footprints import astray, footprint
from thawmap.data.labels.polygons import open_labels
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.sources.base import Scene
from thawmap.data.vector.io import write_vector
from thawmap.errors import LabelError

UTM, DEGREES, POLAR = "EPSG:32608", "EPSG:4326", "EPSG:3413"
GRIDS = {name: GeoBox((40, 40), Affine(3, 0, 570_000 + x, 0, -3, 7_720_000), UTM) for name, x in (("a", 0), ("b", 900))}
SCENES = {name: footprint(Scene(id=name, sensor="test", geobox=grid, files={})) for name, grid in GRIDS.items()}
YAML = """\
scenes: {kind: rasters, path: "scenes/*.tif", files: {"{name}.tif": {red: {scale: 0.0001}}}}
layers: [red]
labels: {path: labels.gpkg, LABELS}
split: {by: scene, validation: [b]}
tiles: {size: 32, overlap: 0}
model: {architecture: pixel}
training: {batch_size: 8, phases: [{name: p, epochs: 1, tiles: all}]}
"""


def squares(**columns):
    shapes = [shapely.box(570_030 + 900 * n, 7_719_930, 570_060 + 900 * n, 7_719_960) for n in (0, 1)]
    return gpd.GeoDataFrame({"image_id": ["a", "b"], **columns}, geometry=shapes, crs=UTM)


def moved(frame, move):
    return frame.set_geometry(shapely.transform(np.asarray(frame.geometry), move), crs=frame.crs)


WRONG = {
    "with x and y swapped": moved(squares().to_crs(DEGREES), lambda points: points[:, ::-1]),
    "with longitudes of the other sign": moved(squares().to_crs(DEGREES), lambda points: points * [-1, 1]),
    "in EPSG:32608 in place of EPSG:4326": squares().set_crs(DEGREES, allow_override=True),
    "in EPSG:4326 in place of EPSG:32608": squares().to_crs(DEGREES).set_crs(UTM, allow_override=True),
    "in EPSG:32608 in place of EPSG:32609": squares().set_crs("EPSG:32609", allow_override=True),
    "in EPSG:32608 in place of EPSG:3413": squares().set_crs(POLAR, allow_override=True),
    "in EPSG:4326 in place of EPSG:3413 with x and y swapped": moved(
        squares().to_crs(DEGREES).set_crs(POLAR, allow_override=True), lambda points: points[:, ::-1]
    ),
}


@pytest.mark.parametrize("cause", WRONG)
@pytest.mark.parametrize("named", [True, False])
def test_what_is_wrong_with_coordinates_is_named(cause, named):
    lost = astray(WRONG[cause], SCENES, WRONG[cause]["image_id"].to_numpy(object) if named else None)
    assert lost is not None
    assert lost.explained
    assert (
        lost.message == f"none of 2 polygons lies on {'its scene' if named else 'any of 2 scenes'}, and 2 would {cause}"
    )


def test_a_zone_behind_many_scenes_of_another_is_tried_too():
    far = GeoBox((40, 40), Affine(3, 0, 500_000, 0, -3, 7_500_000), "EPSG:32605")
    many = {f"far{n}": footprint(Scene(id=f"far{n}", sensor="test", geobox=far, files={})) for n in range(20)}
    lost = astray(squares().set_crs("EPSG:32609", allow_override=True), many | SCENES)
    assert lost is not None
    assert "2 would in EPSG:32608 in place of EPSG:32609" in lost.message


@pytest.mark.parametrize("crs", [UTM, DEGREES, POLAR, "EPSG:32609"])
def test_labels_that_lie_on_a_scene_are_left_alone(crs):
    many = [translate(shape, 0, 5000 * n) for n in range(100) for shape in squares().geometry]
    around = shapely.box(569_000, 7_719_000, 999_000, 7_799_000)
    for frame in (squares(), squares().iloc[:1], gpd.GeoDataFrame(geometry=many, crs=UTM)):
        assert astray(frame.to_crs(crs), SCENES) is None
    assert astray(gpd.GeoDataFrame(geometry=[around], crs=UTM), SCENES) is None
    assert astray(squares().to_crs(crs), SCENES, np.array(["a", "c"], object)) is None


def test_without_an_explanation_only_labels_that_lie_nowhere_at_all_are_said():
    elsewhere = moved(squares(), lambda points: points + [9e4, 9e4])  # noqa: RUF005
    lost = astray(elsewhere, SCENES)
    assert lost is not None
    assert not lost.explained
    assert lost.message == "none of 2 polygons lies on any of 2 scenes"
    lost = astray(squares(), SCENES, np.array(["b", "a"], object))
    assert lost is not None
    assert lost.message == "none of 2 polygons lies on its scene"


def test_hardly_any_is_enough_where_there_is_an_explanation():
    wrong = moved(squares().to_crs(DEGREES), lambda points: points[:, ::-1])
    frame = gpd.GeoDataFrame(
        geometry=[*np.repeat(wrong.geometry, 20), *squares().to_crs(DEGREES).geometry], crs=DEGREES
    )
    lost = astray(frame, SCENES)
    assert lost is not None
    assert lost.message == "only 2 of 42 polygons lie on any of 2 scenes, and 40 would with x and y swapped"


def run(*words: object) -> int:
    return cli._run([str(word) for word in words])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, grid in GRIDS.items():
        pixels = np.random.default_rng(0).integers(300, 3000, grid.shape, dtype=np.uint16)
        write_raster(tmp_path / "scenes" / f"{name}.tif", pixels, grid, encoding=Encoding(dtype="uint16"))
        (tmp_path / "maps" / name).mkdir(parents=True)
    return tmp_path / "thawmap.yaml"


@pytest.mark.parametrize("settings", ["scene: image_id", "extent: looked.gpkg"])
def test_every_verb_that_uses_labels_refuses_those_that_lie_nowhere(project, settings, capsys):
    folder, wrong = project.parent, WRONG["with x and y swapped"]
    project.write_text(YAML.replace("LABELS", settings))
    write_vector(folder / "labels.gpkg", squares() if "looked" in settings else wrong)
    write_vector(folder / "looked.gpkg", wrong)
    for words in (
        ("labels", project),
        ("tiles", project, "--out", folder / "tiles"),
        ("tiles", project, "--out", folder / "tiles", "--dry-run"),
        ("train", project, "--out", folder / "model"),
        ("crossval", project, "--out", folder / "cv"),
        ("evaluate", folder / "maps", "--config", project, "--out", folder / "report"),
    ):
        assert run(*words) == 2
        said = capsys.readouterr().err
        assert "none of 2 polygons lies on" in said
        assert "2 would with x and y swapped; correct that" in said
        assert ("labels.extent" in said) == ("looked" in settings)
    assert not (folder / "model" / "bundle.json").exists()
    assert run("labels", "check", project) == 0
    said = capsys.readouterr().out
    assert ("extent" if "looked" in settings else "nowhere") in said
    assert "with x and y swapped" in said


def test_an_extent_that_cannot_be_used_is_said_by_the_check_too(project, capsys):
    project.write_text(YAML.replace("LABELS", "extent: looked.gpkg"))
    write_vector(project.parent / "labels.gpkg", squares())
    for made, said in ((None, "does not exist"), (squares().iloc[:0], "holds no polygon")):
        if made is not None:
            write_vector(project.parent / "looked.gpkg", made)
        for words in (("labels", "check", project), ("labels", project)):
            assert run(*words) == 2
            told = capsys.readouterr().err
            assert said in told
            assert "labels.extent" in told


def test_labels_of_other_ground_are_not_trained_on_and_their_score_is_said(project, capsys):
    project.write_text(YAML.replace("LABELS", ""))
    write_vector(project.parent / "labels.gpkg", moved(squares(), lambda points: points + [9e4, 9e4]))  # noqa: RUF005
    assert run("tiles", project, "--out", project.parent / "tiles") == 2
    assert "see its CRS, and whether the scenes show its ground" in capsys.readouterr().err
    assert run("labels", project) == 0
    assert "none of 2 polygons lies on any of 2 scenes" in capsys.readouterr().out


def test_a_raster_of_labels_beside_its_scene_is_refused(tmp_path):
    place = GeoBox((40, 40), GRIDS["a"].affine * Affine.translation(400, 0), UTM)
    write_raster(tmp_path / "a.tif", np.ones((40, 40), np.uint8), place, encoding=Encoding(dtype="uint8"))
    scene = Scene(id="a", sensor="test", geobox=GRIDS["a"], files={"labels": tmp_path / "a.tif"})
    with pytest.raises(LabelError, match="lies beside its scene a"):
        open_labels(LabelSettings(raster="a.tif")).burn(scene, GRIDS["a"])
