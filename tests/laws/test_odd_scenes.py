"""Scenes stored as few are: one definition of missing, one map of one ground, a sentence for what cannot be read."""

import json
import re
import warnings
from contextlib import suppress

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from thawmap import cli
from thawmap.config import ElevationSettings, LabelSettings, ModelSettings, TrendSettings
from thawmap.data.labels.polygons import open_labels
from thawmap.data.raster.io import raster_info, read_means, read_raster
from thawmap.data.sources.base import Scene
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.sources.trends import TrendSource
from thawmap.errors import ThawmapError
from thawmap.grid import Window
from thawmap.layers import layer
from thawmap.maps.caption import STRIP_PX
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save
from thawmap.model.network import build, traits

torch.set_num_threads(1)

UTM, GRID = "EPSG:32608", Affine(3, 0, 570_000, 0, -3, 7_720_000)
BANDS = {"red": {"band": 1, "scale": 0.0001}, "nir": {"band": 2, "scale": 0.0001}}
SHAPE = (48, 64)


def image(*, seed=1, shape=SHAPE):
    """Stored numbers (band, y, x) of red and near infrared, never 0."""
    return np.random.default_rng(seed).integers(300, 3000, (2, *shape)).astype(np.uint16)


def write(path, values=None, *, crs=UTM, transform=GRID, tags=None, scales=None, offsets=None, **profile):
    values = image() if values is None else values
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs=crs, transform=transform, **profile,
    ) as file:  # fmt: skip
        file.write(values)
        file.update_tags(**(tags or {}))
        if scales is not None:
            file.scales, file.offsets = [scales] * len(values), [offsets or 0.0] * len(values)
    return path


