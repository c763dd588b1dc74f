"""The synthetic Arctic: the same seed gives the same pixels, every file lies where it says, slumps look like slumps."""

import csv
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from scipy import ndimage

from thawmap.config import Config, load
from thawmap.data import terrain
from thawmap.data.io import raster_info, read_raster, read_vector
from thawmap.data.labels import open_labels
from thawmap.data.project import Project
from thawmap.data.scenery import REGIONS
from thawmap.data.simulate import Simulation, _positions, simulate
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble, check_ranges
from thawmap.errors import ConfigError

FILES = ("optical.tif", "dem.tif", "trends.tif", "usable.tif")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One scene of 256 px in each of the six regions."""
    return simulate(tmp_path_factory.mktemp("six") / "project", Simulation(regions=6, scenes_per_region=1, size=256))


def opened(project: Path) -> tuple[Config, list[Scene]]:
    config = load(project)
    return config, [Project(config).open(found, labelled=False) for found in Project(config).candidates()]


def pixels(project: Path) -> dict[str, bytes]:
    found = sorted(project.parent.glob("scenes/*/*/*.tif"))
    return {
        str(path.relative_to(project.parent)): read_raster(
            path, raster_info(path).geobox, bands=range(1, raster_info(path).count + 1)
        ).values.tobytes()
        for path in found
    }


def test_same_seed_same_pixels_whatever_else_is_made(tmp_path):
    few = simulate(tmp_path / "few", Simulation(seed=3, regions=2, scenes_per_region=1, size=96))
    np.random.default_rng().random(7)
    many = simulate(tmp_path / "many", Simulation(seed=3, regions=3, scenes_per_region=2, size=96))
    other = simulate(tmp_path / "other", Simulation(seed=4, regions=2, scenes_per_region=1, size=96))
    assert len(pixels(few)) == 2 * len(FILES)
    assert pixels(few).items() <= pixels(many).items()
    assert not set(pixels(few).values()) & set(pixels(other).values())
    mine = read_vector(few.parent / "labels.gpkg")
    theirs = read_vector(many.parent / "labels.gpkg")
    theirs = theirs[theirs.image_id.isin(mine.image_id)].reset_index(drop=True)
    assert mine.geometry.geom_equals(theirs.geometry).all()


def test_every_file_lies_on_its_own_grid_and_covers_the_scene(project):
    for folder in project.parent.glob("scenes/*/*"):
        info = {name: raster_info(folder / name) for name in FILES}
        scene = info["optical.tif"].geobox
        assert {name: (one.count, one.dtype, one.nodata) for name, one in info.items()} == {
            "optical.tif": (4, "uint16", 0),
            "dem.tif": (2, "uint16", 65535),
            "trends.tif": (3, "uint8", None),
            "usable.tif": (1, "uint8", None),
        }
        assert scene.shape == (256, 256)
        assert scene.crs.epsg in {region.epsg for region in REGIONS}
        assert info["usable.tif"].geobox == scene
        assert [abs(one.geobox.resolution.x) for one in info.values()] == [3, 2, 30, 3]
        assert info["dem.tif"].geobox.crs.epsg == 3413
        corners = np.array(scene.boundingbox.points)
        x, y = scene.crs.transformer_to_crs(CRS("EPSG:3413"))(*corners.T)
        dem = info["dem.tif"].geobox.boundingbox
        assert dem.left + 50 < x.min() < x.max() < dem.right - 50
        assert dem.bottom + 50 < y.min() < y.max() < dem.top - 50
        dem_values = read_raster(folder / "dem.tif", scene, bands=[1, 2]).values
        trend_values = read_raster(folder / "trends.tif", scene, bands=[1, 2, 3]).values
        assert np.isfinite(dem_values).all()
        assert np.isfinite(trend_values).all()


def test_the_configuration_runs_as_it_is(project):
    config, scenes = opened(project)
    assert config.split.test == ("delta",)
    assert config.split.validation == ("island",)
    assert len(config.input_layers) == 10
    assert config.labels is not None
    labels = open_labels(config.labels)
    with (project.parent / "scenes.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {scene.id for scene in scenes}
    for scene in scenes:
        assert rows[scene.id]["region"] == scene.region == labels.region(scene)
        assert scene.acquired is not None
        assert scene.acquired.year in (2018, 2019)
        assert 6 <= scene.acquired.month <= 9
        stack = assemble(scene, [one.name for one in config.input_layers], scene.geobox, Project(config).sources)
        check_ranges(stack, config.input_layers, scene_id=scene.id)
        assert stack["valid"].values.mean() > 0.6
        assert (labels.burn(scene, scene.geobox) == 1).any()


def test_two_regions_leave_one_to_train(tmp_path):
    config = load(simulate(tmp_path / "two", Simulation(regions=2, scenes_per_region=1, size=96)))
    assert (config.split.validation, config.split.test) == ((), ("lake_plain",))


def inside_and_around(project: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean of each layer in the slumps and in the usable land up to 60 m around them, by region."""
    config, scenes = opened(project)
    assert config.labels is not None
    labels = open_labels(config.labels)
    found = {}
    for scene in scenes:
        stack = assemble(scene, [one.name for one in config.input_layers], scene.geobox, Project(config).sources)
        usable, slump = stack["valid"].values, labels.burn(scene, scene.geobox) == 1
        ring = ndimage.binary_dilation(slump, iterations=20) & ~ndimage.binary_dilation(slump, iterations=4)
        ring &= usable & (stack["ndvi"].values > 0)
        found[scene.region] = {
            name: (float(stack[name].values[slump & usable].mean()), float(stack[name].values[ring].mean()))
            for name in stack.data_vars
            if name != "valid"
        }
    return found


