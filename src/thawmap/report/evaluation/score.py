"""One scene's map against its labels: pixels, boundaries and objects.

Two passes over the scene. The first goes window by window, with a rim for the boundaries, and notes which blocks of
`_BLOCK` pixels hold anything that is mapped or labelled. The second goes by clusters of such blocks that touch: an
object, and all that it can be matched with, lies within one of them, so objects of clusters add. So a scene costs the
memory of a window (260 MB), or of its largest cluster: about 20 bytes per pixel, 75 where all of it is one object. A
cluster beyond `_LARGEST` pixels is not looked at, and the scene's objects are not known.

Probabilities count as hundredths, as maps store them, for pixels and objects alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from thawmap.data.labels.polygons import IGNORE, Labels
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.geobox import window_geobox
from thawmap.geo.metres import ground_pixel_m
from thawmap.grid import Window
from thawmap.maps.item import MapItem
from thawmap.maps.read import MapFolder
from thawmap.model.metrics.boundaries import boundary_counts
from thawmap.model.metrics.objects import Comparison, Detections
from thawmap.model.metrics.pixels import Counts, Histogram, counts, histogram
from thawmap.model.metrics.sizes import SizeCounts

Rule: TypeAlias = float | Literal["centroid"]
"""When two objects match: by the smallest IoU, or by their centres."""

RULES: tuple[Rule, ...] = (*(tenths / 10 for tenths in range(1, 10)), "centroid")
"""Rules that objects are counted by; `MAIN` is the one of the main table."""

MAIN = 0.5
MAPPED = "mapped"
"""Name of the threshold of maps whose mask has more to it than a threshold: pixels count as the mask has them."""

BOUNDARY_PX = 2
"""Width of the bands along outlines, in pixels: about what a hand that digitises may be off."""

_SIDE = 2048  # of the windows that are read, in pixels
_BLOCK = 32  # side of the blocks that clusters are made of, in pixels
_LARGEST = 2**26  # pixels of the largest cluster whose objects are counted: at most 5 GB
_VIEW_PX = 512  # side of the windows that are shown, in pixels

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """Boundaries and objects at one threshold; they add.

    Attributes:
        boundary: Pixels by whether they lie in the predicted band, the labelled band, both or neither.
        matched: Counts of objects by rule; None where a cluster was too large.
        ranked: Predicted objects by confidence, matched by an IoU of `MAIN`; None likewise.
        sizes: Objects by size, found or false; None likewise.
    """

    boundary: Counts = field(default_factory=Counts)
    matched: Mapping[Rule, Counts] | None
    ranked: Detections | None
    sizes: SizeCounts | None

    @classmethod
    def empty(cls) -> Self:
        """Return shapes with all counts 0, of nothing mapped and nothing labelled."""
        matched = MappingProxyType(dict.fromkeys(RULES, Counts()))
        return cls(matched=matched, ranked=Detections.empty(), sizes=SizeCounts.empty())

    @classmethod
    def unknown(cls, boundary: Counts | None = None) -> Self:
        """Return shapes whose objects are not known, with counts of boundaries if given."""
        return cls(boundary=boundary or Counts(), matched=None, ranked=None, sizes=None)

    def __add__(self, other: "Shapes") -> "Shapes":
        """Return both counts added; objects are None where either's are None."""
        boundary = self.boundary + other.boundary
        if self.matched is None or self.ranked is None or self.sizes is None:
            return Shapes.unknown(boundary)
        if other.matched is None or other.ranked is None or other.sizes is None:
            return Shapes.unknown(boundary)
        matched = {rule: self.matched[rule] + other.matched[rule] for rule in RULES}
        return Shapes(
            boundary=boundary,
            matched=MappingProxyType(matched),
            ranked=self.ranked + other.ranked,
            sizes=self.sizes + other.sizes,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The counts of one scene's map against its labels.

    Attributes:
        scene: Id of the scene.
        region: Its region; "" where it has none.
        histogram: Pixels with a probability and a label.
        shapes: Boundaries and objects by the name of the threshold.
        ignored: Pixels that the labels leave out.
        missing: Pixels with a label and no probability.
        mapped: Pixels by mask and label; None without a mask, or where nobody asks for it.
        pixel_m2: Area of a pixel on the ground, in m2.
        objects_mapped: Polygons in slumps.gpkg; None without that file.
        objects_labelled: Digitised polygons in the scene; None where labels are rasters.
        threshold: Threshold of the map's polygons; None where the map does not say.
        left_out: Number of objects that the map leaves out, by the reason.
        bundle: Id of the model that made the map; "" where the map does not say.
        richest: The window with the most labelled object pixels, or else the highest probabilities: where to look.
    """

    scene: str
    region: str
    histogram: Histogram
    shapes: Mapping[str, Shapes]
    ignored: int
    missing: int
    mapped: Counts | None
    pixel_m2: float
    objects_mapped: int | None
    objects_labelled: int | None
    threshold: float | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    bundle: str
    richest: Window


def score(scene: Scene, *, maps: Path, labels: Labels, thresholds: Mapping[str, float]) -> Scored:
    """Compare a scene's map with its labels; return counts of pixels and objects.

    Args:
        scene: The scene.
        maps: Folder of the scenes' folders.
        labels: What people said of each pixel.
        thresholds: Name to value; objects are where the probability is above it, at the threshold of the map's polygons
            where its mask says so, without those that it leaves out.

    Raises:
        DataError: If the scene has no map, no pixel has both a probability and a label, or a file is damaged.
    """
    item = MapItem.read(maps / scene.id, optional=True)
    if not item.probability_path.exists():
        msg = f"scene {scene.id} has no map in {maps}; make it with 'thawmap predict'"
        raise DataError(msg)
    scene_map = MapFolder.open(maps / scene.id, item=item)
    compared = _Compared(scene=scene, scene_map=scene_map, labels=labels)
    sums = _first_pass(compared, thresholds)
    if not sums.histogram.total:
        msg = f"scene {scene.id} has no pixel with both a probability and a label; see its mask and its labels"
        raise DataError(msg)
    objects = _second_pass(compared, sums.occupied, thresholds)
    outlines, slumps = labels.outlines(scene), scene_map.slumps()
    return Scored(
        scene=scene.id,
        region=scene.region or "",
        histogram=sums.histogram,
        shapes={name: boundaries + objects[name] for name, boundaries in sums.shapes.items()},
        ignored=sums.ignored,
        missing=sums.missing,
        mapped=sums.mapped,
        pixel_m2=compared.pixel_m2,
        objects_mapped=None if slumps is None else len(slumps),
        objects_labelled=None if outlines is None else len(outlines),
        threshold=item.threshold,
        left_out=item.left_out,
        bundle=item.bundle or "",
        richest=_full_size(sums.richest[2], compared.shape),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Compared:
    """A scene's map and labels, which can be read by windows.

    Attributes:
        scene: The scene.
        scene_map: Its map.
        labels: The labels.
    """

    scene: Scene
    scene_map: MapFolder
    labels: Labels

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns of the map."""
        return self.scene_map.grid.height, self.scene_map.grid.width

    @property
    def pixel_m2(self) -> float:
        """Area on the ground of the map's middle pixel, in m2."""
        height_m, width_m = ground_pixel_m(self.scene_map.grid)
        return height_m * width_m

    def read(self, window: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        """Return probability, rounded to hundredths, and label target (y, x) of a window.

        The probability is in whole hundredths, float64, NaN = missing; the target as `Labels.burn` gives it.
        """
        probability = self.scene_map.read(window)
        target = self.labels.burn(self.scene, window_geobox(self.scene_map.grid, window))
        return np.rint(probability * np.float32(100)).astype(np.float64) / 100, target

    def objects(self, window: Window, probability: npt.NDArray[np.float64], name: str, threshold: float) -> Bools:
        """Return a window's mask of objects (y, x), from the map's mask or a threshold.

        At the map's own threshold, and under the name `MAPPED`, as its mask says, without what it leaves out; else
        above the threshold.
        """
        is_own = name == MAPPED or threshold == self.scene_map.threshold
        mask = self.scene_map.mask(window) if is_own else None
        return probability > threshold if mask is None else mask


@dataclass(slots=True, kw_only=True, eq=False)
class _Sums:
    """Counts of the first pass over a scene.

    Attributes:
        occupied: Blocks in which anything is mapped or labelled, (rows, columns) bool.
        shapes: Boundaries by the name of the threshold, and no objects yet.
        histogram: Pixels by probability and label.
        ignored: Pixels that the labels leave out.
        missing: Pixels with a label and no probability.
        mapped: Pixels by mask and label; None without a mask.
        richest: Labelled pixels, sum of probabilities, and the window that has most of them.
    """

    occupied: Bools
    shapes: dict[str, Shapes]
    histogram: Histogram
    ignored: int = 0
    missing: int = 0
    mapped: Counts | None = None
    richest: tuple[float, float, Window] = (-1.0, -1.0, Window(row=0, col=0, height=1, width=1))


def _first_pass(compared: _Compared, thresholds: Mapping[str, float]) -> _Sums:
    """Return a scene's counts of pixels and boundaries, and its blocks with objects."""
    rows, cols = (-(-side // _BLOCK) for side in compared.shape)
    shapes = dict.fromkeys(thresholds, Shapes.empty())
    sums = _Sums(occupied=np.zeros((rows, cols), np.bool_), shapes=shapes, histogram=Histogram.empty())
    for window in Window.of_shape(compared.shape).blocks(_SIDE):
        padded = window.pad(BOUNDARY_PX)  # for the boundaries; beyond the map all is missing
        probability, target = compared.read(padded)
        inner = np.zeros(target.shape, np.bool_)
        inner[window.within(padded)] = True
        is_known = np.isfinite(probability)
        for name, value in thresholds.items():
            objects = compared.objects(padded, probability, name, value)
            bands = boundary_counts(objects, target, is_known, width=BOUNDARY_PX, within=inner)
            sums.shapes[name] += replace(Shapes.empty(), boundary=bands)
        mask = compared.scene_map.mask(window) if MAPPED in thresholds else None
        if mask is not None:
            inside = window.within(padded)
            sums.mapped = (sums.mapped or Counts()) + counts(mask, target[inside], is_known[inside])
        _count_pixels(sums, window, probability[window.within(padded)], target[window.within(padded)])
        has_object = inner & ((probability > min(thresholds.values())) | (is_known & (target == 1)))
        row, col = np.nonzero(has_object)
        sums.occupied[(row + padded.row) // _BLOCK, (col + padded.col) // _BLOCK] = True
    return sums


def _count_pixels(
    sums: _Sums, window: Window, probability: npt.NDArray[np.float64], target: npt.NDArray[np.uint8]
) -> None:
    """Add a window's pixels to the sums in place, and keep the richest view so far."""
    is_known = np.isfinite(probability)
    sums.histogram += histogram(probability, target, is_known)
    sums.ignored += int((target == IGNORE).sum())
    sums.missing += int(((target != IGNORE) & ~is_known).sum())
    for view in window.blocks(_VIEW_PX):
        pixels = view.within(window)
        richness = (
            float((is_known[pixels] & (target[pixels] == 1)).sum()),
            float(np.nansum(probability[pixels])),
            view,
        )
        sums.richest = max(sums.richest, richness, key=lambda candidate: candidate[:2])


def _second_pass(compared: _Compared, occupied: Bools, thresholds: Mapping[str, float]) -> dict[str, Shapes]:
    """Return counts of matched objects by threshold; None if a cluster is too large.

    By the name of the threshold, None for all. Blocks with objects that touch are a cluster, counted at a time.
    """
    shapes, pixel_m2 = dict.fromkeys(thresholds, Shapes.empty()), compared.pixel_m2
    for window, cluster_blocks in _clusters(occupied, compared.shape):
        if window.size > _LARGEST:
            return dict.fromkeys(thresholds, Shapes.unknown())
        inside = cluster_blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[: window.height, : window.width]
        probability, target = compared.read(window)
        is_known = np.isfinite(probability)
        target[~inside & (target == 1)] = 0  # labelled in another cluster, which counts it
        for name, value in thresholds.items():
            objects = Comparison.of(compared.objects(window, probability, name, value) & inside, target, is_known)
            shapes[name] += _match(objects, probability, pixel_m2)
    return shapes


def _match(objects: Comparison, probability: npt.NDArray[np.float64], pixel_m2: float) -> Shapes:
    """Return a window's `Shapes`: objects counted by rule and size, ranked.

    No boundary.
    """
    matched = {
        rule: objects.counts(match="centroid") if isinstance(rule, str) else objects.counts(min_iou=rule)
        for rule in RULES
    }
    return Shapes(
        matched=MappingProxyType(matched),
        ranked=objects.detections(probability, min_iou=MAIN),
        sizes=SizeCounts.of(objects, pixel_m2=pixel_m2),
    )


def _clusters(occupied: Bools, shape: tuple[int, int]) -> Iterator[tuple[Window, Bools]]:
    """Yield windows around clusters of touching blocks, with bools of their blocks.

    Windows are in pixels, the bools are (rows, columns) of blocks. Each cluster is whole in one of the windows.

    Clusters that lie in one window of the first pass go together, to be read at once.
    """
    number, _ = ndimage.label(occupied)
    side = max(_SIDE // _BLOCK, 1)
    sharing: dict[tuple[int, ...], list[int]] = {}
    boxes = [
        Window.from_edges(top=rows.start, left=cols.start, bottom=rows.stop, right=cols.stop)
        for rows, cols in ndimage.find_objects(number)
    ]
    for index, box in enumerate(boxes):
        left, top, right, bottom = box.bounds
        first, last = (top // side, left // side), ((bottom - 1) // side, (right - 1) // side)
        sharing.setdefault(first if first == last else (*first, index), []).append(index)
    for members in sharing.values():
        window = Window.around(boxes[index] for index in members)
        pixels = window.scale(_BLOCK).clip(shape)
        assert pixels is not None
        yield pixels, np.isin(number[window.rows, window.cols], [index + 1 for index in members])


def _full_size(window: Window, shape: tuple[int, int]) -> Window:
    """Return a window grown to 512 pixels a side, shifted to lie inside the raster."""
    height, width = min(_VIEW_PX, shape[0]), min(_VIEW_PX, shape[1])
    row, col = min(window.row, shape[0] - height), min(window.col, shape[1] - width)
    return Window(row=row, col=col, height=height, width=width)
