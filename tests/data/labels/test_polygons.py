"""Labels burnt onto scenes: shapely's own containment as the oracle, and nothing said where nobody looked."""

import pickle
import warnings
from datetime import UTC, date, datetime

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.affinity import affine_transform, translate

from thawmap.config import LabelSettings
from thawmap.data.labels.polygons import IGNORE, PolygonLabels, open_labels
from thawmap.data.raster.io import Encoding, write_raster
from thawmap.data.sources.base import Scene
from thawmap.data.vector.io import write_vector
from thawmap.errors import LabelError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

UTM = "EPSG:32608"
GRID = GeoBox((20, 30), Affine(3, 0, 570_000, 0, -3, 7_720_000), UTM)
SCENE = Scene(id="s1", sensor="test", geobox=GRID, files={})

law = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def on_ground(shape, geobox=GRID):
    """A shape in pixels (column, row) as one in map coordinates."""
    a = geobox.affine
    return affine_transform(shape, [a.a, a.b, a.d, a.e, a.c, a.f])


def box(left, top, right, bottom):
    return on_ground(shapely.box(left, top, right, bottom))


def frame(shapes, crs=UTM, **columns):
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)


def labels_in(folder, polygons, name="labels.gpkg", **options):
    write_vector(folder / name, polygons)
    return open_labels(LabelSettings(path=folder / name, **options))


def burnt_by_centres(shapes, geobox):
    """1 where a pixel's centre lies in one of the shapes."""
    rows, cols = geobox.shape
    x, y = geobox.affine * tuple(np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5))
    return np.any([shapely.contains_xy(shape, x, y) for shape in shapes], axis=0).astype(np.uint8)


# Polygons

stars = st.lists(
    st.builds(
        lambda x, y, radii: shapely.Polygon(
            [
                (x + radius * np.cos(angle), y + radius * np.sin(angle))
                for radius, angle in zip(radii, np.linspace(0, 6, len(radii)), strict=True)
            ]
        ),
        st.floats(-4, 34),
        st.floats(-4, 24),
        st.lists(st.floats(0.5, 9), min_size=4, max_size=9),
    ),
    min_size=1,
    max_size=4,
)
windows = st.builds(
    Window, row=st.integers(-5, 18), col=st.integers(-5, 28), height=st.integers(1, 25), width=st.integers(1, 25)
)


@law
@given(shapes=stars, window=windows)
def test_a_pixel_is_an_object_where_its_centre_lies_in_a_polygon(shapes, window):
    placed = [on_ground(shape) for shape in shapes]
    labels = PolygonLabels(LabelSettings(path="x"), frame(placed), None)
    target = labels.burn(SCENE, GRID)
    assert target.dtype == np.uint8
    np.testing.assert_array_equal(target, burnt_by_centres(placed, GRID))
    part = window_geobox(GRID, window)
    np.testing.assert_array_equal(labels.burn(SCENE, part), burnt_by_centres(placed, part))


def test_holes_and_parts_are_kept(tmp_path):
    ring = box(2, 2, 12, 12).difference(box(5, 5, 8, 8))
    parts = shapely.MultiPolygon([box(20, 1, 23, 4), box(25, 1, 28, 4)])
    target = labels_in(tmp_path, frame([ring, parts])).burn(SCENE, GRID)
    np.testing.assert_array_equal(target, burnt_by_centres([ring, parts], GRID))
    assert target.sum() == 100 - 9 + 9 + 9


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".parquet"])
def test_polygons_belong_to_the_scene_that_their_column_names(tmp_path, suffix):
    polygons = frame(
        [box(0, 0, 2, 2), box(4, 4, 6, 6), box(9, 9, 10, 10)], image=["s1", "s2", "s1"], area=["Lena", "Yamal", "Lena"]
    )
    labels = labels_in(tmp_path, polygons, f"a{suffix}", scene="image", region="area")
    assert labels.burn(SCENE, GRID).sum() == 5
    assert labels.region(SCENE) == "Lena"
    assert len(labels.outlines(SCENE)) == 2
    nowhere = Scene(id="s9", sensor="test", geobox=GRID, files={})
    assert labels.burn(nowhere, GRID).sum() == 0
    assert labels.region(nowhere) is None
    assert labels.outlines(nowhere).empty


