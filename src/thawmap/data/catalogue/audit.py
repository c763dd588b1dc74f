"""An audit of a folder of data: what is damaged, missing, double, mixed or nobody's."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from thawmap.config import SceneSettings
from thawmap.data.catalogue import index
from thawmap.data.catalogue.belonging import Belonging, Fault, scene_faults, scenes_in
from thawmap.data.catalogue.folders import stamps_below
from thawmap.data.catalogue.layout import INDEX, RECORD
from thawmap.data.catalogue.records import files_of
from thawmap.engine.run import run
from thawmap.errors import DataError
from thawmap.files.hashes import file_sha256
from thawmap.files.listing import HALF_WRITTEN
from thawmap.text import counted

KINDS = MappingProxyType({
    "gone": "of the files that were fetched are gone",
    "damaged": "of the files are not as they were fetched",
    "unfinished": "of the files are unfinished",
    "unreadable": "of the files cannot be read",
    "unusable": "of the scenes cannot be used",
    "missing": "of the scenes lack something",
    "double": "are there twice",
    "mixed": "are of another version or processing than most",
    "foreign": "of the files belong to nothing that is known",
})  # fmt: skip
"""Kinds of faults, the worst first, as they end a sentence that begins with a number."""

_NONE: Mapping[str, tuple[int, str]] = MappingProxyType({})
_THREADS = 4
_OURS = frozenset({"plan.json", "plan.gpkg", "plan.html", "ledger.jsonl"})  # what an acquisition leaves beside the data
_BESIDE = (".aux.xml", ".ovr", ".msk")  # what GDAL and QGIS leave beside a raster
_RASTERS = frozenset({".tif", ".tiff", ".jp2"})
_VERSION = re.compile(r"_(?:\d+m_)?(v\d+\.\d+)(?=[_.-]|$)", re.IGNORECASE)  # of a DEM, in the names of its files
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit of a folder found.

    Attributes:
        faults: What is wrong, by kind, then scene and file.
        scenes: Id of each scene to the paths of its files, from the folder.
        files: Number of files that were looked at.
        size: Bytes of them.
        read: Number of files that were read and compared with their checksum.
    """

    faults: tuple[Fault, ...]
    scenes: Mapping[str, tuple[str, ...]] = field(repr=False)
    files: int
    size: int
    read: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table: fault, scene, file, message."""
        return [
            {"fault": fault.kind, "scene": fault.scene, "file": fault.file, "message": fault.message}
            for fault in self.faults
        ]

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for the user: how much there is, and each kind of fault."""
        how = f"{self.read} read and compared" if self.read else "by size and time of change"
        first = f"{counted(self.files, 'file')}, {self.size / 1e9:.3g} GB, {counted(len(self.scenes), 'scene')}: {how}"
        counts = Counter(fault.kind for fault in self.faults)
        examples = {fault.kind: fault for fault in reversed(self.faults)}
        faults = [
            f"{counts[kind]} {about}, such as {examples[kind].scene or examples[kind].file}: {examples[kind].message}"
            for kind, about in KINDS.items()
            if kind in counts
        ]
        return (first, *(faults or ["nothing is amiss"]))


