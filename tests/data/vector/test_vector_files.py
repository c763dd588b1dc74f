"""Vector files: read and written as they are, unchanged by it, and every failure of their libraries as one sentence."""

import datetime as dt
import decimal
import json
import random
import sqlite3
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from thawmap import cli
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.errors import DataError

UTM, POLAR, DEGREES = "EPSG:32608", "EPSG:3413", "EPSG:4326"
WRITTEN = [".gpkg", ".shp", ".parquet", ".geoparquet", ".pq", ".geojson", ".json", ".fgb"]


def squares(number=2, crs=UTM, **columns):
    shapes = [shapely.box(500_000 + 100 * n, 7e6, 500_060 + 100 * n, 7e6 + 60) for n in range(number)]
    return gpd.GeoDataFrame({"a": np.arange(number), **columns}, geometry=shapes, crs=UTM).to_crs(crs)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# There and back


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("rows", [2, 0])
def test_vectors_come_back(tmp_path, suffix, rows):
    crs = DEGREES if "json" in suffix else POLAR
    shapes = [shapely.box(0, 0, 2, 1), shapely.box(5, 5, 9, 9).difference(shapely.box(6, 6, 7, 7))][:rows]
    columns = {"name": ["Jäger", "b"][:rows], "area": np.array([2.5, 15])[:rows], "count": np.arange(2)[:rows]}
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)
    path = tmp_path / f"slumps{suffix}"
    write_vector(path, frame)
    read = read_vector(path)
    assert read.crs == crs
    assert len(read) == rows
    for geometry, shape in zip(read.geometry, shapes, strict=True):
        assert geometry.equals(shape)
    if rows or "json" not in suffix:  # which has its columns in its features
        assert list(read["name"]) == columns["name"]
        np.testing.assert_array_equal(read[["area", "count"]].to_numpy(), frame[["area", "count"]].to_numpy())
    write_vector(path, frame)
    assert not [child for child in tmp_path.iterdir() if child.suffix == ".tmp" or child.is_dir()]
    expected = {".shp", ".shx", ".dbf", ".prj", ".cpg"} if suffix == ".shp" else {suffix}
    assert {child.suffix for child in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("suffix", WRITTEN)
def test_columns_named_as_those_of_formats_come_back_in_order(tmp_path, suffix):
    frame = squares(3, fid=[9, 7, 7], geom=["x", "y", "z"], ogc_fid=[3, 2, 1], id=["p", "p", "q"])
    write_vector(tmp_path / f"a{suffix}", frame)
    back = read_vector(tmp_path / f"a{suffix}")
    for name in frame.columns.drop("geometry"):
        assert back[name].tolist() == frame[name].tolist()


@pytest.mark.parametrize("suffix", WRITTEN)
def test_columns_of_any_type_are_kept_or_written_as_text_and_said(tmp_path, suffix, caplog):
    utc, east = dt.UTC, dt.timezone(dt.timedelta(hours=3))
    odd = {
        "span": pd.to_timedelta([1, 2], unit="D"),
        "listed": [[1, 2], [3]],
        "named": [{"a": 1}, {"b": [2]}],
        "both": np.array([1, "x"], object),
        "price": [decimal.Decimal("1.10"), None],
        "hour": [dt.time(1, 2), None],
        "huge": np.array([2**64 - 1, 1], np.uint64),
        "zones": np.array([dt.datetime(2020, 1, 1, tzinfo=utc), dt.datetime(2020, 1, 1, tzinfo=east)], object),
        "yes": np.array([True, None], object),
        "whole": np.array([1, None], object),
        "kind": pd.Categorical(["p", "q"]),
        "small": np.array([1.5, 2], np.float16),
        "complex": [1j, 2j],
    }
    write_vector(tmp_path / f"a{suffix}", squares(**odd))
    back = read_vector(tmp_path / f"a{suffix}")
    assert set(back.columns) == {"a", "geometry", *odd}
    assert back["kind"].tolist() == ["p", "q"]
    assert back["small"].tolist() == [1.5, 2]
    assert float(back["whole"][0]) == 1
    assert pd.isna(back["whole"][1])
    times = pd.to_datetime(back["zones"], utc=True, format="mixed")
    assert times[0] - times[1] == pd.Timedelta(hours=3)
    assert "'complex' of type complex128 is written as text" in caplog.text
    assert "'kind'" not in caplog.text
    if suffix == ".gpkg":
        assert back["named"].map(json.loads).tolist() == odd["named"]


def test_names_that_differ_by_capitals_are_told_apart(tmp_path, caplog):
    write_vector(tmp_path / "a.gpkg", squares(region=["p", "q"], Region=["r", "s"], REGION_2=[1, 2]))
    back = read_vector(tmp_path / "a.gpkg")
    assert [back[name].tolist() for name in ("region", "Region_2", "REGION_2_2")] == [["p", "q"], ["r", "s"], [1, 2]]
    assert "column 'Region' is written as 'Region_2'" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"BaseMapDate": ["2020-07-14"] * 2}, "at most 10 letters, and 'BaseMapDate' has more"),
        ({"note": ["short", "ä" * 128]}, "at most 254 bytes, and 'note' has 256 in row 2"),
        ({"region": [1, 2], "Region": [1, 2]}, "'Region' is there twice"),
        ({"geometry": [shapely.box(0, 0, 1, 1), shapely.Point(0, 0)]}, "in row 2"),
    ],
)
def test_a_shapefile_is_not_written_where_it_would_lose_something(tmp_path, columns, message):
    frame = squares().assign(**columns).set_geometry("geometry")
    with pytest.raises(DataError, match=message) as caught:
        write_vector(tmp_path / "a.shp", frame)
    assert "write a GeoPackage" in str(caught.value)
    assert "place" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    write_vector(tmp_path / "a.gpkg", frame)