def test_numbers_name_scenes_too(tmp_path):
    polygons = frame([box(0, 0, 2, 2), box(4, 4, 6, 6)], image=[20190714, 20190715])
    scene = Scene(id="20190715", sensor="test", geobox=GRID, files={})
    assert labels_in(tmp_path, polygons, scene="image").burn(scene, GRID)[5, 5] == 1


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3413", "EPSG:32607"])
def test_labels_in_another_crs_lie_on_the_same_pixels(tmp_path, crs):
    """Away from pixel centres by more than the bend of a straight edge, which over 50 m is far below a millimetre."""
    shapes = [box(2.2, 3.2, 17.2, 9.2), box(20.7, 11.7, 28.2, 18.2)]
    labels = labels_in(tmp_path, frame(shapes).to_crs(crs))
    np.testing.assert_array_equal(labels.burn(SCENE, GRID), burnt_by_centres(shapes, GRID))
    outlines = labels.outlines(SCENE)
    assert outlines.crs == UTM
    for one, other in zip(outlines.geometry, shapes, strict=True):
        assert one.symmetric_difference(other).area < 1e-3


def test_labels_of_the_whole_arctic_burn_where_they_lie(tmp_path):
    """Polygons on the other side of the Earth have no place in the scene's CRS, and do no harm."""
    near = gpd.GeoSeries([box(3, 3, 9, 9)], crs=UTM).to_crs("EPSG:4326").iloc[0]
    far = [shapely.box(lon, lat, lon + 0.5, lat + 0.3) for lon in range(-180, 180, 7) for lat in (-75, 0, 62, 74, 89)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = labels_in(tmp_path, frame([*far, near], "EPSG:4326"))
        assert labels.burn(SCENE, GRID).sum() == 36
        assert len(labels.outlines(SCENE)) == 1


def in_degrees(lon, lat=69.0):
    return GeoBox((24, 24), Affine(7e-5, 0, lon - 12 * 7e-5, 0, -2.7e-5, lat + 12 * 2.7e-5), "EPSG:4326")


@pytest.mark.parametrize("lon", [180, -180, 179.9995, -179.9995, 190])
@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:3413", "EPSG:4326"])
@pytest.mark.parametrize("what", ["polygons", "extent"])
def test_grids_of_degrees_are_burnt_across_the_antimeridian(tmp_path, lon, crs, what):
    """As in a projection without an edge there, however the file counts its degrees."""
    scene = Scene(id="s1", sensor="test", geobox=in_degrees(lon), files={})
    ring = shapely.Polygon([(lon + 7.3e-4, 69), (lon, 69.00028), (lon - 7.2e-4, 69), (lon, 68.99971)])
    shapes = gpd.GeoSeries([ring], crs="EPSG:4326").to_crs("EPSG:3995").segmentize(5)
    x, y = scene.geobox.affine * tuple(np.meshgrid(np.arange(24) + 0.5, np.arange(24) + 0.5))
    centres = gpd.GeoSeries(gpd.points_from_xy(x.ravel(), y.ravel()), crs="EPSG:4326").to_crs("EPSG:3995")
    expected = centres.within(shapes.iloc[0]).to_numpy().reshape(24, 24)
    assert 200 < expected.sum() < 300
    drawn = shapes.to_crs(crs)  # which wraps each point of EPSG:4326 by itself
    if what == "polygons":
        labels = labels_in(tmp_path, frame(drawn, crs))
        assert len(labels.outlines(scene)) == 1
    else:
        write_vector(tmp_path / "extent.gpkg", frame(drawn, crs))
        labels = labels_in(tmp_path, frame(drawn, crs), extent=tmp_path / "extent.gpkg")
    target = labels.burn(scene, scene.geobox)
    assert ((target == 1) == expected).mean() > 0.99  # straight lines bend by a few centimetres
    assert ((target == IGNORE) == ((what == "extent") & ~expected)).mean() > 0.99


@pytest.mark.parametrize(
    "looked",
    [
        frame([shapely.Point(0, 0).buffer(3e6)], "EPSG:3413"),
        frame([shapely.box(-180, 50, 180, 90)], "EPSG:4326"),
        frame(
            [shapely.box(-180, 50, -90, 90), shapely.box(90, 50, 180, 90), shapely.box(-90, 50, 90, 89.9)], "EPSG:4326"
        ),
        frame([shapely.box(-3e6, -3e6, 3e6, 3e6).difference(shapely.box(-9, -9, 9, 9))], "EPSG:3413"),
    ],
)
@pytest.mark.parametrize(("lon", "lat"), [(180, 69), (-180, 80), (190, 69), (-35, 88), (0, 69)])
def test_an_extent_around_the_pole_holds_every_scene_there(tmp_path, looked, lon, lat):
    write_vector(tmp_path / "extent.gpkg", looked)
    scene = Scene(id="s1", sensor="test", geobox=in_degrees(lon, lat), files={})
    labels = labels_in(tmp_path, frame([box(1, 1, 2, 2)]), extent=tmp_path / "extent.gpkg")
    assert (labels.burn(scene, scene.geobox) == 0).all()


def test_long_lines_of_an_extent_stay_where_they_are(tmp_path):
    """A square of 200 km in a polar CRS, whose edge bends in UTM by hundreds of metres."""
    edge = gpd.GeoSeries([shapely.Point(*GRID.center_pixel.extent.centroid.coords[0])], crs=UTM).to_crs("EPSG:3413")[0]
    square = shapely.box(edge.x - 1e5, edge.y - 2e5, edge.x + 1e5, edge.y)
    write_vector(tmp_path / "extent.gpkg", frame([square], "EPSG:3413"))
    labels = labels_in(tmp_path, frame([box(1, 1, 2, 2)]), extent=tmp_path / "extent.gpkg")
    x, y = GRID.affine * tuple(np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5))
    centres = gpd.GeoSeries(gpd.points_from_xy(x.ravel(), y.ravel()), crs=UTM).to_crs("EPSG:3413")
    inside = centres.within(square).to_numpy().reshape(20, 30)
    assert 0.2 < inside.mean() < 0.8
    assert ((labels.burn(SCENE, GRID) != IGNORE) == inside).mean() > 0.98


