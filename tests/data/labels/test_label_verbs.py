"""Labels on the command line: what is wrong with them, what they hold, and their form in ARTS."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap import cli
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.vector.io import read_vector, write_vector

GRID = GeoBox((40, 50), Affine(3, 0, 500_000, 0, -3, 7_800_000), "EPSG:32608")
YAML = """\
scenes: {kind: rasters, path: "scenes/*", files: {a.tif: {red: {scale: 0.001}}}}
layers: [red]
labels: {path: rts.gpkg, scene: image_id, region: region}
"""


def run(*words: object) -> int:
    return cli._run([str(word) for word in words])


def square(col: float, row: float, side: float) -> shapely.Polygon:
    x, y = GRID.affine * (col, row)
    return shapely.box(x, y - 3 * side, x + 3 * side, y)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two scenes, one of them broken, one with a strip without pixels; polygons with a fault each."""
    pixels = np.full(GRID.shape, 100, np.uint16)
    pixels[:, 30:] = 0
    write_raster(tmp_path / "scenes" / "one" / "a.tif", pixels, GRID, encoding=Encoding(dtype="uint16", nodata=0))
    (tmp_path / "scenes" / "two").mkdir()
    (tmp_path / "scenes" / "two" / "a.tif").write_bytes(b"broken")
    bow = shapely.Polygon([*square(2, 2, 6).exterior.coords[:2], *square(2, 2, 6).exterior.coords[3:1:-1]])
    drawn = {
        "good": ("one", square(12, 2, 5)),
        "again": ("one", square(12, 2, 5)),
        "crossed": ("one", bow),
        "beyond": ("one", square(36, 20, 6)),
        "nowhere": ("three", square(2, 30, 6)),
        "of the broken": ("two", square(2, 20, 6)),
    }
    frame = gpd.GeoDataFrame(
        {"name": list(drawn), "image_id": [scene for scene, _ in drawn.values()], "region": "Lena"},
        geometry=[shape for _, shape in drawn.values()],
        crs=str(GRID.crs),
    )
    write_vector(tmp_path / "rts.gpkg", frame)
    (tmp_path / "thawmap.yaml").write_text(YAML)
    return tmp_path / "thawmap.yaml"


def test_every_fault_is_named_and_what_a_machine_can_mend_is_mended(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project.parent / "rts.gpkg").read_bytes()
    out, copy = project.parent / "faults.gpkg", project.parent / "repaired.gpkg"
    assert run("labels", "check", project, "--out", out, "--repaired", copy) == 1
    said = capsys.readouterr()
    assert "two failed: scene two" in said.err
    faults = read_vector(out)
    named = set(zip(faults["row"], faults["kind"], strict=True))
    assert {(2, "duplicate"), (3, "invalid"), (4, "outside"), (5, "unknown scene")} <= named
    assert not any(row == 6 for row, kind in named if kind == "unknown scene")  # it is there, and broken
    assert faults.crs == GRID.crs
    mended = read_vector(copy)
    assert list(mended["name"]) == ["good", "crossed", "beyond", "nowhere", "of the broken"]
    assert mended.is_valid.all()
    assert (project.parent / "rts.gpkg").read_bytes() == before


def test_a_file_by_itself_is_checked_without_scenes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("labels", "check", project.parent / "rts.gpkg") == 0
    said = capsys.readouterr().out
    assert "invalid" in said
    assert "unknown scene" not in said


def test_what_an_inventory_holds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("labels", "stats", project, "--by", "image_id") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["one"][1] == "4"
    assert float(lines["three"][-1]) == pytest.approx((6 * 3) ** 2, rel=2e-3)
    assert run("labels", "stats", project, "--by", "sight") == 2
    assert "no column 'sight'" in capsys.readouterr().err


