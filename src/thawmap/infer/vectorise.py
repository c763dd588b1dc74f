"""From probabilities to slumps: whole polygons from a stream of rows.

    rows --label--> objects of these rows --union across the seam--> whole objects --polygons, statistics-->
    slumps

Rows come from the top in parts of any height. An object stays open while it touches the last row that came;
what is kept of it is its outline so far and how often it has each value. The result does not depend on how
the rows were cut.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.features import shapes
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from shapely.geometry import LinearRing, Polygon, shape

from thawmap.data.inventory import EQUAL_AREA
from thawmap.data.sources.base import Scene
from thawmap.infer.predict import Rows

COLUMNS = {
    "slump_id": "string",
    "scene_id": "string",
    "acquired": "datetime64[us, UTC]",
    "area_m2": "float64",
    "perimeter_m": "float64",
    "pixels": "int64",
    "probability_mean": "float64",
    "probability_max": "float64",
    "probability_min": "float64",
    "probability_median": "float64",
    "probability_std": "float64",
    "touches_edge": "bool",
    "bundle_id": "string",
    "status": "string",
    "reviewer": "string",
    "reviewed_at": "datetime64[us, UTC]",
}
"""Columns of slumps and their types, in order; the geometry follows them."""

_NAMESPACE = uuid.UUID("8b0f6c1e-3b0a-5d0c-9a54-0f2e5a9a7d11")
_MEASURED_PX = 64  # longest straight line, in pixels, that is taken for straight in another projection

_Floats = npt.NDArray[np.floating]
_Integers = npt.NDArray[np.integer]
_Bools = npt.NDArray[np.bool_]


def above(probability: _Floats, threshold: float) -> _Bools:
    """Where the probability is above the threshold, compared in float64; False where it is missing."""
    found: _Bools = probability > np.float64(threshold)
    return found


@dataclass(slots=True, kw_only=True)
class _Object:
    """What is known of one object: its pieces in pixel coordinates, and how often it has each value."""

    pieces: list[Polygon] = field(default_factory=list)
    values: list[_Floats] = field(default_factory=list)
    counts: list[_Integers] = field(default_factory=list)
    touches_edge: bool = False

    def absorb(self, other: "_Object") -> None:
        """Become the union of both."""
        self.pieces += other.pieces
        self.values += other.values
        self.counts += other.counts
        self.touches_edge |= other.touches_edge


class Vectoriser:
    """Takes a scene's rows from the top to the bottom, then has its slumps.

    Args:
        scene: Whose rows they are.
        threshold: Objects are where the probability, as it comes, is above it.
        min_area_m2: Smaller objects are left out.
        bundle_id: The bundle that the rows are from.
    """

    def __init__(self, scene: Scene, *, threshold: float, min_area_m2: float = 0.0, bundle_id: str = "") -> None:
        self._scene = scene
        self._threshold = threshold
        self._min_area_m2 = min_area_m2
        self._bundle_id = bundle_id
        width = scene.geobox.shape[1]
        self._next_row = 0
        self._open: list[_Object] = []
        self._last = np.zeros(width, np.intp)  # 1 + index of the open object in each column of the last row, or 0
        self._last_missing = np.ones(width, np.bool_)  # beyond the scene everything is missing
        self._closed: list[pd.DataFrame] = []

    def add(self, rows: Rows) -> None:
        """Take the next rows."""
        probability = rows.probability
        assert rows.first_row == self._next_row, f"row {self._next_row} comes next, not {rows.first_row}"
        self._next_row += len(probability)
        mask = above(probability, self._threshold)
        missing = np.isnan(probability)
        for index in np.unique(self._last[missing[0]]):
            if index:
                self._open[index - 1].touches_edge = True
        labels, count = ndimage.label(mask)
        touching = np.zeros(count + 1, np.bool_)
        touching[labels[self._beside_missing(missing) & mask]] = True
        outlines = _outlines(labels, count, first_row=rows.first_row)
        ids, values, counts = _runs(labels[mask] - 1, probability[mask], np.ones(int(mask.sum()), np.int64))
        parts = _Parts(outlines, touching[1:], ids, values, counts)
        self._join(parts, first=labels[0], last=labels[-1])
        self._last_missing = missing[-1]

    def finish(self) -> gpd.GeoDataFrame:
        """The slumps, with the columns of `COLUMNS`, in the scene's CRS, from the top down."""
        assert self._next_row == self._scene.geobox.shape[0], "all rows of the scene must have come"
        found = pd.concat([*self._closed, _close(self._open)], ignore_index=True)
        return _frame(found, self._scene, bundle_id=self._bundle_id, min_area_m2=self._min_area_m2)

    def _beside_missing(self, missing: _Bools) -> _Bools:
        """Where a pixel shares a side with a missing one or the scene's edge."""
        beside = np.zeros_like(missing)
        beside[1:] |= missing[:-1]
        beside[:-1] |= missing[1:]
        beside[:, 1:] |= missing[:, :-1]
        beside[:, :-1] |= missing[:, 1:]
        beside[:, [0, -1]] = True
        beside[0] |= self._last_missing
        beside[-1] |= self._next_row == self._scene.geobox.shape[0]
        return beside

    def _join(self, parts: "_Parts", *, first: _Integers, last: _Integers) -> None:
        """Join new parts to the open objects across the seam; close what does not reach the last row."""
        known = len(self._open)
        group = self._groups(len(parts.outlines), first)
        goes_on = np.zeros(len(group) + 1, np.bool_)
        goes_on[group[known + last[last > 0] - 1]] = True
        held = goes_on.copy()
        held[group[:known]] = True
        alone = ~held[group[known:]]
        self._closed.append(parts.close(alone))
        whole = {index: _Object() for index in np.unique(group[held[group]])}
        for node in np.flatnonzero(held[group]):
            whole[group[node]].absorb(self._open[node] if node < known else parts.part(int(node) - known))
        self._closed.append(_close([item for index, item in whole.items() if not goes_on[index]]))
        self._open = [item for index, item in whole.items() if goes_on[index]]
        number = np.cumsum(goes_on)
        self._last = np.where(last > 0, number[np.append(group, -1)[known + last - 1]], 0)

    def _groups(self, count: int, first: _Integers) -> npt.NDArray[np.intp]:
        """Which whole object each open object, and then each of ``count`` new parts, belongs to."""
        known = len(self._open)
        seam = (self._last > 0) & (first > 0)
        pairs = (self._last[seam] - 1, known + first[seam] - 1)
        size = known + count
        graph = sparse.coo_array((np.ones(int(seam.sum())), pairs), shape=(size, size))
        group: npt.NDArray[np.intp] = connected_components(graph, directed=False)[1] if size else pairs[0]
        return group