@pytest.mark.parametrize("values", [[1, 0, 7], ["1", "0", "unsure"], [1.0, 0.0, None], [1, 0, None]])
def test_a_target_column_says_object_no_object_or_ignore_and_object_wins(tmp_path, values):
    shapes = [box(0, 0, 4, 4), box(2, 2, 8, 8), box(6, 6, 12, 12)]
    labels = labels_in(tmp_path, frame(shapes, label=values), target="label")
    target = labels.burn(SCENE, GRID)
    expected = np.zeros(GRID.shape, np.uint8)
    expected[6:12, 6:12] = IGNORE
    expected[2:8, 2:8] = 0
    expected[0:4, 0:4] = 1
    np.testing.assert_array_equal(target, expected)
    assert len(labels.outlines(SCENE)) == 1


def test_outside_of_the_extent_nobody_looked(tmp_path):
    write_vector(tmp_path / "extent.gpkg", frame([box(5, 5, 15, 12)]).to_crs("EPSG:4326"))
    shapes = [box(6, 6, 9, 9), box(20, 15, 22, 17)]
    target = labels_in(tmp_path, frame(shapes), extent=tmp_path / "extent.gpkg").burn(SCENE, GRID)
    expected = np.full(GRID.shape, IGNORE, np.uint8)
    expected[5:12, 5:15] = 0
    expected[6:9, 6:9] = 1
    expected[15:17, 20:22] = 1  # an object is one wherever it was drawn
    np.testing.assert_array_equal(target, expected)


