"""The synthetic Arctic: the same seed gives the same pixels however they are cut; files are as delivered."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from scipy import ndimage

from thawmap import cli
from thawmap.config import Config, load
from thawmap.data.labels.polygons import open_labels
from thawmap.data.project import Project
from thawmap.data.raster.io import raster_info, read_raster
from thawmap.data.sources.base import Scene
from thawmap.data.stack import assemble, check_ranges
from thawmap.data.vector.io import read_vector
from thawmap.errors import ConfigError
from thawmap.simulate import coordinates, products, sites, slumps
from thawmap.simulate import project as simulating
from thawmap.simulate.imaging import draw_sky, photograph
from thawmap.simulate.landscape import heights, land, visible
from thawmap.simulate.noise import Lattice
from thawmap.simulate.project import Simulation, simulate
from thawmap.simulate.reflectance import trends
from thawmap.simulate.regions import REGIONS
from thawmap.simulate.terrain import shores

UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")
MORAINE, LAKE_PLAIN, ISLAND, COAST, CLIFFS, RIVER_TERRACE = REGIONS


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One scene of 256 px in each of the six regions."""
    return simulate(tmp_path_factory.mktemp("six") / "project", Simulation(regions=6, scenes_per_region=1, size=256))


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """Two regions, one site each, seen in four years; by the command line."""
    folder = tmp_path_factory.mktemp("dated") / "project"
    words = f"simulate {folder} --regions 2 --scenes 1 --dates 4 --size 192 --seed 2"
    assert cli._run(words.split()) == 0
    return folder / "thawmap.yaml"


def opened(project: Path) -> tuple[Config, list[Scene]]:
    config = load(project)
    return config, [Project(config).open(candidate, labelled=False) for candidate in Project(config).candidates()]


def images(project: Path) -> list[Path]:
    return sorted(project.parent.glob("scenes/*/PSScene/*_3B_AnalyticMS_SR_clip.tif"))


def beside(image: Path, ending: str) -> Path:
    return image.with_name(image.name.replace("_3B_AnalyticMS_SR_clip.tif", ending))


