"""Scenes of a folder as an audit sees them: their files, and what sets them apart."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from thawmap.config import SceneSettings
from thawmap.data.catalogue import places, read
from thawmap.data.catalogue.entries import make_entry
from thawmap.data.catalogue.records import KnownScene
from thawmap.data.sources.base import Candidate
from thawmap.data.sources.finding import TWICE
from thawmap.engine.run import in_order
from thawmap.errors import ConfigError, DataError

_THREADS = 4
_METADATA = frozenset({".xml", ".json"})
_MASKS = {"planetscope": ("udm2", "udm"), "sentinel2": ("scl",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that an audit found.

    Attributes:
        kind: One word for what it is; `audit` lists them.
        message: A sentence.
        scene: Id of the scene; "" where it is of none.
        file: Path of the file, from the folder; "" where it is of none.
    """

    kind: str
    message: str
    scene: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """The files that belong to a scene.

    Attributes:
        id: Id of the scene.
        kind: Kind of scenes.
        files: Path of each file, from the folder.
        roles: Role of each file in the scene, its own name where it has none; "" of a scene that cannot be opened.
        layers: Layers of the scene's own files.
        processing: What was made of its numbers; "" where unknown.
        fault: Why it cannot be used; None where it can.
    """

    id: str
    kind: str
    files: tuple[str, ...]
    roles: tuple[str, ...] = ()
    layers: frozenset[str] = frozenset()
    processing: str = ""
    fault: str | None = None

    @property
    def images(self) -> list[str]:
        """Paths of the files that hold bands, without masks and metadata."""
        named = zip(self.files, self.roles, strict=False)
        return [path for path, role in named if role not in _MASKS.get(self.kind, ()) and not _is_metadata(path)]


def scenes_in(folder: Path, settings: SceneSettings) -> list[Belonging]:
    """Return the scenes that settings name, with their files; an empty list if none.

    A true catalogue is believed; other scenes are opened, in threads.

    Args:
        folder: The folder from which paths count.
        settings: Which scenes, and how they are read.
    """
    try:
        candidates = read.candidates(settings)
    except ConfigError:  # there is none yet
        return []
    work = partial(_belonging, settings=settings, folder=folder)
    return list(in_order(work, candidates, threads=_THREADS, ahead=4 * _THREADS))


def _belonging(candidate: Candidate, settings: SceneSettings, folder: Path) -> Belonging:
    """Return a candidate's scene with its files; at fault where it cannot be opened."""
    if isinstance(candidate.record, KnownScene) and candidate.fault is None:
        content = candidate.record.content
        return Belonging(
            id=candidate.id,
            kind=content["kind"],
            files=tuple(path for _, path, *_ in content["files"]),
            roles=tuple(key for key, *_ in content["files"]),
            layers=frozenset(content["readings"]),
            processing=content["processing"],
        )
    try:
        entry = make_entry(candidate, settings, folder, with_overview=False)
    except DataError as error:
        paths = (places.relative(path, folder) for path in candidate.files.values())
        files = tuple(path for path in paths if path is not None)
        return Belonging(id=candidate.id, kind=settings.kind, files=files, fault=str(error))
    return Belonging(
        id=entry.id,
        kind=entry.kind,
        files=tuple(file.path for file in entry.files),
        roles=tuple(file.key for file in entry.files),
        layers=frozenset(entry.readings),
        processing=entry.processing,
    )


def scene_faults(scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield what is wrong with scenes: unusable, double, lacking a file, or mixed."""
    for scene in scenes:
        if scene.fault is not None:
            yield Fault(
                kind="double" if scene.fault.startswith(TWICE) else "unusable", message=scene.fault, scene=scene.id
            )
    usable = [scene for scene in scenes if scene.fault is None]
    yield from _lacking_files(usable)
    yield from _lacking_layers(usable)
    yield from _mixed(usable)


def _lacking_files(scenes: Iterable[Belonging]) -> Iterator[Fault]:
    """Yield scenes of satellites without a mask or metadata."""
    for scene in scenes:
        masks = _MASKS.get(scene.kind)
        if masks is None:
            continue
        if not set(masks) & set(scene.roles):
            message = f"it has no {masks[0]}: clouds are not masked; fetch it"
            yield Fault(kind="missing", message=message, scene=scene.id)
        if not any(map(_is_metadata, scene.files)):
            message = "it has no metadata beside it, which tell its time and processing; fetch them"
            yield Fault(kind="missing", message=message, scene=scene.id)


def _lacking_layers(scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield scenes that lack a layer which most others have."""
    counts = Counter(layer for scene in scenes for layer in scene.layers)
    usual = {layer for layer, count in counts.items() if 2 * count > len(scenes)}
    for scene in scenes:
        absent = sorted(usual - scene.layers)
        if absent:
            message = f"it has no {' and no '.join(absent)}, which most others have; fetch it"
            yield Fault(kind="missing", message=message, scene=scene.id)


def _mixed(scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield scenes that were processed in another way than most."""
    by_processing = defaultdict[str, list[str]](list)
    for scene in scenes:
        by_processing[scene.processing or "unknown processing"].append(scene.id)
    usual = max(by_processing, key=lambda made: (len(by_processing[made]), made), default="")
    for made, ids in sorted(by_processing.items()):
        for id_ in ids if made != usual else ():
            message = f"it is of {made}, and {len(by_processing[usual])} are of {usual}"
            yield Fault(kind="mixed", message=message, scene=id_)


def _is_metadata(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _METADATA