def test_to_arts_and_back_loses_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, arts, back = project.parent / "good.gpkg", project.parent / "arts.gpkg", project.parent / "back.gpkg"
    frame = read_vector(project.parent / "rts.gpkg").iloc[:1].assign(image_date="2019-07-14", label=1)
    write_vector(source, frame)
    assert run("labels", "convert", source, arts, "--to", "arts") == 2
    assert "CreatorLab" in capsys.readouterr().err
    assert not arts.exists()
    given = ("--creator", "A, B", "--image", "PlanetScope", "--resolution", 3)
    assert run("labels", "convert", source, arts, "--to", "arts", *given) == 0
    made = read_vector(arts)
    assert (made["BaseMapID"][0], made["TrainClass"][0], made["BaseMapDate"][0]) == ("one", "Positive", "2019-07-14")
    assert run("labels", "convert", arts, back, "--to", "thawmap") == 0
    again = read_vector(back)
    assert (again["image_id"][0], again["region"][0], again["name"][0], int(again["label"][0])) == (
        "one", "Lena", "good", 1,
    )  # fmt: skip
    distance = again.to_crs(frame.crs).geometry.hausdorff_distance(frame.geometry.iloc[0])[0]
    assert distance < 1e-3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "{labels}", "--out", "{labels}"), "inputs are never changed"),
        (("convert", "{labels}", "{labels}", "--to", "thawmap"), "inputs are never changed"),
        (("check", "{labels}", "--set", "project=x"), "name the YAML"),
        (("stats", "nowhere.gpkg"), "does not exist"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = project.parent / "rts.gpkg"
    assert run("labels", *(word.format(labels=labels) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_layer_is_chosen_and_a_file_without_rows_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = gpd.GeoDataFrame(
        {"image_date": ["2019-07-14"] * 2, "region": "Lena"}, geometry=[square(1, 1, 5), square(9, 9, 5)], crs=GRID.crs
    )
    path, out = tmp_path / "a.gpkg", tmp_path / "out.gpkg"
    write_vector(path, shapes, layer="rts")
    write_vector(path, shapes.iloc[:1], layer="lakes", append=True)
    write_vector(path, shapes.iloc[:0], layer="nothing", append=True)
    arts = ("--to", "arts", "--creator", "X", "--image", "P", "--resolution", 3)
    for words in (("check", path), ("stats", path), ("convert", path, out, *arts)):
        assert run("labels", *words) == 2
        assert "several layers with polygons: 'rts', 'lakes'; say which" in capsys.readouterr().err
        assert run("labels", *words, "--layer", "nothing") == 2
        assert "holds no polygon" in capsys.readouterr().err
        assert run("labels", *words, "--layer", "lakes") == 0
        capsys.readouterr()
    assert len(read_vector(out)) == 1
    (tmp_path / "thawmap.yaml").write_text(YAML)
    assert run("labels", "stats", tmp_path / "thawmap.yaml", "--layer", "rts") == 2
    assert "labels.layer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "role", ["image_id", "start", "end", "label", "RegionName", "CentroidLat", "BaseMapResolution"]
)
@pytest.mark.parametrize(
    "odd",
    [
        pd.array([1e300, 2.0]),
        pd.array([np.inf, 2.0]),
        pd.array([True, None], "boolean"),
        pd.to_timedelta([1, 2], unit="D"),
        np.array([["9999-12-31T23:59:59-12:00"], ["0000-01-01", "x"]], object),
    ],
    ids=["huge", "infinite", "boolean", "span", "listed"],
)
def test_columns_of_any_type_in_any_role_end_in_a_sentence(
    tmp_path: Path, role: str, odd: object, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {"image_id": "one", "region": "Lena", "start": "2019-07-14", "label": 1, role: odd}
    shapes = [square(1, 1, 5), square(9, 9, 5)]
    gpd.GeoDataFrame(columns, geometry=shapes, crs=str(GRID.crs)).to_parquet(tmp_path / "a.parquet")
    arts = ("--to", "arts", "--creator", "X", "--image", "P", "--resolution", 3)
    for words in (("check",), ("stats", "--by", role), ("convert", tmp_path / "b.gpkg", *arts)):
        verb, *rest = words
        status = run("labels", verb, tmp_path / "a.parquet", *rest)
        said = capsys.readouterr().err.strip().splitlines()
        assert status == 0 or (status == 2 and len(said) == 1), said
