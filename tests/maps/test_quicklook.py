"""The picture of a map: what is bright, veiled, missing and outlined in it."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack
from thawmap.geo.metres import width_and_bearing
from thawmap.maps.caption import STRIP_PX, caption, captioned
from thawmap.maps.quicklook import quicklook

SIDE = 64  # of the scene, 16 pixels of the picture each
GEOBOX = GeoBox((SIDE, SIDE), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
NOTHING = gpd.GeoDataFrame(geometry=[], crs="EPSG:32608")


def scene(*, cloud=False, masked=True, swath=0):
    """Ground that darkens to the right; a bright cloud in its lower half; nothing in its first columns."""
    ground = np.tile(np.linspace(0.25, 0.0, SIDE, dtype=np.float32), (SIDE, 1))
    valid = np.ones((SIDE, SIDE), np.bool_)
    if cloud:
        ground[40:] = 0.9
        valid[40:] = not masked
    ground[:, :swath] = np.nan
    valid[:, :swath] = False
    layers = {name: ground + shift for name, shift in (("nir", 0.1), ("red", 0.0), ("green", 0.02))}
    return Stack(GEOBOX, {**layers, "valid": valid})


def shown(picture, slumps=NOTHING):
    return quicklook(picture, slumps).astype(int)


def test_the_ground_is_as_bright_with_clouds_and_masks_as_without():
    """So that two maps of one place can be compared by eye."""
    clear, masked, bare = shown(scene()), shown(scene(cloud=True)), shown(scene(cloud=True, masked=False))
    np.testing.assert_array_equal(clear[:600], masked[:600])
    np.testing.assert_array_equal(clear[:600], bare[:600])
    assert np.ptp(clear[:600]) > 200


def test_what_was_not_mapped_is_veiled_and_what_is_missing_is_like_nothing_else():
    picture = shown(scene(cloud=True, swath=16))
    cloud, missing, ground = picture[700:, 300:], picture[:, :250], picture[:600, 300:]
    assert cloud.max() < 200 < ground.max()
    assert np.ptp(missing) == 0
    assert abs(cloud - missing[0, 0]).min() > 40
    assert ground.min() < missing[0, 0, 0] - 40


def test_a_scene_without_a_valid_pixel_is_shown_all_the_same():
    picture = scene()
    picture["valid"][:] = False
    assert 60 < np.ptp(shown(picture)) < 150


def test_outlines_are_seen_on_their_own_colour_and_on_snow():
    place = shapely.box(*(GEOBOX.affine * (20, 44)), *(GEOBOX.affine * (44, 20)))
    slumps = gpd.GeoDataFrame(geometry=[place], crs="EPSG:32608")
    for red, rest in ((0.1, 0.9), (0.9, 0.9)):  # near infrared is shown as red
        picture = scene()
        for name in ("nir", "red", "green"):
            picture[name][:] = red if name == "nir" else rest
            picture[name][:2] = 0.0
        row = shown(picture, slumps)[512]
        line = np.flatnonzero((abs(row - (0x56, 0xB4, 0xE9)) < 40).all(axis=-1))
        edge = line[(line > 300) & (line < 340)]
        assert abs(edge - 320).max() <= 1
        assert (row[[edge.min() - 1, edge.max() + 1]].max(axis=-1) < 130).all()


@pytest.mark.parametrize(
    ("x", "y"), [(-1_500_000, -900_000), (1_200_000, 300_000), (0, -2_000_000), (700_000, 700_000)]
)
def test_north_is_where_the_pole_lies(x, y):
    """In a polar projection that is the way to its origin, clockwise from the top of the picture."""
    _, up = width_and_bearing(GeoBox((10, 10), Affine(30, 0, x, 0, -30, y), "EPSG:3413"))
    turn = math.degrees(math.atan2(-(x + 150), -(y - 150)))
    assert (-up - turn + 180) % 360 - 180 == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize(
    ("grid", "metres"),
    [
        (GEOBOX, 10),
        (GeoBox((8, 8), Affine(10, 0, 500_000, 0, 10, 7_700_000), "EPSG:32608"), 10),
        (GeoBox((8, 8), Affine(0.001, 0, 20, 0, -0.001, 70), "EPSG:4326"), 111.5 * math.cos(math.radians(70))),
    ],
)
def test_a_pixel_has_its_metres_on_the_ground(grid, metres):
    assert width_and_bearing(grid)[0] == pytest.approx(metres, rel=0.003)


@pytest.mark.parametrize("shape", [(500, 1024), (1024, 300), (1024, 40)])
def test_the_strip_leaves_the_picture_alone_and_measures_it(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    grid = GEOBOX.zoom_to(shape)
    whole = captioned(image, grid, "an id $\\frac{$\nof two lines  2020-07-14")
    np.testing.assert_array_equal(whole[: shape[0]], image)
    assert whole.shape == (shape[0] + STRIP_PX, shape[1], 3)
    if shape[1] < 100:
        return
    dark = whole[shape[0] :, 10:, 0] < 60
    metres = max(np.argmin([*row, False]) for row in dark) * width_and_bearing(grid)[0]
    assert min(abs(metres / (step * 10**power) - 1) for step in (1, 2, 5) for power in range(1, 5)) < 0.1


def test_a_caption_names_scene_and_time():
    taken = datetime(2020, 7, 14, 20, 3, tzinfo=UTC)
    scene = Scene(id="a", sensor="test", geobox=GEOBOX, files={}, acquired=taken)
    assert caption(scene) == "a  2020-07-14 20:03 UTC"
    assert caption(replace(scene, acquired=None)) == "a"
