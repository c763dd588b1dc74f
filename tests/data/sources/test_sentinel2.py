"""Sentinel-2 Level-2A: SAFE folders and bands by themselves, their offsets, their classes, and what is wrong."""

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from affine import Affine

import thawmap
from thawmap.config import Config, EngineSettings, Sentinel2Scenes
from thawmap.data.project import Project
from thawmap.data.sources.bands import BandSource
from thawmap.errors import ConfigError, DataError

UTM = "EPSG:32652"
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 7_900_000)
SIDE = 24
FOUR = ("blue", "green", "red", "nir")
BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
CLASSES = (
    "no_data", "saturated", "dark", "cloud_shadow", "vegetation", "bare", "water", "unclassified",
    "cloud_medium", "cloud_high", "cirrus", "snow",
)  # fmt: skip

TILE = "T52WFE_20210712T025549"
PRODUCT = "S2B_MSIL2A_20210712T025549_N0301_R032_T52WFE_20210712T052119"
GRANULE = "L2A_T52WFE_A022714_20210712T025549"


def put(path, values, *, transform=TRANSFORM):
    """A raster of one band; JPEG 2000 without loss, as ESA writes it, where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape[-2:]
    options = {"driver": "GTiff"}
    if path.suffix == ".jp2":
        options = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    bands = values.reshape(-1, height, width)
    profile = {"count": len(bands), "height": height, "width": width, "dtype": values.dtype, "crs": UTM}
    with rasterio.open(path, "w", transform=transform, **profile, **options) as file:
        file.write(bands)
    return path


def numbers(seed):
    """Stored reflectance (y, x) with missing pixels at a corner."""
    stored = np.random.default_rng(seed).integers(1100, 5000, (SIDE, SIDE)).astype(np.uint16)
    stored[:5, :3] = 0
    return stored


def classes():
    """Every class at 20 m (y, x)."""
    return np.random.default_rng(7).integers(0, 12, (SIDE // 2, SIDE // 2)).astype(np.uint8)


def put_bands(folder, pattern, *, names=BANDS, transform=TRANSFORM):
    """The four bands at 10 m."""
    for seed, name in enumerate(names):
        put(folder / pattern.format(name, 10), numbers(seed), transform=transform)


def coarse(path, values):
    return put(path, values, transform=TRANSFORM * Affine.scale(2))


def safe(folder, product=PRODUCT, *, offset=None, baseline="03.01", xml=True, tile=TILE):
    """A SAFE folder as ESA packs it."""
    images = folder / f"{product}.SAFE" / "GRANULE" / GRANULE / "IMG_DATA"
    put_bands(images, "R10m/" + tile + "_{}_{}m.jp2")
    put(images.parent / "QI_DATA" / "MSK_QUALIT_B02.jp2", np.zeros((SIDE, SIDE), np.uint8))
    coarse(images / "R20m" / f"{tile}_SCL_20m.jp2", classes())
    for name in ("B02", "B11", "B12"):
        coarse(images / "R20m" / f"{tile}_{name}_20m.jp2", np.full((SIDE // 2, SIDE // 2), 3000, np.uint16))
    if xml:
        mtd(folder / f"{product}.SAFE" / "MTD_MSIL2A.xml", product, offset=offset, baseline=baseline)
    return folder / f"{product}.SAFE"


def mtd(path, product, *, offset=None, baseline="03.01", kind="S2MSI2A", unit=10000):
    added = "" if offset is None else "".join(
        f'<BOA_ADD_OFFSET band_id="{number}">{offset}</BOA_ADD_OFFSET>' for number in range(13)
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">'
        f"<n1:General_Info><Product_Info><PRODUCT_START_TIME>2021-07-12T02:55:49.024Z</PRODUCT_START_TIME>"
        f"<PRODUCT_URI>{product}.SAFE</PRODUCT_URI><PRODUCT_TYPE>{kind}</PRODUCT_TYPE>"
        f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info><Product_Image_Characteristics>"
        f'<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">{unit}</BOA_QUANTIFICATION_VALUE>'
        f"</QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>{added}</BOA_ADD_OFFSET_VALUES_LIST>"
        "</Product_Image_Characteristics></n1:General_Info><n1:Quality_Indicators_Info>"
        "<Cloud_Coverage_Assessment>4.2</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info>"
        "</n1:Level-2A_User_Product>"
    )


def stac(path, *, id_="S2B_52WFE_20210712_0_L2A", offset=None, **properties):
    assets = {} if offset is None else {
        "blue": {"raster:bands": [{"scale": 0.0001, "offset": offset}]},
        "nir": {"raster:scale": 0.0001, "raster:offset": offset},
        "scl": {"raster:bands": [{"nodata": 0}]},
        "visual": {},
    }  # fmt: skip
    content = {"type": "Feature", "stac_version": "1.0.0", "id": id_, "properties": properties, "assets": assets}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def project(folder, **options):
    scenes = Sentinel2Scenes(kind="sentinel2", path=folder, **options)
    return Project(Config(scenes=scenes, layers=FOUR, engine=EngineSettings(workers=1)))


def scene_of(folder, **options):
    delivery = project(folder, **options)
    (candidate,) = delivery.candidates()
    return delivery.open(candidate)


def fault_of(folder, **options):
    with pytest.raises(DataError) as caught:
        scene_of(folder, **options)
    return str(caught.value)


def read(scene, layers=FOUR):
    return BandSource(frozenset(layers)).read(scene, scene.geobox, layers)


def assert_reads(scene, *, offset):
    """The four bands are what rasterio reads, made reflectance."""
    stack = read(scene)
    for name in FOUR:
        with rasterio.open(scene.files[name]) as file:
            stored = file.read(1).astype(float)
            assert tuple(file.res) == (10, 10)
        stored[stored == 0] = np.nan
        np.testing.assert_allclose(stack[name], (stored + offset) / 10_000, rtol=1e-5, atol=1e-7)


# SAFE folders


@pytest.mark.parametrize("below", [".", "2021/july"])
@pytest.mark.parametrize(("offset", "baseline"), [(None, "03.01"), (-1000, "05.00")])
def test_a_safe_is_read_as_rasterio_reads_it(tmp_path, below, offset, baseline):
    safe(tmp_path / below, offset=offset, baseline=baseline)
    scene = scene_of(tmp_path)
    assert (scene.id, scene.sensor, tuple(scene.geobox.shape)) == (PRODUCT, "sentinel2", (SIDE, SIDE))
    assert scene.acquired == datetime(2021, 7, 12, 2, 55, 49, 24_000, UTC)
    assert scene.notes == ("its metadata tell 4% cloud cover",)
    assert "MTD_MSIL2A.xml" in scene.files
    assert_reads(scene, offset=offset or 0)


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_names_in_other_letters_are_the_same_names(tmp_path, change):
    product = PRODUCT.replace("N0301", "N0500")
    plain, folder = (
        scene_of(safe(tmp_path / "plain", product, xml=False)),
        safe(tmp_path / "changed", product, xml=False),
    )
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        path.rename(path.with_name(change(path.name)))
    changed = scene_of(tmp_path / "changed")
    assert changed.id == change(plain.id)
    assert (changed.acquired, changed.notes, changed.readings) == (plain.acquired, plain.notes, plain.readings)
    for name, values in read(plain).items():
        np.testing.assert_array_equal(read(changed)[name], values)


def test_a_band_that_a_browser_has_renamed_is_to_be_changed_back(delivery):
    path = delivery / SPOILT / "B02.tif"
    path.rename(path.with_name("B02 (1).tif"))
    assert "rename it to B02.tif" in failed(delivery)


def test_bands_of_20_m_come_onto_the_10_m_grid(tmp_path):
    safe(tmp_path, offset=-1000, baseline="04.00")
    stack = read(scene_of(tmp_path), ("swir1", "swir2"))
    for name in ("swir1", "swir2"):
        np.testing.assert_allclose(stack[name][4:-4, 4:-4], 0.2, rtol=1e-5)


@pytest.mark.parametrize("unusable", [(), ("snow",), ("water", "cirrus", "dark"), None])
def test_classes_are_masked_by_name_and_no_data_always_is(tmp_path, unusable):
    safe(tmp_path)
    options = {} if unusable is None else {"unusable": unusable}
    in_folder = project(tmp_path, **options)
    unwanted = {"no_data", *in_folder.config.scenes.unusable}
    of = np.array(CLASSES)[classes().repeat(2, axis=0).repeat(2, axis=1)]
    expected = ~np.isin(of, sorted(unwanted))
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(read(scene_of(tmp_path, **options))["valid"], expected)


def test_offsets_of_the_xml_are_of_each_band(tmp_path):
    folder = safe(tmp_path, offset=-1000, baseline="05.00")
    path = folder / "MTD_MSIL2A.xml"
    text = path.read_text()
    for number, value in ((1, -100), (2, -200), (3, -300), (7, -400), (8, -999), (11, -500)):
        text = text.replace(f'band_id="{number}">-1000', f'band_id="{number}">{value}')
    path.write_text(text)
    readings = scene_of(tmp_path).readings
    offsets = [round(readings[name].offset * 10_000) for name in (*FOUR, "swir1", "swir2")]
    assert offsets == [-100, -200, -300, -400, -500, -1000]


def test_the_quantification_is_the_xmls(tmp_path):
    folder = safe(tmp_path)
    mtd(folder / "MTD_MSIL2A.xml", PRODUCT, offset=-500, baseline="05.00", unit=5000)
    reading = scene_of(tmp_path).readings["red"]
    assert (reading.scale, reading.offset) == (1 / 5000, -0.1)


@pytest.mark.parametrize(
    ("baseline", "offset"), [("N0213", 0), ("N0301", 0), ("N0400", -1000), ("N0509", -1000), ("N9999", None)]
)
def test_without_xml_the_baseline_in_the_name_tells_the_offset(tmp_path, baseline, offset):
    safe(tmp_path, PRODUCT.replace("N0301", baseline), xml=False)
    if offset is None:
        assert "scenes.offset" in fault_of(tmp_path)
        return
    scene = scene_of(tmp_path)
    assert_reads(scene, offset=offset)
    assert scene.acquired == datetime(2021, 7, 12, 2, 55, 49, tzinfo=UTC)


def test_an_xml_that_should_have_offsets_and_has_none_is_not_believed(tmp_path):
    product = PRODUCT.replace("N0301", "N9999")
    safe(tmp_path, product, baseline="05.00")
    assert "nothing tells the offset" in fault_of(tmp_path)
    mtd(tmp_path / f"{product}.SAFE" / "MTD_MSIL2A.xml", product, baseline="99.99")
    assert_reads(scene_of(tmp_path), offset=0)


def test_the_setting_is_obeyed_and_a_contradiction_said(tmp_path):
    safe(tmp_path, offset=-1000, baseline="05.00")
    same, other = scene_of(tmp_path, offset=-1000), scene_of(tmp_path, offset=0)
    assert_reads(same, offset=-1000)
    assert_reads(other, offset=0)
    assert [any("scenes.offset" in note for note in scene.notes) for scene in (same, other)] == [False, True]


def test_granules_of_an_old_product_are_scenes_of_their_own(tmp_path):
    product = tmp_path / "S2A_USER_PRD_MSIL2A_PDMC_20160905T104813_R002_V20160905T005712_20160905T010424.SAFE"
    names = [f"S2A_USER_MSI_L2A_TL_SGS__20160905T073438_A006291_{tile}_N02.04" for tile in ("T53HLA", "T53HLB")]
    for number, name in enumerate(names):
        pattern = f"R10m/{name[:-7]}_" + "{}_{}m.jp2"
        put_bands(
            product / "GRANULE" / name / "IMG_DATA", pattern, transform=TRANSFORM * Affine.translation(999 * number, 0)
        )
    in_folder = project(tmp_path)
    scenes = [in_folder.open(candidate) for candidate in in_folder.candidates()]
    assert [scene.id for scene in scenes] == names
    for scene in scenes:
        assert_reads(scene, offset=0)


# Bands by themselves


@pytest.mark.parametrize(
    ("pattern", "names", "id_"),
    [
        ("{}.tif", ("B02", "B03", "B04", "B08", "SCL"), "my_scene"),
        ("{}.jp2", ("B02", "B03", "B04", "B08", "SCL"), "my_scene"),
        ("{}.tif", ("b02", "b03", "b04", "b08", "scl"), "my_scene"),
        ("{}.tiff", ("B2", "B3", "B4", "B8", "SCL"), "my_scene"),
        ("{}.tif", ("blue", "green", "red", "nir", "scl"), "my_scene"),
        ("lena_{}.TIF", ("B02", "B03", "B04", "B08", "SCL"), "my_scene"),
        ("S2B_52WFE_20210712_0_L2A_{}.tif", ("B02", "B03", "B04", "B08", "SCL"), "S2B_52WFE_20210712_0_L2A"),
        ("S2B_52WFE_20210712_0_L2A-{}.tif", ("blue", "green", "red", "nir", "scl"), "S2B_52WFE_20210712_0_L2A"),
        (TILE + "_{}_{}m.jp2", ("B02", "B03", "B04", "B08", "SCL"), TILE),
        ("R{1}m/{0}.jp2", ("B02", "B03", "B04", "B08", "SCL"), "my_scene"),
    ],
)
def test_bands_are_found_by_all_their_names(tmp_path, pattern, names, id_):
    folder = tmp_path / "my_scene"
    put_bands(folder, pattern, names=names[:4])
    coarse(folder / pattern.format(names[4], 20), classes())
    for other in ("nir08", "B8A", "rededge1", "TCI", "AOT"):
        coarse(folder / pattern.format(other, 20), classes())
    scene = scene_of(tmp_path, offset=-1000)
    assert scene.id == id_
    assert set(scene.files) == {*FOUR, "scl"}
    assert_reads(scene, offset=-1000)
    usable = [
        number for number, name in enumerate(CLASSES) if name in {"dark", "vegetation", "bare", "water", "unclassified"}
    ]
    expected = np.isin(classes(), usable).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read(scene)["valid"], expected)


def test_bands_that_nothing_tells_the_offset_of_are_refused_with_the_remedy(tmp_path):
    put_bands(tmp_path / "S2B_52WFE_20210712_0_L2A", "{}.tif")
    sentence = fault_of(tmp_path)
    assert "nothing tells the offset" in sentence
    assert "'scenes.offset' to -1000" in sentence


@pytest.mark.parametrize(
    ("item", "offset"),
    [
        ({"s2:processing_baseline": "05.09"}, -1000),
        ({"s2:processing_baseline": "03.01"}, 0),
        ({"processing:version": "05.11"}, -1000),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True, "offset": -0.1}, 0),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False, "offset": -0.1}, -1000),
        ({"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False, "offset": -0.1}, 0),
        ({"earthsearch:boa_offset_applied": True}, 0),
        ({"offset": -0.1}, -1000),
        ({"offset": 0}, 0),
        ({}, None),
        ({"s2:processing_baseline": "99.99"}, None),
    ],
)
def test_a_stac_item_beside_the_bands_tells_the_offset(tmp_path, item, offset):
    put_bands(tmp_path / "a", "{}.tif")
    stac(tmp_path / "a" / "item.json", **{"datetime": "2021-07-12T02:55:49.5Z", "eo:cloud_cover": 12.3, **item})
    (tmp_path / "a" / "other.json").write_text('{"type": "FeatureCollection"}')
    if offset is None:
        assert "nothing tells the offset" in fault_of(tmp_path)
        return
    scene = scene_of(tmp_path)
    assert_reads(scene, offset=offset)
    assert scene.acquired == datetime(2021, 7, 12, 2, 55, 49, 500_000, UTC)
    assert "its metadata tell 12% cloud cover" in scene.notes


def test_an_item_knows_better_than_a_copied_xml_what_was_done_to_bands_by_themselves(tmp_path):
    folder = tmp_path / PRODUCT.replace("N0301", "N0509")
    put_bands(folder, "{}.tif")
    assert_reads(scene_of(tmp_path), offset=-1000)
    mtd(folder / "MTD_MSIL2A.xml", folder.name, offset=-1000, baseline="05.09")
    assert_reads(scene_of(tmp_path), offset=-1000)
    stac(folder / "item.json", **{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True})
    assert_reads(scene_of(tmp_path), offset=0)


def test_several_scenes_of_one_folder_have_their_own_bands_and_items(tmp_path):
    names = ("S2A_52WFE_20210712_0_L2A", "S2B_52WFE_20220301_0_L2A")
    for name, baseline in zip(names, ("03.00", "04.00"), strict=True):
        put_bands(tmp_path, name + "_{}.tif")
        stac(tmp_path / f"{name}.json", id_=name, **{"s2:processing_baseline": baseline})
    in_folder = project(tmp_path)
    scenes = [in_folder.open(candidate) for candidate in in_folder.candidates()]
    assert [scene.id for scene in scenes] == list(names)
    assert_reads(scenes[0], offset=0)
    assert_reads(scenes[1], offset=-1000)
    assert scenes[0].acquired == datetime(2021, 7, 12, tzinfo=UTC)
    assert any("date only" in note for note in scenes[0].notes)


def test_the_id_does_not_depend_on_where_the_search_begins(tmp_path):
    put_bands(tmp_path / "a" / "b", "{}.tif")
    put_bands(tmp_path / "a" / "c", TILE + "_{}.tif")
    elsewhere = project(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "a"):
        assert [candidate.id for candidate in elsewhere.candidates([path])] == [TILE, "b"]
    assert [candidate.id for candidate in elsewhere.candidates([tmp_path / "a" / "b"])] == ["b"]
    assert [candidate.id for candidate in elsewhere.candidates([tmp_path / "a" / "c"])] == [TILE]


def test_without_classes_a_note_says_so_and_without_a_time_another(tmp_path):
    put_bands(tmp_path / "a", "{}.tif")
    scene = scene_of(tmp_path, offset=0)
    assert scene.masks == ()
    assert scene.acquired is None
    assert [note.split(":")[0] for note in scene.notes] == ["it has no SCL", "nothing tells when it was taken"]


def test_the_region_is_the_folder_below_the_delivery(tmp_path):
    safe(tmp_path / "Lena")
    put_bands(tmp_path / "Horton", "T52WFE_20220712T025549_{}.tif")
    put_bands(tmp_path / "Banks" / "one", "{}.tif")
    candidates = project(tmp_path, region="{folder}").candidates()
    assert {candidate.id: candidate.region for candidate in candidates} == {
        PRODUCT: "Lena",
        "T52WFE_20220712T025549": "Horton",
        "one": "Banks",
    }


# What is wrong is named, and the rest goes on

SPOILT = "S2A_52WFE_20210720_0_L2A"


@pytest.fixture
def delivery(tmp_path):
    """Two good scenes, and one to be spoilt, with its classes."""
    for name in (SPOILT, "S2A_52WFE_20210712_0_L2A", "S2A_52WFE_20210716_0_L2A"):
        put_bands(tmp_path / name, "{}.tif")
        coarse(tmp_path / name / "SCL.tif", np.full((SIDE // 2, SIDE // 2), 4, np.uint8))
        stac(tmp_path / name / "item.json", id_=name, **{"s2:processing_baseline": "04.00"})
    return tmp_path


def listed(folder):
    summary = thawmap.scenes(project(folder).config)
    return summary.done, dict(summary.failed)


def failed(folder, id_=SPOILT):
    """The sentence on the one scene that fails; two others are listed."""
    done, sentences = listed(folder)
    assert done == 2
    assert list(sentences) == [id_]
    assert "\n" not in sentences[id_]
    return sentences[id_]


def test_a_whole_delivery_has_nothing_to_name(delivery):
    assert listed(delivery) == (3, {})


@pytest.mark.parametrize("name", ["B08.tif", "SCL.tif", "item.json"])
@pytest.mark.parametrize("spoil", ["part", "beside", "empty"])
def test_a_delivery_that_is_still_being_written_is_named(delivery, name, spoil):
    path = delivery / SPOILT / name
    unfinished = path.with_name(name + ".part")
    if spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "beside":
        unfinished.write_bytes(b"half")
    else:
        path.rename(unfinished)
    assert ("wait for it" in failed(delivery)) or name == "item.json"


@pytest.mark.parametrize("name", ["B04.tif", "SCL.tif"])
def test_a_truncated_raster_is_named(delivery, name):
    path = delivery / SPOILT / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert name in failed(delivery)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("open_end", [False, True])
def test_a_truncated_jpeg_2000_is_named(delivery, share, open_end):
    """GDAL itself reads noise where the end is missing, and says nothing."""
    for path in (delivery / SPOILT).glob("*.tif"):
        path.unlink()
    put_bands(delivery / SPOILT, "{}.jp2")
    path = delivery / SPOILT / "B04.jp2"
    content = path.read_bytes()
    if open_end:  # the last box may say that it reaches to the end
        box_start = content.index(b"jp2c") - 4
        content = content[:box_start] + b"\0\0\0\0" + content[box_start + 4 :]
    path.write_bytes(content)
    assert listed(delivery) == (3, {})
    path.write_bytes(content[: int(len(content) * share)])
    assert "B04.jp2 is cut short" in failed(delivery)


@pytest.mark.parametrize(("band", "layer"), [("B02", "blue (B02)"), ("B08", "nir (B08)")])
def test_a_missing_band_is_named(delivery, band, layer):
    (delivery / SPOILT / f"{band}.tif").unlink()
    assert f"no band {layer}" in failed(delivery)


def test_a_band_of_another_place_is_named(delivery):
    put(delivery / SPOILT / "B03.tif", numbers(1), transform=TRANSFORM * Affine.translation(5, 0))
    assert "B03.tif covers another place than B02.tif" in failed(delivery)


def test_classes_of_another_shape_are_named(delivery):
    coarse(delivery / SPOILT / "SCL.tif", np.full((SIDE, SIDE), 4, np.uint8))
    assert "SCL.tif covers another place than B02.tif" in failed(delivery)


def test_a_file_of_several_bands_is_named(delivery):
    put(delivery / SPOILT / "B04.tif", np.ones((3, SIDE, SIDE), np.uint16))
    assert "B04.tif has 3 bands" in failed(delivery)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_metadata_that_cannot_be_read_are_named(delivery, text):
    (delivery / SPOILT / "item.json").write_text(text)
    assert "item.json" in failed(delivery)


def test_an_xml_of_another_scene_is_named(delivery):
    shutil.rmtree(delivery / SPOILT)
    mtd(safe(delivery) / "MTD_MSIL2A.xml", PRODUCT.replace("T52WFE", "T52WFD"))
    assert "of another scene" in failed(delivery, PRODUCT)


@pytest.mark.parametrize("source", ["name", "xml", "beside"])
def test_level_1c_is_refused_by_name(delivery, source):
    shutil.rmtree(delivery / SPOILT)
    name = PRODUCT.replace("MSIL2A", "MSIL1C") if source == "name" else "S2B_product"
    folder = delivery / f"{name}.SAFE"
    put_bands(folder / "GRANULE" / "L1C_T52WFE_A022714_20210712T025549" / "IMG_DATA", TILE + "_{}.jp2")
    if source == "xml":
        mtd(folder / "MTD_MSIL2A.xml", PRODUCT, kind="S2MSI1C")
    if source == "beside":
        (folder / "MTD_MSIL1C.xml").write_text("<a/>")
    assert "Level-1C" in failed(delivery, name)


def test_a_safe_without_bands_and_one_still_packed_are_named(delivery):
    (delivery / f"{PRODUCT}.SAFE").mkdir()
    (delivery / f"{PRODUCT}.SAFE" / "MTD_MSIL2A.xml").write_text("<a/>")
    packed = PRODUCT.replace("T52WFE", "T52WFD")
    (delivery / f"{packed}.zip").write_bytes(b"PK")
    done, sentences = listed(delivery)
    assert done == 3
    assert "has no bands" in sentences[PRODUCT]
    assert "unpack it" in sentences[packed]


def test_a_safe_within_a_folder_of_its_own_name_is_one_scene(tmp_path):
    inner = safe(tmp_path / f"{PRODUCT}.SAFE")
    assert scene_of(tmp_path).files["blue"].is_relative_to(inner)


def test_two_scenes_of_one_id_are_named(delivery):
    shutil.copytree(delivery / SPOILT, delivery / "again" / SPOILT)
    assert "two scenes have the id" in failed(delivery)


def test_a_folder_that_cannot_name_results_is_named(delivery):
    (delivery / SPOILT).rename(delivery / "my scene")
    assert "rename it" in failed(delivery, "my_scene")


def test_a_scene_cut_by_the_edge_of_the_swath_is_fine(tmp_path):
    for seed, name in enumerate(BANDS):
        put(tmp_path / "a" / f"{name}.tif", np.where(np.tri(SIDE, dtype=bool), numbers(seed), 0).astype(np.uint16))
    stack = read(scene_of(tmp_path, offset=-1000))
    missing = ~np.tri(SIDE, dtype=bool) | (numbers(0) == 0)
    np.testing.assert_array_equal(np.isnan(stack["blue"]), missing)


def test_a_folder_without_scenes_is_the_requests_fault(tmp_path):
    with pytest.raises(ConfigError, match="no sentinel2 scene"):
        project(tmp_path).candidates()


# Places named on the command line


def test_a_folder_or_a_file_can_be_named_instead(tmp_path):
    folder = safe(tmp_path)
    elsewhere = project(tmp_path / "nowhere")
    granule = folder / "GRANULE" / GRANULE
    blue = granule / "IMG_DATA" / "R10m" / f"{TILE}_B02_10m.jp2"
    for path in (tmp_path, folder, granule, granule / "IMG_DATA", blue, folder / "MTD_MSIL2A.xml"):
        (candidate,) = elsewhere.candidates([path])
        scene = elsewhere.open(candidate)
        assert scene.id == PRODUCT
        assert {*FOUR, "scl", "MTD_MSIL2A.xml"} <= set(scene.files)


def test_all_files_of_a_folder_can_be_named(delivery):
    elsewhere = project(delivery / "nowhere")
    files = sorted((delivery / SPOILT).iterdir())
    (candidate,) = elsewhere.candidates(files)
    assert elsewhere.open(candidate).id == SPOILT


def test_a_named_raster_that_is_no_band_is_at_fault(delivery):
    path = put(delivery / SPOILT / "composite.tif", numbers(0))
    in_folder = project(delivery)
    (candidate,) = in_folder.candidates([path])
    with pytest.raises(DataError, match="not named after a band"):
        in_folder.open(candidate)
