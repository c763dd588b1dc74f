"""Cutting one scene into tiles.

It is read block by block, so that what neighbouring tiles share is read and burnt once.

    <store>/<scene>.zarr/   image (tile, layer, y, x) uint16 codes, target (tile, y, x) uint8,
                            valid (tile, y, x) bool; one chunk per tile that was stored, none for the others;
                            index.parquet: one row per tile that was stored

A tile's number is its position among the windows of its scene, row by row. How a scene is divided depends on the scene
alone, so its tiles do too, whoever cuts it. The folder takes its name when it is whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from odc.geo.geobox import GeoBox
from pyarrow.parquet import read_schema
from zarr.codecs import BloscCodec

from thawmap.config import Config, TileSettings
from thawmap.data.labels.polygons import IGNORE, Labels
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import assemble, check_ranges, preview
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.engine.run import in_order
from thawmap.errors import DataError
from thawmap.files.atomic import alone, atomic
from thawmap.files.guard import some_of
from thawmap.files.records import read
from thawmap.geo.crs import crs_of
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window, starts
from thawmap.train.tiles.codes import LayerCode, ZarrRecord, encode, stored_layers

FORMAT = 3
"""Format of the store; tiles of another one are cut again."""

FOOTPRINT_CRS = "EPSG:6931"
"""CRS of all footprints: equal-area and polar, common to scenes of different zones."""

_INDEX = "index.parquet"
_FOLDER_NAMES = frozenset({"zarr.json", "image", "target", "valid", _INDEX})  # in a scene's folder
_BLOCK_PX = 1280  # side of a block that is read at once; a tile that is larger is read by itself
_OVERVIEW_PX = 256  # side of the overview by which a scene's values are checked
_THREADS = 2  # that read blocks while tiles are written
_COMPRESSION = 0.6  # size of the codes on disk over that in memory
_COLUMNS = {
    "tile_id": "object", "scene": "object", "region": "object", "acquired": "datetime64[us, UTC]", "number": "int64",
    "row": "int64", "col": "int64", "positive": "bool", "positive_pixels": "int64", "valid_share": "float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Neighbouring tiles with their numbers, and the smallest window that holds them."""

    window: Window
    tiles: tuple[tuple[int, Window], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """A tile that is to be stored.

    Attributes:
        number: Its position among the windows of the scene.
        window: Its pixels on the scene's grid.
        image: Codes (layer, y, x).
        target: (y, x): 1 object, 0 not, 255 ignore.
        valid: (y, x), True = usable; mirrored beyond the scene.
    """

    number: int
    window: Window
    image: npt.NDArray[np.uint16]
    target: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


def write_tiles(
    store: Path,
    scene: Scene,
    *,
    config: Config,
    sources: Sequence[Source],
    labels: Labels,
    fingerprint: str,
) -> int:
    """Cut a scene into the store, unless it is there; return its number of tiles.

    It is 0 where no tile has a valid, labelled pixel.

    The last tile of a row or column is shifted back to end at the border; a scene that is smaller than a tile is
    mirrored beyond its border, where the target is ignore. Nothing is done where the tiles exist with the same
    fingerprint; another process that cuts the same scene into the same store is waited for. Drafts that killed runs
    left of the scene are removed.

    Args:
        store: Folder of the tile store.
        scene: The scene.
        config: Layers, and size, overlap and share of valid pixels of a tile.
        sources: Sources of the layers.
        labels: Labels that targets are burnt from.
        fingerprint: Hash of all that the tiles are made from.

    Raises:
        DataError: If the scene cannot be read, or a layer's values are not in its units (law 14).
    """
    path = store / f"{scene.id}.zarr"
    with alone(path):
        if is_finished(store, scene, fingerprint):
            return len(read_scene_index(store, scene.id))
        inputs = config.input_layers
        overview = preview(scene, [layer.name for layer in inputs], sources, size=_OVERVIEW_PX)
        check_ranges(overview, inputs, scene_id=scene.id)
        codes = stored_layers(inputs, sources)
        rows: list[dict[str, Any]] = []
        cut = partial(_cut_block, scene=scene, codes=codes, config=config, sources=sources, labels=labels)
        with atomic(path, replacing=_check_replaceable) as folder:
            arrays = _create_arrays(folder, scene, codes, config.tiles, fingerprint)
            blocks = _blocks(scene.geobox.shape.yx, config.tiles)
            for tiles in in_order(cut, blocks, threads=_THREADS, ahead=1):
                for tile in tiles:
                    for name, array in arrays.items():
                        array[tile.number] = getattr(tile, name)
                    rows.append(_index_row(scene, tile))
            rows.sort(key=lambda row: row["number"])
            write_vector(folder / _INDEX, _index_of(rows, scene.geobox))
    return len(rows)


def check_replaceable(store: Path, scene: str) -> None:
    """Refuse to cut a scene whose folder in the store holds anything but its tiles.

    Raises:
        DataError: If so.
    """
    path = store / f"{scene}.zarr"
    if path.exists():
        _check_replaceable(path)


def _check_replaceable(path: Path, _: Path | None = None) -> None:
    """Refuse to replace a file, or a folder with anything but a scene's tiles."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    other = [name for name in names if name not in _FOLDER_NAMES] if _INDEX in names else names
    if other:
        msg = (
            f"{path} holds {some_of(other)}, which is no scene's tiles; move it away, or name another folder for the "
            "tiles"
        )
        raise DataError(msg)


def is_finished(store: Path, scene: Scene, fingerprint: str) -> bool:
    """Return True if a scene's whole tiles are in the store, with this fingerprint."""
    try:
        read_schema(store / f"{scene.id}.zarr" / _INDEX)  # a scene that was cut short has none
        return bool(read_attributes(store, scene.id)["fingerprint"] == fingerprint)
    except (DataError, OSError, ValueError):
        return False


def read_attributes(store: Path, scene: str) -> dict[str, Any]:
    """Read the description of a scene's tiles as a dict; refuse other formats.

    Its keys are format, fingerprint, size, layers, region, and footprint (WKT in `FOOTPRINT_CRS`).

    Raises:
        DataError: If the scene has no whole tiles in the store.
    """
    path = store / f"{scene}.zarr" / "zarr.json"
    try:
        attributes: dict[str, Any] = read(path, ZarrRecord)["attributes"]
    except (OSError, ValueError) as error:
        msg = f"{store} has no whole tiles of scene {scene}; cut them with 'thawmap tiles'"
        raise DataError(msg) from error
    if attributes["format"] != FORMAT:
        msg = f"the tiles of scene {scene} in {store} are of another version; cut them again with 'thawmap tiles'"
        raise DataError(msg)
    return attributes


def read_scene_index(store: Path, scene: str) -> gpd.GeoDataFrame:
    """Read a scene's tile index as a GeoDataFrame: a row with footprint per tile.

    Only stored tiles have a row; footprints are in `FOOTPRINT_CRS`.

    Raises:
        DataError: If it cannot be read.
    """
    return read_vector(store / f"{scene}.zarr" / _INDEX)


def tile_count(shape: tuple[int, int], settings: TileSettings) -> int:
    """Count the tiles of a scene of ``shape`` (rows, columns), stored or not."""
    rows, cols = (len(starts(side, tile=settings.size, overlap=settings.overlap)) for side in shape)
    return rows * cols


def _blocks(shape: tuple[int, int], settings: TileSettings) -> Iterator[_Block]:
    """Yield blocks of neighbouring, numbered tiles that make up a scene of ``shape``."""
    size, step = settings.size, settings.size - settings.overlap
    rows, cols = (starts(side, tile=size, overlap=settings.overlap) for side in shape)
    most = 1 + max(0, _BLOCK_PX - size) // step
    for top in range(0, len(rows), most):
        for left in range(0, len(cols), most):
            down, across = range(len(rows))[top : top + most], range(len(cols))[left : left + most]
            tiles = {
                y * len(cols) + x: Window(row=rows[y], col=cols[x], height=size, width=size)
                for y in down
                for x in across
            }
            yield _Block(window=Window.around(tiles.values()), tiles=tuple(tiles.items()))


def _cut_block(
    block: _Block,
    *,
    scene: Scene,
    codes: Sequence[LayerCode],
    config: Config,
    sources: Sequence[Source],
    labels: Labels,
) -> list[_Tile]:
    """Read a block; return its tiles but those with few valid or no labelled pixels."""
    window, geobox = block.window, window_geobox(scene.geobox, block.window)
    on_scene = window.clip(scene.geobox.shape.yx)
    assert on_scene is not None
    inside = np.zeros(window.shape, np.bool_)
    inside[on_scene.within(window)] = True
    target = np.where(inside, labels.burn(scene, geobox), IGNORE)
    labelled = target != IGNORE
    if not labelled.any():
        return []
    stored = [code.name for code in codes]
    # Also the inputs that are not stored: a pixel is valid where all of them have a value.
    names = list(dict.fromkeys([*(layer.name for layer in config.input_layers), *stored]))
    stack = assemble(scene, names, window_geobox(scene.geobox, on_scene), sources)
    beyond = ((0, window.height - on_scene.height), (0, window.width - on_scene.width))
    valid = np.pad(stack["valid"], beyond, mode="symmetric")
    trainable = valid & labelled
    chosen = []
    for number, tile in block.tiles:
        pixels = tile.within(window)
        if valid[pixels][inside[pixels]].mean() >= config.tiles.min_valid and trainable[pixels].any():
            chosen.append((number, tile, pixels))
    if not chosen:
        return []
    image = encode([np.pad(stack[name], beyond, mode="symmetric") for name in stored], codes)
    return [
        _Tile(number=number, window=tile, image=image[:, *pixels], target=target[pixels], valid=valid[pixels])
        for number, tile, pixels in chosen
    ]


def disk_bytes(config: Config, sources: Sequence[Source]) -> float:
    """Estimate the bytes that one tile takes on disk.

    It is compressed as real Sentinel-2 scenes with elevation are.

    Raises:
        DataError: If a layer is in no source and no recipe makes it.
    """
    return _COMPRESSION * 2 * len(stored_layers(config.input_layers, sources)) * config.tiles.size**2


def _create_arrays(
    folder: Path, scene: Scene, codes: Sequence[LayerCode], settings: TileSettings, fingerprint: str
) -> dict[str, Any]:
    """Create zarr arrays for a scene's tiles, with attributes; return them by name."""
    size, tiles = settings.size, tile_count(scene.geobox.shape.yx, settings)
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    footprint = gpd.GeoSeries([scene.geobox.extent.geom], crs=crs_of(scene.geobox)).to_crs(FOOTPRINT_CRS)
    group.attrs.update(
        {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "size": size,
            "layers": [asdict(code) for code in codes],
            "region": scene.region,
            "footprint": footprint.iloc[0].wkt,
        }
    )
    tile_shapes = {"image": (len(codes), size, size), "target": (size, size), "valid": (size, size)}
    return {
        name: group.create_array(
            name,
            shape=(tiles, *tile_shapes[name]),
            chunks=(1, *tile_shapes[name]),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            fill_value=0,
            dimension_names=("tile", *("layer", "y", "x")[-len(tile_shapes[name]) :]),
        )
        for name, dtype in (("image", "uint16"), ("target", "uint8"), ("valid", "bool"))
    }


def _index_row(scene: Scene, tile: _Tile) -> dict[str, Any]:
    """Return a tile's index columns as a dict, its footprint in the scene's CRS.

    The footprint ends where the scene ends.
    """
    on_scene = tile.window.clip(scene.geobox.shape.yx)
    assert on_scene is not None
    positive = int((tile.valid & (tile.target == 1)).sum())
    return {
        "tile_id": f"{scene.id}/{tile.number}",
        "scene": scene.id,
        "region": scene.region,
        "acquired": scene.acquired,
        "number": tile.number,
        "row": on_scene.row,
        "col": on_scene.col,
        "positive": positive > 0,
        "positive_pixels": positive,
        "valid_share": float(tile.valid[on_scene.within(tile.window)].mean()),
        "geometry": window_geobox(scene.geobox, on_scene).extent.geom,
    }


def _index_of(rows: Sequence[dict[str, Any]], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Return rows as a GeoDataFrame in `FOOTPRINT_CRS`, columns fixed, even if empty."""
    table = pd.DataFrame(rows, columns=[*_COLUMNS, "geometry"])
    table["acquired"] = pd.to_datetime(table["acquired"], utc=True)
    frame = gpd.GeoDataFrame(table.astype(_COLUMNS), geometry="geometry", crs=crs_of(geobox))
    return frame.to_crs(FOOTPRINT_CRS)
