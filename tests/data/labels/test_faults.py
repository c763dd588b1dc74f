"""Faults of digitised polygons: each kind planted and found, pairs against the slow obvious way, repairs as laws."""

from datetime import UTC, datetime
from itertools import combinations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pandas.testing import assert_frame_equal
from shapely.affinity import translate

from thawmap.config import LabelSettings
from thawmap.data.labels.examine import SAME
from thawmap.data.labels.faults import KINDS, Footprint, check, footprint, repaired, summary
from thawmap.data.sources.base import Scene
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.errors import LabelError

UTM = "EPSG:32608"
X, Y = 570_000, 7_720_000
GRID = GeoBox((400, 400), Affine(3, 0, X, 0, -3, Y), UTM)
TODAY = datetime(2021, 1, 1, tzinfo=UTC)
TAKEN = datetime(2019, 7, 14, 20, tzinfo=UTC)
SCENE = Scene(id="s1", sensor="test", geobox=GRID, files={}, acquired=TAKEN)
SCENES = {"s1": footprint(SCENE)}
PER_IMAGE = LabelSettings(path="x", scene="image", region="area", start="day", target="label")

law = settings(deadline=None, max_examples=40)


def box(left, top, right, bottom):
    """A rectangle in metres right of and below the grid's corner."""
    return shapely.box(X + left, Y - bottom, X + right, Y - top)


def frame(shapes, crs=UTM, **columns):
    columns = {"image": "s1", "area": "Lena", "day": "2019-07-14", "label": 1, **columns}
    return gpd.GeoDataFrame(
        {name: np.resize(value, len(shapes)) for name, value in columns.items()}, geometry=shapes, crs=crs
    )


def faults_of(shapes, *, of=PER_IMAGE, scenes=SCENES, crs=UTM, **columns):
    return check(frame(shapes, crs, **columns), settings=of, scenes=scenes, today=TODAY)


def kinds(faults):
    return sorted(zip(faults["row"].fillna(0), faults["kind"], strict=True))


FAR = [box(20 + 60 * n, 600, 60 + 60 * n, 640) for n in range(3)]  # three that are well

PLANTED = {
    "no geometry": [None, shapely.Polygon()],
    "no polygon": [shapely.Point(X + 5, Y - 5), shapely.LineString([(X, Y), (X + 9, Y - 9)])],
    "invalid": [shapely.Polygon([(X + 10, Y - 10), (X + 90, Y - 90), (X + 90, Y - 10), (X + 10, Y - 90)])],
    "duplicate": [shapely.Polygon(np.roll(shapely.get_coordinates(FAR[0])[:-1], 2, axis=0))],
    "near duplicate": [translate(FAR[0], 0.5, 0)],
    "overlap": [translate(FAR[2], 30, 30)],
    "sliver": [box(10, 10, 12, 400)],
    "tiny": [box(10, 10, 12, 12)],
    "huge": [box(0, 0, 1200, 1200).buffer(0)],
    "outside": [box(2000, 10, 2100, 100)],
    "partly outside": [box(1100, 10, 1300, 100)],
}


