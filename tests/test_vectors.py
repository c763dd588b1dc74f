"""Vector files: read and written as they are, and every failure of their libraries as one sentence."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from thawmap.data.vectors import read_vector, write_vector
from thawmap.errors import DataError

UTM, POLAR, DEGREES = "EPSG:32608", "EPSG:3413", "EPSG:4326"


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".parquet", ".geojson"])
@pytest.mark.parametrize("rows", [2, 0])
def test_vectors_come_back(tmp_path, suffix, rows):
    crs = DEGREES if suffix == ".geojson" else POLAR
    shapes = [shapely.box(0, 0, 2, 1), shapely.box(5, 5, 9, 9).difference(shapely.box(6, 6, 7, 7))][:rows]
    columns = {"name": ["Jäger", "b"][:rows], "area": np.array([2.5, 15])[:rows], "count": np.arange(2)[:rows]}
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)
    path = tmp_path / f"slumps{suffix}"
    write_vector(path, frame)
    read = read_vector(path)
    assert read.crs == crs
    assert len(read) == rows
    for one, other in zip(read.geometry, shapes, strict=True):
        assert one.equals(other)
    if rows or suffix != ".geojson":  # which has its columns in its features
        assert list(read["name"]) == columns["name"]
        np.testing.assert_array_equal(read[["area", "count"]].to_numpy(), frame[["area", "count"]].to_numpy())
    write_vector(path, frame)
    assert not [child for child in tmp_path.iterdir() if child.suffix == ".tmp" or child.is_dir()]
    expected = {".shp", ".shx", ".dbf", ".prj", ".cpg"} if suffix == ".shp" else {suffix}
    assert {child.suffix for child in tmp_path.iterdir()} == expected


def test_a_layer_is_read_by_its_name(tmp_path):
    frame = gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM)
    write_vector(tmp_path / "a.gpkg", frame, layer="slumps")
    assert len(read_vector(tmp_path / "a.gpkg", layer="slumps")) == 1
    with pytest.raises(DataError, match="lakes"):
        read_vector(tmp_path / "a.gpkg", layer="lakes")


def test_a_vector_file_that_cannot_be_used_is_one_sentence(tmp_path):
    bare = gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)])
    bare.to_parquet(tmp_path / "bare.parquet")
    for name in ("text.gpkg", "text.shp", "text.parquet", "text.geojson", "text.docx"):
        (tmp_path / name).write_text("no polygons")
    for name, said in {"absent.gpkg": "does not exist", "bare.parquet": "no CRS"}.items():
        with pytest.raises(DataError, match=said):
            read_vector(tmp_path / name)
    for path in tmp_path.glob("text.*"):
        with pytest.raises(DataError, match="not a vector file") as caught:
            read_vector(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"end in \.gpkg"):
        write_vector(tmp_path / "a.kml", bare.set_crs(UTM))