@dataclass(frozen=True, slots=True)
class _Parts:
    """Objects of some rows: outline and flag of each; and its distinct values, sorted by object and value."""

    outlines: npt.NDArray[np.object_]
    touches_edge: _Bools
    ids: _Integers
    values: _Floats
    counts: _Integers

    def part(self, index: int) -> _Object:
        """One of them, as an object that can grow."""
        here = slice(*np.searchsorted(self.ids, [index, index + 1]))
        return _Object(
            pieces=[self.outlines[index]],
            values=[self.values[here]],
            counts=[self.counts[here]],
            touches_edge=bool(self.touches_edge[index]),
        )

    def close(self, which: _Bools) -> pd.DataFrame:
        """Those that are whole, as a table."""
        here = which[self.ids]
        ids = (np.cumsum(which) - 1)[self.ids[here]]
        table = _statistics(ids, self.values[here], self.counts[here])
        return table.assign(touches_edge=self.touches_edge[which], outline=self.outlines[which])


def _close(objects: Sequence[_Object]) -> pd.DataFrame:
    """Objects that are whole, as a table."""
    sizes = [sum(len(part) for part in item.values) for item in objects]
    ids = np.repeat(np.arange(len(objects)), sizes)
    values = _chain((part for item in objects for part in item.values), np.float64)
    counts = _chain((part for item in objects for part in item.counts), np.int64)
    table = _statistics(*_runs(ids, values, counts))
    outlines = _objects([_whole(item.pieces) for item in objects])
    touches_edge = np.array([item.touches_edge for item in objects], np.bool_)
    return table.assign(touches_edge=touches_edge, outline=outlines)


def _runs(ids: _Integers, values: _Floats, counts: _Integers) -> tuple[_Integers, _Floats, _Integers]:
    """Each distinct value of each object once, sorted by object and value, with how often it is there."""
    order = np.lexsort((values, ids))
    ids, values, counts = ids[order], values[order], counts[order]
    begins = np.ones(len(ids), np.bool_)
    begins[1:] = (ids[1:] != ids[:-1]) | (values[1:] != values[:-1])
    at = np.flatnonzero(begins)
    return ids[at], values[at], np.add.reduceat(counts, at)