def test_outlines_elsewhere_are_left_out(tmp_path):
    shapes = [box(2, 2, 4, 4), translate(box(2, 2, 4, 4), 5000, 0)]
    assert len(labels_in(tmp_path, frame(shapes)).outlines(SCENE)) == 1


def test_an_empty_outline_is_nothing(tmp_path):
    labels = labels_in(tmp_path, frame([shapely.Polygon(), box(2, 2, 4, 4)]), "a.parquet")
    assert labels.burn(SCENE, GRID).sum() == 4


@pytest.mark.parametrize(
    ("polygons", "options", "said"),
    [
        (frame([], image=[]), {}, "holds no polygon"),
        (frame([shapely.Point(1, 2)]), {}, "holds a Point; labels are polygons"),
        (frame([box(0, 0, 1, 1), shapely.LineString([(0, 0), (1, 1)])]), {}, "holds a LineString"),
        (frame([box(0, 0, 1, 1), None]), {}, "holds a feature without geometry"),
        (frame([box(0, 0, 1, 1)], name=["x"]), {"scene": "image"}, "no column 'image' for labels.scene; it has name"),
        (frame([box(0, 0, 1, 1)]), {"region": "r"}, "no column 'r' for labels.region"),
        (frame([box(0, 0, 1, 1)]), {"target": "t"}, "no column 't' for labels.target"),
    ],
)
def test_a_file_that_is_no_labels_is_one_sentence(tmp_path, polygons, options, said):
    polygons.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LabelError, match=said) as caught:
        open_labels(LabelSettings(path=tmp_path / "a.parquet", **options))
    assert str(tmp_path / "a.parquet") in str(caught.value)


def test_an_extent_must_be_polygons_too(tmp_path):
    write_vector(tmp_path / "a.gpkg", frame([box(0, 0, 1, 1)]))
    frame([shapely.Point(1, 2)]).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(LabelError, match=r"e\.parquet holds a Point"):
        open_labels(LabelSettings(path=tmp_path / "a.gpkg", extent=tmp_path / "e.parquet"))
    with pytest.raises(LabelError, match=r"absent\.gpkg does not exist"):
        open_labels(LabelSettings(path=tmp_path / "a.gpkg", extent=tmp_path / "absent.gpkg"))


# Scenes and periods


@pytest.mark.parametrize(
    ("scene", "others"),
    [
        ("20190709_042959_08_1057", ["20190709_042959_08_105", "20190709_042959_1057", "20190709_042959_08_10570"]),
        ("20180703_192559_1006", ["20180703_192559_10", "20180703_192559_1006_"[:-2], "20180703_192559_10_1006"]),
        ("5790392_4372514_2022-07-16_2459", ["5790392_4372514_2022-07-16", "790392_4372514_2022-07-16_2459"]),
    ],
)
def test_the_name_of_a_planetscope_file_names_its_scene(scene, others):
    names = [scene, f"{scene}_3B_AnalyticMS_SR", f"{scene}_BGRN_SR", *others, *(f"{name}_SR" for name in others)]
    shapes = [box(3 * column, 0, 3 * column + 2, 2) for column in range(len(names))]
    labels = PolygonLabels(LabelSettings(path="x", scene="image"), frame(shapes, image=names), None)
    one = Scene(id=scene, sensor="planetscope", geobox=GRID, files={})
    np.testing.assert_array_equal(labels.burn(one, GRID), burnt_by_centres(shapes[:3], GRID))


def test_a_name_that_only_begins_like_another_scene_is_not_its():
    shapes = [box(0, 0, 2, 2), box(4, 4, 6, 6)]
    labels = PolygonLabels(LabelSettings(path="x", scene="image"), frame(shapes, image=["lake", "lake_2"]), None)
    scene = Scene(id="lake", sensor="rasters", geobox=GRID, files={})
    np.testing.assert_array_equal(labels.burn(scene, GRID), burnt_by_centres(shapes[:1], GRID))


