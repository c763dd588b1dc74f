"""The tile store: labelled scenes cut into tiles, small on disk and fast to read.

    <store>/store.json        layers with their codes, size of a tile, and what each scene was cut from
    <store>/index.parquet     one row per tile: scene, place, region, counts and footprint (GeoParquet)
    <store>/<scene>.zarr/     a scene's tiles, as `thawmap.train.tiles.cut` writes them

Scenes can be cut side by side, and a rerun cuts only what changed (law 8). Layers that follow from others without
neighbours, as NDVI, are not stored but made again on the device. Several dates of one place have the same ``place``;
where their scenes share a grid, the same ``number``, ``row`` and ``col`` mean the same ground.
"""

import hashlib
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

from thawmap.data.derive import RECIPES, plan_layers
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.engine.run import in_order
from thawmap.errors import DataError
from thawmap.files.atomic import write_text
from thawmap.files.guard import some_of
from thawmap.files.records import read
from thawmap.layers import Layer
from thawmap.train.tiles.codes import Code, StoreRecord, encode
from thawmap.train.tiles.cut import FOOTPRINT_CRS, FORMAT, attributes, is_finished, scene_index, write_tiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "FOOTPRINT_CRS", "Batch", "Code", "TileStore", "Tiles", "collect", "decode", "derive", "encode", "is_finished",
    "places", "write_tiles",
]  # fmt: skip

_READERS = 4  # threads that read tiles
_SHARED = 0.5  # of the smaller of two footprints, beyond which they are one place


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tiles on a device.

    Attributes:
        image: (N, C, H, W) float32, physical units, NaN = missing.
        target: (N, H, W) uint8: 1 object, 0 not, 255 ignore.
        valid: (N, H, W) bool, True = usable.
    """

    image: "Tensor"
    target: "Tensor"
    valid: "Tensor"


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


def decode(codes: "Tensor", stored: Sequence[Code]) -> "Tensor":
    """Values (N, C, H, W) float32 in physical units, NaN = missing, of codes (N, C, H, W)."""
    import torch  # noqa: PLC0415 - who only cuts does without, here and below

    low = torch.tensor([code.low for code in stored], device=codes.device).view(1, -1, 1, 1)
    step = torch.tensor([code.step for code in stored], device=codes.device).view(1, -1, 1, 1)
    numbers = codes.float()
    return torch.where(numbers == 0, torch.nan, low + (numbers - 1) * step)


def derive(image: "Tensor", *, stored: Sequence[str], wanted: Sequence[str]) -> "Tensor":
    """The wanted layers (N, C', H, W), made where they are not among the ``stored`` ones (N, C, H, W)."""
    known = dict(zip(stored, image.unbind(1), strict=True))
    _, makes = plan_layers(wanted, available=frozenset(stored))
    for name in makes:
        known[name] = RECIPES[name].function(*(known[need] for need in RECIPES[name].needs))
    import torch  # noqa: PLC0415

    return torch.stack([known[name] for name in wanted], dim=1)


def collect(store: Path, scenes: Sequence[str], layers: Sequence[Layer]) -> gpd.GeoDataFrame:
    """The index of the tiles of ``scenes``, put together and written; it is left alone where nothing changed.

    Raises:
        DataError: If a scene has no tiles in the store, two were cut differently, or ``layers`` do not follow
            from what is stored.
    """
    if not scenes:
        msg = f"{store} has no scene: none could be cut, so there is nothing to train on"
        raise DataError(msg)
    found = {scene: attributes(store, scene) for scene in scenes}
    cuts = {json.dumps([one["layers"], one["size"]]) for one in found.values()}
    if len(cuts) > 1:
        msg = f"the scenes of {store} were cut with different layers or sizes; remove it, and cut again"
        raise DataError(msg)
    stored, size = json.loads(cuts.pop())
    plan_layers([layer.name for layer in layers], available=frozenset(code["name"] for code in stored))
    content = {
        "format": FORMAT,
        "size": size,
        "layers": stored,
        "scenes": {scene: one["fingerprint"] for scene, one in sorted(found.items())},
    }
    text = json.dumps(content, indent=2) + "\n"
    place = store / "store.json"
    if place.exists() and place.read_text(encoding="utf-8") == text and (store / "index.parquet").exists():
        return read_vector(store / "index.parquet")
    index = _join([scene_index(store, scene) for scene in sorted(found)])
    index.insert(3, "place", index["scene"].map(places(found)).astype("object"))
    place.unlink(missing_ok=True)  # it speaks of the index that was there before
    write_vector(store / "index.parquet", index)
    write_text(place, text)
    return index


def check_store(store: Path) -> None:
    """Refuse a folder with files that `collect` would replace, and that are not of a tile store.

    Raises:
        DataError: If there is one.
    """
    other = [name for name in ("index.parquet", "store.json") if not _is_of_a_store(store / name)]
    if other:
        msg = f"{store} holds {some_of(other)} of something else than tiles; name another folder, or move it away"
        raise DataError(msg)


def _is_of_a_store(path: Path) -> bool:
    """Whether a file is a store's index or its description, or is not there."""
    try:
        if path.suffix == ".parquet":
            return "tile_id" in read_schema(path).names
        return "layers" in json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False


def places(scenes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The place of each scene, named after the first of the scenes that show it, in order of names.

    Two scenes of one region show one place where they share more than half of the smaller one's ground, or each does
    with a third.

    Args:
        scenes: Scene id to its ``region`` and its ``footprint``, WKT in an equal-area CRS.
    """
    names = sorted(scenes)
    regions = np.array([scenes[name]["region"] or "" for name in names])
    shapes = shapely.from_wkt([scenes[name]["footprint"] for name in names])
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    smaller = np.minimum(shapely.area(shapes[one]), shapely.area(shapes[other]))
    alike = (shared > _SHARED * smaller) & (regions[one] == regions[other])
    graph = coo_array((alike[alike], (one[alike], other[alike])), shape=(len(names), len(names)))
    _, group = connected_components(graph, directed=False)
    _, first = np.unique(group, return_index=True)
    return {name: names[first[number]] for name, number in zip(names, group, strict=True)}


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
            content = read(path / "store.json", StoreRecord)
        except (OSError, ValueError) as error:
            msg = f"{path} holds no whole tile store; make one with 'thawmap tiles'"
            raise DataError(msg) from error
        if content["format"] != FORMAT:
            msg = f"{path} has format {content['format']}; this version reads {FORMAT}; cut the tiles again"
            raise DataError(msg)
        codes = tuple(Code(**code) for code in content["layers"])
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

    def to_device(self, tiles: Tiles, device: "torch.device") -> Batch:
        """The tiles as tensors on ``device``, the stored layers decoded there."""
        import torch  # noqa: PLC0415

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
            if name == "image" and not tile.any():
                msg = "its chunk is not there"
                raise ValueError(msg)  # noqa: TRY301 - as any other damage
        except (OSError, KeyError, ValueError, RuntimeError, IndexError) as error:
            msg = f"tile {number} of {place} cannot be read ({error}); remove the folder, and cut the tiles again"
            raise DataError(msg) from error
        return tile


def _join(frames: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """One index of all; the types of the first where all are empty."""
    filled = [frame for frame in frames if len(frame)] or list(frames[:1])
    return gpd.GeoDataFrame(pd.concat(filled, ignore_index=True))