def test_what_a_library_warns_of_while_writing_is_refused(tmp_path):
    with pytest.raises(DataError, match="NaN"):
        write_vector(tmp_path / "a.geojson", squares(b=[np.inf, 1]))


# Layers


def test_a_layer_is_read_by_its_name(tmp_path):
    write_vector(tmp_path / "a.gpkg", squares(1), layer="slumps")
    write_vector(tmp_path / "a.gpkg", squares(3), layer="left_out", append=True)
    assert len(read_vector(tmp_path / "a.gpkg", layer="slumps")) == 1
    assert len(read_vector(tmp_path / "a.gpkg", layer="left_out")) == 3
    with pytest.raises(DataError, match="no layer 'lakes'; it has 'slumps', 'left_out'"):
        read_vector(tmp_path / "a.gpkg", layer="lakes")
    with pytest.raises(DataError, match="several layers with polygons: 'slumps', 'left_out'"):
        read_vector(tmp_path / "a.gpkg")
    write_vector(tmp_path / "a.parquet", squares(1))
    with pytest.raises(DataError, match="no layer 'slumps'"):
        read_vector(tmp_path / "a.parquet", layer="slumps")


def test_the_one_layer_with_polygons_is_read_and_said(tmp_path, caplog):
    """Styles of QGIS, points and layers without features are none."""
    path, points = tmp_path / "a.gpkg", squares().set_geometry(squares().centroid)
    pyogrio.write_dataframe(pd.DataFrame({"style": ["x"]}), path, layer="layer_styles")
    pyogrio.write_dataframe(points, path, layer="points", append=True)
    pyogrio.write_dataframe(squares(), path, layer="polygons", append=True)
    pyogrio.write_dataframe(squares(0), path, layer="empty", append=True, geometry_type="Polygon")
    assert read_vector(path).geom_type.tolist() == ["Polygon"] * 2
    assert "'polygons' is read" in caplog.text
    pyogrio.write_dataframe(squares(3), path, layer="a", append=True)
    assert len(read_vector(path)) == 3  # named as the file


# Files of others


@pytest.mark.parametrize(
    ("driver", "name"), [("LIBKML", "a.kml"), ("GML", "a.gml"), ("GML", "a.xml"), ("SQLite", "a.db")]
)
def test_other_formats_are_read_and_nothing_is_put_beside_them(tmp_path, driver, name):
    pyogrio.write_dataframe(squares(crs=DEGREES), tmp_path / name, driver=driver)
    for schema in tmp_path.glob("*.xsd"):
        schema.unlink()
    before = content(tmp_path)
    assert len(read_vector(tmp_path / name)) == 2
    assert content(tmp_path) == before


def test_a_format_is_told_by_what_is_in_the_file(tmp_path):
    squares().to_parquet(tmp_path / "a.data")
    assert len(read_vector(tmp_path / "a.data")) == 2


@pytest.mark.parametrize("committed", [True, False], ids=["log", "journal mode"])
def test_reading_changes_no_byte(tmp_path, committed):
    """Of a GeoPackage with a write-ahead log, whose rows count too."""
    path, copy = tmp_path / "now" / "a.gpkg", tmp_path / "then"
    path.parent.mkdir()
    pyogrio.write_dataframe(squares(), path, SPATIAL_INDEX="NO")  # else only GDAL can change it
    with sqlite3.connect(path) as connection:
        connection.execute("pragma journal_mode=wal")
        if committed:
            connection.execute("create table further(a)")
            connection.execute("update a set a = 5")
            connection.commit()
        copy.mkdir()
        for file in path.parent.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    connection.close()
    before = content(copy)
    assert ("a.gpkg-wal" in before) or not committed
    assert read_vector(copy / "a.gpkg")["a"].tolist() == ([5, 5] if committed else [0, 1])
    assert content(copy) == before


def test_a_named_index_is_a_column(tmp_path):
    squares().set_index("a").to_parquet(tmp_path / "a.parquet")
    assert read_vector(tmp_path / "a.parquet")["a"].tolist() == [0, 1]


# Texts of Shapefiles


KARA = "\u041a\u0430\u0440\u0430"  # the Kara Sea in Cyrillic


