"""Mosaics: tiles read as one against GDAL's merge, broken tiles that cost only their place, folders that change."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.merge
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from thawmap.data.raster import index, mosaic
from thawmap.data.raster.index import open_tile_sets
from thawmap.data.raster.mosaic import Content, View, read_mosaic
from thawmap.errors import ConfigError, DataError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

POLAR = "EPSG:3413"
ORIGIN = Affine(2, 0, -2_000_000, 0, -2, 500_000)
EVERYWHERE = GeoBox((200, 200), ORIGIN, POLAR)


def content(**more):
    return Content(quantity="number", bands=(1,), setting="sources.x", encoding=lambda _: (1, 0), **more)


def write(path, values, *, row=0, col=0, crs=POLAR, transform=ORIGIN, nodata=-9999, **more):
    values = np.atleast_3d(values.T).T
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs=crs, transform=transform * Affine.translation(col, row), nodata=nodata, **more,
    ) as file:  # fmt: skip
        file.write(np.where(np.isnan(values), nodata, values) if values.dtype.kind == "f" else values)
    return path


def numbers(shape, seed=0, missing=0.1):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 100, shape).astype(np.float32)
    values[rng.random(shape) < missing] = np.nan
    return values


TILES = {"c": (0, 0, 60, 50), "a": (30, 40, 50, 60), "b": (60, 0, 40, 40), "d": (5, 100, 30, 30)}


def write_tiles(folder):
    for seed, (name, (row, col, height, width)) in enumerate(TILES.items()):
        write(folder / f"{name}.tif", numbers((height, width), seed), row=row, col=col)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def opened(path, geobox=EVERYWHERE, **more):
    return open_tile_sets(path, geobox, setting="sources.x.path", **more)


def merged(folder):
    """GDAL's own mosaic on the grid of all tiles, first name first; NaN where missing."""
    values, _ = rasterio.merge.merge(sorted(folder.glob("*.tif")), nodata=np.nan)
    return values[0]


@pytest.mark.slow
@settings(max_examples=40)
@given(data=st.data())
def test_a_window_of_tiles_on_one_lattice_is_their_pixels(folder, data):
    row, col = data.draw(st.integers(-20, 110)), data.draw(st.integers(-20, 140))
    window = Window(row=row, col=col, height=data.draw(st.integers(1, 80)), width=data.draw(st.integers(1, 80)))
    tile_sets = opened(folder)
    assert len(tile_sets.sets) == 1
    values = View(tile_set=tile_sets.sets[0], content=content()).read(window)[0]
    padded = np.pad(merged(folder), 200, constant_values=np.nan)
    np.testing.assert_array_equal(values, padded[200 + row :, 200 + col :][: window.height, : window.width])
    # and the same through a grid, without resampling
    np.testing.assert_array_equal(read_mosaic(tile_sets, window_geobox(EVERYWHERE, window), content())[0], values)


@pytest.mark.parametrize("pattern", ["", "*.tif", "../*/[abcd].tif", "all.vrt"])
def test_a_folder_a_pattern_and_a_vrt_are_the_same(folder, tmp_path, pattern):
    shutil.copytree(folder, tmp_path / "tiles")
    (tmp_path / "tiles" / "notes.txt").write_text("none")
    path = tmp_path / "tiles" / pattern
    if pattern == "all.vrt":
        write_vrt(path)
    values = read_mosaic(opened(path), EVERYWHERE, content())[0]
    expected = np.full((200, 200), np.nan, np.float32)
    joined = merged(folder)
    expected[: joined.shape[0], : joined.shape[1]] = joined
    if pattern == "all.vrt":  # whose sources overwrite each other, last name last
        np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    else:
        np.testing.assert_array_equal(values, expected)


