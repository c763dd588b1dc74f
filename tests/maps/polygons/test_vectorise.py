"""Polygons against a slow version that sees the whole raster at once (law 13)."""

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from pyproj import Geod
from rasterio.features import rasterize
from scipy import ndimage
from skimage.measure import label

from thawmap.config import PolygonSettings
from thawmap.data.sources.base import Scene
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps.layout import SLUMP_COLUMNS
from thawmap.maps.polygons.threshold import Disc, above, masks
from thawmap.maps.polygons.vectorise import Vectoriser
from thawmap.maps.rows import Rows

law = settings(deadline=None, max_examples=100)

THRESHOLD = 0.5


def grid(shape, crs="EPSG:32608", step=10.0, origin=(500_000.0, 7_700_000.0)):
    return GeoBox(shape, Affine.translation(*origin) * Affine.scale(step, -step), crs)


def scene_on(geobox, acquired=None):
    return Scene(id="s1", sensor="test", geobox=geobox, files={}, acquired=acquired)


def found_in(probability, cuts=(), geobox=None, acquired=None, layers=None, **options):
    """What there is in rows that come in the parts between ``cuts``."""
    scene = scene_on(geobox or grid(probability.shape), acquired)
    polygons = PolygonSettings(threshold=THRESHOLD, **{"min_area_m2": 0} | options)
    vectoriser = Vectoriser(scene, polygons, bundle_id="b1")
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(probability)}), len(probability)]
    parts = (
        Rows(
            first_row=first,
            probability=probability[first:end],
            layers={name: values[first:end] for name, values in (layers or {}).items()},
        )
        for first, end in pairwise(edges)
    )
    for rows, mask in masks(parts, THRESHOLD, Disc(polygons.opening_m, ground_pixel_m(scene.geobox))):
        vectoriser.add(rows, mask)
    return vectoriser.finish()


def slumps_of(probability, cuts=(), **options):
    return found_in(probability, cuts, **options).slumps


@st.composite
def rasters(draw, largest=14):
    """Probabilities in hundredths with many objects, rings and corners; some pixels missing."""
    shape = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    codes = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 20, 50, 51, 60, 75, 90, 100, 255])))
    return np.where(codes == 255, np.nan, codes / 100)


cuts = st.lists(st.integers(1, 13), max_size=6)


def burnt(frame, geobox):
    """Each slump's pixels, numbered from 1."""
    pairs = [(polygon, number) for number, polygon in enumerate(frame.geometry, start=1)]
    if not pairs:
        return np.zeros(geobox.shape, np.int32)
    return rasterize(pairs, out_shape=tuple(geobox.shape), transform=geobox.transform, dtype="int32")


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts)
def test_objects_are_those_of_the_whole_raster(probability, cuts):
    geobox = grid(probability.shape)
    frame = slumps_of(probability, cuts)
    found = burnt(frame, geobox)
    expected = label(above(probability, THRESHOLD), connectivity=1)
    assert len(frame) == expected.max()
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(found)) == len(np.unique(expected)), "one label for one object"
    assert np.array_equal(found > 0, expected > 0)


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts)
def test_polygons_are_valid_single_and_of_their_pixels_area(probability, cuts):
    frame = slumps_of(probability, cuts)
    assert frame.is_valid.all()
    assert (frame.geom_type == "Polygon").all()
    assert np.array_equal(frame.area, frame["pixels"] * 100.0)
    assert frame["pixels"].sum() == (probability > THRESHOLD).sum()


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts)
def test_the_cut_changes_nothing(probability, cuts):
    whole, parts = slumps_of(probability), slumps_of(probability, cuts)
    assert parts.equals(whole)
    assert parts.geometry.to_wkb().equals(whole.geometry.to_wkb())


@pytest.mark.slow
@law
@given(probability=rasters(), cuts=cuts)
def test_statistics_are_those_of_the_pixels(probability, cuts):
    frame = slumps_of(probability, cuts)
    found = burnt(frame, grid(probability.shape))
    missing = np.pad(np.isnan(probability), 1, constant_values=True)
    beside = ndimage.binary_dilation(missing)[1:-1, 1:-1]
    for number, slump in enumerate(frame.itertuples(), start=1):
        pixels = probability[found == number]
        expected = [len(pixels), *(f(pixels) for f in (np.mean, np.max, np.min, np.median, np.std))]
        got = [
            slump.pixels,
            slump.probability_mean,
            slump.probability_max,
            slump.probability_min,
            slump.probability_median,
            slump.probability_std,
        ]
        assert got == pytest.approx(expected, abs=1e-12)
        assert slump.touches_edge == beside[found == number].any()


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_statistics_of_values_that_are_all_different(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    probability = np.random.default_rng(seed).uniform(0.3, 1, (12, 9)).astype(np.float32)
    frame = slumps_of(probability, data.draw(cuts))
    found = burnt(frame, grid(probability.shape))
    for number, slump in enumerate(frame.itertuples(), start=1):
        pixels = probability[found == number].astype(np.float64)
        assert slump.probability_median == np.median(pixels)
        assert slump.probability_std == pytest.approx(np.std(pixels), abs=1e-9)


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("missing", [(1, 2), (3, 2), (2, 1), (2, 3), (1, 1), (4, 2)])
def test_beside_a_missing_pixel_is_at_the_edge_on_both_sides_of_a_seam(cut, missing):
    probability = np.zeros((5, 5))
    probability[2, 2] = 1
    probability[missing] = np.nan
    shares_a_side = abs(missing[0] - 2) + abs(missing[1] - 2) == 1
    assert slumps_of(probability, [cut])["touches_edge"].tolist() == [shares_a_side]


def test_an_object_that_meets_itself_at_a_corner_is_valid():
    ring = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], float)
    holes = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], float)
    for mask, pixels in ((ring, 7), (holes, 14)):
        for cut in range(4):
            frame = slumps_of(mask, [cut])
            assert frame.is_valid.all()
            assert frame.area.tolist() == [pixels * 100.0]