def stored(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def files(project: Path) -> dict[str, bytes]:
    paths = sorted(path for path in project.parent.rglob("*") if path.suffix in {".tif", ".json"})
    return {str(path.relative_to(project.parent)): path.read_bytes() for path in paths}


def covers(shape: shapely.Polygon, lattice: Lattice) -> np.ndarray:
    shapely.prepare(shape)
    return shapely.contains_xy(shape, *np.meshgrid(lattice.x, lattice.y))


def slumps_of(region, seed=0, side=6000):
    """The slumps of a square piece of country."""
    lattice = Lattice(row=-side // 2, col=-side // 2, height=side, width=side)
    return slumps.slumps_within(region.country(seed), lattice)


@pytest.fixture(scope="module")
def crowd():
    """A piece of the moraine, 300 px a side, with slumps across its middle."""
    slumps_there = slumps_of(MORAINE, side=4000)
    middle = max(visible(slumps_there, year=2019), key=lambda slump: slump.length_px)
    return MORAINE.country(0), Lattice(row=middle.row - 150, col=middle.col - 140, height=300, width=300)


# The ground is one, however it is cut


@pytest.mark.slow
@given(top=st.integers(0, 280), left=st.integers(0, 280), height=st.integers(2, 120), width=st.integers(2, 120))
@settings(max_examples=12, deadline=None)
def test_a_window_of_an_image_is_the_image_bit_for_bit(crowd, top, left, height, width):
    country, whole = crowd
    height, width = min(height, 300 - top), min(width, 300 - left)
    part = Lattice(row=whole.row + top, col=whole.col + left, height=height, width=width)
    sky = draw_sky(country, 0, 0, whole)
    assert sky.cloud_from < 1e8
    view = (slice(top, top + height), slice(left, left + width))
    for of_window, of_image in zip(photograph(country, sky, part), photograph(country, sky, whole), strict=True):
        assert np.array_equal(of_window, of_image[(..., *view)])


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.name)
def test_a_window_of_elevation_and_trends_is_the_wholes_bit_for_bit(region):
    site = sites.find_site(region.country(0), 0, 96)
    whole = coordinates.polar_cells(region, site.footprint, metres=2.0, margin_m=20)
    part = Lattice(row=whole.row + 31, col=whole.col + 57, height=70, width=60)
    expected = products._elevation(site, whole)[31:101, 57:117]
    assert np.array_equal(products._elevation(site, part), expected)
    coarse = coordinates.polar_cells(region, site.footprint, metres=30.0, margin_m=300)
    part = Lattice(row=coarse.row + 5, col=coarse.col + 9, height=8, width=7)
    expected = products._trend_codes(site, coarse)[:, 5:13, 9:16]
    assert np.array_equal(products._trend_codes(site, part), expected)


@pytest.mark.slow
def test_elevation_is_the_lands_height(crowd):
    country, lattice = crowd
    for year in (2017.5, 2024.0):
        ground = land(country, lattice, year=year)
        assert np.array_equal(heights(country, lattice, year=year), ground.height)


@pytest.mark.slow
@given(top=st.integers(-1500, 1500), left=st.integers(-1500, 1500), side=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_no_slump_that_touches_a_window_is_forgotten(top, left, side):
    everything = slumps_of(MORAINE, side=4600)
    window = Lattice(row=top, col=left, height=side, width=side)
    near = {(slump.row, slump.col) for slump in slumps.slumps_near(MORAINE.country(0), window)}
    for slump in everything:
        if any(slumps.imprint(slump, window, year) for year in (2019.0, 2030.0)):
            assert (slump.row, slump.col) in near


# Slumps


PAPER = {  # Table 2: median areas of the sites in m2, and slumps per date in 100 km2
    "moraine": ((22_032, 22_203), (24, 103)),
    "lake_plain": ((2_229, 2_229), (30, 55)),
    "coast": ((13_840, 78_786), (3, 41)),
    "river_terrace": ((14_470, 14_470), (5, 13)),
    "island": ((5_175, 5_175), (15, 40)),
    "cliffs": ((5_562, 7_981), (35, 67)),
}


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.name)
def test_sizes_and_numbers_follow_the_papers_regions(region):
    all_slumps = slumps_of(region, side=3400)
    active = visible(all_slumps, year=2019.0)
    areas = [slump.outline(2019.0).area * 9 for slump in active]
    sizes, numbers = PAPER[region.name]
    assert 0.65 * sizes[0] < np.median(areas) < 1.5 * sizes[1]
    per_site = len(active) / (3400 * 0.003) ** 2 * 100
    assert 0.5 * numbers[0] < per_site < 2.5 * numbers[1]
    assert 0.2 < 1 - len(active) / len(all_slumps) < 0.75  # and slumps that do not thaw


@pytest.mark.slow
@pytest.mark.parametrize("region", [MORAINE, COAST], ids=lambda region: region.name)
def test_slumps_do_not_lie_on_each_other(region):
    all_slumps = slumps_of(region, side=3400)
    middles = np.array([(slump.row, slump.col) for slump in all_slumps])
    lengths = np.array([slump.length_px for slump in all_slumps])
    apart = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    assert (apart >= 0.5 * (lengths[:, None] + lengths[None])).all()
    assert len(all_slumps) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("region", "seed"), [(LAKE_PLAIN, 0), (RIVER_TERRACE, 3)])
def test_slumps_lie_on_land(region, seed):
    begun = [slump for slump in slumps_of(region, seed, side=3400) if slump.size(2019.0)]
    for slump in begun:
        lattice = Lattice(row=slump.row - 124, col=slump.col - 124, height=125, width=125, step=2)
        inside = covers(slump.outline(2019.0), lattice)
        assert (shores(region.country(seed), lattice)[0][inside] > 0).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("year", [2016.0, 2019.0, 2024.0])