def cyrillic(folder, cpg):
    pyogrio.write_dataframe(squares(region=[KARA, "b"]), folder / "a.shp", encoding="cp1251")
    (folder / "a.cpg").unlink()
    if cpg:
        (folder / "a.cpg").write_text(cpg)
    return folder / "a.shp"


def test_texts_of_an_unknown_encoding_are_said(tmp_path, caplog):
    assert read_vector(cyrillic(tmp_path, "cp1251"))["region"].tolist() == [KARA, "b"]
    assert not caplog.text
    read_vector(cyrillic(tmp_path, None))
    assert "as Latin-1 'region' is 'Êàðà'" in caplog.text
    assert "cp1251, into a.cpg" in caplog.text
    with pytest.raises(DataError, match=r"not UTF-8; write what they are, as cp1251, into a\.cpg"):
        read_vector(cyrillic(tmp_path, "UTF-8"))


# What cannot be used


def ring(path, *rings, name="x"):
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": {"type": "Polygon", "coordinates": [coordinates]}}
        for coordinates in rings
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_a_vector_file_that_cannot_be_used_is_one_sentence(tmp_path):
    closed, open_ = [[8, 69], [8.1, 69], [8.1, 69.1], [8, 69]], [[8, 69], [8.1, 69], [8.1, 69.1]]
    ring(tmp_path / "open.geojson", closed, open_)
    (tmp_path / "latin.geojson").write_bytes((tmp_path / "open.geojson").read_bytes().replace(b'"x"', b'"\xca"'))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    squares().set_crs(None, allow_override=True).to_parquet(tmp_path / "bare.parquet")
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    squares().set_crs(local, allow_override=True).to_parquet(tmp_path / "local.parquet")
    squares().set_crs("ESRI:104903", allow_override=True).to_parquet(tmp_path / "moon.parquet")
    pd.DataFrame(squares().drop(columns="geometry")).to_parquet(tmp_path / "plain.parquet")
    write_vector(tmp_path / "part.shp", squares())
    (tmp_path / "part.shx").unlink()
    for name in ("text.gpkg", "text.shp", "text.parquet", "text.geojson", "text.docx", "text"):
        (tmp_path / name).write_text("no polygons")
    for name, message in {
        "absent.gpkg": "does not exist",
        "open.geojson": "the shape in row 2 cannot be read",
        "latin.geojson": "holds texts that are not UTF-8",
        "table.csv": "no geometry, only a table with the columns 'a', 'b'",
        "bare.parquet": "no CRS",
        "local.parquet": "lies in site, which has no place on Earth",
        "moon.parquet": "which has no place on Earth",
        "plain.parquet": "not a vector file",
        "part.shp": "lacks its .shx",
        **dict.fromkeys((path.name for path in tmp_path.glob("text*")), "not a vector file"),
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            read_vector(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"end in \.gpkg"):
        write_vector(tmp_path / "a.kml", squares())


def test_control_codes_do_not_reach_a_terminal(tmp_path):
    write_vector(tmp_path / "a.gpkg", squares(), layer="red\x1b[31m")
    write_vector(tmp_path / "a.gpkg", squares(), layer="b", append=True)
    with pytest.raises(DataError) as caught:
        read_vector(tmp_path / "a.gpkg")
    assert "\x1b" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".parquet", ".geojson", ".csv"])
def test_damaged_files_end_in_a_sentence(tmp_path, suffix, capsys):
    """Bytes changed, cut out and doubled at random: no traceback, whatever the libraries make of it."""
    frame, sound = squares(4, name=["a", "b", None, "ä"], day=pd.to_datetime(["2020-07-14"] * 4)), tmp_path / "sound"
    sound.mkdir()
    if suffix == ".csv":
        (sound / "a.csv").write_text(frame.assign(WKT=frame.geometry.to_wkt()).drop(columns="geometry").to_csv())
    else:
        write_vector(sound / f"a{suffix}", frame)
    path = tmp_path / f"a{suffix}"
    for seed in range(25):
        files = content(sound)
        chance = random.Random(seed)
        victim = chance.choice(sorted(files))
        files[victim] = damaged(files[victim], chance)
        for name, stored in files.items():
            (tmp_path / name).write_bytes(stored)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            status = cli._run(["labels", "check", str(path)])
        output = capsys.readouterr()
        assert status in (0, 2), output.err
        assert "Traceback" not in output.err
        assert status == 0 or str(path) in output.err


def damaged(stored: bytes, chance: random.Random) -> bytes:
    """Bytes with some of them changed, or a stretch cut out or doubled."""
    first, size = chance.randrange(len(stored)), chance.choice([1, 2, 8, 64])
    stretch = stored[first : first + size]
    kind = chance.choice(["changed", "zero", "cut", "doubled", "short"])
    new = {"changed": chance.randbytes(len(stretch)), "zero": bytes(len(stretch)), "cut": b"", "doubled": stretch * 2}
    return stored[:first] if kind == "short" else stored[:first] + new[kind] + stored[first + size :]
