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
        yield_to = profile.pop("describe", None)
        if yield_to:
            yield_to(file)
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
