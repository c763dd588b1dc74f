"""Windows of large rasters: stored numbers unchanged, errors raised, and the bytes that are needed."""

import httpx
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from serving import served

from thawmap.acquire.windows import cut_window, read_window
from thawmap.data.raster.io import raster_info
from thawmap.errors import DataError, ServiceError
from thawmap.geo.shapes import to_lonlat

UTM = "EPSG:32608"
CORNER = (499_980.0, 7_700_040.0)
SIDE = 700


def put(path, values, *, crs=UTM, transform=None, **profile):
    bands = values if values.ndim == 3 else values[np.newaxis]
    transform = transform or Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
    form = {"driver": "GTiff", "tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    count, height, width = bands.shape
    form |= {"count": count, "height": height, "width": width, "dtype": bands.dtype, "crs": crs, "transform": transform}
    with rasterio.open(path, "w", **form | profile) as file:
        file.write(bands)
    return path


def numbers(seed=0, dtype="uint16", side=SIDE):
    stored = np.random.default_rng(seed).integers(1, 10_000, (side, side)).astype(dtype)
    stored[:90, :40] = 0
    return stored


def area(left, top, right, bottom, *, corner=CORNER, crs=UTM):
    """Ground between edges, in metres from the raster's corner to the right and down."""
    x, y = corner
    return to_lonlat(shapely.box(x + left, y - bottom, x + right, y - top), crs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rasters")


@pytest.fixture(scope="module")
def server(folder):
    with served("files", folder) as address:
        yield address


@pytest.fixture
def control(server):
    httpx.post(f"{server}/_control", json={"clear": True, "etags": True, "ranges": True})
    return lambda **words: httpx.post(f"{server}/_control", json=words).raise_for_status()


def log(server):
    return httpx.get(f"{server}/_log").json()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_window_has_the_rasters_own_numbers(server, folder, control, tmp_path, is_remote):
    stored = numbers()
    path = put(folder / "whole.tif", stored, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.units, file.descriptions = (1e-4,), (-0.1,), ("1",), ("blue",)
    href = f"{server}/whole.tif" if is_remote else path
    cut = cut_window(href, area(1003, 505, 3998, 2501), tmp_path / "deep" / "blue.tif")
    with rasterio.open(cut.path) as file:
        assert (file.read(1) == stored[50:251, 100:400]).all()
        assert (file.transform.c, file.transform.f) == (CORNER[0] + 1000, CORNER[1] - 500)
        assert (file.scales, file.offsets, file.units, file.descriptions) == ((1e-4,), (-0.1,), ("1",), ("blue",))
        assert (file.nodata, file.crs.to_epsg(), file.dtypes) == (0, 32608, ("uint16",))
    assert cut.geobox == raster_info(cut.path).geobox
    assert cut.source == str(href)
    read = read_window(href, area(1003, 505, 3998, 2501), margin_px=7)
    assert (read.values[0] == stored[43:258, 93:407]).all()


@pytest.fixture(scope="module")
def ranged(folder):
    """A server that sends exactly the range that is asked for."""
    with served("stac", folder) as address:
        yield address


def told(ranged, **words):
    httpx.post(f"{ranged}/_control", json={"clear": True, "at": "file", **words}).raise_for_status()


def test_a_fault_of_the_transfer_is_raised_and_leaves_no_file(ranged, folder, tmp_path):
    put(folder / "far.tif", numbers(1), nodata=0)
    asked, href = area(1003, 505, 3998, 2501), f"{ranged}/files/far.tif"
    for faults in ([{"status": 404}], [None, {"status": 404}], [None, {"short": 5000}]):
        told(ranged, faults=faults)
        with pytest.raises(ServiceError, match=r"far\.tif"):
            cut_window(href, asked, tmp_path / "red.tif")
    assert list(tmp_path.iterdir()) == []
    told(ranged, faults=[None, {"status": 503}, {"cut": 5000}])
    assert cut_window(href, asked, tmp_path / "red.tif").window.shape == (201, 300)


def test_few_requests_bring_a_window(ranged, folder, tmp_path):
    stored = numbers(2)
    put(folder / "few.tif", stored, nodata=0)
    told(ranged)
    cut = cut_window(f"{ranged}/files/few.tif", area(1003, 505, 3998, 2501), tmp_path / "red.tif")
    with rasterio.open(cut.path) as file:
        assert (file.read(1) == stored[50:251, 100:400]).all()
    assert len(log(ranged)) <= 4


def test_what_does_not_show_the_area_or_is_damaged_is_refused(folder, tmp_path):
    path = put(folder / "here.tif", numbers(3), nodata=0)
    with pytest.raises(DataError, match="does not show the area"):
        cut_window(path, area(-5000, 0, -100, 900), tmp_path / "red.tif")
    with pytest.raises(DataError, match="does not exist"):
        cut_window(folder / "nowhere.tif", area(0, 0, 900, 900), tmp_path / "red.tif")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    (folder / "damaged.tif").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        cut_window(folder / "damaged.tif", area(0, 0, 6900, 6900), tmp_path / "red.tif")
    assert list(tmp_path.iterdir()) == []


def test_a_mask_stays_a_mask(folder, tmp_path):
    stored = numbers(4)
    path = put(folder / "masked.tif", stored)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.where(stored % 7 == 0, 0, 255).astype(np.uint8))
    cut = cut_window(path, area(1003, 505, 3998, 2501), tmp_path / "red.tif")
    with rasterio.open(cut.path) as file:
        assert file.nodata is None
        assert ((file.read_masks(1) == 0) == (stored[50:251, 100:400] % 7 == 0)).all()


def test_bands_of_other_pixels_cover_the_same_ground(folder, tmp_path):
    fine = put(folder / "fine.tif", numbers(5, side=720), nodata=0)
    coarse_grid = Affine(20, 0, CORNER[0], 0, -20, CORNER[1])
    coarse = put(folder / "coarse.tif", numbers(6, "uint8", 360), nodata=0, transform=coarse_grid)
    asked = area(1013, 515, 3998, 2501)
    boxes = [
        cut_window(path, asked, tmp_path / path.name, step_m=60).geobox.extent.boundingbox for path in (fine, coarse)
    ]
    assert boxes[0] == boxes[1]
