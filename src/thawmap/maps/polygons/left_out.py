"""Objects of a map that are no slumps: too small to tell, or slivers."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy.typing as npt

from thawmap.maps.layout import REASON
from thawmap.maps.polygons.outlines import Integers

SLIVER = "along missing pixels"
"""Reason of objects whose pixels lie, on average, at most `DEEP_PX` deep along missing pixels or the scene's edge."""

DEEP_PX = 3
_LEAST_M2, _LEAST_PX = 200.0, 4  # 99 of 100 slumps that people outlined in the paper's data are larger than 250 m2


def leave_out(
    table: Mapping[str, npt.NDArray[Any]],
    *,
    rim: Integers,
    pixels: Integers,
    least_m2: float | Literal["auto"],
    chosen_m2: float = 0.0,
) -> None:
    """Set reasons in a table, in place, for objects too small or along missing pixels.

    Where another reason stands there, it stays.

    Args:
        table: Columns of all objects, each (n,); of the reason "" where there is none yet.
        rim: Number of their pixels beside missing ones or at the scene's edge.
        pixels: Number of all their pixels, without those of filled holes.
        least_m2: The setting `polygons.min_area_m2`.
        chosen_m2: The least area that validation chose, which counts with "auto" only.
    """
    if least_m2 == "auto":
        limit_m2 = max(_LEAST_M2, chosen_m2)
        small, few = table["area_m2"] < limit_m2, table["pixels"] < _LEAST_PX
        reasons = {f"below {limit_m2:g} m2": small, f"below {_LEAST_PX} pixels": few, SLIVER: rim * DEEP_PX >= pixels}
    else:
        reasons = {f"below {least_m2:g} m2": table["area_m2"] < least_m2}
    for reason, holds in reasons.items():
        table[REASON][holds & (table[REASON] == "")] = reason
