"""PlanetScope deliveries: found whatever their folders, read as rasterio reads them, and named where they are wrong."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import permutations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

import thawmap
from thawmap.config import Config, EngineSettings, PlanetScopeScenes
from thawmap.data.project import Project
from thawmap.data.sources import planetscope
from thawmap.data.sources.bands import BandSource
from thawmap.errors import ConfigError, DataError

UTM = "EPSG:32608"
SHAPE = (9, 7)
TRANSFORM = Affine(3, 0, 570_000, 0, -3, 7_720_000)
FOUR = ("blue", "green", "red", "nir")
EIGHT = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")

NEW = "20190709_042959_08_1057"
OLD = "20180703_192559_1006"
TILE = "5790392_4372514_2022-07-16_2459"


def put(path, values, names=None, *, transform=TRANSFORM, nodata=None):
    """A GeoTIFF of (band, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, "crs": UTM}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, nodata=nodata, **profile) as file:
        file.write(values)
        if names is not None:
            file.descriptions = names
    return path


def numbers(count, *, seed=0, shape=SHAPE):
    """Stored reflectance (band, y, x), different in every band, with missing pixels at the swath's edge."""
    stored = np.random.default_rng(seed).integers(200, 4000, (count, *shape)).astype(np.uint16)
    stored[:, :2, :3] = 0
    return stored


def image(path, count=4, **options):
    return put(path, numbers(count), **options)


def udm2(path, *, names=UDM2, shape=SHAPE, seed=1, transform=TRANSFORM):
    """A mask where every pixel is of one class, or missing, as Planet says that they exclude each other."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 7, shape)
    bands = np.zeros((8, *shape), np.uint8)
    for number in range(6):
        bands[number] = of == number
    bands[6] = rng.integers(0, 101, shape)
    bands[7] = np.where(of == 6, 1, np.where(of == 5, 2, 0))
    put(path, bands, names, transform=transform)
    return bands


def xml(path, identifier, *, coefficients=(), corners=None, time="2019-07-09T04:29:59.08+00:00"):
    """Metadata with the elements of Planet's own that are read."""
    bands = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{number}</ps:bandNumber>"
        f"<ps:reflectanceCoefficient>{value!r}</ps:reflectanceCoefficient></ps:bandSpecificMetadata>"
        for number, value in enumerate(coefficients, start=1)
    )
    ring = " ".join(f"{lon!r},{lat!r}" for lon, lat in corners or ())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<ps:EarthObservation xmlns:ps="http://schemas.planet.com/ps" xmlns:gml="http://www.opengis.net/gml" '
        'xmlns:eop="http://earth.esa.int/eop" xmlns:opt="http://earth.esa.int/opt">'
        f"<eop:identifier>{identifier}</eop:identifier><ps:acquisitionDateTime>{time}</ps:acquisitionDateTime>"
        f"<gml:multiExtentOf><gml:coordinates>{ring}</gml:coordinates></gml:multiExtentOf>"
        f'<opt:cloudCoverPercentage uom="percentage">12.0</opt:cloudCoverPercentage>{bands}</ps:EarthObservation>'
    )
    return path


def feature(path, identifier, *, geometry=None, **properties):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"type": "Feature", "id": identifier, "geometry": geometry, "properties": properties}
    path.write_text(json.dumps(content))
    return path


def project(folder, **options):
    scenes = PlanetScopeScenes(kind="planetscope", path=folder, **options)
    return Project(Config(scenes=scenes, layers=FOUR, engine=EngineSettings(workers=1)))


def scene_of(folder, **options):
    """The one scene of a folder."""
    delivery = project(folder, **options)
    (candidate,) = delivery.candidates()
    return delivery.open(candidate)


def fault_of(folder, **options):
    with pytest.raises(DataError) as caught:
        scene_of(folder, **options)
    return str(caught.value)


def read(scene):
    return BandSource(frozenset(FOUR)).read(scene, scene.geobox, FOUR)


def reflectance(path, bands, factors=(1e-4,) * 4):
    """What rasterio reads, made reflectance band by band."""
    with rasterio.open(path) as file:
        stored = file.read(bands).astype(float)
    stored[stored == 0] = np.nan
    return stored * np.array(factors)[:, None, None]


def assert_reads(scene, expected):
    stack = read(scene)
    np.testing.assert_allclose([stack[name] for name in FOUR], expected, rtol=1e-6)


# Names and folders