@pytest.mark.parametrize("kind", [kind for kind in PLANTED if kind != "huge"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3413"])
def test_each_kind_of_shape_is_found_and_nothing_else(kind, crs):
    shapes = [*FAR, *PLANTED[kind]]
    placed = gpd.GeoSeries(shapes, crs=UTM).to_crs(crs)
    found = faults_of(list(placed), crs=crs)
    assert kinds(found) == [(4 + n, kind) for n in range(len(PLANTED[kind]))]
    assert found.crs == crs
    assert (found["remedy"] == KINDS[kind]).all()
    assert (found["scene"] == "s1").all()


def test_well_drawn_polygons_have_no_fault():
    found = faults_of(FAR)
    assert found.empty
    assert summary(found).empty
    assert list(found.columns) == ["row", "id", "scene", "kind", "fault", "remedy", "other", "geometry"]


def test_where_the_fault_is():
    found = faults_of([*FAR, translate(FAR[2], 30, 30), box(1100, 10, 1300, 100)])
    assert found["kind"].tolist() == ["overlap", "partly outside"]
    assert found["other"].tolist() == [3, pd.NA]
    assert found.geometry[0].equals(FAR[2] & translate(FAR[2], 30, 30))
    assert found.geometry[1].equals(box(1200, 10, 1300, 100))
    assert "overlaps row 3 on 100 m2, 6% of the smaller" in found["fault"][0]
    assert "lies to 50% outside of s1" in found["fault"][1]


def test_a_polygon_larger_than_any_slump():
    scenes = {"s1": Footprint(outline=box(0, 0, 9000, 9000), crs=UTM, pixel_m=3)}
    found = faults_of([box(0, 0, 2300, 2300)], scenes=scenes)
    assert kinds(found) == [(1, "huge")]
    assert "5.3 km2" in found["fault"][0]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers(number):
    points = shapely.get_coordinates(FAR[0])
    points[2] = number
    with np.errstate(invalid="ignore"):
        broken = shapely.Polygon(points)
    labels = frame([*FAR, broken])
    assert kinds(check(labels, settings=PER_IMAGE, scenes=SCENES, today=TODAY)) == [(4, "no numbers")]
    assert repaired(labels, settings=PER_IMAGE).changes == ("1 rows without ground are left out",)


def test_the_sizes_of_a_region_say_what_is_unusual():
    rng = np.random.default_rng(0)
    sides = rng.lognormal(4, 0.2, 40)
    shapes = [shapely.box(X, Y, X + side, Y + side) for side in sides]
    big = shapely.box(X, Y, X + 900, Y + 900)
    images = [f"s{n}" for n in range(41)]
    areas = ["Lena"] * 20 + ["Herschel"] * 20 + ["Lena"]
    found = faults_of([*shapes, big], scenes={}, image=images, area=areas)
    assert kinds(found) == [(41, "unusual size")]
    assert "the median of those of Lena is" in found["fault"][0]
    few = faults_of([*shapes[:5], big], scenes={}, image=images[:6])
    assert few.empty  # five do not say what is usual


# Scenes


def test_names_of_scenes():
    names = ["s1", "", None, "s2", "20190709_042959_08_1057_3B_AnalyticMS_SR"]
    shapes = [box(100 * n, 10, 100 * n + 50, 60) for n in range(5)]
    scenes = {**SCENES, "20190709_042959_08_1057": footprint(SCENE)}
    found = faults_of(shapes, scenes=scenes, image=np.array(names, object))
    assert kinds(found) == [(2, "no scene"), (3, "no scene"), (4, "unknown scene")]
    found = faults_of(shapes, scenes={}, of=LabelSettings(path="x", scene="image"), image=np.array(names, object))
    assert kinds(found) == [(2, "no scene"), (3, "no scene")]


def test_polygons_of_two_images_do_not_compete():
    twice = [FAR[0], FAR[0], translate(FAR[0], 10, 0)]
    scenes = dict.fromkeys(["s1", "s2", "s3"], SCENES["s1"])
    assert faults_of(twice, scenes=scenes, image=["s1", "s2", "s3"]).empty
    periods = LabelSettings(path="x", start="day")
    assert faults_of(twice, of=periods, day=["2019-07-14", "2019-07-15", "2019-07-16"]).empty
    assert kinds(faults_of(twice, of=periods)) == [(2, "duplicate"), (3, "overlap")]
    assert kinds(faults_of(twice, of=LabelSettings(path="x"), image=["s1", "s2", "s3"])) == [
        (2, "duplicate"),
        (3, "overlap"),
    ]


def test_the_part_of_a_scene_that_has_pixels():
    """A swath that fills the left half: 20 pixels of 60 m, seen as 10 of 120 m; a coarse pixel is allowed."""
    seen = np.zeros((10, 10), bool)
    seen[:, :5] = True
    scenes = {"s1": footprint(SCENE, seen)}
    assert scenes["s1"].outline.equals(box(0, 0, 720, 1200))
    assert scenes["s1"].pixel_m == pytest.approx(3, rel=1e-3)
    shapes = [box(650, 0, 710, 60), box(650, 100, 770, 160), box(800, 0, 900, 60)]
    assert kinds(faults_of(shapes, scenes=scenes)) == [(2, "partly outside"), (3, "outside")]
    assert footprint(SCENE, np.ones((4, 4), bool)).outline.equals(GRID.extent.geom)


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_coordinates_that_cannot_be_in_the_crs(crs):
    degrees = shapely.box(-133.9, 69.1, -133.8, 69.2)
    shapes = [degrees, FAR[0]] if crs == UTM else [degrees, FAR[0], shapely.transform(degrees, np.fliplr)]
    found = faults_of(shapes, crs=crs, scenes={}, of=LabelSettings(path="x"))
    assert kinds(found) == ([(1, "crs")] if crs == UTM else [(1, "huge"), (2, "crs"), (3, "crs")])
    assert ("degrees" if crs == "EPSG:4326" else "metres") in found.loc[found["kind"] == "crs", "fault"].iloc[0]


def test_without_a_crs_the_rest_is_still_said():
    found = check(frame([FAR[0], FAR[0], None], crs=None), settings=LabelSettings(path="x"), scenes={}, today=TODAY)
    assert kinds(found) == [(0, "crs"), (2, "duplicate"), (3, "no geometry")]
    assert summary(found)["example"][0].startswith("the file has no CRS")


# Dates and regions


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2019-07-14", None),
        ("20190714", None),
        (None, None),
        ("14.7.2019", "has '14.7.2019' in 'day', which is no day"),
        ("2019-13-40", "is no day"),
        ("2031-07-14", "which is to come"),
        ("2019-07-15", "says 2019-07-15, and s1 was taken on 2019-07-14"),
    ],
)
def test_dates_of_a_scene(day, said):
    found = faults_of(FAR, day=np.array(["2019-07-14", day, "2019-07-14"], object))
    assert (found["kind"] == "date").all()
    assert (found["row"] == 2).all()
    assert found.empty if said is None else found["fault"].str.contains(said).any()


