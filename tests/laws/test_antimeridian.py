"""Ground across the antimeridian: what is in degrees is found and read there as anywhere else."""

import numpy as np
import pytest
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from thawmap.config import ElevationSettings
from thawmap.data.raster.io import Encoding, read_raster, write_raster
from thawmap.data.sources.base import Scene
from thawmap.data.sources.elevation import ElevationSource

LAT, STEP = 69.0, 0.001


def degrees(west, east, north=LAT + 0.2, south=LAT - 0.2, step=STEP):
    shape = round((north - south) / step), round((east - west) / step)
    return GeoBox(shape, Affine(step, 0, west, 0, -step, north), "EPSG:4326")


def metres(code):
    x, y = (round(float(value)) for value in CRS("EPSG:4326").transformer_to_crs(CRS(code))(180.0, LAT))
    return GeoBox((40, 40), Affine(50, 0, x - 1000, 0, -50, y + 1000), code)


def height(geobox):
    """Metres that rise to the east and to the north, across the antimeridian too."""
    rows, cols = np.meshgrid(*(np.arange(side) + 0.5 for side in geobox.shape), indexing="ij")
    x, y = geobox.affine * (cols, rows)
    lon, lat = geobox.crs.transformer_to_crs(CRS("EPSG:4326"))(x, y) if not geobox.crs.geographic else (x, y)
    return (1000 * (np.mod(lon, 360) - 180) + 2000 * (np.asarray(lat) - LAT) + 500).astype(np.float32)


def save(path, geobox):
    write_raster(path, height(geobox), geobox, encoding=Encoding(dtype="float32"))


SCENES = {
    "UTM 1": metres("EPSG:32601"),
    "UTM 60": metres("EPSG:32660"),
    "polar": metres("EPSG:3413"),
    "degrees around 180": degrees(179.99, 180.01, LAT + 0.01, LAT - 0.01, 0.0005),
    "degrees around -180": degrees(-180.01, -179.99, LAT + 0.01, LAT - 0.01, 0.0005),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("west", [179.8, -180.2])
def test_a_raster_of_degrees_is_read_across_the_antimeridian(tmp_path, scene, west):
    save(tmp_path / "a.tif", degrees(west, west + 0.4))
    read = read_raster(tmp_path / "a.tif", SCENES[scene], bands=[1], resampling="bilinear")[0]
    np.testing.assert_allclose(read, height(SCENES[scene]), atol=0.1)


@pytest.mark.parametrize("scene", SCENES)
def test_tiles_of_a_dem_are_found_on_both_sides(tmp_path, scene):
    save(tmp_path / "dem" / "east.tif", degrees(-180, -179.8))
    save(tmp_path / "dem" / "west.tif", degrees(179.8, 180))
    geobox = SCENES[scene]
    source = ElevationSource(ElevationSettings(path=tmp_path / "dem"))
    image = Scene(id="a", sensor="test", geobox=geobox, files={})
    assert len(source.files(image)) == 2
    made = np.asarray(source.read(image, geobox, ["elevation"])["elevation"])
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made, height(geobox), atol=2)