def test_an_outline_has_the_pixels_that_the_ground_has(year):
    all_slumps = slumps_of(MORAINE, side=4000)
    begun = [slump for slump in all_slumps if slump.size(year)][:6]
    for slump in begun:
        lattice = Lattice(row=slump.row - 249, col=slump.col - 249, height=166, width=166, step=3)
        shape = slumps.imprint(slump, lattice, year)
        imprinted = np.zeros(lattice.shape, bool)
        imprinted[shape.view] = shape.edge_m > 0
        exact = slump.outline(year)
        sure = ~covers(exact.exterior.buffer(0.1), lattice)
        assert np.array_equal(imprinted[sure], covers(exact, lattice)[sure])
        assert imprinted.sum() * 9 == pytest.approx(exact.area, rel=0.1)


@pytest.mark.slow
def test_slumps_grow_upslope_begin_and_stabilise():
    all_slumps = slumps_of(MORAINE, side=5000)
    early, late = visible(all_slumps, year=2018.5), visible(all_slumps, year=2025.5)
    assert set(late) - set(early)  # new ones
    assert {slump for slump in early if slump not in late}  # stabilised ones
    assert any(slump.ended < 2010 for slump in all_slumps)
    growing = [slump for slump in early if slump in late and slump.ended > 2025.5]
    assert len(growing) > 10
    for slump in growing:
        before, after = slump.outline(2018.5), slump.outline(2025.5)
        along = [
            (np.array(shape.exterior.coords) - (slump.col, slump.row)) @ np.array(slump.downslope)
            for shape in (before, after)
        ]
        assert after.area > before.area
        assert along[1].min() < along[0].min() - 1  # the headwall went upslope by metres
        toe = float(slump.radius_px[0])
        assert [axis[0] for axis in along] == [pytest.approx(toe), pytest.approx(toe)]  # the toe stays


# Files as they are delivered


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_else_is_made(tmp_path):
    few = simulate(tmp_path / "few", Simulation(seed=3, regions=2, scenes_per_region=1, size=96))
    np.random.default_rng().random(7)
    many = simulate(tmp_path / "many", Simulation(seed=3, regions=3, scenes_per_region=2, size=96, dates=2))
    other = simulate(tmp_path / "other", Simulation(seed=4, regions=2, scenes_per_region=1, size=96))
    few_files, many_files = files(few), files(many)
    pictures = {name for name in few_files if name.startswith("scenes")}
    assert len(pictures) == 6
    assert {name: few_files[name] for name in pictures}.items() <= many_files.items()
    assert not set(few_files.values()) & set(files(other).values())
    labels = read_vector(few.parent / "labels.gpkg")
    more = read_vector(many.parent / "labels.gpkg")
    more = more[more.image_id.isin(labels.image_id)].reset_index(drop=True)
    assert labels.geometry.geom_equals(more.geometry).all()
    again = simulate(tmp_path / "again", Simulation(seed=3, regions=2, scenes_per_region=1, size=96))
    assert files(again) == few_files


@pytest.mark.slow
def test_images_are_named_and_stored_as_planet_does(project):
    assert len(images(project)) == 6
    for image in images(project):
        info, mask = raster_info(image), raster_info(beside(image, "_3B_udm2_clip.tif"))
        assert (info.count, info.dtype, info.nodata) == (4, "uint16", 0)
        assert info.descriptions == ("blue", "green", "red", "nir")
        assert (mask.count, mask.dtype, mask.descriptions) == (8, "uint8", UDM2)
        assert info.geobox == mask.geobox
        assert info.geobox.shape == (256, 256)
        assert info.geobox.resolution.x == 3
        item = json.loads(beside(image, "_metadata.json").read_text())
        name = image.name.partition("_3B_")[0]
        acquired = item["properties"]["acquired"]
        parts = name.split("_")
        assert item["id"] == name
        assert f"{parts[0]}_{parts[1]}" == acquired[:19].replace("-", "").replace(":", "").replace("T", "_")
        assert len(parts) == (3 if parts[0] < "2019" else 4)
        if len(parts) == 4:
            assert acquired[20:22] == parts[2]
    regions = {image.parts[-3] for image in images(project)}
    assert regions == {region.name for region in REGIONS}