def test_names_that_a_gap_made_fractional_are_whole_again():
    shapes = [box(0, 0, 2, 2), box(4, 4, 6, 6)]
    labels = PolygonLabels(LabelSettings(path="x", scene="image"), frame(shapes, image=[20190715, None]), None)
    assert labels.burn(Scene(id="20190715", sensor="test", geobox=GRID, files={}), GRID).sum() == 4
    assert labels.burn(Scene(id="", sensor="test", geobox=GRID, files={}), GRID)[5, 5] == 1
    assert labels.burn(Scene(id="nan", sensor="test", geobox=GRID, files={}), GRID).sum() == 0


def test_scenes_that_are_not_there_are_said_once_and_the_rest_goes_on(caplog):
    shapes = [box(0, 0, 2, 2)] * 4
    labels = PolygonLabels(LabelSettings(path="x", scene="im"), frame(shapes, im=["s1", "gone", "gone", "lost"]), None)
    labels.check_names(["s1", "s2"])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "1 of 2 scenes are named by no polygon and count as empty, such as s2" in said[0]
    assert "2 of 3 scenes that polygons name are not there, such as gone" in said[1]
    with pytest.raises(LabelError, match="names scenes such as 's1', and none of the 1 scenes, such as 'other'"):
        labels.check_names(["other"])
    empty = PolygonLabels(LabelSettings(path="x", scene="im"), frame(shapes[:1], im=[None]), None)
    with pytest.raises(LabelError, match="names no scene"):
        empty.check_names(["s1"])


def dated(day, hour=12):
    time = None if day is None else datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)
    return Scene(id="s1", sensor="test", geobox=GRID, files={}, acquired=time)


days = st.dates(date(2018, 1, 1), date(2018, 1, 9))


@law
@given(periods=st.lists(st.tuples(st.none() | days, st.none() | days), min_size=1, max_size=6), day=days)
def test_a_polygon_counts_on_the_days_of_its_period(periods, day):
    shapes = [box(2 * column, 0, 2 * column + 1, 1) for column in range(len(periods))]
    polygons = frame(shapes, a=[str(a or "") for a, _ in periods], b=[str(b) if b else None for _, b in periods])
    labels = PolygonLabels(LabelSettings(path="x", start="a", end="b"), polygons, None)
    expected = [bool(a and a <= day <= (b or a)) for a, b in periods]
    for hour in (0, 23):
        assert [
            bool(value) for value in labels.burn(dated(str(day), hour), GRID)[0, : 2 * len(periods) : 2]
        ] == expected
    assert len(labels.outlines(dated(str(day)))) == sum(expected)


@pytest.mark.parametrize(
    "written",
    [
        ["2019-07-14", "2019-07-15"],
        ["20190714", "20190715"],
        [20190714, 20190715],
        ["2019/07/14", "2019/07/15"],
        ["2019-07-14T23:59:00Z", "2019-07-15T00:00:00Z"],
        ["2019-07-15T01:00:00+02:00", "2019-07-15T01:00:00"],
        [date(2019, 7, 14), date(2019, 7, 15)],
        pd.to_datetime(["2019-07-14", "2019-07-15"]),
        [20190714.0, 20190715.0],
    ],
)
def test_days_are_read_as_they_come(written):
    labels = PolygonLabels(
        LabelSettings(path="x", start="day"), frame([box(0, 0, 1, 1), box(4, 4, 6, 6)], day=written), None
    )
    assert labels.burn(dated("2019-07-14"), GRID).sum() == 1
    assert labels.burn(dated("2019-07-15"), GRID).sum() == 4
    assert labels.burn(dated("2019-07-16"), GRID).sum() == 0


def test_a_polygon_without_a_day_counts_nowhere_and_is_said(tmp_path, caplog):
    polygons = frame([box(0, 0, 2, 2)] * 4, day=["2019-07-14", "14.7.2019", "2019", None])
    labels = labels_in(tmp_path, polygons, start="day")
    assert "3 of 4 polygons have no day in 'day', such as the one in row 2" in caplog.text
    assert len(labels.outlines(dated("2019-07-14"))) == 1


