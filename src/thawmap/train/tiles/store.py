"""The tile store: labelled scenes cut into tiles, small on disk and fast to read.

    <store>/store.json        layers with their codes, size of a tile, and what each scene was cut from
    <store>/index.parquet     one row per tile: scene, place, region, counts and footprint (GeoParquet)
    <store>/<scene>.zarr/     a scene's tiles, as `thawmap.train.tiles.cut` writes them

Scenes can be cut side by side, and a rerun cuts only what changed (law 8). Layers that follow from others without
neighbours, as NDVI, are not stored but made again on the device. Several dates of one place have the same ``place``;
where their scenes share a grid, the same ``number``, ``row`` and ``col`` mean the same ground.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import zarr
from pyarrow.parquet import read_schema
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from thawmap.data.derive import RECIPES, looks_around, plan_layers
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.engine.run import in_order
from thawmap.errors import DataError
from thawmap.files.atomic import write_text
from thawmap.files.guard import some_of
from thawmap.files.hashes import file_sha256
from thawmap.files.records import read
from thawmap.layers import Layer
from thawmap.train.tiles.codes import LayerCode, StoreRecord, encode
from thawmap.train.tiles.cut import (
    FOOTPRINT_CRS,
    FORMAT,
    is_finished,
    read_attributes,
    read_scene_index,
    write_tiles,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "FOOTPRINT_CRS", "Batch", "LayerCode", "StoredTiles", "TileStore", "collect_index", "decode", "derive_layers",
    "encode", "is_finished", "places_of", "write_tiles",
]  # fmt: skip

_READERS = 4  # threads that read tiles
_OVERLAP = 0.5  # of the smaller of two footprints, beyond which they are one place


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Decoded tiles on a device.

    Attributes:
        image: (N, C, H, W) float32, physical units, NaN = missing.
        target: (N, H, W) uint8: 1 object, 0 not, 255 ignore.
        valid: (N, H, W) bool, True = usable.
    """

    image: "Tensor"
    target: "Tensor"
    valid: "Tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTiles:
    """Tiles as the store has them: encoded, in memory.

    Attributes:
        codes: (N, C, H, W) uint16; 0 = missing.
        target: (N, H, W) uint8: 1 object, 0 not, 255 ignore.
        valid: (N, H, W) bool, True = usable.
    """

    codes: npt.NDArray[np.uint16]
    target: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


def decode(codes: "Tensor", stored: Sequence[LayerCode]) -> "Tensor":
    """Decode codes (N, C, H, W) to values in physical units, float32, NaN = missing."""
    import torch  # noqa: PLC0415 - cutting does without it, here and below

    low = torch.tensor([code.low for code in stored], device=codes.device).view(1, -1, 1, 1)
    step = torch.tensor([code.step for code in stored], device=codes.device).view(1, -1, 1, 1)
    numbers = codes.float()
    return torch.where(numbers == 0, torch.nan, low + (numbers - 1) * step)


def derive_layers(image: "Tensor", *, stored: Sequence[str], wanted: Sequence[str]) -> "Tensor":
    """Return wanted layers (N, C', H, W), picked or made from stored (N, C, H, W).

    They are made by their recipes.
    """
    layers = dict(zip(stored, image.unbind(1), strict=True))
    for name in _makes(wanted, stored):
        layers[name] = RECIPES[name].function(*(layers[need] for need in RECIPES[name].needs))
    import torch  # noqa: PLC0415

    return torch.stack([layers[name] for name in wanted], dim=1)


def _makes(wanted: Sequence[str], stored: Sequence[str]) -> list[str]:
    """Return the names of layers to make from stored ones.

    Refuse those that look around.

    Raises:
        DataError: If a layer does not follow from what is stored.
    """
    _, makes = plan_layers(wanted, available=frozenset(stored))
    around = [name for name in makes if looks_around([name])]
    if around:
        msg = f"layer {around[0]!r} looks beyond a tile's border, and the tiles do not have it; cut them again with it"
        raise DataError(msg)
    return makes


def collect_index(store: Path, scenes: Sequence[str], layers: Sequence[Layer]) -> gpd.GeoDataFrame:
    """Join scenes' tile indexes, with places; write index.parquet; return the index.

    With it the store's description is written, store.json; both are left alone where nothing changed.

    Raises:
        DataError: If a scene has no tiles in the store, two were cut differently, or ``layers`` do not follow
            from what is stored.
    """
    if not scenes:
        msg = f"{store} has no scene: none could be cut, so there is nothing to train on"
        raise DataError(msg)
    attributes = {scene: read_attributes(store, scene) for scene in scenes}
    encodings = {json.dumps([scene["layers"], scene["size"]]) for scene in attributes.values()}
    if len(encodings) > 1:
        msg = f"the scenes of {store} were cut with different layers or sizes; remove it, and cut again"
        raise DataError(msg)
    stored, size = json.loads(encodings.pop())
    _makes([layer.name for layer in layers], [code["name"] for code in stored])
    content = {
        "format": FORMAT,
        "size": size,
        "layers": stored,
        "scenes": {scene: attributes[scene]["fingerprint"] for scene in sorted(attributes)},
    }
    text = json.dumps(content, indent=2) + "\n"
    path = store / "store.json"
    if path.exists() and path.read_text(encoding="utf-8") == text and (store / "index.parquet").exists():
        return read_vector(store / "index.parquet")
    indexes = [read_scene_index(store, scene) for scene in sorted(attributes)]
    filled = [index for index in indexes if len(index)] or indexes[:1]  # an empty one may spoil the others' types
    joined = gpd.GeoDataFrame(pd.concat(filled, ignore_index=True))
    joined.insert(3, "place", joined["scene"].map(places_of(attributes)).astype("object"))
    path.unlink(missing_ok=True)  # it describes the index before
    write_vector(store / "index.parquet", joined)
    write_text(path, text)
    return joined


