"""Which objects of a map are no slumps: too small to tell, or slivers along missing pixels."""

import math

import numpy as np
import numpy.typing as npt

from thawmap.config import PolygonSettings
from thawmap.data.sources.base import Scene
from thawmap.infer.ground import pixel_m

LAYER = "left_out"
"""Layer of the objects that are none of the slumps; in other formats than GeoPackage the end of a file's name."""

REASON = "reason"
"""Its column that says why."""

SLIVER = "along missing pixels"
"""Reason of objects whose pixels lie, on average, at most `DEEP_PX` deep along missing pixels or the scene's edge."""

DEEP_PX = 3
_LEAST_M2, _LEAST_PX = 200.0, 4  # 99 of 100 slumps that people outlined in the paper's data are larger than 250 m2


def least_area_m2(settings: PolygonSettings, scene: Scene) -> float:
    """Give the minimum mapping unit of a scene's polygons in m2."""
    if settings.min_area_m2 == "auto":
        return max(_LEAST_M2, _LEAST_PX * math.prod(pixel_m(scene.geobox)))
    return settings.min_area_m2


def leave_out(
    reasons: npt.NDArray[np.object_],
    area_m2: npt.NDArray[np.float64],
    rim: npt.NDArray[np.integer],
    pixels: npt.NDArray[np.integer],
    *,
    settings: PolygonSettings,
    least_m2: float,
) -> None:
    """Write why objects are left out as too small, and by default as slivers, where no other reason stands.

    Args:
        reasons: Of each object, (n,); "" where there is none yet.
        area_m2: Their areas.
        rim: Number of their pixels beside missing ones or at the scene's edge.
        pixels: Number of all their pixels.
        settings: Whether slivers are left out.
        least_m2: The minimum mapping unit.
    """
    reasons[(area_m2 < least_m2) & (reasons == "")] = f"below {least_m2:.0f} m2"
    if settings.min_area_m2 == "auto":
        reasons[(rim * DEEP_PX >= pixels) & (reasons == "")] = SLIVER
