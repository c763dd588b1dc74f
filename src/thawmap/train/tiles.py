"""The tile store: labelled scenes cut into tiles, small on disk and fast to read.

    <store>/store.json             layers with their codes, size of a tile, and what each scene was cut from
    <store>/index.parquet          one row per tile: scene, region, counts and footprint (GeoParquet)
    <store>/<scene>.zarr/          image (tile, layer, y, x) uint16 codes, target (tile, y, x) uint8,
                                   valid (tile, y, x) bool; one chunk per tile; and its part of the index

A scene's folder takes its name when it is whole, so scenes can be cut side by side and a rerun cuts only what
changed (law 8). Layers that follow from others without neighbours, as NDVI, are not stored but made again on
the device.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import zarr
from odc.geo.geobox import GeoBox
from torch import Tensor
from zarr.codecs import BloscCodec

from thawmap.config import Config
from thawmap.data.derive import RECIPES, order
from thawmap.data.io import atomic, crs_of, read_vector, write_text, write_vector
from thawmap.data.labels import IGNORE, Labels
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import as_array, assemble, check_ranges, preview, window_geobox
from thawmap.engine import in_order
from thawmap.errors import DataError
from thawmap.grid import Window, windows
from thawmap.layers import CODES, Layer, layer

FOOTPRINT_CRS = "EPSG:6931"
"""Equal-area and polar: footprints of scenes in different zones meet here."""

_FORMAT = 1
_READERS = 4  # threads that read tiles
_COLUMNS = {
    "tile_id": "object", "scene": "object", "region": "object", "acquired": "datetime64[us, UTC]", "number": "int64",
    "row": "int64", "col": "int64", "positive_pixels": "int64", "valid_share": "float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """How a layer is stored: code 0 = missing, else v = low + (code - 1) * step.

    Attributes:
        name: Name of the layer.
        low: Value of code 1.
        step: Difference of two neighbouring codes.
        units: Physical units of the value.
    """

    name: str
    low: float
    step: float
    units: str

    @classmethod
    def of(cls, layer: Layer) -> Self:
        """The code of a layer."""
        return cls(name=layer.name, low=layer.code_low, step=layer.code_step, units=layer.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tiles on a device.

    Attributes:
        image: (N, C, H, W) float32, physical units, NaN = missing.
        target: (N, H, W) uint8: 1 object, 0 not, 255 ignore.
        valid: (N, H, W) bool, True = usable.
    """

    image: Tensor
    target: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Tiles as they are stored.

    Attributes:
        codes: (N, C, H, W) uint16; 0 = missing.
        target: (N, H, W) uint8: 1 object, 0 not, 255 ignore.
        valid: (N, H, W) bool, True = usable.
    """

    codes: npt.NDArray[np.uint16]
    target: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


def encode(values: npt.NDArray[np.float32], codes: Sequence[Code]) -> npt.NDArray[np.uint16]:
    """Codes (C, H, W) uint16 of values (C, H, W), physical units, NaN = missing: the nearest there is."""
    low = np.array([code.low for code in codes])[:, None, None]
    step = np.array([code.step for code in codes])[:, None, None]
    steps = np.rint((values - low) / step).clip(0, CODES)
    return np.where(np.isnan(values), 0, np.nan_to_num(steps) + 1).astype(np.uint16)


def decode(codes: Tensor, stored: Sequence[Code]) -> Tensor:
    """Values (N, C, H, W) float32 in physical units, NaN = missing, of codes (N, C, H, W)."""
    low = torch.tensor([code.low for code in stored], device=codes.device).view(1, -1, 1, 1)
    step = torch.tensor([code.step for code in stored], device=codes.device).view(1, -1, 1, 1)
    numbers = codes.float()
    return torch.where(numbers == 0, torch.nan, low + (numbers - 1) * step)


def derive(image: Tensor, *, stored: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """The wanted layers (N, C', H, W), made where they are not among the ``stored`` ones (N, C, H, W)."""
    known = dict(zip(stored, image.unbind(1), strict=True))
    _, makes = order(wanted, available=frozenset(stored))
    for name in makes:
        known[name] = RECIPES[name].function(*(known[need] for need in RECIPES[name].needs))
    return torch.stack([known[name] for name in wanted], dim=1)


def is_finished(store: Path, scene: Scene, fingerprint: str) -> bool:
    """Whether the scene's tiles are there, made from what ``fingerprint`` stands for."""
    try:
        return bool(_attributes(store, scene.id)["fingerprint"] == fingerprint)
    except DataError:
        return False


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

    The last tile of a row or column is shifted back to end at the border; a scene that is smaller than a tile
    is filled up with missing pixels. Nothing is done where the tiles are there, made from the same.

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
    if is_finished(store, scene, fingerprint):
        return len(_scene_index(store, scene.id))
    inputs = config.input_layers
    check_ranges(preview(scene, [one.name for one in inputs], sources), inputs, scene_id=scene.id)
    codes = _stored(inputs, sources)
    rows: list[dict[str, Any]] = []
    with atomic(store / f"{scene.id}.zarr") as folder:
        arrays = _create(folder, codes, config, fingerprint)
        for window, tile in _cut(scene, codes, config, sources, labels):
            for name, values in tile.items():
                arrays[name].append(values[None])
            rows.append(_row(scene, window, tile, number=len(rows)))
        write_vector(folder / "index.parquet", _frame(rows, scene.geobox))
    return len(rows)


def collect(store: Path, scenes: Sequence[str], layers: Sequence[Layer]) -> gpd.GeoDataFrame:
    """The index of the tiles of ``scenes``, put together and written; it is left alone where nothing changed.

    Raises:
        DataError: If a scene has no tiles in the store, two were cut differently, or ``layers`` do not follow
            from what is stored.
    """
    if not scenes:
        msg = f"{store} has no scene: none could be cut, so there is nothing to train on"
        raise DataError(msg)
    found = {scene: _attributes(store, scene) for scene in scenes}
    cuts = {json.dumps([one["layers"], one["size"]]) for one in found.values()}
    if len(cuts) > 1:
        msg = f"the scenes of {store} were cut with different layers or sizes; remove it, and cut again"
        raise DataError(msg)
    stored, size = json.loads(cuts.pop())
    order([layer.name for layer in layers], available=frozenset(code["name"] for code in stored))
    content = {
        "format": _FORMAT,
        "size": size,
        "layers": stored,
        "scenes": {scene: one["fingerprint"] for scene, one in sorted(found.items())},
    }
    text = json.dumps(content, indent=2) + "\n"
    place = store / "store.json"
    if place.exists() and place.read_text(encoding="utf-8") == text and (store / "index.parquet").exists():
        return read_vector(store / "index.parquet")
    index = _join([_scene_index(store, scene) for scene in sorted(found)])
    write_vector(store / "index.parquet", index)
    write_text(place, text)
    return index


@dataclass(frozen=True, slots=True, kw_only=True)
class TileStore:
    """A tile store, open for reading; threads can share it.

    Attributes:
        path: Its folder.
        codes: How its layers are stored, in order.
        size: Side of a tile in pixels.
        index: One row per tile, with its footprint in `FOOTPRINT_CRS`.
    """

    path: Path
    codes: tuple[Code, ...]
    size: int
    index: gpd.GeoDataFrame
    _open: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The store in a folder.

        Raises:
            DataError: If there is none, or it is of another version.
        """
        try:
            content = json.loads((path / "store.json").read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                msg = f"{path} has format {content['format']}; this version reads {_FORMAT}; cut the tiles again"
                raise DataError(msg)
            codes = tuple(Code(**code) for code in content["layers"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{path} holds no whole tile store; make one with 'thawmap tiles'"
            raise DataError(msg) from error
        return cls(path=path, codes=codes, size=content["size"], index=read_vector(path / "index.parquet"))

    @property
    def identity(self) -> str:
        """A hash of what every scene in it was cut from."""
        return hashlib.sha256((self.path / "store.json").read_bytes()).hexdigest()[:12]

    def read(self, rows: pd.DataFrame) -> Tiles:
        """The tiles of some rows of the index, in their order.

        Raises:
            DataError: If a tile is damaged.
        """
        where = list(zip(rows["scene"], rows["number"], strict=True))

        def stack(name: str) -> npt.NDArray[Any]:
            return np.stack([self._tile(scene, name, number) for scene, number in where])

        return Tiles(codes=stack("image"), target=stack("target"), valid=stack("valid"))

    def stream(self, parts: Sequence[pd.DataFrame]) -> Iterator[Tiles]:
        """The tiles of each part, in order, read by threads a little ahead of being asked for.

        Raises:
            DataError: If a tile is damaged.
        """
        return in_order(self.read, parts, threads=_READERS, ahead=_READERS)

    def to_device(self, tiles: Tiles, device: torch.device) -> Batch:
        """The tiles as tensors on ``device``, the stored layers decoded there."""
        codes = torch.from_numpy(tiles.codes).to(device, non_blocking=True)
        return Batch(
            image=decode(codes, self.codes),
            target=torch.from_numpy(tiles.target).to(device, non_blocking=True),
            valid=torch.from_numpy(tiles.valid).to(device, non_blocking=True),
        )

    def _tile(self, scene: str, name: str, number: int) -> npt.NDArray[Any]:
        place = self.path / f"{scene}.zarr"
        try:
            if scene not in self._open:
                self._open[scene] = zarr.open_group(place, mode="r", zarr_format=3)
            tile: npt.NDArray[Any] = self._open[scene][name][number]
        except (OSError, KeyError, ValueError, RuntimeError, IndexError) as error:
            msg = f"tile {number} of {place} cannot be read ({error}); remove the folder, and cut the tiles again"
            raise DataError(msg) from error
        return tile


def _stored(inputs: Sequence[Layer], sources: Sequence[Source]) -> tuple[Code, ...]:
    """What is stored: layers that sources have, and those made with neighbours; the rest follows."""
    known = {layer.name: layer for layer in inputs}
    available = frozenset[str]().union(*(source.layers for source in sources))
    reads, makes = order(list(known), available=available)
    names = [*reads, *(name for name in makes if RECIPES[name].halo)]
    return tuple(Code.of(known.get(name) or layer(name)) for name in names)


def _create(folder: Path, codes: Sequence[Code], config: Config, fingerprint: str) -> dict[str, Any]:
    """Arrays without a tile."""
    size = config.tiles.size
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs.update({"fingerprint": fingerprint, "size": size, "layers": [asdict(code) for code in codes]})
    arrays = {}
    for name, dtype, inner in (
        ("image", "uint16", (len(codes), size, size)),
        ("target", "uint8", (size, size)),
        ("valid", "bool", (size, size)),
    ):
        arrays[name] = group.create_array(
            name,
            shape=(0, *inner),
            chunks=(1, *inner),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            fill_value=0,
            dimension_names=("tile", *("layer", "y", "x")[-len(inner) :]),
        )
    return arrays


def _cut(
    scene: Scene, codes: Sequence[Code], config: Config, sources: Sequence[Source], labels: Labels
) -> Iterator[tuple[Window, dict[str, npt.NDArray[Any]]]]:
    """The tiles that are worth keeping: enough of them is valid, and some of that is labelled."""
    size = config.tiles.size
    stored = [code.name for code in codes]
    wanted = list(dict.fromkeys([*(one.name for one in config.input_layers), *stored]))
    height, width = scene.geobox.shape
    for window in windows((height, width), tile=(size, size), overlap=config.tiles.overlap):
        geobox = window_geobox(scene.geobox, window)
        part = (slice(0, height - window.row), slice(0, width - window.col))
        inside = np.zeros((size, size), np.bool_)
        inside[part] = True
        stack = assemble(scene, wanted, geobox, sources)
        valid = stack["valid"].to_numpy() & inside
        target = np.where(inside, labels.burn(scene, geobox), IGNORE)
        if valid[part].mean() >= config.tiles.min_valid and (valid & (target != IGNORE)).any():
            image = encode(as_array(stack, stored), codes)
            yield window, {"image": image, "target": target, "valid": valid}


def _row(scene: Scene, window: Window, tile: dict[str, npt.NDArray[Any]], *, number: int) -> dict[str, Any]:
    """A tile's row of the index; the footprint, in the scene's CRS, is its part that lies on the scene."""
    height = min(window.height, scene.geobox.shape[0] - window.row)
    width = min(window.width, scene.geobox.shape[1] - window.col)
    inside = Window(row=window.row, col=window.col, height=height, width=width)
    return {
        "tile_id": f"{scene.id}/{number}",
        "scene": scene.id,
        "region": scene.region,
        "acquired": scene.acquired,
        "number": number,
        "row": window.row,
        "col": window.col,
        "positive_pixels": int((tile["valid"] & (tile["target"] == 1)).sum()),
        "valid_share": float(tile["valid"][:height, :width].mean()),
        "geometry": window_geobox(scene.geobox, inside).extent.geom,
    }


def _frame(rows: Sequence[dict[str, Any]], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Rows as an index of fixed columns and types, also where there is none."""
    table = pd.DataFrame(rows, columns=[*_COLUMNS, "geometry"])
    table["acquired"] = pd.to_datetime(table["acquired"], utc=True)
    frame = gpd.GeoDataFrame(table.astype(_COLUMNS), geometry="geometry", crs=crs_of(geobox))
    return frame.to_crs(FOOTPRINT_CRS)


def _join(frames: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """One index of all; the types of the first where all are empty."""
    filled = [frame for frame in frames if len(frame)] or list(frames[:1])
    return gpd.GeoDataFrame(pd.concat(filled, ignore_index=True))


def _scene_index(store: Path, scene: str) -> gpd.GeoDataFrame:
    return read_vector(store / f"{scene}.zarr" / "index.parquet")


def _attributes(store: Path, scene: str) -> dict[str, Any]:
    """What a scene's tiles say of themselves."""
    place = store / f"{scene}.zarr" / "zarr.json"
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError) as error:
        msg = f"{store} has no whole tiles of scene {scene}; cut them with 'thawmap tiles'"
        raise DataError(msg) from error
    return found
