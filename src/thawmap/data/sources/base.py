"""Scenes, candidates, and the protocol of sources that read a scene's layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The band that stores a layer; its values are stored numbers * scale + offset.

    Attributes:
        file: Key of the file in `Scene.files`.
        band: Number of the band, from 1.
        scale: Factor from stored numbers to physical units.
        offset: Added after scaling, in physical units.
        nodata: Stored number that means missing, beside the one that the file names itself.
        resampling: nearest, bilinear, cubic or average; None: average when coarsening, else cubic.
    """

    file: str
    band: int
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    resampling: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Stored numbers that mark the pixels a sensor could use.

    A pixel is usable if its number in every one of ``bands`` is one of ``usable``.

    Attributes:
        file: Key of the file in `Scene.files`.
        bands: Numbers of the bands, from 1.
        usable: Stored numbers that mean usable.
    """

    file: str
    bands: tuple[int, ...]
    usable: tuple[int, ...]


class Record(Protocol):
    """What a catalogue knows of a scene, so that its files need not be opened."""

    def scene(self) -> "Scene | None":
        """Return the scene as opening its files would; None if one of them has changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scene that is named or found somewhere, its rasters not yet opened.

    Attributes:
        name: Name of its folder, or of its file without the ending.
        path: Its folder or file.
        id: Unique id.
        region: Region, where known.
        acquired: UTC time of the image; None where unknown.
        files: Key to file; empty where the files are found when the scene is opened.
        fault: Why it cannot be used, and the remedy; None where nothing is known against it.
        record: What a catalogue knows of it, true when it was found; None where no catalogue knows it.
    """

    name: str
    path: Path
    id: str
    region: str | None = None
    acquired: datetime | None = None
    files: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)
    fault: str | None = None
    record: Record | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image of one date, its files and grid; scenes of the same id are equal.

    Attributes:
        id: Unique name, safe as a folder name.
        sensor: The sensor that took it, such as "planetscope", "sentinel2" or "rasters".
        geobox: The scene's grid: shape, transform and CRS.
        files: Role to file, such as "s2.tif": its full path.
        acquired: UTC time of the image; None where unknown, never invented.
        region: Region that it belongs to, for splits; None where unknown.
        readings: Layer to the band of one of ``files`` that stores it.
        masks: Masks of its sensor; a pixel is usable where all of them say so.
        notes: Sentences that a user should know, such as that there is no mask.
    """

    id: str
    sensor: str = field(compare=False)
    geobox: GeoBox = field(compare=False)
    files: Mapping[str, Path] = field(compare=False, repr=False)
    acquired: datetime | None = field(default=None, compare=False)
    region: str | None = field(default=None, compare=False)
    readings: Mapping[str, Reading] = field(default_factory=dict, compare=False, repr=False)
    masks: tuple[Mask, ...] = field(default=(), compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)


class Source(Protocol):
    """A reader of a scene's layers onto any grid, which never uses the network."""

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers that the source can read."""
        ...

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a dict of a scene's layers (y, x) by name, on exactly ``geobox``.

        Float32 in physical units, NaN where missing; a layer that the scene lacks may be left out. A source that knows
        which pixels its sensor could use adds ``valid`` (y, x), bool, True = usable.

        Raises:
            DataError: If a file is missing, damaged, or without what is asked for.
        """
        ...

    def files(self, scene: Scene) -> Sequence[Path]:
        """Return paths of the files that a scene's layers come from.

        When one of them changes, so do the layers.

        Raises:
            DataError: If they cannot be found.
        """
        ...