@pytest.mark.parametrize(
    ("id_", "names"),
    [
        (NEW, ("3B_AnalyticMS_SR_clip", "3B_udm2_clip", "3B_AnalyticMS_metadata_clip")),
        (NEW, ("3B_AnalyticMS_SR", "3B_udm2", "3B_AnalyticMS_metadata")),
        (NEW, ("3B_AnalyticMS_SR_harmonized_clip", "3B_udm2_clip", "3B_AnalyticMS_metadata_clip")),
        (NEW, ("3B_AnalyticMS_SR_clip_file_format", "3B_udm2_clip_file_format", "3B_AnalyticMS_metadata_clip")),
        (OLD, ("3B_AnalyticMS_SR_clip_reproject", "3B_udm2_clip_reproject", "3B_AnalyticMS_metadata_clip")),
        (OLD, ("3B_AnalyticMS_SR", "3B_AnalyticMS_DN_udm", "3B_AnalyticMS_metadata")),
        (OLD, ("3B_AnalyticMS_SR_clip", "3B_AnalyticMS_DN_udm_clip", "3B_AnalyticMS_metadata_clip")),
        (TILE, ("BGRN_SR", "udm2", "BGRN_Analytic_metadata")),
        (TILE, ("BGRN_SR_clip", "udm2_clip", "BGRN_metadata_clip")),
        (TILE, ("BGRN_SR", "BGRN_DN_udm", "BGRN_Analytic_metadata")),
    ],
)
@pytest.mark.parametrize("below", [".", "PSScene", "files/PSScene/{id}/analytic_sr_udm2", "a b/{id}"])
def test_files_are_found_by_planets_names_in_any_folder(tmp_path, id_, names, below):
    folder = tmp_path / below.format(id=id_)
    first, mask, facts = names
    path = image(folder / f"{id_}_{first}.tif")
    if "udm2" in mask:
        bands = udm2(folder / f"{id_}_{mask}.tif")
        usable = bands[0] == 1
    else:
        flags = np.random.default_rng(2).choice([0, 0, 1, 2, 4, 64], (1, *SHAPE)).astype(np.uint8)
        put(folder / f"{id_}_{mask}.tif", flags)
        usable = flags[0] == 0
    xml(folder / f"{id_}_{facts}.xml", f"{id_}_3B_AnalyticMS")
    feature(folder / f"{id_}_metadata.json", id_, acquired="2022-07-16T02:13:05.5Z")
    for other in ("manifest.json", "composite_metadata.json", f"{id_}_{first}.tif.aux.xml"):
        (folder / other).write_text("{}")
    image(folder / "composite.tif")
    scene = scene_of(tmp_path)
    assert (scene.id, scene.sensor) == (id_, "planetscope")
    assert scene.acquired == datetime(2022, 7, 16, 2, 13, 5, 500_000, UTC)
    assert set(scene.files) == {"image", "udm2" if "udm2" in mask else "udm", "json", "xml"}
    assert_reads(scene, reflectance(path, [1, 2, 3, 4]))
    np.testing.assert_array_equal(read(scene)["valid"], usable)


def test_files_of_a_scene_may_lie_in_folders_beside_each_other(tmp_path):
    image(tmp_path / NEW / "analytic_sr" / f"{NEW}_3B_AnalyticMS_SR.tif")
    udm2(tmp_path / NEW / "udm2" / f"{NEW}_3B_udm2.tif")
    feature(tmp_path / f"{NEW}_metadata.json", NEW, acquired="2019-07-09T04:29:59.08Z")
    assert set(scene_of(tmp_path).files) == {"image", "udm2", "json"}