@pytest.mark.slow
def test_masks_and_metadata_say_what_the_pixels_show(project):
    hidden, cut = 0, set()
    for image in images(project):
        dn, mask = stored(image), stored(beside(image, "_3B_udm2_clip.tif"))
        seen = (dn > 0).all(axis=0)
        assert np.array_equal(seen, (dn > 0).any(axis=0))
        assert np.array_equal(mask[:6].sum(axis=0), seen)  # each pixel that was seen shows one thing
        assert np.array_equal(mask[7] & 1, ~seen)
        assert np.array_equal(mask[6] > 0, seen)
        assert mask[6].max() <= 100
        assert dn[0][mask[5] == 1].min() > dn[0][mask[0] == 1].mean()  # clouds are bright
        properties = json.loads(beside(image, "_metadata.json").read_text())["properties"]
        share = {name: mask[band].sum() / seen.sum() for band, name in enumerate(UDM2[:6])}
        assert properties["cloud_cover"] == pytest.approx(share["cloud"], abs=1e-4)
        for name, key in zip(UDM2, ("clear", "snow_ice", "shadow", "light_haze", "heavy_haze", "cloud"), strict=False):
            assert properties[f"{key}_percent"] == pytest.approx(100 * share[name], abs=0.51)
        assert 0 < share["cloud"] < 0.1
        hidden += share["shadow"] > 0
        if not seen.all():
            cut.add(image.parts[-3])
    assert hidden >= 4
    assert cut == {"island", "river_terrace"}


@pytest.mark.slow
def test_the_metadatas_footprint_is_what_was_seen(project):
    for image in images(project):
        geobox = raster_info(image).geobox
        outline = shapely.from_geojson(beside(image, "_metadata.json").read_text())
        to_utm = CRS("EPSG:4326").transformer_to_crs(geobox.crs)
        in_utm = shapely.transform(outline, lambda points, to=to_utm: np.column_stack(to(*points.T)))
        x, y = geobox.affine * tuple(np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5))
        inside = shapely.contains_xy(in_utm, x.ravel(), y.ravel()).reshape(256, 256)
        assert (inside != (stored(image)[0] > 0)).mean() < 0.002


def mosaic(project: Path, region: str, geobox: GeoBox) -> np.ndarray:
    """Elevation on a grid, from all tiles; NaN in gaps."""
    height = np.full(geobox.shape, np.nan, np.float32)
    for tile in sorted(project.parent.glob(f"aux/arcticdem/{region}*.tif")):
        tile_height = read_raster(tile, geobox, bands=[1], resampling="bilinear")[0]
        height = np.where(np.isfinite(tile_height), tile_height, height)
    return height