def check_store(store: Path) -> None:
    """Refuse a folder whose index.parquet or store.json is not of a tile store.

    Raises:
        DataError: If there is one.
    """
    other = [name for name in ("index.parquet", "store.json") if not _is_of_a_store(store / name)]
    if other:
        msg = f"{store} holds {some_of(other)} of something else than tiles; name another folder, or move it away"
        raise DataError(msg)


def _is_of_a_store(path: Path) -> bool:
    """Return True if a file is a store's index or description, or does not exist."""
    try:
        if path.suffix == ".parquet":
            return "tile_id" in read_schema(path).names
        return "layers" in json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False


def places_of(scenes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return each scene's place, by id: the first id of scenes that overlap by half.

    Two scenes of one region show one place where they share more than half of the smaller one's ground, or each does
    with a third.

    Args:
        scenes: Scene id to its ``region`` and its ``footprint``, WKT in an equal-area CRS.
    """
    names = sorted(scenes)
    regions = np.array([scenes[name]["region"] or "" for name in names])
    footprints = shapely.from_wkt([scenes[name]["footprint"] for name in names])
    first, second = shapely.STRtree(footprints).query(footprints, predicate="intersects")
    shared = shapely.area(shapely.intersection(footprints[first], footprints[second]))
    smaller = np.minimum(shapely.area(footprints[first]), shapely.area(footprints[second]))
    same = (shared > _OVERLAP * smaller) & (regions[first] == regions[second])
    graph = coo_array((same[same], (first[same], second[same])), shape=(len(names), len(names)))
    _, groups = connected_components(graph, directed=False)
    _, first_members = np.unique(groups, return_index=True)
    return {name: names[first_members[group]] for name, group in zip(names, groups, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TileStore:
    """A tile store that is open for reading; threads can share it.

    Attributes:
        path: Its folder.
        codes: Encodings of its layers, in order.
        size: Side of a tile in pixels.
        index: One row per tile, with its footprint in `FOOTPRINT_CRS`.
    """

    path: Path
    codes: tuple[LayerCode, ...]
    size: int
    index: gpd.GeoDataFrame
    _open: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a folder's tile store: description and index; tiles are read later.

        Raises:
            DataError: If there is none, or it is of another version.
        """
        try:
            content = read(path / "store.json", StoreRecord)
        except (OSError, ValueError) as error:
            msg = f"{path} holds no whole tile store; make one with 'thawmap tiles'"
            raise DataError(msg) from error
        if content["format"] != FORMAT:
            msg = f"{path} has format {content['format']}; this version reads {FORMAT}; cut the tiles again"
            raise DataError(msg)
        codes = tuple(LayerCode(**code) for code in content["layers"])
        return cls(path=path, codes=codes, size=content["size"], index=read_vector(path / "index.parquet"))

    @property
    def identity(self) -> str:
        """A hash of 12 digits of store.json: all scenes' fingerprints and encodings."""
        return file_sha256(self.path / "store.json", digits=12)

    def read(self, rows: pd.DataFrame) -> StoredTiles:
        """Read the tiles of some rows of the index as encoded arrays, in their order.

        Raises:
            DataError: If a tile is damaged.
        """
        numbers = list(zip(rows["scene"], rows["number"], strict=True))

        def stack(name: str) -> npt.NDArray[Any]:
            return np.stack([self._read_tile(scene, name, number) for scene, number in numbers])

        return StoredTiles(codes=stack("image"), target=stack("target"), valid=stack("valid"))

    def stream(self, batches: Sequence[pd.DataFrame]) -> Iterator[StoredTiles]:
        """Yield the encoded tiles of each batch of rows, in order, read ahead by threads.

        Raises:
            DataError: If a tile is damaged.
        """
        return in_order(self.read, batches, threads=_READERS, ahead=_READERS)

    def to_device(self, tiles: StoredTiles, device: "torch.device") -> Batch:
        """Return encoded tiles as a batch on a device, decoded to physical units."""
        import torch  # noqa: PLC0415

        codes = torch.from_numpy(tiles.codes).to(device, non_blocking=True)
        return Batch(
            image=decode(codes, self.codes),
            target=torch.from_numpy(tiles.target).to(device, non_blocking=True),
            valid=torch.from_numpy(tiles.valid).to(device, non_blocking=True),
        )

    def _read_tile(self, scene: str, name: str, number: int) -> npt.NDArray[Any]:
        path = self.path / f"{scene}.zarr"
        try:
            if scene not in self._open:
                self._open[scene] = zarr.open_group(path, mode="r", zarr_format=3)
            tile: npt.NDArray[Any] = self._open[scene][name][number]
            if name == "image" and not tile.any():
                msg = "its chunk is not there"
                raise ValueError(msg)  # noqa: TRY301 - as any other damage
        except (OSError, KeyError, ValueError, RuntimeError, IndexError) as error:
            msg = f"tile {number} of {path} cannot be read ({error}); remove the folder, and cut the tiles again"
            raise DataError(msg) from error
        return tile