def write_vrt(path):
    sources = "".join(
        f'<ComplexSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/><NODATA>-9999</NODATA></ComplexSource>'
        for name, (row, col, height, width) in sorted(TILES.items())
    )
    transform = ", ".join(str(number) for number in ORIGIN.to_gdal())
    path.write_text(
        f'<VRTDataset rasterXSize="130" rasterYSize="100"><SRS>{POLAR}</SRS><GeoTransform>{transform}</GeoTransform>'
        f'<VRTRasterBand dataType="Float32" band="1"><NoDataValue>-9999</NoDataValue>{sources}</VRTRasterBand>'
        f"</VRTDataset>"
    )


def test_a_vrt_in_a_folder_is_read_only_where_nothing_else_is(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "tiles")
    write_vrt(tmp_path / "tiles" / "all.vrt")
    assert not any(file.suffix == ".vrt" for file in opened(tmp_path / "tiles").files(EVERYWHERE))


def test_only_the_files_that_a_grid_touches_are_named_and_opened(folder, monkeypatch):
    tile_sets = opened(folder)
    corner = window_geobox(EVERYWHERE, Window(row=70, col=5, height=10, width=10))
    assert [file.name for file in tile_sets.files(corner)] == ["b.tif"]
    read = []
    monkeypatch.setattr(
        mosaic,
        "read_raster",
        lambda path, *args, _read=mosaic.read_raster, **more: read.append(path.name) or _read(path, *args, **more),
    )
    read_mosaic(tile_sets, corner, content())
    assert set(read) == {"b.tif"}


def test_a_grid_in_another_crs_has_the_tiles_under_it(folder):
    tile_sets = opened(folder)
    x, y = Transformer.from_crs(POLAR, "EPSG:3573", always_xy=True).transform(*(ORIGIN * (15, 75)))
    grid = GeoBox((10, 10), Affine(2, 0, x - 10, 0, -2, y + 10), "EPSG:3573")
    assert [file.name for file in tile_sets.files(grid)] == ["b.tif"]
    assert tile_sets.files(GeoBox((5, 5), Affine(3, 0, 5e5, 0, -3, 7.7e6), "EPSG:32608")) == []


def test_other_lattices_fill_the_gaps_of_the_finest(tmp_path):
    fine = np.full((40, 40), 5, np.float32)
    fine[10:20] = np.nan
    write(tmp_path / "b_fine.tif", fine)
    write(tmp_path / "a_coarse.tif", np.full((10, 10), 9, np.float32), transform=ORIGIN * Affine.scale(8))
    write(
        tmp_path / "c_utm.tif",
        np.full((9, 9), 1, np.float32),
        crs="EPSG:32608",
        transform=Affine(3, 0, 5e5, 0, -3, 7.7e6),
    )
    tile_sets = opened(tmp_path)
    assert [tile_set.tiles[0].info.path.name for tile_set in tile_sets.sets] == [
        "b_fine.tif",
        "c_utm.tif",
        "a_coarse.tif",
    ]
    values = read_mosaic(tile_sets, EVERYWHERE, content())[0]
    np.testing.assert_allclose(values[:10, :40], 5)
    np.testing.assert_allclose(values[12:18, :40], 9)
    np.testing.assert_allclose(values[45:78, 2:78], 9)
    assert np.isnan(values[85:]).all()


def test_tiles_half_a_pixel_off_are_another_lattice(tmp_path):
    write(tmp_path / "a.tif", numbers((20, 20)))
    write(tmp_path / "b.tif", numbers((20, 20)), transform=ORIGIN * Affine.translation(20.5, 0))
    assert len(opened(tmp_path).sets) == 2