def test_a_spiral_is_one_object_however_it_is_cut():
    spiral = np.zeros((9, 9))
    spiral[0, :] = spiral[:, 8] = spiral[8, :] = spiral[2:, 0] = 1
    spiral[2, :7] = spiral[2:7, 6] = spiral[6, 2:7] = spiral[4:7, 2] = 1
    for height in range(1, 9):
        frame = slumps_of(spiral, range(0, 9, height))
        assert frame["pixels"].tolist() == [spiral.sum()]
        assert frame["touches_edge"].all()


def test_outlines_turn_at_every_vertex_after_joining():
    frame = slumps_of(np.ones((6, 5)), [1, 2, 3, 4, 5])
    assert shapely.get_num_coordinates(frame.geometry.iloc[0]) == 5
    assert frame.geometry.iloc[0].exterior.is_ccw


@pytest.mark.parametrize(
    ("crs", "step", "origin"),
    [
        ("EPSG:32608", 3.0, (300_000.0, 7_700_000.0)),
        ("EPSG:4326", 0.0005, (130.0, 72.0)),
        ("EPSG:3413", 5.0, (-2_000_000.0, -100_000.0)),
    ],
)
def test_area_is_that_on_the_ellipsoid(crs, step, origin):
    probability = np.pad(np.ones((40, 300)), 2)
    frame = slumps_of(probability, [7, 20], geobox=grid(probability.shape, crs, step, origin))
    outline = shapely.segmentize(frame.geometry.iloc[0], step * 10)
    degrees = gpd.GeoSeries([outline], crs=crs).to_crs("EPSG:4326").iloc[0]
    area, perimeter = Geod(ellps="WGS84").geometry_area_perimeter(degrees)
    assert frame["area_m2"].iloc[0] == pytest.approx(abs(area), rel=1e-4)
    assert frame["perimeter_m"].iloc[0] == pytest.approx(perimeter, rel=0.02)
    assert frame.crs == crs


def test_small_objects_are_left_out_by_their_area_on_the_ground():
    probability = np.zeros((6, 12))
    probability[1, 1] = probability[3:5, 3:5] = probability[1:3, 8:11] = 1
    assert slumps_of(probability)["pixels"].tolist() == [1, 6, 4]
    assert slumps_of(probability, min_area_m2=200)["pixels"].tolist() == [6, 4]
    assert slumps_of(probability, min_area_m2=1e6).empty


def test_columns_and_types_are_the_same_with_and_without_slumps():
    some = slumps_of(np.ones((3, 4)))
    none = slumps_of(np.full((3, 4), np.nan))
    for frame in (some, none):
        assert list(frame.columns) == [*SLUMP_COLUMNS, "geometry"]
        assert {name: str(frame[name].dtype) for name in SLUMP_COLUMNS} == SLUMP_COLUMNS
        assert frame.crs == "EPSG:32608"
    assert none.empty
    row = some.iloc[0]
    assert (row["scene_id"], row["bundle_id"], row["status"]) == ("s1", "b1", "detected")
    assert pd.isna(row["acquired"])
    assert pd.isna(row["reviewer"])
    assert pd.isna(row["reviewed_at"])


def test_times_are_in_utc():
    eastern = timezone(timedelta(hours=9))
    for acquired in (datetime(2021, 7, 1, 3), datetime(2021, 7, 1, 12, tzinfo=eastern)):  # noqa: DTZ001
        frame = slumps_of(np.ones((2, 2)), acquired=acquired)
        assert frame["acquired"].iloc[0] == pd.Timestamp("2021-07-01T03:00:00Z")


def test_names_belong_to_bundle_scene_and_outline():
    first = slumps_of(np.ones((3, 4)))["slump_id"].iloc[0]
    assert first == slumps_of(np.full((3, 4), 0.6))["slump_id"].iloc[0]
    assert first != slumps_of(np.ones((3, 3)), geobox=grid((3, 3)))["slump_id"].iloc[0]


def test_rows_must_come_whole_and_in_order():
    vectoriser = Vectoriser(scene_on(grid((4, 4))))
    mask = np.ones((2, 4), bool)
    with pytest.raises(AssertionError, match="comes next"):
        vectoriser.add(Rows(first_row=2, probability=np.ones((2, 4))), mask)
    vectoriser.add(Rows(first_row=0, probability=np.ones((2, 4))), mask)
    with pytest.raises(AssertionError, match="all rows"):
        vectoriser.finish()


@pytest.mark.parametrize("hundredths", range(0, 100, 7))
def test_a_threshold_in_hundredths_is_exact(hundredths):
    codes = np.arange(101)
    assert np.array_equal(above(codes / 100, hundredths / 100), codes > hundredths)