def test_names_of_visual_images_masks_of_ones_own_and_other_satellites_are_passed_by(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    for name in (f"{NEW}_3B_Visual.tif", f"{NEW}_3B_udm2_buffered.tif", "20190709_042959_ssc1_u0001_analytic_SR.tif"):
        image(tmp_path / name, count=3)
    scene = scene_of(tmp_path)
    assert set(scene.files) == {"image"}
    assert scene.notes == (
        "it has no udm2 and no udm: clouds, shadow and snow are not masked, only missing pixels are",
    )


def test_the_region_is_the_folder_below_the_delivery(tmp_path):
    image(tmp_path / "Lena" / "PSScene" / f"{NEW}_3B_AnalyticMS_SR.tif")
    image(tmp_path / "Horton" / f"{OLD}_3B_AnalyticMS_SR.tif")
    candidates = project(tmp_path, region="{folder}").candidates()
    assert {candidate.id: candidate.region for candidate in candidates} == {NEW: "Lena", OLD: "Horton"}


def test_no_raster_is_opened_to_find_scenes(tmp_path):
    for number in range(20):
        path = tmp_path / f"20190709_0429{number:02}_08_1057_3B_AnalyticMS_SR.tif"
        path.write_bytes(b"not a raster")
    assert len(project(tmp_path).candidates()) == 20


@given(st.permutations(["3B", "AnalyticMS", "SR", "8b", "harmonized", "clip"]))
def test_the_order_of_words_does_not_matter(tmp_path_factory, words):
    path = tmp_path_factory.getbasetemp() / f"{NEW}_{'_'.join(words)}.tif"
    file = planetscope._parse(path)
    assert (file.id, file.kind, file.bands, file.is_surface, file.refusal) == (NEW, "image", EIGHT, True, None)


# Bands, scales and masks


@pytest.mark.parametrize("names", [EIGHT, None])
def test_the_four_bands_of_eight_are_picked_by_name(tmp_path, names):
    path = image(tmp_path / f"{NEW}_3B_AnalyticMS_SR_8b_harmonized_clip.tif", count=8, names=names)
    assert_reads(scene_of(tmp_path), reflectance(path, [2, 4, 6, 8]))


def test_descriptions_in_the_file_win_over_the_products_order(tmp_path):
    path = image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif", names=("nir", "red", "green", "blue"))
    assert_reads(scene_of(tmp_path), reflectance(path, [4, 3, 2, 1]))


def test_five_bands_of_ortho_tiles_skip_the_red_edge(tmp_path):
    path = image(tmp_path / f"{TILE}_BGREN_Analytic.tif", count=5)
    factors = (2.1e-5, 2.2e-5, 2.3e-5, 2.4e-5, 2.5e-5)
    xml(tmp_path / f"{TILE}_BGREN_Analytic_metadata.xml", f"{TILE}_BGREN_Analytic", coefficients=factors)
    expected = reflectance(path, [1, 2, 3, 5], [factors[number] for number in (0, 1, 2, 4)])
    assert_reads(scene_of(tmp_path, top_of_atmosphere=True), expected)


def test_top_of_atmosphere_is_scaled_by_the_coefficients_of_its_own_xml(tmp_path):
    path = image(tmp_path / f"{NEW}_3B_AnalyticMS_8b.tif", count=8)
    factors = tuple(2e-5 + number * 1e-6 for number in range(8))
    xml(tmp_path / f"{NEW}_3B_AnalyticMS_8b_metadata.xml", f"{NEW}_3B_AnalyticMS_8b", coefficients=factors)
    xml(tmp_path / f"{NEW}_3B_AnalyticMS_metadata.xml", f"{NEW}_3B_AnalyticMS", coefficients=(9.0,) * 4)
    scene = scene_of(tmp_path, top_of_atmosphere=True)
    assert_reads(scene, reflectance(path, [2, 4, 6, 8], [factors[number] for number in (1, 3, 5, 7)]))
    assert "its reflectance is top-of-atmosphere" in scene.notes
    assert "top_of_atmosphere: true" in fault_of(tmp_path)


def test_what_the_toar_tool_made_needs_no_coefficients(tmp_path):
    path = image(tmp_path / f"{NEW}_3B_AnalyticMS_toar_clip.tif")
    assert_reads(scene_of(tmp_path, top_of_atmosphere=True), reflectance(path, [1, 2, 3, 4]))


def test_top_of_atmosphere_needs_its_xml_with_a_coefficient_of_every_band(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS.tif")
    xml(tmp_path / f"{NEW}_3B_AnalyticMS_8b_metadata.xml", f"{NEW}_3B_AnalyticMS_8b", coefficients=(2e-5,) * 8)
    assert "no XML of its own" in fault_of(tmp_path, top_of_atmosphere=True)
    xml(tmp_path / f"{NEW}_3B_AnalyticMS_metadata.xml", f"{NEW}_3B_AnalyticMS", coefficients=(2e-5,) * 3)
    assert "no reflectance coefficient of nir" in fault_of(tmp_path, top_of_atmosphere=True)


BEST_FIRST = (
    "3B_AnalyticMS_SR_harmonized", "3B_AnalyticMS_SR_harmonized_clip", "3B_AnalyticMS_SR_8b_harmonized",
    "3B_AnalyticMS_SR", "3B_AnalyticMS_SR_8b", "3B_AnalyticMS_toar", "3B_AnalyticMS", "3B_AnalyticMS_8b",
)  # fmt: skip


def test_of_several_images_the_best_is_read_and_the_others_are_said(tmp_path):
    paths = [image(tmp_path / f"{NEW}_{words}.tif", count=8 if "8b" in words else 4) for words in BEST_FIRST]
    for number, path in enumerate(paths[:-2]):
        scene = scene_of(tmp_path, top_of_atmosphere=True)
        assert scene.files["image"] == path
        (choice,) = [note for note in scene.notes if "left aside" in note]
        assert [other.name in choice for other in paths] == [True] * len(paths) if number == 0 else choice
        path.unlink()


@pytest.mark.parametrize(
    "unusable", [(), ("cloud",), ("shadow", "haze"), ("snow",), ("cloud", "shadow", "snow", "haze"), ("haze", "cloud")]
)
@pytest.mark.parametrize("names", [UDM2, None, UDM2[::-1]])
def test_unusable_classes_of_udm2_are_masked_and_nothing_else(tmp_path, unusable, names):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    bands = udm2(tmp_path / f"{NEW}_3B_udm2.tif")
    if names == UDM2[::-1]:
        put(tmp_path / f"{NEW}_3B_udm2.tif", bands[::-1], names)
    of = dict(zip(UDM2, bands, strict=True))
    bad = {
        "cloud": of["cloud"],
        "shadow": of["shadow"],
        "snow": of["snow"],
        "haze": of["haze_light"] | of["haze_heavy"],
    }
    flags = of["udm1"] if "cloud" in unusable else of["udm1"] & ~np.uint8(2)
    expected = flags == 0
    for name in unusable:
        expected &= bad[name] == 0
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(read(scene_of(tmp_path, unusable=unusable))["valid"], expected)


def test_a_udm2_is_taken_before_an_old_udm(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    put(tmp_path / f"{NEW}_3B_AnalyticMS_DN_udm.tif", np.ones((1, *SHAPE), np.uint8))
    bands = udm2(tmp_path / f"{NEW}_3B_udm2.tif")
    np.testing.assert_array_equal(read(scene_of(tmp_path))["valid"], bands[0] == 1)


def test_the_mask_that_is_cut_like_the_image_is_taken(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR_clip.tif")
    udm2(tmp_path / f"{NEW}_3B_udm2.tif", shape=(20, 20))
    udm2(tmp_path / f"{NEW}_3B_udm2_clip.tif")
    assert scene_of(tmp_path).files["udm2"].name == f"{NEW}_3B_udm2_clip.tif"


def test_the_mask_that_lies_nearest_to_the_image_is_taken(tmp_path):
    image(tmp_path / "a" / f"{NEW}_3B_AnalyticMS_SR_8b_clip.tif", count=8)
    udm2(tmp_path / "a" / f"{NEW}_3B_udm2_clip.tif", shape=(20, 20))
    image(tmp_path / "b" / f"{NEW}_3B_AnalyticMS_SR_clip.tif")
    udm2(tmp_path / "b" / f"{NEW}_3B_udm2_clip.tif")
    assert scene_of(tmp_path).files["udm2"].parent.name == "b"


# Time and place


@pytest.mark.parametrize(
    ("id_", "words", "expected"),
    [
        (NEW, "3B_AnalyticMS_SR", datetime(2019, 7, 9, 4, 29, 59, tzinfo=UTC)),
        (OLD, "3B_AnalyticMS_SR", datetime(2018, 7, 3, 19, 25, 59, tzinfo=UTC)),
        ("20189903_192559_1006", "3B_AnalyticMS_SR", None),
    ],
)
def test_without_metadata_the_id_tells_the_time(tmp_path, id_, words, expected):
    image(tmp_path / f"{id_}_{words}.tif")
    assert scene_of(tmp_path).acquired == expected
    assert ("nothing tells when it was taken" in scene_of(tmp_path).notes) == (expected is None)


def test_an_ortho_tile_without_metadata_has_a_date_and_says_so(tmp_path):
    image(tmp_path / f"{TILE}_BGRN_SR.tif")
    scene = scene_of(tmp_path)
    assert scene.acquired == datetime(2022, 7, 16, tzinfo=UTC)
    assert any("date only" in note for note in scene.notes)
    feature(tmp_path / f"{TILE}_metadata.json", TILE, acquired="2022-07-16T02:13:05Z", cloud_cover=0.07)
    scene = scene_of(tmp_path)
    assert scene.acquired == datetime(2022, 7, 16, 2, 13, 5, tzinfo=UTC)
    assert not any("date only" in note for note in scene.notes)
    assert "its metadata tell 7% cloud cover" in scene.notes


def test_the_xml_tells_time_and_clouds_where_there_is_no_json_and_stac_items_do_too(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    xml(tmp_path / f"{NEW}_3B_AnalyticMS_metadata.xml", f"{NEW}_3B_AnalyticMS", time="2019-07-09T06:30:00+02:00")
    scene = scene_of(tmp_path)
    assert scene.acquired == datetime(2019, 7, 9, 4, 30, tzinfo=UTC)
    assert "its metadata tell 12% cloud cover" in scene.notes
    feature(tmp_path / f"{NEW}.json", NEW, datetime="2019-07-09T04:29:58Z", **{"eo:cloud_cover": 3})
    scene = scene_of(tmp_path)
    assert scene.acquired == datetime(2019, 7, 9, 4, 29, 58, tzinfo=UTC)
    assert "its metadata tell 3% cloud cover" in scene.notes


def around(transform=TRANSFORM):
    """Corners in degrees of the test grid, a little larger."""
    left, top = transform * (-2, -2)
    right, bottom = transform * (SHAPE[1] + 2, SHAPE[0] + 2)
    to_degrees = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    return [to_degrees.transform(*corner) for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]


@pytest.mark.parametrize(
    ("stored", "covers"), [(0.87, ["87%"]), (87, ["87%"]), (870, []), (-1, []), (float("inf"), [])]
)
def test_cloud_cover_may_count_in_percent_and_what_is_no_share_is_not_said(tmp_path, stored, covers):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    feature(tmp_path / f"{NEW}_metadata.json", NEW, cloud_cover=stored)
    clouds = [note for note in scene_of(tmp_path).notes if "cloud cover" in note]
    assert clouds == [f"its metadata tell {share} cloud cover" for share in covers]


@pytest.mark.parametrize("change", [str.upper, str.title])
def test_names_in_capitals_are_the_same_names(tmp_path, change):
    id_ = "20190709_042959_08_10a7"
    for folder in ("plain", "changed"):
        image(tmp_path / folder / f"{id_}_3B_AnalyticMS_SR_clip.tif")
        udm2(tmp_path / folder / f"{id_}_3B_udm2_clip.tif")
        xml(tmp_path / folder / f"{id_}_3B_AnalyticMS_metadata_clip.xml", f"{id_}_3B_AnalyticMS")
        feature(tmp_path / folder / f"{id_}_metadata.json", id_, cloud_cover=0.1)
    for path in sorted((tmp_path / "changed").iterdir()):
        path.rename(path.with_name(change(path.name)))
    plain, changed = scene_of(tmp_path / "plain"), scene_of(tmp_path / "changed")
    assert (changed.id, changed.acquired, changed.notes) == (plain.id, plain.acquired, plain.notes)
    assert set(changed.files) == {"image", "udm2", "json", "xml"}
    for name, values in read(plain).items():
        np.testing.assert_array_equal(read(changed)[name], values)


def test_metadata_of_another_scene_or_place_are_a_fault(tmp_path):
    image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif")
    own = tmp_path / f"{NEW}_3B_AnalyticMS_metadata.xml"
    xml(own, f"{NEW}_3B_AnalyticMS", corners=around())
    assert scene_of(tmp_path).id == NEW
    xml(own, f"{OLD}_3B_AnalyticMS")
    assert own.name in fault_of(tmp_path)
    assert OLD in fault_of(tmp_path)
    xml(own, f"{NEW}_3B_AnalyticMS", corners=[(lon, lat + 1) for lon, lat in around()])
    assert "another place" in fault_of(tmp_path)
    own.unlink()
    ring = [[lon + 5, lat] for lon, lat in (*around(), around()[0])]
    feature(tmp_path / f"{NEW}_metadata.json", NEW, geometry={"type": "Polygon", "coordinates": [ring]})
    assert "another place" in fault_of(tmp_path)
    feature(tmp_path / f"{NEW}_metadata.json", OLD)
    assert "another scene" in fault_of(tmp_path)


def test_a_place_at_the_antimeridian_is_one_place(tmp_path):
    def corners(east):
        return [(lon - 360 if east and lon > 180 else lon, lat) for lon, lat in ((179.9, 69), (180.1, 69), (180, 69.1))]

    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(180, 69.01)
    path = image(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif", transform=Affine(3, 0, x - 10, 0, -3, y + 10))
    with rasterio.open(path, "r+") as file:
        file.crs = "EPSG:32601"
    for east in (False, True):
        xml(tmp_path / f"{NEW}_3B_AnalyticMS_metadata.xml", NEW, corners=corners(east))
        assert scene_of(tmp_path).id == NEW


# What is wrong is named, and the rest goes on


@dataclass
class Spoilt:
    """A delivery of four scenes, one of which gets spoilt, and the command that lists them."""

    folder: object

    def file(self, words, id_=NEW, ending="tif"):
        return self.folder / f"{id_}_{words}.{ending}"

    def failed(self, **options):
        """The sentence on the spoilt scene; the other three are listed."""
        summary = thawmap.scenes(project(self.folder, **options).config)
        assert summary.done == 3
        assert list(summary.failed) == [NEW]
        (sentence,) = summary.failed.values()
        assert "\n" not in sentence
        return sentence


@pytest.fixture
def delivery(tmp_path):
    for id_, words, mask in (
        (NEW, "3B_AnalyticMS_SR_clip", "3B_udm2_clip"),
        (OLD, "3B_AnalyticMS_SR_clip", "3B_udm2_clip"),
        ("20190710_042959_08_1057", "3B_AnalyticMS_SR_clip", "3B_udm2_clip"),
        (TILE, "BGRN_SR", "udm2"),
    ):
        image(tmp_path / f"{id_}_{words}.tif")
        udm2(tmp_path / f"{id_}_{mask}.tif")
    return Spoilt(tmp_path)


def test_a_whole_delivery_has_nothing_to_name(delivery):
    summary = thawmap.scenes(project(delivery.folder).config)
    assert (summary.done, summary.failed) == (4, {})


def test_a_mask_of_another_shape_is_named(delivery):
    udm2(delivery.file("3B_udm2_clip"), shape=(9, 8))
    sentence = delivery.failed()
    assert delivery.file("3B_udm2_clip").name in sentence
    assert "8 x 9 px" in sentence
    assert "7 x 9 px" in sentence


@pytest.mark.parametrize("shift", [Affine.translation(1, 0), Affine.translation(0, 0.1), Affine.scale(1.1)])
def test_a_mask_on_another_grid_is_named(delivery, shift):
    udm2(delivery.file("3B_udm2_clip"), transform=TRANSFORM * shift)
    assert "another grid" in delivery.failed()


def test_a_mask_that_lacks_bands_is_named(delivery):
    put(delivery.file("3B_udm2_clip"), np.zeros((1, *SHAPE), np.uint8))
    assert "has 1 bands, and a udm2 has 8" in delivery.failed()


def test_a_missing_image_is_named(delivery):
    delivery.file("3B_AnalyticMS_SR_clip").unlink()
    assert "no image" in delivery.failed()


@pytest.mark.parametrize("words", ["3B_AnalyticMS_SR_clip", "3B_udm2_clip", "metadata"])
@pytest.mark.parametrize("spoil", ["part", "beside", "empty"])
def test_a_delivery_that_is_still_being_written_is_named(delivery, words, spoil):
    path = delivery.file(words, ending="json" if words == "metadata" else "tif")
    if words == "metadata":
        feature(path, NEW)
    unfinished = path.with_name(path.name + ".part")
    if spoil == "part":
        path.rename(unfinished)
    elif spoil == "beside":
        unfinished.write_bytes(b"half")
    else:
        path.write_bytes(b"")
    sentence = delivery.failed()
    assert path.name in sentence
    assert "wait" in sentence


@pytest.mark.parametrize("words", ["3B_AnalyticMS_SR_clip", "3B_udm2_clip"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_raster_is_named(delivery, words, share):
    shape = (300, 300)
    put(delivery.file("3B_AnalyticMS_SR_clip"), numbers(4, shape=shape))
    udm2(delivery.file("3B_udm2_clip"), shape=shape)
    path = delivery.file(words)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert path.name in delivery.failed()


@pytest.mark.parametrize("text", ["", "<a>", "no xml", "<a/>"])
def test_broken_metadata_are_named_and_silent_ones_are_not(delivery, text):
    delivery.file("3B_AnalyticMS_metadata_clip", ending="xml").write_text(text)
    if text == "<a/>":
        assert scene_ids(delivery) == 4
    else:
        assert "metadata_clip.xml" in delivery.failed()


def scene_ids(delivery):
    return thawmap.scenes(project(delivery.folder).config).done


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "\x00"])
def test_json_that_is_none_is_named(delivery, text):
    delivery.file("metadata", ending="json").write_text(text)
    assert "metadata.json" in delivery.failed()


@pytest.mark.parametrize("text", ["{}", '{"id": 3, "properties": [], "geometry": {"type": "x"}}'])
def test_json_that_says_nothing_is_no_fault(delivery, text):
    delivery.file("metadata", ending="json").write_text(text)
    assert scene_ids(delivery) == 4


def test_an_xml_of_another_scene_is_named(delivery):
    xml(delivery.file("3B_AnalyticMS_metadata_clip", ending="xml"), f"{OLD}_3B_AnalyticMS")
    assert f"of another scene, {OLD}_3B_AnalyticMS" in delivery.failed()


@pytest.mark.parametrize(
    ("words", "count", "expected"),
    [
        ("3B_AnalyticMS_clip", 4, "scenes.top_of_atmosphere: true"),
        ("1B_AnalyticMS_SR", 4, "not orthorectified"),
        ("3B_AnalyticMS_DN", 4, "raw numbers"),
        ("3B_Analytic", 3, "no near infrared"),
        ("3B_AnalyticMS_clip_bandmath", 1, "band math"),
        ("3B_AnalyticMS_SR_clip_ndvi", 1, "'ndvi'"),
        ("3B_AnalyticMS_SR", 3, "has 3 bands"),
    ],
)
def test_images_that_cannot_be_read_are_refused_by_name(delivery, words, count, expected):
    delivery.file("3B_AnalyticMS_SR_clip").unlink()
    delivery.file("3B_udm2_clip").unlink()
    image(delivery.file(words), count=count)
    assert expected in delivery.failed()


def test_descriptions_that_name_only_some_of_the_bands_are_refused(delivery):
    image(delivery.file("3B_AnalyticMS_SR_clip"), names=("red", "green", "blue", "infrared"))
    assert "none nir" in delivery.failed()


def test_one_id_in_two_folders_is_named(delivery):
    udm2(delivery.folder / "again" / f"{NEW}_3B_udm2_clip.tif")
    assert scene_ids(delivery) == 4
    image(delivery.folder / "again" / f"{NEW}_3B_AnalyticMS_SR_clip.tif")
    assert "two scenes have the id" in delivery.failed()


def test_an_image_that_is_all_missing_is_named(delivery):
    put(delivery.file("3B_AnalyticMS_SR_clip"), np.zeros((4, *SHAPE), np.uint16))
    assert NEW in delivery.failed()


def test_a_scene_cut_by_the_edge_of_the_swath_is_fine(tmp_path):
    stored = np.where(np.tri(*SHAPE, dtype=bool), numbers(4), 0).astype(np.uint16)
    put(tmp_path / f"{NEW}_3B_AnalyticMS_SR.tif", stored)
    clear = np.zeros((8, *SHAPE), np.uint8)
    clear[0], clear[7] = stored[0] > 0, stored[0] == 0
    put(tmp_path / f"{NEW}_3B_udm2.tif", clear, UDM2)
    stack = read(scene_of(tmp_path))
    np.testing.assert_array_equal(np.isnan(stack["red"]), stored[2] == 0)
    np.testing.assert_array_equal(stack["valid"], stored[0] > 0)


def test_a_folder_without_scenes_is_the_requests_fault(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="no planetscope scene"):
        project(tmp_path).candidates()
    with pytest.raises(ConfigError, match="does not exist"):
        project(tmp_path / "nowhere").candidates()


def test_a_composite_is_named_with_what_it_lacks(tmp_path):
    image(tmp_path / "composite.tif")
    with pytest.raises(ConfigError, match=r"no planetscope scene is in .*; composite\.tif is not named as one"):
        project(tmp_path).candidates()
    feature(tmp_path / f"{NEW}_metadata.json", NEW)
    assert "beside it composite.tif, a composite of scenes" in fault_of(tmp_path)


@pytest.mark.parametrize("copy", [" (1)", "(2)", " - Copy", " copy"])
def test_a_name_that_a_browser_has_changed_is_to_be_changed_back(tmp_path, copy):
    name = f"{NEW}_3B_AnalyticMS_SR"
    image(tmp_path / f"{name}{copy}.tif")
    assert f"rename it to {name}.tif" in fault_of(tmp_path)
    image(tmp_path / f"{name}.tif")
    assert f"left aside: {name}{copy}.tif" in " ".join(scene_of(tmp_path).notes)


def test_an_id_too_long_for_the_names_of_files_is_one_scenes_fault(delivery):
    (delivery.folder / "t.csv").write_text(f"id,region\n{'x' * 250},Lena\n{NEW},Lena\n")
    summary = thawmap.scenes(project(delivery.folder, table=delivery.folder / "t.csv").config)
    (sentence,) = summary.failed.values()
    assert summary.done == 1
    assert "its id has 250 bytes, and names files of at most 200" in sentence


def test_a_table_of_regions_without_a_row_is_named(delivery):
    (delivery.folder / "t.csv").write_text("id,region\n")
    with pytest.raises(ConfigError, match=r"t\.csv lists no scene; give each a row with id and region"):
        project(delivery.folder, table=delivery.folder / "t.csv").candidates()


# Places named on the command line


def test_a_folder_or_a_file_can_be_named_instead(delivery):
    elsewhere = project(delivery.folder / "nowhere")
    assert len(elsewhere.candidates([delivery.folder])) == 4
    (candidate,) = elsewhere.candidates([delivery.file("3B_AnalyticMS_SR_clip")])
    assert set(elsewhere.open(candidate).files) == {"image", "udm2"}
    files = sorted(delivery.folder.glob("*.tif"))
    assert len(elsewhere.candidates(files)) == 4


def test_the_named_image_of_several_is_read(delivery):
    path = image(delivery.file("3B_AnalyticMS_SR_8b_clip"), count=8)
    in_folder = project(delivery.folder)
    for named in (path, delivery.file("3B_AnalyticMS_SR_clip")):
        (candidate,) = in_folder.candidates([named])
        assert in_folder.open(candidate).files["image"] == named


def test_a_named_raster_without_planets_name_is_at_fault(delivery):
    path = image(delivery.folder / "composite.tif")
    in_folder = project(delivery.folder)
    candidates = in_folder.candidates([path, delivery.file("3B_AnalyticMS_SR_clip")])
    assert [candidate.fault is None for candidate in candidates] == [True, False]
    with pytest.raises(DataError, match="not named as Planet"):
        in_folder.open(candidates[1])


# Real side files


@pytest.fixture
def real(real_scenes, tmp_path):
    """The real scene without its image, and an image of ones on its grid."""
    id_ = "20151119_025740_0c74"
    for path in (real_scenes / "planet-sidecar").iterdir():
        (tmp_path / path.name).symlink_to(path)
    with rasterio.open(tmp_path / f"{id_}_3B_udm2_clip.tif") as file:
        values = np.broadcast_to(np.array([[[1000]], [[2000]], [[3000]], [[4000]]], np.uint16), (4, *file.shape))
        profile = {"height": file.height, "width": file.width, "crs": file.crs, "transform": file.transform}
        bands = file.read()
    path = tmp_path / f"{id_}_3B_AnalyticMS_clip.tif"
    with rasterio.open(path, "w", driver="GTiff", count=4, dtype="uint16", **profile) as file:
        file.write(values)
    return tmp_path, bands


@pytest.mark.realdata
def test_real_side_files_give_time_coefficients_clouds_and_mask(real):
    folder, bands = real
    scene = scene_of(folder, top_of_atmosphere=True)
    assert scene.acquired == datetime(2015, 11, 19, 2, 57, 40, tzinfo=UTC)
    assert "its metadata tell 1% cloud cover" in scene.notes
    stack = read(scene)
    expected = (0.024368314353231946, 0.052276341551391092, 0.08682509013166449, 0.17732873260499032)
    np.testing.assert_allclose([stack[name][0, 0] for name in FOUR], expected, rtol=1e-6)
    assert (bands[0] == 1).sum() == stack["valid"].sum() == 2084145


@pytest.mark.realdata
def test_in_a_real_udm2_clear_is_all_classes_and_the_old_bits_at_once(real):
    folder, bands = real
    assert ((bands[0] == 1) == ((bands[1:6] == 0).all(axis=0) & (bands[7] == 0))).all()
    classes = ("cloud", "shadow", "snow")
    some = read(scene_of(folder, top_of_atmosphere=True, unusable=classes))["valid"]
    np.testing.assert_array_equal(some, (bands[[1, 2, 5]] == 0).all(axis=0) & (bands[7] == 0))


@pytest.mark.realdata
def test_the_real_xml_beside_an_image_of_another_place_is_a_fault(real):
    folder, _ = real
    (path,) = folder.glob("*_AnalyticMS_clip.tif")
    for raster in (path, *folder.glob("*udm2*")):
        raster.unlink()
    image(path)
    assert "another place" in fault_of(folder, top_of_atmosphere=True)


def test_every_order_of_two_scenes_gives_the_same_list(tmp_path):
    ids = [NEW, OLD, TILE]
    for id_ in ids:
        image(tmp_path / id_ / f"{id_}_{'BGRN_SR' if id_ == TILE else '3B_AnalyticMS_SR'}.tif")
    elsewhere = project(tmp_path / "nowhere")
    lists = [
        [candidate.id for candidate in elsewhere.candidates([tmp_path / id_ for id_ in order])]
        for order in permutations(ids)
    ]
    assert all(listed_ids == sorted(ids) for listed_ids in lists)
