"""Views: tiles as they lie on the ground, and the mean of several that show the same.

A tile's footprint says where its pixels lie, so tiles of neighbouring scenes, and of other dates, are laid over each
other without their images. Pixels of another grid are taken from the nearest one, at most half a pixel off.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import torch
from affine import Affine
from shapely.geometry import Polygon

from thawmap.data.labels.polygons import IGNORE
from thawmap.maps.smooth import smooth
from thawmap.model.bundle import Bundle
from thawmap.train.inference import predict_tiles
from thawmap.train.tiles.store import TileStore

TOGETHER = 512
"""Most tiles of a place that are held at once; beyond, those far from each other are not averaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TileView:
    """A tile's probability and labels, and where its pixels lie.

    Attributes:
        scene: Its scene.
        day: The day of its image, or the scene where no time is known.
        group: What it chooses for, or "" (`thawmap.train.split.GROUP`).
        probability: (y, x) float32, 0..1; NaN where not valid.
        target: (y, x) uint8: 1 object, 0 not, 255 ignore.
        footprint: Its outline on the ground, from the upper left corner downwards.
    """

    scene: str
    day: str
    group: str
    probability: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]
    footprint: Polygon

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pixels that lie in the scene, as the footprint does."""
        row, col = np.nonzero(np.isfinite(self.probability) | (self.target != IGNORE))
        return int(row.max(initial=0)) + 1, int(col.max(initial=0)) + 1

    @property
    def pixel_m2(self) -> float:
        """Area of a pixel on the ground, in m2."""
        rows, cols = self.shape
        return float(self.footprint.area) / (rows * cols)

    @property
    def to_ground(self) -> Affine:
        """The transform from columns and rows, at corners of pixels, to the ground."""
        corners = shapely.get_coordinates(self.footprint)
        (x, y), (left_x, left_y), (right_x, right_y) = corners[0], corners[1], corners[3]
        rows, cols = self.shape
        return Affine((right_x - x) / cols, (left_x - x) / rows, x, (right_y - y) / cols, (left_y - y) / rows, y)

    def smoothed(self, deviation_px: float) -> "TileView":
        """Return the view with its probability smoothed by a Gaussian."""
        return replace(self, probability=smooth(self.probability, deviation_px))

    def on(self, other: "TileView") -> npt.NDArray[np.float32]:
        """Return the probability (y, x) at the pixels of another view; NaN beyond."""
        across = ~self.to_ground * other.to_ground
        row, col = np.mgrid[: other.probability.shape[0], : other.probability.shape[1]] + 0.5
        own_col = np.floor(across.a * col + across.b * row + across.c).astype(np.int64)
        own_row = np.floor(across.d * col + across.e * row + across.f).astype(np.int64)
        height, width = self.probability.shape
        inside = (own_row >= 0) & (own_row < height) & (own_col >= 0) & (own_col < width)
        values = np.full(other.probability.shape, np.nan, np.float32)
        values[inside] = self.probability[own_row[inside], own_col[inside]]
        return values


def views_by_place(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Iterator[list[TileView]]:
    """Run a bundle over tiles.

    Yield the views of each place, or of parts of a large one.

    Args:
        bundle: The bundle.
        store: The tile store.
        tiles: Rows of its index, with the column ``group`` where they choose.
        device: Device of the network, which is moved to it.
        batch_size: Tiles in a batch.
    """
    for _, of_place in tiles.groupby("place", sort=True):
        centre = of_place.geometry.centroid
        ordered = of_place.assign(x=centre.x.round(), y=centre.y.round()).sort_values(["y", "x", "scene", "number"])
        for first in range(0, len(ordered), TOGETHER):
            part = ordered.iloc[first : first + TOGETHER]
            yield list(_views(bundle, store, part, device=device, batch_size=batch_size))


def _views(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Iterator[TileView]:
    for prediction in predict_tiles(bundle, store, tiles, device=device, batch_size=batch_size):
        probability = prediction.probability.masked_fill(~prediction.batch.valid, torch.nan).cpu().numpy()
        target = prediction.batch.target.cpu().numpy()
        for number, row in enumerate(prediction.rows.to_dict("records")):
            yield TileView(
                scene=row["scene"],
                day=row["scene"] if pd.isna(row["acquired"]) else f"{row['acquired']:%Y-%m-%d}",
                group=row.get("group", ""),
                probability=probability[number],
                target=target[number],
                footprint=row["geometry"],
            )


def overlapping(views: Sequence[TileView]) -> list[list[int]]:
    """Return, for each view, the indices of the views whose footprints overlap it.

    Itself is among them. Footprints that only touch do not overlap.
    """
    footprints = np.array([view.footprint for view in views])
    first, second = shapely.STRtree(footprints).query(footprints, predicate="intersects")
    shared = shapely.area(shapely.intersection(footprints[first], footprints[second]))
    overlaps = shared > 1e-6 * shapely.area(footprints[first])
    order = np.lexsort((second[overlaps], first[overlaps]))
    pairs = list(zip(first[overlaps][order].tolist(), second[overlaps][order].tolist(), strict=True))
    return [[other for number, other in pairs if number == position] for position in range(len(views))]


def mean_of(view: TileView, others: Sequence[TileView]) -> tuple[TileView, float]:
    """Return a view with the mean probability of others, and their mean number.

    Those of one day are averaged first, so that no day counts twice. Where the view itself has no probability there is
    none, so that it can be scored against its own labels.

    Args:
        view: The view on whose pixels the mean is taken.
        others: All that overlap it, itself among them.
    """
    days: dict[str, list[npt.NDArray[np.float32]]] = {}
    for other in others:
        days.setdefault(other.day, []).append(other.probability if other is view else other.on(view))
    is_known = np.isfinite(view.probability)
    means = [_mean(np.stack(of_day)) for of_day in days.values()]
    probability = np.where(is_known, _mean(np.stack(means)), np.nan).astype(np.float32)
    counted = sum(np.isfinite(values) for of_day in days.values() for values in of_day)
    number = float(np.asarray(counted)[is_known].mean()) if is_known.any() else 1.0
    return replace(view, probability=probability), number


def _mean(stack: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the mean (y, x) over the first axis, NaN left out; NaN where all are."""
    is_known = np.isfinite(stack)
    count = is_known.sum(axis=0)
    total: npt.NDArray[np.float64] = np.where(is_known, stack, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