def test_the_date_in_a_name_tells_where_the_scene_is_not_there():
    names = ["20190714_042959_08_1057", "S2A_20190713T1_20190714T2", "5790392_4372514_2022-07-16_2459", "lake_12345678"]
    shapes = [box(100 * n, 10, 100 * n + 50, 60) for n in range(4)]
    found = faults_of(shapes, scenes={}, image=names)
    assert kinds(found) == [(3, "date")]
    assert "says 2019-07-14, and 5790392_4372514_2022-07-16_2459 was taken on 2022-07-16" in found["fault"][0]


def test_periods():
    starts = ["2019-07-01", "2019-08-01", None, "2019-07-01"]
    ends = ["2019-07-31", "2019-07-31", "2019-07-31", None]
    shapes = [box(100 * n, 10, 100 * n + 50, 60) for n in range(4)]
    labels = frame(shapes, day=np.array(starts, object), until=np.array(ends, object))
    found = check(labels, settings=LabelSettings(path="x", start="day", end="until"), scenes={}, today=TODAY)
    assert kinds(found) == [(2, "date"), (3, "date")]
    assert "begins on 2019-08-01, after its end on 2019-07-31" in found["fault"][0]
    beside = LabelSettings(path="x", scene="image", start="day", end="until")
    found = check(labels, settings=beside, scenes=SCENES, today=TODAY)
    assert kinds(found) == [(2, "date"), (2, "date"), (4, "date")]  # row 1 holds the scene's day, row 3 may


def test_regions():
    found = faults_of([*FAR, box(300, 0, 340, 40)], area=np.array(["Yamal", "Yamal", "Lena", None], object))
    assert kinds(found) == [(3, "mixed regions"), (4, "no region")]


# The whole


cells = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12), st.sampled_from("ab"))


@pytest.mark.slow
@law
@given(st.lists(cells, min_size=1, max_size=12))
def test_pairs_are_those_of_the_slow_way(cells):
    shapes = [box(10 * x, 10 * y, 10 * (x + w), 10 * (y + h)) for x, y, w, h, _ in cells]
    images = [image for *_, image in cells]
    expected = []
    gone = set()
    for one, other in combinations(range(len(shapes)), 2):
        if images[one] == images[other] and shapes[one].equals(shapes[other]) and other not in gone:
            gone.add(other)
            expected.append((other + 1, "duplicate", one + 1))
    for one, other in combinations([n for n in range(len(shapes)) if n not in gone], 2):
        common = shapes[one].intersection(shapes[other]).area
        if images[one] == images[other] and common > 9:
            same = common / shapes[one].union(shapes[other]).area > SAME
            expected.append((other + 1, "near duplicate" if same else "overlap", one + 1))
    found = faults_of(shapes, of=LabelSettings(path="x", scene="image"), scenes={}, image=images)
    found = found[found["kind"].isin(["duplicate", "near duplicate", "overlap"])]
    assert sorted(zip(found["row"], found["kind"], found["other"], strict=True)) == sorted(expected)


