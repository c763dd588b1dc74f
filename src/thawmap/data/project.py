"""Projects: a configuration with its scenes, sources of layers, and labels."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from thawmap.config import Config, LabelSettings, PlanetScopeScenes, RasterScenes
from thawmap.data.catalogue import read as catalogue
from thawmap.data.derive import plan_layers
from thawmap.data.sources import scenes as scene_files
from thawmap.data.sources.bands import OPTICAL, BandSource
from thawmap.data.sources.base import Candidate, Scene, Source
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.sources.finding import find_file
from thawmap.data.sources.trends import TrendSource
from thawmap.errors import ConfigError, DataError, ThawmapError
from thawmap.files.guard import check_apart
from thawmap.files.listing import matches
from thawmap.provenance import stamps

if TYPE_CHECKING:
    from thawmap.data.labels.polygons import Labels


@dataclass(frozen=True, slots=True)
class Project:
    """A configuration, and what it names; it can be sent to other processes."""

    config: Config

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(layer.name for layer in self.config.input_layers)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Sources of layers: the bands of the scene itself, then elevation and trends."""
        scenes, others = self.config.scenes, self.config.sources
        if isinstance(scenes, RasterScenes):
            bands = frozenset(name for names in scenes.files.values() for name in names)
        else:
            bands = OPTICAL if isinstance(scenes, PlanetScopeScenes) else OPTICAL | {"swir1", "swir2"}
        return (
            BandSource(bands),
            *([ElevationSource(others.elevation)] if others.elevation else []),
            *([TrendSource(others.trends)] if others.trends else []),
        )

    @property
    def own_layers(self) -> frozenset[str]:
        """Layers that are read from the files of the scenes themselves."""
        bands, *others = self.sources
        stored, _ = plan_layers(self.layers, available=bands.layers.union(*(source.layers for source in others)))
        return frozenset(stored) & bands.layers

    @property
    def labels(self) -> "Labels":
        """The labels, read once in a process, and again when their files have changed.

        Raises:
            ConfigError: If the configuration has no labels.
            LabelError: If they cannot be used.
        """
        if self.config.labels is None:
            msg = "the configuration has no 'labels', which this needs; add them, as 'thawmap init' shows"
            raise ConfigError(msg)
        return _read_labels(self.config.labels, tuple(str(stamps(path)) for path in self.label_files))

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Paths of the vector files of labels and extent, as far as settings name any."""
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
        """Refuse output folders that are or lie in an input, or would be found as scenes.

        Args:
            outputs: Folders that are written into.
            scenes: Scenes whose files are read.
            inputs: What is read beside these files and what the configuration names.
            replaced: Folders that are replaced as a whole.

        Raises:
            ConfigError: If there is such a folder.
        """
        outputs, replaced = list(outputs), list(replaced)
        check_apart(outputs, [*inputs, *self._inputs(scenes)], replaced=replaced)
        pattern = self.config.scenes.path if isinstance(self.config.scenes, RasterScenes) else None
        for out in (*outputs, *replaced):
            if pattern is not None and _matches(out, pattern):
                msg = f"{out} would be taken for a scene, as it is like 'scenes.path', {pattern}; name another --out"
                raise ConfigError(msg)

    def _inputs(self, scenes: Iterable[Scene]) -> list[Path]:
        """Return existing paths that the configuration names, and the scenes' files."""
        config, sources = self.config, self.config.sources
        named = [*self.label_files, getattr(config.scenes, "table", None)]
        if sources.trends is not None:
            named.append(sources.trends.path)
        if sources.elevation is not None:
            derived = (sources.elevation.relative_elevation, sources.elevation.slope_degrees)
            named += [sources.elevation.path, *(raster.path for raster in derived if raster is not None)]
        if config.model.weights is not None and "/" in config.model.weights:
            named.append(Path(config.model.weights))
        existing = [path for name in named if name is not None for path in matches(str(name))]
        return [*existing, *(path for scene in scenes for path in scene.files.values())]

    def labelled_candidates(self) -> list[Candidate]:
        """Return the configured scenes as candidates; refuse labels that name none.

        Raises:
            ConfigError: If there is none, two have one id, or the configuration has no labels.
            LabelError: If the labels cannot be used, or name none of the scenes.
        """
        from thawmap.data.labels.polygons import PolygonLabels  # noqa: PLC0415 - loads slowly, and maps need no labels

        labels, candidates = self.labels, self.candidates()
        if isinstance(labels, PolygonLabels):
            labels.check_names([candidate.id for candidate in candidates])
        return candidates

    def candidates(self, paths: Sequence[Path] = ()) -> list[Candidate]:
        """Return candidates of the configured scenes, or of those at given paths.

        What a catalogue beside the configured scenes knows of them comes with them, as far as it is still true.

        Args:
            paths: Files and folders that are looked through in their place.

        Raises:
            ConfigError: If there is none, or two have one id.
        """
        absent = [path for path in paths if not path.exists()]
        if absent:
            msg = f"{absent[0]} does not exist; name files or folders of scenes"
            raise ConfigError(msg)
        found = (
            scene_files.candidates(self.config.scenes, paths=paths)
            if paths
            else catalogue.candidates(self.config.scenes)
        )
        return [_with_checked_id(candidate) for candidate in found]

    def open(self, candidate: Candidate, *, labelled: bool = True) -> Scene:
        """Open a candidate as a scene, with its label raster and region, if there are.

        The label raster is that of labels that are rasters. A scene without a region gets that of its polygons, where
        their file exists.

        Args:
            candidate: The scene.
            labelled: Whether its label raster is looked for.

        Raises:
            DataError: If a file is missing or damaged.
        """
        settings = self.config.labels
        try:
            scene = self._open_files(candidate)
            if labelled and settings is not None and settings.raster is not None:
                scene = replace(scene, files={**scene.files, "labels": find_file(candidate, settings.raster)})
        except ThawmapError as error:
            msg = f"scene {candidate.id}: {error}"
            raise DataError(msg) from error
        return replace(scene, region=self.labels.region(scene)) if self.is_placed_by_labels(scene) else scene

    def is_placed_by_labels(self, scene: Scene | Candidate) -> bool:
        """Return whether a scene's region is that of the labels, whose files exist."""
        has_regions = self.config.labels is not None and self.config.labels.region is not None
        return scene.region is None and has_regions and all(path.exists() for path in self.label_files)

    def _open_files(self, candidate: Candidate) -> Scene:
        """Open a candidate as a scene, as a catalogue knows it or else by its files."""
        scene = None if candidate.record is None or candidate.fault is not None else candidate.record.scene()
        if scene is None:
            return scene_files.open_scene(candidate, self.config.scenes)
        return replace(scene, region=candidate.region)

    def part(self, scene: Scene | Candidate) -> str:
        """Return a scene's part of the split: test, validation, or train if unnamed."""
        split = self.config.split
        name = scene.region if split.by == "region" else scene.id
        if name in split.test:
            return "test"
        return "validation" if name in split.validation else "train"


def _with_checked_id(candidate: Candidate) -> Candidate:
    """Return a candidate, marked with a fault if its id is over 200 bytes long.

    Names of files, in which suffixes come to it, could not hold it.
    """
    size = len(os.fsencode(candidate.id))
    if size <= _LONGEST:
        return candidate
    fault = f"its id has {size} bytes, and names files of at most {_LONGEST}; rename it, or give it a shorter 'id'"
    return replace(candidate, fault=f"{fault} in 'scenes.table'")


_LONGEST = 200  # bytes of an id: names of files have at most 255


def _matches(path: Path, pattern: Path) -> bool:
    """Return whether a path, or a folder above it, matches a pattern of the shell."""
    names, wanted = Path(os.path.abspath(path)).parts, Path(os.path.abspath(pattern)).parts  # noqa: PTH100 - keeps links
    return len(names) >= len(wanted) and all(map(fnmatchcase, names, wanted))


@lru_cache(maxsize=4)
def _read_labels(settings: LabelSettings, _stamps: tuple[str, ...]) -> "Labels":
    """Return the labels of some settings, cached by the stamps of their files."""
    from thawmap.data.labels.polygons import open_labels  # noqa: PLC0415 - loads slowly, and maps need no labels

    return open_labels(settings)