@pytest.mark.slow
def test_elevation_covers_the_scenes_and_lies_where_they_lie(project):
    gaps = []
    for image in images(project):
        region = next(region for region in REGIONS if region.name == image.parts[-3])
        tiles = sorted(project.parent.glob(f"aux/arcticdem/{region.name}*.tif"))
        info = [raster_info(tile) for tile in tiles]
        assert {
            (tile_info.count, tile_info.dtype, tile_info.nodata, tile_info.geobox.crs.epsg) for tile_info in info
        } == {(1, "float32", -9999.0, 3413)}
        assert {abs(tile_info.geobox.resolution.x) for tile_info in info} == {2.0}
        gaps.append(np.mean([(stored(tile) == -9999).mean() for tile in tiles]))
        scene = raster_info(image).geobox
        ground = shapely.union_all([shapely.box(*tile_info.geobox.boundingbox.bbox) for tile_info in info])
        corners = np.array(scene.boundingbox.points)
        x, y = scene.crs.transformer_to_crs(CRS("EPSG:3413"))(*corners.T)
        assert ground.contains(shapely.MultiPoint(np.column_stack([x, y])).convex_hull.buffer(100))
        site = sites.find_site(region.country(0), 0, 256)
        exact = heights(site.country, site.footprint, year=2017.5)
        error = {
            shift: np.nanstd(mosaic(project, region.name, scene.translate_pix(shift, shift)) - exact)
            for shift in (-0.5, 0.0, 0.5)
        }
        assert error[0.0] < 0.25
        assert error[0.0] < 0.8 * min(error[-0.5], error[0.5])  # half a pixel is seen
    assert 0 < np.mean(gaps) < 0.05  # rare


@pytest.mark.slow
def test_trends_cover_the_scenes_in_another_projection(project):
    for image in images(project):
        path = next(project.parent.glob(f"aux/tcvis/{image.parts[-3]}*.tif"))
        info = raster_info(path)
        assert (info.count, info.dtype, info.nodata, info.geobox.crs.epsg) == (3, "uint8", None, 3413)
        assert info.geobox.resolution.x == 30
        values = read_raster(path, raster_info(image).geobox, bands=[1, 2, 3])
        assert np.isfinite(values).all()
        assert 90 < np.median(values) < 165


