"""A map that is to be written: its scene, its settings, what it is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.sources.base import Scene
from thawmap.files.hashes import json_sha256
from thawmap.maps.layout import FILE_NAMES, MapRaster


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The record of what a map is made from.

    Attributes:
        bundle: Id of the bundle, several joined by "+".
        config: The settings that decide the result, as JSON values.
        inputs: Each input file, as JSON values: name, size, and sha256 or time of its last change.
    """

    bundle: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MapJob:
    """A map that is to be written.

    Attributes:
        scene: The scene, or the fused place as one.
        polygons: How objects become slumps; the threshold is a number.
        outputs: Which files are written, and how.
        provenance: What the map is made from.
        rasters: Further rasters, whose values the rows bring by their names.
        rasters_only: Whether these are all that is written: no probability, no slumps, no picture.
        interval: First and last time of the images, where there are several; None: unknown, or the scene's own.
        least_m2: The least area that validation chose, for `min_area_m2: auto`.
    """

    scene: Scene
    polygons: PolygonSettings
    outputs: OutputSettings
    provenance: Provenance
    rasters: tuple[MapRaster, ...] = ()
    rasters_only: bool = False
    interval: tuple[datetime, datetime] | None = None
    least_m2: float = 0.0

    @property
    def threshold(self) -> float:
        """Probability above which a pixel is of an object."""
        threshold = self.polygons.threshold
        assert threshold != "bundle", "who makes a job knows the bundle, and puts its threshold there"
        return threshold

    @property
    def smoothing_px(self) -> float:
        """Deviation of the Gaussian that probabilities are smoothed by, in pixels."""
        deviation_px = self.polygons.smoothing_px
        return 0.0 if deviation_px == "bundle" else deviation_px

    @property
    def file_names(self) -> Mapping[str, str]:
        """File names by "probability", "mask" and "slumps", as outputs.names sets them.

        The last has no ending.
        """
        return FILE_NAMES[self.outputs.names]

    @property
    def is_fused(self) -> bool:
        """True if the map is fused from other maps."""
        return "fuse" in self.provenance.config

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the map's bundle, threshold, settings and inputs.

        Equal exactly when all of these are.
        """
        made_from = self.provenance
        inputs = [dict(file) for file in made_from.inputs]
        content = [made_from.bundle, self.threshold, dict(made_from.config), inputs]
        return json_sha256(content, compact=True)