def assert_same(one, other):
    """To the bit, corners that are no polygon included."""
    assert_frame_equal(pd.DataFrame(one.to_wkb()), pd.DataFrame(other.to_wkb()))


corners = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=3, max_size=6)
shapes = (
    st.none()
    | st.just(shapely.Polygon())
    | corners.map(lambda points: shapely.Polygon(np.array(points) * 50 + [X, Y - 500]))
)


@pytest.mark.slow
@law
@given(st.lists(st.tuples(shapes, st.sampled_from("ab"), st.integers(0, 1)), min_size=1, max_size=8))
def test_a_repaired_copy_has_none_of_the_faults_that_it_mends(rows):
    drawn, images, targets = zip(*rows, strict=True)
    labels = frame(list(drawn), image=images, label=targets, note=np.arange(len(rows)))
    before = labels.copy()
    of = LabelSettings(path="x", scene="image", target="label")
    copy = repaired(labels, settings=of).frame
    assert_same(labels, before)
    left = check(copy, settings=of, scenes={}, today=TODAY)
    same = left[left["kind"] == "duplicate"]
    assert not left["kind"].isin(["invalid", "no geometry"]).any()
    assert all(
        copy["label"][row - 1] != copy["label"][other - 1]
        for row, other in zip(same["row"], same["other"], strict=True)
    )
    assert list(copy.columns) == list(labels.columns)
    kept = labels.set_index("note").loc[copy["note"]]
    sound = kept.is_valid.to_numpy()
    assert_same(copy[sound].set_index("note"), kept[sound])
    for mended, shape in zip(copy.geometry, kept.geometry, strict=True):
        assert shapely.make_valid(shape).symmetric_difference(mended).area < 1e-6
    assert_same(repaired(copy, settings=of).frame, copy)
    assert repaired(copy, settings=of).changes == ()


def test_a_repaired_copy_says_what_was_done_and_keeps_the_rest():
    labels = frame(
        [FAR[0], FAR[0], None, PLANTED["invalid"][0], PLANTED["no polygon"][0], FAR[0]], image=["s1"] * 5 + ["s2"]
    )
    done = repaired(labels, settings=PER_IMAGE)
    assert done.changes == (
        "1 polygons that crossed themselves are mended",
        "1 rows without ground are left out",
        "1 polygons that were there already are left out",
    )
    assert done.frame.geom_type.tolist() == ["Polygon", "MultiPolygon", "Point", "Polygon"]


def test_faults_are_summed_up_and_can_be_written(tmp_path):
    labels = frame([*FAR, *PLANTED["overlap"], *PLANTED["no polygon"], *PLANTED["no geometry"]])
    labels["FID"] = np.arange(len(labels)) + 100
    found = check(labels, settings=PER_IMAGE, scenes=SCENES, today=TODAY)
    table = summary(found)
    assert table["kind"].tolist() == ["no geometry", "no polygon", "overlap"]
    assert table["number"].tolist() == [2, 2, 1]
    assert table["example"][2] == "row 4 overlaps row 3 on 100 m2, 6% of the smaller"
    write_vector(tmp_path / "faults.gpkg", found)
    read = read_vector(tmp_path / "faults.gpkg")
    assert read["id"].tolist() == ["103", "104", "105", "106", "107"]
    assert read["fault"].tolist() == found["fault"].tolist()
    assert read["other"].fillna(0).tolist() == [3, 0, 0, 0, 0]


def test_a_column_that_is_not_there_is_named():
    labels = frame(FAR)
    for work in (check, repaired):
        options = {"scenes": {}} if work is check else {}
        with pytest.raises(LabelError, match=r"no column 'picture' for labels\.scene; it has image, area"):
            work(labels, settings=LabelSettings(path="x", scene="picture"), **options)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_published_polygons(real_scenes):
    labels = read_vector(real_scenes / "nitze2021" / "GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp")
    of = LabelSettings(path="x", scene="image_id", region="region", start="image_date", target="label")
    found = check(labels, settings=of, scenes={})
    assert found["kind"].value_counts().to_dict() == {"overlap": 165, "invalid": 4}
    mended = repaired(labels, settings=of)
    assert mended.changes == ("4 polygons that crossed themselves are mended",)
    assert mended.frame.is_valid.all()