def test_slumps_are_bare_wet_and_losing_green_with_steep_edges(project):
    contrast = inside_and_around(project)
    assert len(contrast) == 6
    for layers in contrast.values():
        assert layers["ndvi"][0] < layers["ndvi"][1] - 0.08
        assert layers["red"][0] > layers["red"][1]
        assert layers["tc_greenness"][0] < layers["tc_greenness"][1]
        assert layers["tc_wetness"][0] > layers["tc_wetness"][1]
    greening = np.mean([layers["tc_greenness"] for layers in contrast.values()], axis=0)
    assert greening[0] < -0.01 < 0 < greening[1]
    slope = np.mean([layers["slope"][0] - layers["slope"][1] for layers in contrast.values()])
    relative = np.mean([layers["relative_elevation"] for layers in contrast.values()], axis=0)
    assert 1 < slope < 8
    assert relative[0] < relative[1]


def test_regions_look_different(project):
    _, scenes = opened(project)
    colours = {}
    for scene in scenes:
        image = read_raster(scene.files["optical.tif"], scene.geobox, bands=[1, 2, 3, 4]).values / 10000
        usable = read_raster(scene.files["usable.tif"], scene.geobox, bands=[1]).values[0] == 1
        land = usable & (image[3] > 0.08)
        colours[scene.region] = image[:, land].mean(axis=1)
    pairs = [(one, other) for one in colours for other in colours if one < other]
    apart = {pair: float(np.abs(colours[pair[0]] / colours[pair[1]] - 1).max()) for pair in pairs}
    assert min(apart.values()) > 0.04
    assert max(apart.values()) > 0.4


def test_clouds_hide_and_missing_is_not_usable(project):
    _, scenes = opened(project)
    hidden, cut = 0, 0
    for scene in scenes:
        image = read_raster(scene.files["optical.tif"], scene.geobox, bands=[1, 4]).values
        usable = read_raster(scene.files["usable.tif"], scene.geobox, bands=[1]).values[0] == 1
        seen = np.isfinite(image).all(axis=0)
        assert not (usable & ~seen).any()
        cut += (~seen).any()
        hidden += (~usable & seen).any()
        bright = image[0] > 2500
        assert not (bright & usable & seen).any()
    assert hidden == len(scenes)  # the first scene of a region has clouds
    assert cut == 2  # coast and delta


def test_labels_are_one_valid_polygon_per_slump_and_scene(project):
    _, scenes = opened(project)
    labels = read_vector(project.parent / "labels.gpkg")
    assert labels.crs.to_epsg() == 4326
    assert list(labels.columns) == ["image_id", "image_date", "region", "label", "geometry"]
    assert set(labels.image_id) == {scene.id for scene in scenes}
    assert labels.geometry.is_valid.all()
    assert set(labels.geometry.geom_type) == {"Polygon"}
    assert set(labels.label) == {1}
    for scene in scenes:
        mine = labels[labels.image_id == scene.id].to_crs(str(scene.geobox.crs))
        assert mine.within(shapely.box(*scene.geobox.boundingbox.bbox).buffer(0.01)).all()
        assert (mine.area > 100).all()
        assert (mine.image_date == scene.acquired.strftime("%Y-%m-%d")).all()


def test_scenes_of_a_region_do_not_overlap(tmp_path):
    project = simulate(tmp_path / "near", Simulation(regions=2, scenes_per_region=3, size=96))
    _, scenes = opened(project)
    for region in ("moraine", "lake_plain"):
        boxes = [shapely.box(*scene.geobox.boundingbox.bbox) for scene in scenes if scene.region == region]
        assert len(boxes) == 3
        frame = gpd.GeoSeries(boxes)
        assert frame.union_all().area == pytest.approx(frame.area.sum())


