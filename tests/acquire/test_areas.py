"""Areas: read from any vector file, repaired, measured, and drawn with few vertices that still cover them."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.acquire.areas import Area, clip_outline, grown, km2, read_areas
from thawmap.config import AcquireSettings, StacImagery
from thawmap.data.vector.io import write_vector
from thawmap.errors import ConfigError, DataError

SQUARE = shapely.box(500_000, 7_770_000, 510_000, 7_780_000)  # 10 x 10 km at 70 N, in a UTM zone


def asked(area, site=None):
    return AcquireSettings(area=area, site=site, years=(2019,), imagery=StacImagery(provider="stac"))


def written(path, shapes, crs="EPSG:32633", **columns):
    write_vector(path, gpd.GeoDataFrame(columns, geometry=shapes, crs=crs))
    return path


def test_a_square_of_ten_kilometres_has_a_hundred_square_kilometres(tmp_path):
    (area,) = read_areas(asked(written(tmp_path / "aoi.geojson", [SQUARE])))
    assert area.name == "aoi"
    assert area.km2 == pytest.approx(100, abs=0.5)
    assert area.notes == ()


def test_a_box_of_degrees_is_an_area_also_across_the_antimeridian():
    (plain,) = read_areas(asked((179.0, 70.0, 180.0, 71.0)))
    (crossing,) = read_areas(asked((179.0, 70.0, -179.0, 71.0)))
    assert crossing.km2 == pytest.approx(2 * plain.km2)
    assert len(crossing.outline.geoms) == 2


def test_the_ground_around_a_pole_has_its_size():
    cap = 2 * np.pi * 6378.137**2 * (1 - np.sin(np.radians(85)))  # of a sphere: the Earth is flatter there
    assert km2(shapely.box(-180, 85, 180, 90)) == pytest.approx(cap, rel=0.02)


def test_polygons_of_one_name_are_one_site(tmp_path):
    shapes = [SQUARE, shapely.affinity.translate(SQUARE, 5000), shapely.affinity.translate(SQUARE, 90_000)]
    path = written(tmp_path / "aoi.gpkg", shapes, region=["Lena", "Lena", "Horton"])
    areas = read_areas(asked(path, "region"))
    assert [area.name for area in areas] == ["Horton", "Lena"]
    assert [area.km2 for area in areas] == pytest.approx([100, 150], abs=0.8)


def test_the_same_ground_in_three_crs_is_the_same_area(tmp_path):
    measured = []
    for crs in ("EPSG:32633", "EPSG:4326", "EPSG:3413"):
        frame = gpd.GeoDataFrame(geometry=[shapely.segmentize(SQUARE, 500)], crs="EPSG:32633").to_crs(crs)
        measured.append(read_areas(asked(written(tmp_path / f"{crs[5:]}.gpkg", frame.geometry, crs)))[0].outline)
    for other in measured[1:]:
        assert measured[0].symmetric_difference(other).area < 1e-5 * measured[0].area


def test_what_is_repaired_is_told(tmp_path):
    bow_tie = shapely.Polygon([(0, 70), (0.2, 70.1), (0.2, 70), (0, 70.1)])
    (area,) = read_areas(asked(written(tmp_path / "aoi.geojson", [bow_tie, None], "EPSG:4326")))
    assert area.outline.is_valid
    assert area.notes[0] == "1 row without a shape left out"
    assert "Self-intersection" in area.notes[1]
    assert km2(area.outline) == pytest.approx(km2(shapely.box(0, 70, 0.2, 70.1)) / 2, rel=0.01)


@pytest.mark.parametrize(
    ("shapes", "columns", "site", "error"),
    [
        ([None], {}, None, "has no area"),
        ([shapely.Polygon()], {}, None, "has no area"),
        ([shapely.Point(1, 70)], {}, None, "row 1 is a Point, which has no area"),
        ([SQUARE], {"name": ["a"]}, "region", "has no column 'region' for 'acquire.site'; its columns: 'name'"),
        ([SQUARE, SQUARE], {"name": ["a", None]}, "name", "row 2 names no site"),
        ([SQUARE, SQUARE], {"name": ["a b", "a/b"]}, "name", "would make one folder"),
        ([SQUARE, SQUARE], {"name": ["Lena", "lena"]}, "name", "would make one folder"),
    ],
)
def test_what_is_no_area_is_refused(tmp_path, shapes, columns, site, error):
    with pytest.raises((ConfigError, DataError), match=error):
        read_areas(asked(written(tmp_path / "aoi.gpkg", shapes, **columns), site))


def test_a_margin_lies_all_around():
    area = Area("x", shapely.union_all([shapely.box(179.9, 70, 180, 70.1), shapely.box(-180, 70, -179.9, 70.1)]))
    wider = grown(area, 1000)
    assert shapely.difference(area.outline, wider).area < 1e-9
    assert km2(wider) == pytest.approx(area.km2 + 2 * (11.15 + 7.62) + np.pi, rel=0.01)  # the sides in km


def wiggly(seed, points, noise):
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = 1 + 0.3 * np.sin(3 * turn + rng.uniform(0, 6)) + noise * rng.normal(size=points)
    return shapely.make_valid(
        shapely.Polygon(np.column_stack([-138 + 0.3 * radius * np.cos(turn), 69.5 + 0.1 * radius * np.sin(turn)]))
    )


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(510, 900), st.sampled_from([0, 1e-4, 1e-3]), st.booleans())
def test_few_vertices_cover_all_and_little_more(seed, points, noise, hollow):
    outline = wiggly(seed, points, noise)
    if hollow:
        outline = shapely.difference(outline, shapely.Point(-138, 69.5).buffer(0.02, quad_segs=60))
    area = Area("x", outline)
    clip, note = clip_outline(area, most=500)
    assert clip.is_valid
    assert (
        sum(len(ring.coords) - 1 for part in shapely.get_parts(clip) for ring in (part.exterior, *part.interiors))
        <= 500
    )
    assert shapely.difference(outline, clip).area <= 1e-9 * outline.area
    assert km2(clip) < 1.01 * area.km2
    assert "instead of" in note


def test_five_thousand_vertices_and_an_outline_across_the_antimeridian_are_drawn_with_few():
    (area,) = read_areas(asked((179.0, 70.0, -179.0, 71.0)))
    dense = Area("x", shapely.segmentize(area.outline, 0.0025))
    clip, _ = clip_outline(dense)
    west, _, east, _ = clip.bounds
    assert (west, east) == (-180, 180)
    assert km2(clip) == pytest.approx(area.km2, rel=1e-3)


def test_a_small_outline_is_left_as_it_is():
    area = Area("x", shapely.box(0, 70, 1, 71))
    assert clip_outline(area) == (area.outline, "")


def test_an_outline_that_few_vertices_cannot_draw_is_refused():
    comb = shapely.union_all([shapely.box(i / 1000, 70, i / 1000 + 0.0003, 71) for i in range(300)])
    with pytest.raises(ConfigError, match="cannot be drawn with so few within 1 %"):
        clip_outline(Area("comb", comb))


def test_parts_that_touch_and_holes_that_come_first_are_one_plain_outline(tmp_path):
    """As the outline of the paper's Peel site, at which ordering scripts failed: neighbours with shared edges."""
    left, right = shapely.box(0, 70, 0.1, 70.1), shapely.box(0.1, 70, 0.2, 70.1)
    hollow = shapely.Polygon(shapely.box(0.3, 70, 0.4, 70.1).exterior, [shapely.box(0.33, 70.03, 0.36, 70.06).exterior])
    path = written(tmp_path / "peel.geojson", [shapely.MultiPolygon([left, right]), hollow], "EPSG:4326")
    (area,) = read_areas(asked(path))
    clip, _ = clip_outline(area)
    assert clip.is_valid
    assert sorted(len(part.interiors) for part in clip.geoms) == [0, 1]
    assert km2(clip) == pytest.approx(km2(left) + km2(right) + km2(hollow), rel=1e-6)
