"""The picture of a map: what is bright, veiled, missing and outlined in it."""

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.stack import Stack
from thawmap.infer.quicklook import quicklook

SIDE = 64  # of the scene, 16 pixels of the picture each
GEOBOX = GeoBox((SIDE, SIDE), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
NOTHING = gpd.GeoDataFrame(geometry=[], crs="EPSG:32608")


def scene(*, cloud=False, masked=True, swath=0):
    """A gradient of brightness to the right; a bright cloud in its lower half; nothing in its first columns."""
    ground = np.tile(np.linspace(0.05, 0.25, SIDE, dtype=np.float32), (SIDE, 1))
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


def test_the_ground_is_as_bright_under_masked_clouds_as_without_them():
    clear, cloudy = shown(scene()), shown(scene(cloud=True))
    assert abs(clear[:600] - cloudy[:600]).max() <= 1
    assert np.ptp(clear[:600]) > 240
    assert np.ptp(shown(scene(cloud=True, masked=False))[:600]) < 120


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