def configure(folder, *, bands=BANDS, **changes):
    """The YAML of a folder whose scenes are the files in `scenes`."""
    content = {
        "scenes": {"kind": "rasters", "path": "scenes/*.tif", "files": {"{name}.tif": bands}},
        "layers": ["red", "nir", "ndvi"],
        "inference": {"overlap": 16, "backend": "eager"},
    }
    (folder / "t.yaml").write_text(yaml.safe_dump(content | changes))
    return folder / "t.yaml"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that looks far around each pixel, and knows up from down; nobody trained it."""
    torch.manual_seed(0)
    network = build(ModelSettings(architecture="unet", encoder="resnet18"), channels=3).eval()
    found = traits(network, channels=3)
    bundle = Bundle(
        layers=(layer("red"), layer("nir"), layer("ndvi")),
        architecture="unet",
        encoder="resnet18",
        tile=64,
        stride=found.stride,
        fixed_tile=found.fixed_tile,
        network=network,
    )
    folder = tmp_path_factory.mktemp("far") / "model"
    save(bundle, folder)
    return folder


def mapped(folder, model, capsys, **changes):
    """Map all scenes of a folder; where the maps lie."""
    assert (
        cli._run(["predict", str(configure(folder, **changes)), "--model", str(model), "--out", str(folder / "maps")])
        == 0
    )
    capsys.readouterr()
    return folder / "maps"


def listed(folder, capsys, **changes):
    """What `scenes` says: exit status, table with notes, and the sentences of failures."""
    status = cli._run(["scenes", str(configure(folder, **changes))])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def same_map(one, other):
    """Whether the rasters of two maps are the same to the byte, and their pictures above the caption."""
    for file in ("probability.tif", "mask.tif"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    pictures = [np.asarray(Image.open(folder / "quicklook.png"))[:-STRIP_PX] for folder in (one, other)]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.slow
def test_infinite_is_as_missing_as_nan(tmp_path, model, capsys):
    for name, number in (("nan", np.nan), ("inf", np.inf), ("minus", -np.inf)):
        values = image().astype(np.float32)
        values[:, 10:30, 5:40] = number
        values[1, 40, 60] = number
        write(tmp_path / "scenes" / f"{name}.tif", values)
    maps = mapped(tmp_path, model, capsys)
    for name in ("inf", "minus"):
        same_map(maps / name, maps / "nan")
    with rasterio.open(maps / "inf" / "probability.tif") as file:
        missing = file.read(1) == 255
    assert missing.sum() == 20 * 35 + 1
    assert missing[40, 60]


@pytest.mark.slow
@pytest.mark.parametrize("mirror", [Affine(1, 0, 0, 0, -1, 48), Affine(-1, 0, 64, 0, 1, 0), Affine(0, 1, 0, 1, 0, 0)])
def test_a_scene_stored_upside_down_mirrored_or_transposed_gets_the_same_map(tmp_path, model, capsys, mirror):
    values = image()
    values[:, :9, :30] = 0
    col, row = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    new_col, new_row = (np.floor(axis).astype(int) for axis in ~mirror * (col, row))
    turned = np.empty((2, new_row.max() + 1, new_col.max() + 1), np.uint16)
    turned[:, new_row, new_col] = values
    write(tmp_path / "scenes" / "plain.tif", values, nodata=0)
    write(tmp_path / "scenes" / "turned.tif", turned, transform=GRID * mirror, nodata=0)
    maps = mapped(tmp_path, model, capsys)
    same_map(maps / "turned", maps / "plain")
    items = [json.loads((maps / name / "item.json").read_text()) for name in ("turned", "plain")]
    assert items[0]["properties"]["proj:transform"] == items[1]["properties"]["proj:transform"]


POINTS = [GroundControlPoint(row, col, 570_000 + 3 * col, 7_720_000 - 3 * row) for row in (0, 40) for col in (0, 60)]
RPCS = RPC(
    height_off=0.0, height_scale=1.0, lat_off=69.0, lat_scale=1.0, line_den_coeff=[1.0] * 20, line_num_coeff=[1.0] * 20,
    line_off=0.0, line_scale=1.0, long_off=-133.0, long_scale=1.0, samp_den_coeff=[1.0] * 20,
    samp_num_coeff=[1.0] * 20, samp_off=0.0, samp_scale=1.0,
)  # fmt: skip
SITE = 'LOCAL_CS["site",UNIT["metre",1]]'
NOWHERE = {
    "site": ({"crs": SITE}, "has the CRS 'site', which has no place on Earth; correct"),
    "geocentric": ({"crs": "EPSG:4978"}, "has the CRS 'EPSG:4978', which has no place on Earth"),
    "heights": ({"crs": "EPSG:5773"}, "has the CRS 'Engineering CRS', which has no place on Earth"),
    "moon": ({"crs": "IAU_2015:30110"}, "which has no place on Earth"),
    "metres_as_degrees": (
        {"crs": "EPSG:4326"},
        "lies at x 570096, y .*, which is no place on Earth in EPSG:4326",
    ),
    "points": (
        {"transform": None, "gcps": POINTS},
        "has ground control points and no .*gdalwarp -tps",
    ),
    "rpcs": ({"crs": None, "transform": None, "rpcs": RPCS}, "has RPCs and no .*gdalwarp -rpc"),
    "no_crs": ({"crs": None}, "has no CRS.*gdal_edit -a_srs"),
    "no_size": ({"transform": Affine(3, 3, 570_000, 3, 3, 7_720_000)}, "gives its pixels no size"),
    "not_a_number": ({"transform": Affine(np.nan, 0, 570_000, 0, -3, 7_720_000)}, "gives its pixels no size"),
    "complex": ({"values": image().astype(np.complex64)}, r"holds complex numbers \(complex64\), and layers are real"),
}


def test_what_lies_nowhere_or_holds_no_real_numbers_is_named_with_the_remedy(tmp_path, capsys):
    for name, (how, _) in NOWHERE.items():
        write(tmp_path / "scenes" / f"{name}.tif", **how)
    write(tmp_path / "scenes" / "sound.tif")
    status, out, error = listed(tmp_path, capsys)
    assert status == 1
    assert f"1 of {len(NOWHERE) + 1} scenes can be used" in out
    for name, (_, said) in NOWHERE.items():
        assert re.search(rf"^thawmap: {name} failed: scene {name}: [^ ]*{name}\.tif .*{said}", error, re.MULTILINE), (
            name
        )


def test_black_ground_that_nobody_calls_missing_is_noted(tmp_path, capsys):
    values = image()
    values[:, :12] = 0
    write(tmp_path / "scenes" / "a.tif", values)
    _, out, _ = listed(tmp_path, capsys, layers=["red", "nir"])
    assert "a: 25% of it is 0 in nir, red; if that means missing, set 'nodata: 0' for them" in out
    zeros = {name: band | {"nodata": 0} for name, band in BANDS.items()}
    assert "is 0 in" not in listed(tmp_path, capsys, layers=["red", "nir"], bands=zeros)[1]


def test_a_crs_without_a_number_has_a_short_name_in_the_table(tmp_path, capsys):
    crs = "+proj=laea +lat_0=70 +lon_0=-133 +datum=WGS84"
    write(tmp_path / "scenes" / "a.tif", crs=crs, transform=Affine(3, 0, 0, 0, -3, 0))
    _, out, _ = listed(tmp_path, capsys)
    assert "Lambert Azimuthal Equal Area" in out
    assert "PROJ" not in out
    assert max(map(len, out.splitlines())) < 120


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mean_leaves_out_what_is_not_finite(tmp_path, dtype):
    values = np.random.default_rng(0).uniform(0, 1, (1, 48, 64)).astype(dtype)
    values[0, ::5, ::7] = np.nan
    values[0, 3, 3], values[0, 9, 40] = np.inf, -np.inf
    blocks = values.astype(np.float32).reshape(12, 4, 16, 4)
    blocks[~np.isfinite(blocks)] = np.nan
    path = write(tmp_path / "a.tif", values)
    expected = np.nanmean(blocks, axis=(1, 3), dtype=np.float64)
    grid = GeoBox((12, 16), GRID * Affine.scale(4), UTM)
    np.testing.assert_allclose(read_raster(path, grid, bands=[1])[0], expected, rtol=1e-5)
    means = read_means(path, Window(row=0, col=0, height=48, width=64), (12, 16), bands=[1])
    np.testing.assert_allclose(means[0], expected, rtol=1e-5)


def test_numbers_beyond_float32_are_missing(tmp_path):
    values = np.full((1, 4, 5), 0.25)
    values[0, 0] = 1e300
    path = write(tmp_path / "a.tif", values)
    read = read_raster(path, raster_info(path).geobox, bands=[1])[0]
    assert np.isnan(read[0]).all()
    assert (read[1:] == 0.25).all()


KINDS = ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float32", "float64", "complex64"]
PLACES = [
    UTM, UTM, UTM, "EPSG:4326", "EPSG:3413", "EPSG:32608+5773", "EPSG:4979", "EPSG:2225", "EPSG:4807", "ESRI:54008",
    "+proj=geos +h=35785831 +lon_0=0", "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=10 +datum=WGS84",
    "+proj=utm +zone=8 +ellps=bessel +towgs84=1,2,3", "+proj=laea +lat_0=90 +a=1 +b=1", "IAU_2015:30100", SITE, None,
]  # fmt: skip
TURNS = [Affine.identity(), Affine.scale(1, -1), Affine.rotation(33), Affine.shear(40), Affine(0, 1, 0, 1, 0, 0),
         Affine.scale(1e-9, 1), Affine.scale(1e5), Affine.scale(1e300), Affine.scale(1e-3), Affine.scale(0, 1),
         Affine(np.nan, 0, 0, 0, 1, 0), Affine.translation(1e15, 0)]  # fmt: skip


def odd(path, rng):
    """A raster of any kind, size, place and content, sound or not; whether one was written."""
    kind, count = np.dtype(str(rng.choice(KINDS))), int(rng.choice([1, 2, 2, 3, 3]))
    shape = (count, int(rng.choice([1, 2, 17, 48])), int(rng.choice([1, 5, 33])))
    with np.errstate(all="ignore"):
        values = (rng.uniform(0, 5000, shape) * rng.choice([0, 1, 1, 1e-7, 1e40])).astype(kind)
    if kind.kind == "f":
        values[rng.random(shape) < rng.choice([0, 0.3, 1])] = rng.choice([np.nan, np.inf, -np.inf, np.finfo(kind).max])
    place, turn = (options[rng.integers(len(options))] for options in (PLACES, TURNS))
    profile = {"nodata": 0} if rng.random() < 0.3 else {}
    scales, offsets = [(None, None), (1e-4, -0.1), (np.nan, 0.0), (np.inf, np.nan), (0.0, 1.0)][rng.integers(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write(path, values, crs=place, transform=GRID * turn, scales=scales, offsets=offsets, **profile)
    if rng.random() < 0.15:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * rng.random())])


@pytest.mark.slow
def test_whatever_a_raster_is_it_is_read_or_refused_in_one_sentence(tmp_path, capsys):
    """As a scene through the command line, as elevation, trends and labels through their readers."""
    rng = np.random.default_rng(7)
    for number in range(60):
        odd(tmp_path / "scenes" / f"s{number}.tif", rng)
    status, _, error = listed(tmp_path, capsys, bands={"red": BANDS["red"]}, layers=["red"])
    assert status == 1
    assert not re.search(r" at \w+, line \d|Error|Warning", error)
    assert all(";" in line for line in error.splitlines() if line.startswith("thawmap: s"))
    grid = GeoBox((20, 30), GRID, UTM)
    for path in sorted((tmp_path / "scenes").iterdir()):
        scene = Scene(id="s", sensor="test", geobox=grid, files={"labels": path})
        slope = ElevationSource(ElevationSettings(slope_degrees={"path": path}))
        for source in (ElevationSource(ElevationSettings(path=path)), slope, TrendSource(TrendSettings(path=path))):
            for geobox in (grid, grid.zoom_out(7)):
                with suppress(ThawmapError):
                    source.read(scene, geobox, sorted(source.layers))
        with suppress(ThawmapError):
            open_labels(LabelSettings(raster="labels.tif")).burn(scene, grid)