@pytest.mark.parametrize(
    "wrong", [{"regions": 1}, {"regions": 7}, {"size": 95}, {"size": 5000}, {"scenes_per_region": 0}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Simulation(**wrong)


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path):
    small = Simulation(regions=2, scenes_per_region=1, size=96)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    (tmp_path / "empty").mkdir()
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match="not an empty folder; name a new one"):
            simulate(tmp_path / name, small)
    assert simulate(tmp_path / "empty", small).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_dem_positions_equal_the_exact_projection(project):
    _, scenes = opened(project)
    for scene in scenes:
        dem = raster_info(scene.files["dem.tif"]).geobox
        col, row = _positions(dem, scene.geobox)
        x, y = dem.affine * tuple(np.meshgrid(np.arange(dem.width) + 0.5, np.arange(dem.height) + 0.5))
        exact = ~scene.geobox.affine * dem.crs.transformer_to_crs(scene.geobox.crs)(x, y)
        assert np.abs(col + 0.5 - exact[0]).max() < 1e-3
        assert np.abs(row + 0.5 - exact[1]).max() < 1e-3


@given(seed=st.integers(0, 99), pixel_m=st.sampled_from([2.0, 3.0]), diameter_m=st.sampled_from([10.0, 15.0, 24.0]))
@settings(max_examples=15, deadline=None)
def test_relative_elevation_equals_a_slow_mean_in_a_circle(seed, pixel_m, diameter_m):
    rng = np.random.default_rng(seed)
    height = rng.normal(200, 10, (23, 19)).astype(np.float32)
    height[tuple(rng.integers(0, 19, 2))] = np.nan
    expected = np.full(height.shape, np.nan)
    row, col = np.indices(height.shape)
    for at in np.ndindex(height.shape):
        reach = int(diameter_m / 2 / pixel_m)
        if min(at[0], at[1], 22 - at[0], 18 - at[1]) >= reach:
            near = np.hypot(row - at[0], col - at[1]) * pixel_m <= diameter_m / 2
            expected[at] = height[at] - height[near].mean(dtype=np.float64)
    got = terrain.relative_elevation(height, pixel_m=pixel_m, diameter_m=diameter_m)
    np.testing.assert_allclose(got, expected, atol=2e-3)


@given(down=st.floats(-1, 1), right=st.floats(-1, 1), pixel_m=st.sampled_from([2.0, 3.0]))
def test_slope_of_a_plane_is_the_plane_s(down, right, pixel_m):
    row, col = np.indices((6, 7), dtype=np.float64) * pixel_m
    got = terrain.slope((down * row + right * col).astype(np.float32), pixel_m=pixel_m)
    np.testing.assert_allclose(got[1:-1, 1:-1], np.degrees(np.arctan(np.hypot(down, right))), atol=1e-3)
    assert np.isnan(got[[0, -1]]).all()
    assert np.isnan(got[:, [0, -1]]).all()


@given(seed=st.integers(0, 10_000), area_m2=st.floats(300, 1e5), elongation=st.floats(0.6, 2.2))
@settings(deadline=None)
def test_outlines_have_the_asked_area_and_their_head_uphill(seed, area_m2, elongation):
    rng = np.random.default_rng(seed)
    outline = terrain._outline(area_m2, elongation, rng, at=(100, 50), downslope=(0.0, 1.0))
    assert outline.is_valid
    assert outline.area * terrain.PIXEL_M**2 == pytest.approx(area_m2)
    middle = outline.intersection(shapely.box(-1e4, -1e4, 1e4, 100.5))  # rows above the centre: uphill
    assert 0.35 < middle.area / outline.area < 0.85


def test_sizes_follow_the_median_of_each_region():
    for number, region in enumerate(REGIONS):
        rng = np.random.default_rng(number)
        land = terrain.make_land(region.relief, 800, rng, inner=slice(50, 750))
        areas = np.array([scar.outline.area * terrain.PIXEL_M**2 for scar in land.scars])
        assert 0.5 < np.median(areas) / region.relief.slump_m2 < 1.8


def test_noise_is_standardised_and_seeded():
    one = terrain.noise((64, 80), np.random.default_rng(5), longest_m=100, roughness=1)
    assert one.dtype == np.float32
    assert one.mean() == pytest.approx(0, abs=1e-4)
    assert one.std() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(one, terrain.noise((64, 80), np.random.default_rng(5), longest_m=100, roughness=1))
    smooth = terrain.noise((64, 80), np.random.default_rng(5), longest_m=100, shortest_m=40, roughness=1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(one)).mean()
