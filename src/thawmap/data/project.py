"""What a configuration means on the ground: its scenes, the sources of their layers, and their labels."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawmap.config import Config, LabelSettings, PlanetScopeScenes, RasterScenes, SceneSettings
from thawmap.data.sources import planetscope, rasters, sentinel2
from thawmap.data.sources.bands import OPTICAL, BandSource
from thawmap.data.sources.base import Candidate, Scene, Source
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.sources.finding import find_file
from thawmap.data.sources.trends import TrendSource
from thawmap.errors import ConfigError, DataError, ThawmapError
from thawmap.files.guard import check_apart
from thawmap.files.listing import matches

if TYPE_CHECKING:
    from thawmap.data.labels.polygons import Labels


@dataclass(frozen=True, slots=True)
class Project:
    """A configuration, and what it names; can be sent to other processes."""

    config: Config

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(layer.name for layer in self.config.input_layers)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where layers come from: what the scene itself has, then elevation and trends."""
        others = self.config.sources
        return (
            BandSource(_mapped(self.config.scenes)),
            *([ElevationSource(others.elevation)] if others.elevation else []),
            *([TrendSource(others.trends)] if others.trends else []),
        )

    @property
    def labels(self) -> "Labels":
        """What people digitised.

        Raises:
            ConfigError: If the configuration has no labels.
            LabelError: If they cannot be used.
        """
        if self.config.labels is None:
            msg = "the configuration has no 'labels', which this needs; add them, as 'thawmap init' shows"
            raise ConfigError(msg)
        return _open(self.config.labels, tuple(str(stamp(path)) for path in self.label_files))

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The vector files of the labels; none where labels are rasters."""
        settings = self.config.labels
        named = () if settings is None else (settings.path, settings.extent)
        return tuple(path for path in named if path is not None)

    def check_outputs(
        self,
        outputs: Iterable[Path],
        scenes: Iterable[Scene] = (),
        *,
        inputs: Iterable[Path] = (),
        replaced: Iterable[Path] = (),
    ) -> None:
        """Refuse output folders where something lies that is read, or where they would be taken for scenes.

        Args:
            outputs: Folders that are written into.
            scenes: Those that are read.
            inputs: What is read beside them and what the configuration names.
            replaced: Folders that are replaced as a whole.

        Raises:
            ConfigError: If there is one.
        """
        outputs, replaced = list(outputs), list(replaced)
        check_apart(outputs, [*inputs, *self._inputs(scenes)], replaced=replaced)
        pattern = self.config.scenes.path if isinstance(self.config.scenes, RasterScenes) else None
        for out in (*outputs, *replaced):
            if pattern is not None and _is_like(out, pattern):
                msg = f"{out} would be taken for a scene, as it is like 'scenes.path', {pattern}; name another --out"
                raise ConfigError(msg)

    def _inputs(self, scenes: Iterable[Scene]) -> list[Path]:
        """All files and folders that the configuration names, and the files of ``scenes``."""
        config, sources = self.config, self.config.sources
        named = [*self.label_files, getattr(config.scenes, "table", None)]
        if sources.trends is not None:
            named.append(sources.trends.path)
        if sources.elevation is not None:
            made_before = (sources.elevation.relative_elevation, sources.elevation.slope_degrees)
            named += [sources.elevation.path, *(one.path for one in made_before if one is not None)]
        if config.model.weights is not None and "/" in config.model.weights:
            named.append(Path(config.model.weights))
        found = [path for name in named if name is not None for path in matches(str(name))]
        return [*found, *(path for scene in scenes for path in scene.files.values())]

    def labelled_candidates(self) -> list[Candidate]:
        """The scenes that the configuration names, when its labels speak of at least one of them.

        Raises:
            ConfigError: If there is none, two have one id, or the configuration has no labels.
            LabelError: If the labels cannot be used, or name none of the scenes.
        """
        from thawmap.data.labels.polygons import PolygonLabels  # noqa: PLC0415 - loads slowly, and maps need no labels

        labels, found = self.labels, self.candidates()
        if isinstance(labels, PolygonLabels):
            labels.check_names([one.id for one in found])
        return found

    def candidates(self, places: Sequence[Path] = ()) -> list[Candidate]:
        """The scenes that the configuration names, or those at ``places``, not yet opened.

        Raises:
            ConfigError: If there is none, or two have one id.
        """
        absent = [place for place in places if not place.exists()]
        if absent:
            msg = f"{absent[0]} does not exist; name files or folders of scenes"
            raise ConfigError(msg)
        return [_with_short_id(one) for one in self._candidates(places)]

    def _candidates(self, places: Sequence[Path]) -> list[Candidate]:
        scenes = self.config.scenes
        if isinstance(scenes, RasterScenes):
            return rasters.candidates(scenes, places=places)
        if isinstance(scenes, PlanetScopeScenes):
            return planetscope.candidates(scenes, places=places)
        return sentinel2.candidates(scenes, places=places)

    def open(self, candidate: Candidate, *, labelled: bool = True) -> Scene:
        """The scene, with its labels' raster where there is one.

        A scene without a region gets the one of its polygons, where the file with them is at hand.

        Raises:
            DataError: If a file is missing or damaged.
        """
        settings = self.config.labels
        try:
            scene = self._open(candidate)
            if labelled and settings is not None and settings.raster is not None:
                scene = replace(scene, files={**scene.files, "labels": find_file(candidate, settings.raster)})
        except ThawmapError as error:
            msg = f"scene {candidate.id}: {error}"
            raise DataError(msg) from error
        if scene.region is None and settings is not None and settings.region is not None and self._has_labels:
            scene = replace(scene, region=self.labels.region(scene))
        return scene

    def _open(self, candidate: Candidate) -> Scene:
        if candidate.fault is not None:
            raise DataError(candidate.fault)
        scenes = self.config.scenes
        if isinstance(scenes, RasterScenes):
            return rasters.open_scene(candidate, scenes)
        if isinstance(scenes, PlanetScopeScenes):
            return planetscope.open_scene(candidate, scenes)
        return sentinel2.open_scene(candidate, scenes)

    @property
    def _has_labels(self) -> bool:
        return all(path.exists() for path in self.label_files)

    def part(self, scene: Scene) -> str:
        """The part of the split that a scene belongs to: train, validation or test."""
        split = self.config.split
        name = scene.region if split.by == "region" else scene.id
        if name in split.test:
            return "test"
        return "validation" if name in split.validation else "train"


def _with_short_id(one: Candidate) -> Candidate:
    """A scene; one at fault where its id is too long for the names of files, to which suffixes come."""
    size = len(os.fsencode(one.id))
    if size <= _LONGEST:
        return one
    fault = f"its id has {size} bytes, and names files of at most {_LONGEST}; rename it, or give it a shorter 'id'"
    return replace(one, fault=f"{fault} in 'scenes.table'")


_LONGEST = 200  # bytes of an id: names of files have at most 255


def _mapped(scenes: SceneSettings) -> frozenset[str]:
    """Names of the layers that lie in the scenes' own files."""
    if isinstance(scenes, RasterScenes):
        return frozenset(name for bands in scenes.files.values() for name in bands)
    return OPTICAL if isinstance(scenes, PlanetScopeScenes) else OPTICAL | {"swir1", "swir2"}


def stamp(path: Path) -> list[dict[str, Any]]:
    """What tells that a file, or one that belongs to it (.dbf, .prj, .aux.xml), has changed: name, size and time."""
    files = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return [
        {"name": file.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        for file in files
        if file.is_file() and (status := file.stat())
    ]


def _is_like(path: Path, pattern: Path) -> bool:
    """Whether a path, or a folder above it, has a name of a pattern, as a shell would match it."""
    names, wanted = Path(os.path.abspath(path)).parts, Path(os.path.abspath(pattern)).parts  # noqa: PTH100 - keeps links
    return len(names) >= len(wanted) and all(map(fnmatchcase, names, wanted))


@lru_cache(maxsize=4)
def _open(settings: LabelSettings, _stamps: tuple[str, ...]) -> "Labels":
    """Labels, read once in a process, and again when their files have changed."""
    from thawmap.data.labels.polygons import open_labels  # noqa: PLC0415 - loads slowly, and maps need no labels

    return open_labels(settings)