def audit(
    folder: Path,
    checksums: Mapping[str, tuple[int, str]] = _NONE,
    *,
    settings: SceneSettings | None = None,
    complete: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit a folder: compare its files with checksums, its scenes with each other.

    Nothing is changed, and nothing but files of scenes that the catalogue does not know is opened.

    Args:
        folder: The folder.
        checksums: Path of a file from the folder, to its size and SHA-256.
        settings: Which of the files are scenes, and how they are read; unset: no scene is looked for.
        complete: Read every file whose checksum is known; else only those whose size or time is not the catalogue's.
        progress: Is told how many bytes of how many are read.
    """
    stamps = {path: stamp for path, stamp in stamps_below(str(folder)).items() if path not in _OURS}
    scenes = [] if settings is None else scenes_in(folder, settings)
    faults = [*_gone(checksums, stamps), *_unfinished(stamps), *_other_sizes(checksums, stamps)]
    whole = [path for path in checksums if path in stamps and stamps[path][0] == checksums[path][0]]
    wanted = whole if complete else _changed(folder, whole, stamps)
    faults += _damaged(folder, wanted, checksums, progress)
    faults += [*scene_faults(scenes), *_doubles(checksums, stamps, scenes), *_mixed_versions(stamps, scenes)]
    faults += _foreign(checksums, stamps, scenes) if checksums else []
    order = list(KINDS)
    return Audit(
        faults=tuple(sorted(faults, key=lambda fault: (order.index(fault.kind), fault.scene, fault.file))),
        scenes={scene.id: scene.files for scene in scenes},
        files=len(stamps),
        size=sum(max(size, 0) for size, _ in stamps.values()),
        read=len(wanted),
    )


_Stamps = Mapping[str, tuple[int, int]]
_Checksums = Mapping[str, tuple[int, str]]


def _gone(checksums: _Checksums, stamps: _Stamps) -> Iterator[Fault]:
    """Yield the files with a checksum that are no longer there."""
    for path in checksums.keys() - stamps.keys():
        yield Fault(kind="gone", file=path, message="it was fetched, and is not there; fetch it again")


def _unfinished(stamps: _Stamps) -> Iterator[Fault]:
    """Yield the files that are empty or still being written."""
    for path, (size, _) in stamps.items():
        name = PurePosixPath(path)
        if name.suffix.lower() in HALF_WRITTEN:
            yield Fault(kind="unfinished", file=path, message="it is not written to its end; a rerun goes on with it")
        elif size < 0:
            yield Fault(kind="unreadable", file=path, message="it is a link that leads nowhere; correct it")
        elif size == 0:
            yield Fault(kind="unfinished", file=path, message="it is empty; fetch it again")


def _other_sizes(checksums: _Checksums, stamps: _Stamps) -> Iterator[Fault]:
    """Yield the files that have another size than when they were fetched."""
    for path in checksums.keys() & stamps.keys():
        size, known = stamps[path][0], checksums[path][0]
        if size != known and size > 0:
            yield Fault(
                kind="damaged", file=path, message=f"it has {size} bytes, and was fetched with {known}; fetch it again"
            )


def _changed(folder: Path, paths: Iterable[str], stamps: _Stamps) -> list[str]:
    """Return those of some files whose stamp is not the one in the catalogue, if any."""
    try:
        about = index.read_about(folder / INDEX) if (folder / INDEX).is_file() else None
        records = [] if about is None else index.read_columns(folder / INDEX, (RECORD,))[RECORD]
        known = {path: stamp for record in records for path, stamp in files_of(record)}
    except DataError as error:
        _log.warning("%s", error)
        return []
    return [path for path in paths if path in known and known[path] != stamps[path]]


def _damaged(
    folder: Path, paths: Sequence[str], checksums: _Checksums, progress: Callable[[int, int], None] | None
) -> Iterator[Fault]:
    """Yield the files whose bytes have another checksum, reading them in threads."""
    total, done = sum(checksums[path][0] for path in paths), 0

    def compare(path: str) -> Fault | None:
        try:
            is_same = file_sha256(folder / path) == checksums[path][1]
        except OSError as error:
            return Fault(kind="unreadable", file=path, message=f"it cannot be read ({error.strerror})")
        message = "its bytes are not those that were fetched (SHA-256); fetch it again"
        return None if is_same else Fault(kind="damaged", file=path, message=message)

    with ThreadPoolExecutor(_THREADS) as pool:
        for outcome in run(compare, paths, pool, ahead=2 * _THREADS):
            done += checksums[outcome.item][0]
            if progress is not None:
                progress(done, total)
            if outcome.value is not None:
                yield outcome.value


def _doubles(checksums: _Checksums, stamps: _Stamps, scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield rasters of the same bytes as another one; masks may be alike."""
    scene_of = {path: scene.id for scene in scenes for path in scene.files}
    images = {path for scene in scenes for path in scene.images}
    same = defaultdict[tuple[int, str], list[str]](list)
    for path in sorted(checksums.keys() & stamps.keys()):
        if PurePosixPath(path).suffix.lower() in _RASTERS and (path in images or path not in scene_of):
            same[checksums[path]].append(path)
    for first, *others in same.values():
        for path in others:
            message = f"it holds the same as {first}; keep one of them"
            yield Fault(kind="double", file=path, scene=scene_of.get(path, ""), message=message)


def _mixed_versions(stamps: _Stamps, scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield tiles of elevation of another version than most, by their names."""
    of_scenes = {path for scene in scenes for path in scene.files}
    matches = {
        path: match[1].lower()
        for path in sorted(stamps.keys() - of_scenes)
        if PurePosixPath(path).suffix.lower() in _RASTERS and (match := _VERSION.search(PurePosixPath(path).name))
    }
    counts = Counter(matches.values())
    usual = max(counts, key=lambda version: (counts[version], version), default="")
    for path, version in matches.items():
        if version != usual:
            message = f"it is of {version}, and {counts[usual]} are of {usual}; heights of versions differ, keep one"
            yield Fault(kind="mixed", file=path, message=message)


def _foreign(checksums: _Checksums, stamps: _Stamps, scenes: Sequence[Belonging]) -> Iterator[Fault]:
    """Yield files that nobody fetched, that are of no scene, and beside none of these."""
    known = set(checksums).union(*(scene.files for scene in scenes))
    message = "nothing that was fetched needs it; move it away if it is not yours"
    for path in stamps.keys() - known:
        is_beside = any(path.removesuffix(ending) in known for ending in _BESIDE if path.endswith(ending))
        is_part = PurePosixPath(path.removesuffix(".json")).suffix.lower() in HALF_WRITTEN
        if not (is_beside or is_part):
            yield Fault(kind="foreign", file=path, message=message)