@settings(max_examples=25)
@given(step=st.integers(2, 9), data=st.data())
def test_means_of_blocks_are_those_of_their_pixels_in_one_tile(folder, step, data):
    """Within one tile; where tiles meet, the first that knows any of a block gives it."""
    tile_sets = open_tile_sets(folder / "c.tif", EVERYWHERE, setting="x")
    view = View(tile_set=tile_sets.sets[0], content=content(), step=step)
    rows, cols = view.grid.shape
    top, left = data.draw(st.integers(-2, rows - 1)), data.draw(st.integers(-2, cols - 1))
    window = Window(row=top, col=left, height=data.draw(st.integers(1, 12)), width=data.draw(st.integers(1, 12)))
    pixels = np.full((300, 300), np.nan)
    pixels[100:160, 100:150] = numbers((60, 50), 0)
    under_blocks = pixels[100 + top * step :, 100 + left * step :][: window.height * step, : window.width * step]
    blocks = under_blocks.reshape(window.height, step, window.width, step)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    expected = np.where(count > 0, np.nansum(blocks, axis=(1, 3)) / np.maximum(count, 1), np.nan)
    np.testing.assert_allclose(view.read(window)[0], expected, rtol=1e-5)
    # a nodata that files do not know is looked for in every pixel
    unflagged = View(tile_set=tile_sets.sets[0], content=content(nodata=-5), step=step)
    np.testing.assert_allclose(unflagged.read(window)[0], expected, rtol=1e-5)


def test_means_join_where_tiles_meet(tmp_path):
    for name, col in (("a", 0), ("b", 17)):
        write(tmp_path / f"{name}.tif", np.full((20, 17), 3, np.float32), col=col)
    view = View(tile_set=opened(tmp_path).sets[0], content=content(), step=4)
    np.testing.assert_array_equal(view.read(Window(row=0, col=0, height=5, width=9)), 3)


def test_memory_is_bounded_by_halves_that_do_not_show(folder, monkeypatch):
    grid = GeoBox((90, 70), ORIGIN * Affine.translation(3.3, 4.4) * Affine.scale(1.37), POLAR)
    expected = read_mosaic(opened(folder), grid, content())
    monkeypatch.setattr(mosaic, "_MAX_NUMBERS", 900)
    sizes = []

    def make(view, window):
        sizes.append(window.height * window.width)
        return view.read(window)

    values = read_mosaic(opened(folder), grid, content(), make=make)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, atol=0.05)
    assert len(sizes) > 8
    assert max(sizes) <= 900


# What is wrong with a tile


def spoil(path, how):
    if how == "empty":
        path.write_bytes(b"")
    elif how == "part":
        path.rename(path.with_name(path.name + ".part"))
    elif how == "beside":
        path.with_name(path.name + ".part").write_bytes(b"more")
    elif how == "no CRS":
        write(path, numbers((20, 20)), crs=None)
    elif how == "text":
        path.write_text("404 not found")
    elif how == "no place":
        write(path, numbers((20, 20)), crs='LOCAL_CS["site",UNIT["metre",1]]')


FAULTS = {
    "empty": "b.tif is empty",
    "part": "b.tif.part is still being written",
    "beside": "b.tif.part lies beside",
    "no CRS": "b.tif has no CRS",
    "text": "b.tif is not a raster",
    "no place": "b.tif has the CRS 'site', which has no place on Earth",
}


@pytest.mark.parametrize(("how", "says"), FAULTS.items())
def test_a_tile_that_cannot_be_used_costs_only_what_no_other_covers(folder, tmp_path, how, says):
    shutil.copytree(folder, tmp_path / "tiles")
    spoil(tmp_path / "tiles" / "b.tif", how)
    tile_sets = opened(tmp_path / "tiles")
    covered = window_geobox(EVERYWHERE, Window(row=2, col=2, height=20, width=20))
    assert np.isfinite(read_mosaic(tile_sets, covered, content())).any()
    with pytest.raises(DataError, match=says):
        read_mosaic(tile_sets, EVERYWHERE, content())
    (tmp_path / "only").mkdir()
    for file in (tmp_path / "tiles").glob("b*"):
        shutil.copy(file, tmp_path / "only")
    with pytest.raises(DataError, match=says):
        opened(tmp_path / "only")