def _statistics(ids: _Integers, values: _Floats, counts: _Integers) -> pd.DataFrame:
    """Pixels and mean, max, min, median and (population) std of each object, from the output of `_runs`."""
    begins = np.flatnonzero(np.diff(ids, prepend=-1))
    ends = np.flatnonzero(np.diff(ids, append=-1))
    values = values.astype(np.float64)
    upto = np.cumsum(counts)
    before = upto[begins] - counts[begins]
    pixels = upto[ends] - before
    mean = np.add.reduceat(values * counts, begins) / pixels
    variance = np.add.reduceat((values - mean[ids]) ** 2 * counts, begins) / pixels
    low = np.searchsorted(upto, before + (pixels - 1) // 2, side="right")
    high = np.searchsorted(upto, before + pixels // 2, side="right")
    return pd.DataFrame(
        {
            "pixels": pixels,
            "probability_mean": mean,
            "probability_max": values[ends],
            "probability_min": values[begins],
            "probability_median": (values[low] + values[high]) / 2,
            "probability_std": np.sqrt(variance),
        }
    )


def _outlines(labels: npt.NDArray[np.int32], count: int, *, first_row: int) -> npt.NDArray[np.object_]:
    """The polygon of each label 1 .. ``count``, in columns and rows of the scene."""
    found = np.empty(count, np.object_)
    down = Affine.translation(0, first_row)
    for outline, label in shapes(labels, mask=labels > 0, connectivity=4, transform=down):
        found[int(label) - 1] = shape(outline)
    return found


def _whole(pieces: Sequence[Polygon]) -> Polygon:
    """The pieces as one polygon, which has a vertex only where its outline turns."""
    if len(pieces) == 1:
        return pieces[0]
    union = shapely.union_all(pieces)
    assert isinstance(union, Polygon), "the pieces of an object share sides"
    return Polygon(_turns(union.exterior), [_turns(hole) for hole in union.interiors])


def _turns(ring: LinearRing) -> _Floats:
    """The vertices of a ring at which it turns."""
    points = shapely.get_coordinates(ring)[:-1]
    into, out = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    kept: _Floats = points[into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]]
    return kept


def _frame(found: pd.DataFrame, scene: Scene, *, bundle_id: str, min_area_m2: float) -> gpd.GeoDataFrame:
    """The table as slumps: on the ground, measured, named, sorted, without those that are too small."""
    bounds = shapely.bounds(found["outline"].to_numpy())
    found = found.iloc[np.lexsort(bounds[:, [2, 3, 0, 1]].T)]
    outlines = shapely.normalize(found["outline"].to_numpy())
    area_m2, perimeter_m = _measured(outlines, scene)
    large = area_m2 >= min_area_m2
    ground = shapely.orient_polygons(_on_ground(outlines[large], scene))
    columns: dict[str, Any] = {
        **found[large],
        "slump_id": [_slump_id(bundle_id, scene.id, polygon) for polygon in ground],
        "area_m2": area_m2[large],
        "perimeter_m": perimeter_m[large],
    }
    same = {
        "scene_id": scene.id,
        "acquired": _utc(scene),
        "bundle_id": bundle_id,
        "status": "detected",
        "reviewer": None,
        "reviewed_at": None,
    }
    columns |= {name: [value] * len(ground) for name, value in same.items()}
    table = pd.DataFrame({name: pd.array(columns[name], dtype=kind) for name, kind in COLUMNS.items()})
    return gpd.GeoDataFrame(table, geometry=ground, crs=str(scene.geobox.crs))


def _on_ground(outlines: npt.NDArray[np.object_], scene: Scene) -> npt.NDArray[np.object_]:
    """From columns and rows to the scene's CRS."""
    grid = scene.geobox.transform

    def place(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = grid * (points[:, 0], points[:, 1])
        return np.column_stack([x, y])

    placed: npt.NDArray[np.object_] = shapely.transform(outlines, place)
    return placed


def _measured(outlines: npt.NDArray[np.object_], scene: Scene) -> tuple[_Floats, _Floats]:
    """Area in m2 and perimeter in m, in `thawmap.data.inventory.EQUAL_AREA`."""
    project = Transformer.from_crs(str(scene.geobox.crs), EQUAL_AREA, always_xy=True)
    fine = _on_ground(shapely.segmentize(outlines, _MEASURED_PX), scene)
    equal = shapely.transform(fine, lambda points: np.column_stack(project.transform(*points.T)))
    return shapely.area(equal), shapely.length(equal)


def _slump_id(bundle_id: str, scene_id: str, polygon: Polygon) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{bundle_id}/{scene_id}/{polygon.wkb_hex}"))


def _utc(scene: Scene) -> pd.Timestamp | None:
    """When the scene was taken; a time without a zone is UTC."""
    if scene.acquired is None:
        return None
    time = pd.Timestamp(scene.acquired)
    return time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")


def _chain(parts: Iterable[npt.NDArray[np.generic]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """All parts, one after the other; an empty array where there are none."""
    return np.concatenate([np.empty(0, dtype), *parts])


def _objects(items: Sequence[object]) -> npt.NDArray[np.object_]:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array