def test_a_period_needs_to_know_when_the_scene_was_taken():
    polygons = frame([box(0, 0, 2, 2)], day=["2019-07-14"], area=["Lena"])
    labels = PolygonLabels(LabelSettings(path="x", start="day", region="area"), polygons, None)
    with pytest.raises(LabelError, match=r"scene s1 has no acquisition time, and labels\.start needs one"):
        labels.burn(dated(None), GRID)
    assert labels.region(dated(None)) == "Lena"  # where it lies is known without


def test_beside_a_scene_the_days_do_not_count():
    polygons = frame([box(0, 0, 2, 2)], image=["s1"], day=["1999-07-14"])
    labels = PolygonLabels(LabelSettings(path="x", scene="image", start="day"), polygons, None)
    assert labels.burn(dated("2019-07-14"), GRID).sum() == 4


# Shapes that are no polygons


@pytest.mark.parametrize(
    ("shape", "covered"),
    [
        (shapely.Polygon([(0, 0), (8, 8), (8, 0), (0, 8)]), lambda x, y: (abs(y - 4) < abs(x - 4))),
        (shapely.MultiPolygon([shapely.box(0, 0, 4, 4), shapely.box(2, 2, 8, 8)]),
         lambda x, y: ((x < 4) & (y < 4)) | ((x > 2) & (y > 2))),
        (shapely.Polygon([(0, 0), (8, 0), (8, 8), (8, 0)]), lambda x, _: np.zeros(x.shape, bool)),
    ],
)  # fmt: skip
def test_shapes_that_cross_themselves_burn_the_ground_that_they_enclose(tmp_path, shape, covered):
    """A corner that is passed twice belongs to both sides; ground of two parts is ground."""
    x, y = np.meshgrid(np.arange(8) + 0.25, np.arange(8) + 0.5)
    shape = shapely.affinity.translate(shape, 0.25, 0)
    target = labels_in(tmp_path, frame([on_ground(shape)])).burn(SCENE, GRID)
    np.testing.assert_array_equal(target[:8, :8], covered(x, y))
    outlines = labels_in(tmp_path, frame([on_ground(shape)])).outlines(SCENE)
    assert outlines.is_valid.all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_coordinates_that_are_no_numbers_are_said_and_the_rest_goes_on(tmp_path, caplog, number, crs):
    sound = frame([box(0, 0, 2, 2), box(5, 5, 9, 9)]).to_crs(crs)
    points = shapely.get_coordinates(sound.geometry.iloc[1])
    points[2] = number
    with np.errstate(invalid="ignore"):
        broken = sound.set_geometry([sound.geometry.iloc[0], shapely.Polygon(points)], crs=crs)
    broken.to_parquet(tmp_path / "a.parquet")
    labels = open_labels(LabelSettings(path=tmp_path / "a.parquet"))
    assert "1 of 2 polygons have coordinates that are no numbers, such as the one in row 2" in caplog.text
    assert labels.burn(SCENE, GRID).sum() == 4
    assert len(labels.outlines(SCENE)) == 1


# Speed


def test_another_window_costs_no_new_look_at_all_polygons():
    """Polygons come into a CRS once, whatever is burnt after; another process makes its own."""
    shapes = [box(0, 0, 2, 2), box(4, 4, 6, 6)]
    labels = PolygonLabels(LabelSettings(path="x"), frame(shapes).to_crs("EPSG:4326"), None)
    first = labels.burn(SCENE, GRID)
    labels.polygons.geometry = labels.polygons.geometry.translate(1)  # unseen: they are placed already
    np.testing.assert_array_equal(labels.burn(SCENE, GRID), first)
    sent = pickle.loads(pickle.dumps(labels))
    assert sent.burn(SCENE, GRID).sum() == 0