def test_a_tile_cut_off_in_its_middle_is_named_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.tif", numbers((200, 200)))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.tif cannot be read to its end"):
        read_mosaic(opened(tmp_path), EVERYWHERE, content())


@pytest.mark.parametrize("pattern", ["nowhere", "none*", "."])
def test_a_place_without_rasters_is_refused(tmp_path, pattern):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ConfigError, match=r"holds none; correct 'sources\.x\.path'"):
        opened(tmp_path / pattern)


@pytest.mark.parametrize("step", [1, 4])
def test_a_number_that_cannot_be_is_named_with_its_remedy(tmp_path, step):
    values = numbers((60, 60), missing=0)
    values[33, 41] = -32768
    write(tmp_path / "a.tif", values, nodata=None)
    limited = content(limits=(0, 100))
    window = Window(row=0, col=0, height=60 // step, width=60 // step)
    with pytest.raises(DataError, match=r"a\.tif holds -32768, a number of .*set 'sources\.x\.nodata: -32768'"):
        View(tile_set=opened(tmp_path).sets[0], content=limited, step=step).read(window)
    with_nodata = content(limits=(0, 100), nodata=-32768)
    masked = View(tile_set=opened(tmp_path).sets[0], content=with_nodata, step=step).read(window)
    assert np.isnan(masked).sum() == (1 if step == 1 else 0)


# What changes


def test_headers_are_read_once_and_again_where_something_changed(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        index, "raster_info", lambda path, _info=index.raster_info: read.append(path.name) or _info(path)
    )
    write(tmp_path / "below" / "a.tif", np.full((20, 20), 1, np.float32))
    grid = GeoBox((10, 10), ORIGIN, POLAR)
    assert read_mosaic(opened(tmp_path, grid), grid, content())[0, 0, 0] == 1
    opened(tmp_path, grid)
    assert read == ["a.tif"]

    write(tmp_path / "below" / "0.tif", np.full((20, 20), 7, np.float32))
    assert read_mosaic(opened(tmp_path, grid), grid, content())[0, 0, 0] == 7
    assert read == ["a.tif", "0.tif"]

    write(tmp_path / "below" / "0.tif", np.full((20, 20), 8, np.float32), col=100)
    assert read_mosaic(opened(tmp_path, grid), grid, content())[0, 0, 0] == 1

    (tmp_path / "below" / "0.tif").unlink()
    assert [file.name for file in opened(tmp_path, EVERYWHERE).files(EVERYWHERE)] == ["a.tif"]


def test_a_tile_that_was_broken_is_used_when_it_is_whole(tmp_path):
    write(tmp_path / "a.tif", numbers((20, 20)))
    (tmp_path / "b.tif").write_bytes(b"")
    assert opened(tmp_path).faults
    write(tmp_path / "b.tif", numbers((20, 20)), col=20)
    assert not opened(tmp_path).faults


@pytest.mark.slow
def test_many_tiles_are_found_by_their_bounds(tmp_path):
    first = write(tmp_path / "0_0.tif", np.zeros((4, 4), np.float32))
    for row in range(21):
        for col in range(21):
            if row or col:
                shutil.copy(first, tmp_path / f"{row}_{col}.tif")
                with rasterio.open(tmp_path / f"{row}_{col}.tif", "r+") as file:
                    file.transform = ORIGIN * Affine.translation(4 * col, 4 * row)
    grid = window_geobox(EVERYWHERE, Window(row=41, col=81, height=2, width=2))
    tile_sets = opened(tmp_path, grid)
    assert len(tile_sets.sets) == 1
    assert [file.name for file in tile_sets.files(grid)] == ["10_20.tif"]


def test_threads_share_one_index(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "tiles"))
    expected = read_mosaic(opened(folder), EVERYWHERE, content())
    with ThreadPoolExecutor(4) as pool:
        for values in pool.map(lambda _: read_mosaic(opened(copy), EVERYWHERE, content()), range(12)):
            np.testing.assert_array_equal(values, expected)