def test_elevation_comes_in_tiles_that_meet(tmp_path):
    site = sites.find_site(MORAINE.country(0), 0, 96)
    cells = coordinates.polar_cells(MORAINE, site.footprint, metres=2.0, margin_m=150)
    side = products._DEM_TILE_PX
    row, col = cells.row // side * side + side, cells.col // side * side + side
    straddling = Lattice(row=row - 50, col=col - 30, height=120, width=90)
    tiles = list(products._tiles(straddling))
    assert len(tiles) == 4
    covered = np.zeros((120, 90), int)
    for tile in tiles:
        top, left = tile.row - straddling.row, tile.col - straddling.col
        covered[top : top + tile.height, left : left + tile.width] += 1
        assert tile.row // side == (tile.row + tile.height - 1) // side
    assert (covered == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("metres", [2.0, 30.0])
def test_positions_equal_the_exact_projection(metres):
    for region in REGIONS:
        footprint = Lattice(row=-3000, col=500, height=200, width=200)
        cells = coordinates.polar_cells(region, footprint, metres=metres, margin_m=50)
        row, col = coordinates.cells_on_ground(region, cells, metres)
        polar, ground = coordinates.polar_grid(cells, metres), coordinates.utm_grid(region, footprint)
        x, y = polar.affine * tuple(np.meshgrid(np.arange(cells.width) + 0.5, np.arange(cells.height) + 0.5))
        exact = ~ground.affine * polar.crs.transformer_to_crs(ground.crs)(x, y)
        assert np.abs(col - footprint.col + 0.5 - exact[0]).max() < (1e-3 if metres == 2 else 0.05)
        assert np.abs(row - footprint.row + 0.5 - exact[1]).max() < (1e-3 if metres == 2 else 0.05)


# The project


@pytest.mark.slow
def test_the_configuration_runs_as_it_is(project):
    config, scenes = opened(project)
    assert config.split.test == ("coast",)
    assert config.split.validation == ("island",)
    assert len(config.input_layers) == 10
    assert config.labels is not None
    labels = open_labels(config.labels)
    assert {scene.region for scene in scenes} == {region.name for region in REGIONS}
    for scene in scenes:
        assert scene.sensor == "planetscope"
        assert scene.acquired is not None
        assert scene.acquired.year in (2018, 2019)
        assert 6 <= scene.acquired.month <= 9
        stack = assemble(scene, [one.name for one in config.input_layers], scene.geobox, Project(config).sources)
        check_ranges(stack, config.input_layers, scene_id=scene.id)
        assert stack["valid"].mean() > 0.6
        assert (labels.burn(scene, scene.geobox) == 1).any()


@pytest.mark.slow
def test_two_regions_leave_one_to_train(tmp_path):
    config = load(simulate(tmp_path / "two", Simulation(regions=2, scenes_per_region=1, size=96)))
    assert (config.split.validation, config.split.test) == ((), ("lake_plain",))


def inside_and_around(project: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean of each layer in the slumps and in the usable land up to 60 m around them, by region."""
    config, scenes = opened(project)
    assert config.labels is not None
    labels = open_labels(config.labels)
    means = {}
    for scene in scenes:
        stack = assemble(scene, [layer.name for layer in config.input_layers], scene.geobox, Project(config).sources)
        usable, slump = stack["valid"], labels.burn(scene, scene.geobox) == 1
        ring = ndimage.binary_dilation(slump, iterations=20) & ~ndimage.binary_dilation(slump, iterations=4)
        ring &= usable & (stack["ndvi"] > 0)
        means[scene.region] = {
            name: (float(stack[name][slump & usable].mean()), float(stack[name][ring].mean()))
            for name in stack
            if name != "valid"
        }
    return means


@pytest.mark.slow
def test_slumps_are_bare_wet_and_losing_green_with_steep_edges(project):
    contrast = inside_and_around(project)
    assert len(contrast) == 6
    for layers in contrast.values():
        assert layers["ndvi"][0] < layers["ndvi"][1] - 0.08
        assert layers["tc_greenness"][0] < layers["tc_greenness"][1]
        assert layers["tc_wetness"][0] > layers["tc_wetness"][1]
    greening = np.mean([layers["tc_greenness"] for layers in contrast.values()], axis=0)
    assert greening[0] < -0.01 < 0 < greening[1]
    slope = np.mean([layers["slope"][0] - layers["slope"][1] for layers in contrast.values()])
    relative = np.mean([layers["relative_elevation"] for layers in contrast.values()], axis=0)
    assert 0 < slope < 8
    assert relative[0] < relative[1]


@pytest.mark.slow
def test_regions_look_different(project):
    colours = {}
    for image in images(project):
        dn, mask = stored(image) / 10000, stored(beside(image, "_3B_udm2_clip.tif"))
        colours[image.parts[-3]] = dn[:, (mask[0] == 1) & (dn[3] > 0.08)].mean(axis=1)
    pairs = [(first, second) for first in colours for second in colours if first < second]
    apart = {pair: float(np.abs(colours[pair[0]] / colours[pair[1]] - 1).max()) for pair in pairs}
    assert min(apart.values()) > 0.04
    assert max(apart.values()) > 0.4


@pytest.mark.slow
def test_labels_are_one_valid_polygon_per_slump_and_image(dated):
    _, scenes = opened(dated)
    labels = read_vector(dated.parent / "labels.gpkg")
    assert labels.crs.to_epsg() == 4326
    assert list(labels.columns) == ["image_id", "image_date", "region", "site", "label", "geometry"]
    assert set(labels.image_id) == {scene.id for scene in scenes}
    assert labels.geometry.is_valid.all()
    assert set(labels.geometry.geom_type) == {"Polygon"}
    assert set(labels.label) == {1}
    assert set(labels.site) == {"moraine_01", "lake_plain_01"}
    for scene in scenes:
        drawn = labels[labels.image_id == scene.id].to_crs(str(scene.geobox.crs))
        assert drawn.within(shapely.box(*scene.geobox.boundingbox.bbox).buffer(0.05)).all()
        assert (drawn.area > 100).all()
        assert (drawn.image_date == scene.acquired.strftime("%Y-%m-%d")).all()
        assert (drawn.region == scene.region).all()


def whole(project: Path, drawn: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Those slumps of an image that its edge does not cut."""
    metadata = next(project.parent.glob(f"scenes/*/PSScene/{drawn.image_id.iloc[0]}_metadata.json"))
    seen = gpd.GeoSeries([shapely.from_geojson(metadata.read_text())], crs="EPSG:4326").to_crs(drawn.crs)
    return drawn[drawn.within(seen.iloc[0].buffer(-3))]


@pytest.mark.slow
def test_dates_of_a_place_are_years_apart_and_show_growth(dated):
    _, scenes = opened(dated)
    labels = read_vector(dated.parent / "labels.gpkg").to_crs("EPSG:6931")
    for region in ("moraine", "lake_plain"):
        dates = sorted((scene for scene in scenes if scene.region == region), key=lambda scene: scene.acquired)
        years = [scene.acquired.year for scene in dates]
        assert years == list(range(years[0], years[0] + 4))
        boxes = [shapely.box(*scene.geobox.boundingbox.bbox) for scene in dates]
        assert boxes[0].equals(boxes[2])
        assert not boxes[0].equals(boxes[1])
        assert all(box.intersection(boxes[0]).area > 0.6 * boxes[0].area for box in boxes)
        first, last = (labels[labels.image_id == dates[number].id] for number in (0, 3))
        pairs = whole(dated, first).sjoin(whole(dated, last), predicate="intersects")
        assert len(pairs)
        grown = last.loc[pairs.index_right].area.sum() - first.loc[pairs.index].area.sum()
        assert grown > 0
    assert len(list(dated.parent.glob("aux/arcticdem/moraine_01*.tif"))) >= 1
    assert len(list(dated.parent.glob("aux/tcvis/*.tif"))) == 2


@pytest.mark.slow
def test_snow_lies_in_early_summer_only(crowd):
    country, lattice = crowd
    snowy = {}
    for number in range(12):
        sky = draw_sky(country, number, 0, lattice)
        classes = photograph(country, sky, lattice)[1]
        snowy.setdefault((sky.acquired.month, sky.acquired.day < 24), []).append(float((classes == 1).mean()))
    assert max(snowy[6, True]) > 0
    assert all(not any(shares) for (month, _), shares in snowy.items() if month > 7)


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 320])
def test_every_site_has_a_slump_and_none_overlaps_another(size):
    for region in REGIONS:
        both = [sites.find_site(region.country(1), number, size) for number in range(2)]
        assert not coordinates.outer_edge(both[0].footprint).intersects(coordinates.outer_edge(both[1].footprint))
        for site in both:
            box = coordinates.outer_edge(site.footprint)
            active = visible(slumps.slumps_near(site.country, site.footprint), year=2019.0)
            share = sum(slump.outline(2019.0).intersection(box).area for slump in active) / box.area
            assert 0.002 < share < 0.6
            assert land(site.country, site.footprint, year=2019.0).shore_m.max() > 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"regions": 1}, {"regions": 7}, {"size": 95}, {"size": 20001}, {"scenes_per_region": 0}, {"seed": -1},
        {"dates": 0}, {"dates": 11},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Simulation(**wrong)


@pytest.mark.slow
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


def test_a_simulation_that_ends_early_leaves_no_folder(tmp_path, monkeypatch):
    def stop(folder: Path, site: sites.Site) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulating, "write_trends", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "half", Simulation(regions=2, scenes_per_region=1, size=96))
    assert not list(tmp_path.iterdir())


def test_trends_fall_where_the_ground_is_bare(crowd):
    country, lattice = crowd
    coarse = Lattice(row=lattice.row, col=lattice.col, height=100, width=100, step=3)
    bare = land(country, coarse, year=2019.0).floor
    _, greenness, wetness = trends(country, coarse)
    assert greenness[bare > 0.6].mean() < greenness[bare == 0].mean() - 0.02
    assert wetness[bare > 0.6].mean() > wetness[bare == 0].mean() + 0.01