def test_outlines_keep_their_columns_and_order():
    polygons = frame([box(4, 4, 6, 6), box(9, 9, 40, 40), box(0, 0, 2, 2)], name=["a", "b", "c"])
    polygons = polygons.rename_geometry("geom")
    outlines = PolygonLabels(LabelSettings(path="x"), polygons, None).outlines(SCENE)
    assert list(outlines.columns) == ["name", "geom"]
    assert list(outlines["name"]) == ["a", "b", "c"]
    assert outlines.crs == UTM


# Rasters


def raster(folder, values, geobox=GRID, **encoding):
    path = folder / "mask.tif"
    write_raster(path, np.asarray(values), geobox, encoding=Encoding(dtype=str(np.asarray(values).dtype), **encoding))
    return Scene(id="s1", sensor="test", geobox=GRID, files={"labels": path})


def test_raster_values_mean_what_the_settings_say(tmp_path):
    values = np.random.default_rng(0).choice([0, 1, 2, 3, 9, 255], GRID.shape).astype(np.uint8)
    scene = raster(tmp_path, values)
    labels = open_labels(LabelSettings(raster="mask.tif", positive=(1, 3), negative=(0, 2), ignore=(9, 255)))
    expected = np.select([np.isin(values, [1, 3]), np.isin(values, [0, 2])], [1, 0], IGNORE)
    target = labels.burn(scene, GRID)
    assert target.dtype == np.uint8
    np.testing.assert_array_equal(target, expected)
    assert labels.region(scene) is None
    assert labels.outlines(scene) is None


def test_outside_of_the_raster_and_where_it_is_missing_is_ignored(tmp_path):
    small = window_geobox(GRID, Window(row=5, col=-4, height=9, width=20))
    values = np.ones((9, 20), np.int16)
    values[2, 10] = -7
    target = open_labels(LabelSettings(raster="mask.tif")).burn(raster(tmp_path, values, small, nodata=-7), GRID)
    expected = np.full(GRID.shape, IGNORE)
    expected[5:14, :16] = 1
    expected[7, 6] = IGNORE
    np.testing.assert_array_equal(target, expected)


def test_a_raster_on_another_grid_gives_its_nearest_pixel_and_no_value_between(tmp_path):
    fine = GeoBox((60, 90), GRID.affine * Affine.scale(1 / 3), UTM)
    values = np.random.default_rng(1).choice([0, 255], (60, 90)).astype(np.uint8)
    labels = open_labels(LabelSettings(raster="mask.tif", positive=(255,), ignore=()))
    target = labels.burn(raster(tmp_path, values, fine), GRID)
    np.testing.assert_array_equal(target, values[1::3, 1::3] // 255)


def test_a_value_without_a_meaning_is_refused_with_the_value(tmp_path):
    values = np.zeros(GRID.shape, np.uint8)
    values[3, 3] = 17
    labels = open_labels(LabelSettings(raster="mask.tif"))
    with pytest.raises(LabelError, match=r"mask\.tif holds the value 17"):
        labels.burn(raster(tmp_path, values), GRID)


@pytest.mark.parametrize(("nodata", "meaning"), [(0, "negative"), (1, "positive")])
def test_a_value_cannot_mean_missing_and_something_else(tmp_path, nodata, meaning):
    """A mask with nodata = 0 would otherwise lose all that is not an object, unseen."""
    scene = raster(tmp_path, np.zeros(GRID.shape, np.uint8), nodata=nodata)
    with pytest.raises(LabelError, match=f"calls {nodata} missing, labels.{meaning} calls it labelled"):
        open_labels(LabelSettings(raster="mask.tif")).burn(scene, GRID)
    if nodata == 0:
        labels = open_labels(LabelSettings(raster="mask.tif", negative=(2,)))
        assert (labels.burn(scene, GRID) == IGNORE).all()


def test_a_scene_without_its_raster_is_named():
    with pytest.raises(LabelError, match=r"scene s1 has no label raster 'mask\.tif'"):
        open_labels(LabelSettings(raster="mask.tif")).burn(SCENE, GRID)
