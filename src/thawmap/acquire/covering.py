"""Covers: the scenes of one date that show enough of an area for what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from thawmap.acquire.measuring import polygonal
from thawmap.config import ImageRules
from thawmap.geo.shapes import Shapes

MOST_EXACT = 12
"""Scenes of a date up to which all their combinations are looked at."""

_NOISE = 1e-9  # of a share: what is less is rounding
_DIGITS = 9  # to which shares, costs and their quotients count

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Scenes of one date that can be combined, preferred ones first.

    Attributes:
        shown: Which scene shows which cell: (scene, cell), bool. A cell is ground that the same scenes show.
        cells: Share of the area in each cell.
        clear: Clear fraction of each scene, 0..1.
        km2: Square kilometres charged for each scene.
    """

    shown: _Bools
    cells: _Floats
    clear: _Floats
    km2: _Floats

    @property
    def shares(self) -> _Floats:
        """Share of the area that each scene shows."""
        return self.shown @ self.cells

    def cover(self, scenes: Sequence[int]) -> float:
        """Return the share of the area that scenes show together."""
        return float(self.shown[list(scenes)].any(axis=0) @ self.cells)

    def clear_of(self, scenes: Sequence[int]) -> float:
        """Return the clear fraction of scenes, each counted by what it shows."""
        return float(np.average(self.clear[list(scenes)], weights=self.shares[list(scenes)]))

    def obeys(self, scenes: Sequence[int], rules: ImageRules) -> bool:
        """Return whether scenes together show enough of the area, and clear enough."""
        return (
            len(scenes) > 0
            and self.cover(scenes) >= rules.cover - _NOISE
            and 1 - self.clear_of(scenes) <= rules.cloud + _NOISE
        )


def split(grounds: Shapes) -> tuple[Shapes, _Bools]:
    """Return the cells into which the outlines of polygons cut their ground.

    Returns:
        Cells, which do not overlap, and which polygon has which: (polygon, cell), bool.
    """
    cells, shown = np.array([], object), np.zeros((0, len(grounds)), bool)
    so_far = shapely.Polygon()
    for number, ground in enumerate(grounds):
        inside, outside = shapely.intersection(cells, ground), shapely.difference(cells, ground)
        alone = np.array([shapely.difference(ground, so_far)], object)
        so_far = shapely.union(so_far, ground)
        parts = polygonal(np.concatenate([inside, outside, alone]))
        shown = np.concatenate([shown, shown, np.zeros((1, len(grounds)), bool)])
        shown[: len(inside), number] = shown[-1, number] = True
        kept = shapely.area(parts) > _NOISE * shapely.area(ground)
        cells, shown = parts[kept], shown[kept]
    return cells, shown.T


def best_set(pool: Pool, rules: ImageRules) -> tuple[int, ...]:
    """Return the scenes that make a date, by number; none if it cannot obey the rules.

    Those that show most clear ground for a square kilometre charged, and of these the cheapest; where nothing is
    charged, those that show most. Each adds at least ``min_share``. All combinations of at most `MOST_EXACT` scenes are
    looked at, else scenes are added one by one.
    """
    return exact_set(pool, rules) if len(pool.clear) <= MOST_EXACT else greedy_set(pool, rules)


def exact_set(pool: Pool, rules: ImageRules) -> tuple[int, ...]:
    """Return the scenes of `best_set`, from all combinations of them."""
    count = len(pool.clear)
    sets = np.arange(2**count)
    bits = 2 ** np.arange(count - 1, -1, -1)  # the preferred scene has the highest
    members = (sets[:, None] & bits) > 0
    cover = (members.astype(np.float32) @ pool.shown.astype(np.float32) > 0) @ pool.cells
    least_gain = np.min(np.where(members, cover[:, None] - cover[sets[:, None] & ~bits], np.inf), axis=1)
    shares = pool.shares
    clear = members @ (shares * pool.clear) / np.maximum(members @ shares, _NOISE)
    obey = (cover >= rules.cover - _NOISE) & (1 - clear <= rules.cloud + _NOISE) & (sets > 0)
    obey &= least_gain >= rules.min_share - _NOISE
    if not obey.any():
        return ()
    cost, ground = members @ pool.km2, cover * clear
    keys = (-sets, members.sum(axis=1), -ground.round(_DIGITS), cost.round(_DIGITS), -_per_km2(ground, cost))
    best = np.lexsort([key[obey] for key in keys])[0]
    return tuple(np.flatnonzero(members[obey][best]).tolist())


def greedy_set(pool: Pool, rules: ImageRules) -> tuple[int, ...]:
    """Return scenes as `best_set` does, adding one at a time what is worth most.

    If they are too cloudy, again of those scenes alone that are clear enough themselves.
    """
    for allowed in (np.ones(len(pool.clear), bool), 1 - pool.clear <= rules.cloud + _NOISE):
        scenes = _gather(pool, rules, allowed)
        if pool.obeys(scenes, rules):
            return tuple(sorted(scenes))
    return ()


def _gather(pool: Pool, rules: ImageRules, allowed: _Bools) -> list[int]:
    """Return scenes in the order in which they are added, without those that are spare.

    Until enough of the area is shown, or nothing adds ``min_share``; scenes that cost nothing are added beyond.
    """
    scenes: list[int] = []
    left, unseen = allowed.copy(), np.ones(len(pool.cells), bool)
    while True:
        gains = pool.shown @ (pool.cells * unseen)
        left &= gains >= rules.min_share - _NOISE
        if scenes and pool.cover(scenes) >= rules.cover - _NOISE:
            left &= pool.km2 == 0
        if not left.any():
            return _without_spare(pool, rules, scenes)
        ground = gains * pool.clear
        ratio = np.where(left, _per_km2(ground, pool.km2), -np.inf)
        best = int(np.lexsort([np.arange(len(ratio)), -ground.round(_DIGITS), -ratio])[0])
        scenes.append(best)
        left[best] = False
        unseen &= ~pool.shown[best]


def _without_spare(pool: Pool, rules: ImageRules, scenes: list[int]) -> list[int]:
    """Return scenes without those, dearest first, that the others show enough without."""
    for scene in sorted(scenes, key=lambda scene: (-pool.km2[scene], -scene)):
        others = [other for other in scenes if other != scene]
        if pool.km2[scene] > 0 and others and pool.cover(others) >= rules.cover - _NOISE:
            scenes = others
    return scenes


def _per_km2(ground: _Floats, km2: _Floats) -> _Floats:
    """Return clear ground for a square kilometre charged; infinite where none is."""
    quotients = np.full(ground.shape, np.inf)
    np.divide(ground, km2, out=quotients, where=km2 > 0)
    return quotients.round(_DIGITS)
