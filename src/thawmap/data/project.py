"""What a configuration means on the ground: its scenes, the sources of their layers, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from thawmap.config import Config, LabelSettings
from thawmap.data.labels import Labels, PolygonLabels, open_labels
from thawmap.data.sources.base import Scene, Source
from thawmap.data.sources.rasters import Candidate, RasterSource, candidates, open_scene
from thawmap.errors import ConfigError


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
        """Where layers come from."""
        return (RasterSource(self.config.scenes),)

    @property
    def labels(self) -> Labels:
        """What people digitised.

        Raises:
            ConfigError: If the configuration has no labels.
            LabelError: If they cannot be used.
        """
        if self.config.labels is None:
            msg = "the configuration has no 'labels', which this needs; add them, as 'thawmap init' shows"
            raise ConfigError(msg)
        return _open(self.config.labels)

    def labelled_candidates(self) -> list[Candidate]:
        """The scenes that the configuration names, when its labels speak of at least one of them.

        Raises:
            ConfigError: If there is none, two have one id, or the configuration has no labels.
            LabelError: If the labels cannot be used, or name none of the scenes.
        """
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
        return candidates(self.config.scenes, places=places)

    def open(self, candidate: Candidate, *, labelled: bool = True) -> Scene:
        """The scene, with its labels' raster where there is one, and the region that its labels give.

        Raises:
            DataError: If a file is missing or damaged.
        """
        settings = self.config.labels
        raster = settings.raster if labelled and settings is not None else None
        scene = open_scene(candidate, self.config.scenes, labels=raster)
        if scene.region is None and settings is not None and settings.region is not None:
            scene = replace(scene, region=self.labels.region(scene))
        return scene

    def part(self, scene: Scene | Candidate) -> str:
        """The part of the split that a scene belongs to: train, validation or test."""
        split = self.config.split
        name = scene.region if split.by == "region" else scene.id
        if name in split.test:
            return "test"
        return "validation" if name in split.validation else "train"


@cache
def _open(settings: LabelSettings) -> Labels:
    """Labels, read once in a process."""
    return open_labels(settings)
