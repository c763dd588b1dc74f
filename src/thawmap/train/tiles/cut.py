"""Cutting one scene into tiles: block by block, so that what neighbouring tiles share is read and burnt once.

    <store>/<scene>.zarr/   image (tile, layer, y, x) uint16 codes, target (tile, y, x) uint8,
                            valid (tile, y, x) bool; one chunk per tile that was kept, none for the others;
                            index.parquet: one row per tile that was kept

A tile's number is its place among the windows of its scene, row by row. How a scene is divided depends on the scene
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
from thawmap.train.tiles.codes import Code, ZarrRecord, encode, stored_layers

FORMAT = 3
"""Of the store; one of another format is cut again."""

FOOTPRINT_CRS = "EPSG:6931"
"""Equal-area and polar: footprints of scenes in different zones meet here."""

_INDEX = "index.parquet"
_PARTS = frozenset({"zarr.json", "image", "target", "valid", _INDEX})  # of a scene's folder
_BLOCK_PX = 1280  # side of what is read at once; a tile that is larger is read by itself
_OVERVIEW_PX = 256  # side of what a scene's values are judged by
_THREADS = 2  # that read blocks while tiles are written
_COMPRESSED = 0.6  # share that is left of codes on disk
_COLUMNS = {
    "tile_id": "object", "scene": "object", "region": "object", "acquired": "datetime64[us, UTC]", "number": "int64",
    "row": "int64", "col": "int64", "positive": "bool", "positive_pixels": "int64", "valid_share": "float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Neighbouring tiles, and the window that just holds them."""

    window: Window
    tiles: tuple[tuple[int, Window], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """A tile that was kept.

    Attributes:
        number: Its place among the windows of the scene.
        window: Where it lies on the scene.
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
    """Cut one scene; the number of its tiles, which is 0 where no tile has a usable, labelled pixel.

    The last tile of a row or column is shifted back to end at the border; a scene that is smaller than a tile is
    mirrored beyond its border, where the target is ignore. Nothing is done where the tiles are there, made from the
    same; another process that cuts the same scene into the same store is waited for. What killed runs left of the scene
    is removed.

    Args:
        store: Folder of the tile store.
        scene: What to cut.
        config: Layers, and size, overlap and share of valid pixels of a tile.
        sources: Where layers come from.
        labels: Where targets come from.
        fingerprint: Any text that stands for all that the tiles are made from.

    Raises:
        DataError: If the scene cannot be read, or a layer's values are not in its units (law 14).
    """
    place = store / f"{scene.id}.zarr"
    with alone(place):
        if is_finished(store, scene, fingerprint):
            return len(scene_index(store, scene.id))
        inputs = config.input_layers
        overview = preview(scene, [one.name for one in inputs], sources, size=_OVERVIEW_PX)
        check_ranges(overview, inputs, scene_id=scene.id)
        codes = stored_layers(inputs, sources)
        rows: list[dict[str, Any]] = []
        cut = partial(_cut, scene=scene, codes=codes, config=config, sources=sources, labels=labels)
        with atomic(place, replacing=_check_replaceable) as folder:
            arrays = _create(folder, scene, codes, config.tiles, fingerprint)
            for kept in in_order(cut, _blocks(_shape(scene), config.tiles), threads=_THREADS, ahead=1):
                for tile in kept:
                    for name, array in arrays.items():
                        array[tile.number] = getattr(tile, name)
                    rows.append(_row(scene, tile))
            rows.sort(key=lambda row: row["number"])
            write_vector(folder / _INDEX, _frame(rows, scene.geobox))
    return len(rows)


def check_replaceable(store: Path, scene: str) -> None:
    """Refuse to cut a scene where something else than its tiles stands.

    Raises:
        DataError: If so.
    """
    place = store / f"{scene}.zarr"
    if place.exists():
        _check_replaceable(place)


def _check_replaceable(place: Path, _: Path | None = None) -> None:
    """Refuse to replace what holds anything but the arrays and the index of a scene's tiles."""
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else [place.name]
    other = [name for name in names if name not in _PARTS] if _INDEX in names else names
    if other:
        msg = (
            f"{place} holds {some_of(other)}, which is no scene's tiles; move it away, or name another folder for the "
            "tiles"
        )
        raise DataError(msg)


def is_finished(store: Path, scene: Scene, fingerprint: str) -> bool:
    """Whether the scene's tiles are there, made from what ``fingerprint`` stands for."""
    try:
        read_schema(store / f"{scene.id}.zarr" / _INDEX)  # which one that was cut short has not
        return bool(attributes(store, scene.id)["fingerprint"] == fingerprint)
    except (DataError, OSError, ValueError):
        return False


def attributes(store: Path, scene: str) -> dict[str, Any]:
    """What a scene's tiles say of themselves: fingerprint, size, layers, region, and footprint as WKT.

    Raises:
        DataError: If the scene has no whole tiles in the store.
    """
    place = store / f"{scene}.zarr" / "zarr.json"
    try:
        found: dict[str, Any] = read(place, ZarrRecord)["attributes"]
    except (OSError, ValueError) as error:
        msg = f"{store} has no whole tiles of scene {scene}; cut them with 'thawmap tiles'"
        raise DataError(msg) from error
    if found["format"] != FORMAT:
        msg = f"the tiles of scene {scene} in {store} are of another version; cut them again with 'thawmap tiles'"
        raise DataError(msg)
    return found


def scene_index(store: Path, scene: str) -> gpd.GeoDataFrame:
    """One row per tile of a scene, with its footprint in `FOOTPRINT_CRS`.

    Raises:
        DataError: If it cannot be read.
    """
    return read_vector(store / f"{scene}.zarr" / _INDEX)


def tile_count(shape: tuple[int, int], settings: TileSettings) -> int:
    """Tiles of a scene of ``shape`` (rows, columns) when all of them are kept."""
    rows, cols = (len(starts(side, tile=settings.size, overlap=settings.overlap)) for side in shape)
    return rows * cols


def _blocks(shape: tuple[int, int], settings: TileSettings) -> Iterator[_Block]:
    """All tiles of a scene, as many together as `_BLOCK_PX` allows."""
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


def _cut(
    block: _Block,
    *,
    scene: Scene,
    codes: Sequence[Code],
    config: Config,
    sources: Sequence[Source],
    labels: Labels,
) -> list[_Tile]:
    """The tiles of a block that are worth keeping: enough of them is valid, and some of that is labelled."""
    window, geobox = block.window, window_geobox(scene.geobox, block.window)
    on_scene = window.clip(_shape(scene))
    assert on_scene is not None
    inside = np.zeros(window.shape, np.bool_)
    inside[on_scene.within(window)] = True
    target = np.where(inside, labels.burn(scene, geobox), IGNORE)
    labelled = target != IGNORE
    if not labelled.any():
        return []
    stored = [code.name for code in codes]
    wanted = list(dict.fromkeys([*(one.name for one in config.input_layers), *stored]))
    stack = assemble(scene, wanted, window_geobox(scene.geobox, on_scene), sources)
    beyond = ((0, window.height - on_scene.height), (0, window.width - on_scene.width))
    valid = np.pad(stack["valid"], beyond, mode="symmetric")
    learnt = valid & labelled
    parts = [(number, tile, tile.within(window)) for number, tile in block.tiles]
    parts = [
        (number, tile, part)
        for number, tile, part in parts
        if valid[part][inside[part]].mean() >= config.tiles.min_valid and learnt[part].any()
    ]
    if not parts:
        return []
    image = encode([np.pad(stack[name], beyond, mode="symmetric") for name in stored], codes)
    return [
        _Tile(number=number, window=tile, image=image[:, *part], target=target[part], valid=valid[part])
        for number, tile, part in parts
    ]


def disk_bytes(config: Config, sources: Sequence[Source]) -> float:
    """What one tile takes on disk, about; real Sentinel-2 scenes with elevation are compressed to this share.

    Raises:
        DataError: If a layer is in no source and no recipe makes it.
    """
    return _COMPRESSED * 2 * len(stored_layers(config.input_layers, sources)) * config.tiles.size**2


def _shape(scene: Scene) -> tuple[int, int]:
    return scene.geobox.height, scene.geobox.width


def _create(
    folder: Path, scene: Scene, codes: Sequence[Code], settings: TileSettings, fingerprint: str
) -> dict[str, Any]:
    """Arrays with room for every tile of the scene, still without any."""
    size, tiles = settings.size, tile_count(_shape(scene), settings)
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
    inner = {"image": (len(codes), size, size), "target": (size, size), "valid": (size, size)}
    return {
        name: group.create_array(
            name,
            shape=(tiles, *inner[name]),
            chunks=(1, *inner[name]),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            fill_value=0,
            dimension_names=("tile", *("layer", "y", "x")[-len(inner[name]) :]),
        )
        for name, dtype in (("image", "uint16"), ("target", "uint8"), ("valid", "bool"))
    }


def _row(scene: Scene, tile: _Tile) -> dict[str, Any]:
    """A tile's row of the index; the footprint, in the scene's CRS, is its part that lies on the scene."""
    window = tile.window
    inside = window.clip(_shape(scene))
    assert inside is not None
    positive = int((tile.valid & (tile.target == 1)).sum())
    return {
        "tile_id": f"{scene.id}/{tile.number}",
        "scene": scene.id,
        "region": scene.region,
        "acquired": scene.acquired,
        "number": tile.number,
        "row": window.row,
        "col": window.col,
        "positive": positive > 0,
        "positive_pixels": positive,
        "valid_share": float(tile.valid[inside.within(window)].mean()),
        "geometry": window_geobox(scene.geobox, inside).extent.geom,
    }


def _frame(rows: Sequence[dict[str, Any]], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Rows as an index of fixed columns and types, also where there is none."""
    table = pd.DataFrame(rows, columns=[*_COLUMNS, "geometry"])
    table["acquired"] = pd.to_datetime(table["acquired"], utc=True)
    frame = gpd.GeoDataFrame(table.astype(_COLUMNS), geometry="geometry", crs=crs_of(geobox))
    return frame.to_crs(FOOTPRINT_CRS)
