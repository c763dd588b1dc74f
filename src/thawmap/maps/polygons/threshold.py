"""Pixels of objects: threshold and opening, in a stream of rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from thawmap.maps.rows import Rows

_Bools = npt.NDArray[np.bool_]


def above(probability: npt.NDArray[np.floating], threshold: float) -> _Bools:
    """Return a bool array, True where a probability is above a threshold.

    Compared in float64; False where it is missing.
    """
    is_above: _Bools = probability > np.float64(threshold)
    return is_above


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc with which a mask is opened.

    Attributes:
        radius_m: Its radius; 0 opens nothing.
        pixel_m: Height and width of a pixel.
    """

    radius_m: float = 0.0
    pixel_m: tuple[float, float] = (1.0, 1.0)

    @property
    def reach(self) -> int:
        """Number of rows above a pixel, or below, whose centres the disc covers."""
        return int(self.radius_m * (1 + 1e-9) / self.pixel_m[0])

    def opened(self, mask: _Bools) -> _Bools:
        """Return a mask (y, x) opened: parts too narrow for the disc are removed.

        A pixel stays if it lies in a disc which lies in the mask, by their centres; beyond the array is nothing.
        """
        from scipy import ndimage  # noqa: PLC0415 - only once a scene is mapped

        if not self.radius_m or not mask.any():
            return mask
        radius = self.radius_m * (1 + 1e-9)  # a centre on the circle is in it, however its distance is rounded
        # opened is eroded, then dilated: where the disc fits, then all that it covers there
        inside = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=self.pixel_m) > radius
        if not inside.any():
            return np.zeros_like(mask)
        opened: _Bools = (ndimage.distance_transform_edt(~inside, sampling=self.pixel_m) <= radius)[1:-1, 1:-1]
        return opened


def masks(rows: Iterable[Rows], threshold: float, disc: Disc) -> Iterator[tuple[Rows, _Bools]]:
    """Yield strips of rows with their masks of objects: above a threshold, opened.

    All rows, in order, though not in the same strips.

    Opening looks as far as twice the disc's reach, so rows wait until those below them have come.
    """
    reach = 2 * disc.reach
    if not reach:
        for strip in rows:
            yield strip, disc.opened(above(strip.probability, threshold))
        return
    waiting = _Waiting(reach=reach)
    for strip in rows:
        waiting.add(strip, above(strip.probability, threshold))
        yield from waiting.ready(disc, last=False)
    yield from waiting.ready(disc, last=True)


@dataclass(slots=True)
class _Waiting:
    """Rows that wait for those below them, with the mask that their opening sees."""

    reach: int
    rows: list[Rows] = field(default_factory=list)
    mask: _Bools = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    above: int = 0  # rows of the mask that have been handed on

    def add(self, strip: Rows, mask: _Bools) -> None:
        self.rows.append(strip)
        self.mask = np.concatenate([self.mask, mask]) if self.mask.size else mask

    def ready(self, disc: Disc, *, last: bool) -> Iterator[tuple[Rows, _Bools]]:
        """Yield rows with opened masks once enough rows below have come, or all at last."""
        end = len(self.mask) - (0 if last else self.reach)
        if end <= self.above:
            return
        opened = disc.opened(self.mask)[self.above : end]
        at = 0
        while at < len(opened):
            strip = self.rows.pop(0)
            count = min(len(strip.probability), len(opened) - at)
            if count < len(strip.probability):
                self.rows.insert(0, strip.part(count, None))
            yield strip.part(0, count), opened[at : at + count]
            at += count
        first = max(end - self.reach, 0)
        self.mask, self.above = self.mask[first:], end - first
