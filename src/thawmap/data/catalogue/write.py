"""Writing the catalogue of a folder of scenes, of what their own readers read."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from thawmap.config import RasterScenes, SceneSettings
from thawmap.data.catalogue import index, places
from thawmap.data.catalogue.entries import make_entry
from thawmap.data.catalogue.folders import differing, folders_at, folders_below
from thawmap.data.catalogue.layout import CATALOG, INDEX, ITEMS, Entry
from thawmap.data.catalogue.publish import check_own, publish
from thawmap.data.sources import planetscope, scenes, sentinel2
from thawmap.data.sources.base import Candidate
from thawmap.data.sources.finding import finish_candidates
from thawmap.engine.run import Outcome, run
from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import alone
from thawmap.text import counted

Checksums = Mapping[str, tuple[int, str]]
"""Path of a file, from the folder of the data, to its size and SHA-256."""

_NONE: Checksums = MappingProxyType({})
_THREADS = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a catalogue.

    Attributes:
        folder: Its folder.
        scenes: Number of scenes in it.
        opened: Number of scenes that were opened, as new or changed.
        gone: Ids of scenes that were in it and are no longer.
        failed: Id of each scene that cannot be opened to the sentence that says why; these are not in it.
        has_changed: Whether any file of it was written.
    """

    folder: Path
    scenes: int
    opened: int
    gone: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    has_changed: bool = True

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for the user."""
        first = f"{counted(self.scenes, 'scene is', 'scenes are')} in {self.folder / CATALOG}"
        gone = f"{counted(len(self.gone), 'scene is', 'scenes are')} gone: {', '.join(self.gone[:3])}"
        return (first, *((gone,) if self.gone else ()))


def write_catalogue(
    folder: Path,
    settings: SceneSettings,
    *,
    checksums: Checksums = _NONE,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write the catalogue of a folder's scenes; a rerun opens only what has changed.

    Nothing is written where nothing has changed. Each file appears whole, the index last.

    Args:
        folder: The catalogue's folder; what the settings search lies in it.
        settings: Which scenes, and how they are read.
        checksums: Sizes and SHA-256 of files that are known, by path from the folder; those whose size is another one
            do not count.
        progress: Is told how many of the scenes that are to be opened are done, and how many there are.

    Raises:
        ConfigError: If the settings search elsewhere, or would take the catalogue for a scene.
        DataError: If the folder cannot be written to.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; name the one in which the data are"
        raise ConfigError(msg)
    roots = _roots(folder, settings)
    with alone(folder / INDEX):
        return _write(folder, settings, roots, checksums, progress)


def _write(
    folder: Path,
    settings: SceneSettings,
    roots: Sequence[str],
    checksums: Checksums,
    progress: Callable[[int, int], None] | None,
) -> Written:
    """Write the catalogue of a folder that nobody else writes meanwhile."""
    fingerprint = places.settings_fingerprint(settings)
    old_about, old = _previous(folder, settings.kind, fingerprint)
    seen = folders_below(str(folder), roots)  # before anything is opened: what changes meanwhile has changed
    found, finished = _candidates(settings)
    if isinstance(settings, RasterScenes):
        own = {places.relative(candidate.path.parent, folder) or "" for candidate in found}
        seen = folders_at(str(folder), {*own, *(old_about.folders if old_about else ())})
    changed = differing(old_about.folders if old_about else {}, seen)
    entries, failed, todo = [], {candidate.id: candidate.fault for candidate in finished if candidate.fault}, []
    for candidate in finished:
        entry = _kept(candidate, old, changed, folder)
        if candidate.fault is None and entry is None:
            todo.append(candidate)
        elif candidate.fault is None and entry is not None:
            entries.append(replace(entry, region=candidate.region))
    for done, outcome in enumerate(_opened(todo, settings, folder), start=1):
        if outcome.value is not None:
            entries.append(outcome.value)
        else:
            failed[outcome.item.id] = str(outcome.error)
        if progress is not None:
            progress(done, len(todo))
    entries = sorted((_with_checksums(entry, checksums) for entry in entries), key=lambda entry: entry.id)
    known = {entry.path for entry in entries}
    folders = seen | folders_at(str(folder), {path for entry in entries for path in entry.folders} - seen.keys())
    about = index.About(
        kind=settings.kind,
        settings=fingerprint,
        roots=tuple(roots),
        folders=folders,
        others=tuple(
            _other(candidate, folder) for candidate in found if places.relative(candidate.path, folder) not in known
        ),
    )
    has_changed = publish(folder, entries, about)
    return Written(
        folder=folder,
        scenes=len(entries),
        opened=len(todo),
        gone=tuple(sorted(old.keys() - {candidate.id for candidate in finished})),
        failed=failed,
        has_changed=has_changed,
    )


def _roots(folder: Path, settings: SceneSettings) -> list[str]:
    """Return the folders that are searched, from the catalogue's; none of rasters.

    Raises:
        ConfigError: If one lies elsewhere, or the catalogue would be taken for a scene.
    """
    searched = places.searched_folders(settings)
    roots = [(path, places.relative(path, folder)) for path in searched]
    outside = [path for path, below in roots if below is None]
    if outside:
        msg = f"{outside[0]} lies outside of {folder}, and its catalogue knows what is in it; name one above both"
        raise ConfigError(msg)
    if not isinstance(settings, RasterScenes):
        return sorted(below for _, below in roots if below is not None)
    if settings.path is not None and places.relative(settings.path.parent, folder) == "":
        msg = f"'scenes.path', {settings.path}, takes {folder / ITEMS} for a scene; keep scenes in a folder of theirs"
        raise ConfigError(msg)
    return []


def _candidates(settings: SceneSettings) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates as they are found, and as they are used, with regions.

    The second have faults where they are doubtful; which ones a table of regions leaves out does not count.
    """
    if isinstance(settings, RasterScenes):
        found = scenes.candidates(settings)
        return found, found
    searched = places.searched_folders(settings)
    found = planetscope.find(searched) if settings.kind == "planetscope" else sentinel2.find(searched)
    if not found:
        return [], []
    everything = settings.model_copy(update={"table": None})
    finished = finish_candidates(found, everything, searched=searched)
    if settings.table is None:
        return found, finished
    regions = {candidate.id: candidate.region for candidate in finish_candidates(found, settings, searched=searched)}
    return found, [replace(candidate, region=regions.get(candidate.id)) for candidate in finished]


def _previous(folder: Path, kind: str, fingerprint: str) -> tuple[index.About | None, dict[str, Entry]]:
    """Return what the catalogue that is there says, and its entries by id.

    None and no entries where it is damaged, or was made by another version or with other settings.

    Raises:
        DataError: If a catalogue is there that thawmap did not make.
    """
    check_own(folder)
    path = folder / INDEX
    try:
        about = index.read_about(path) if path.exists() else None
        if about is None or (about.kind, about.settings) != (kind, fingerprint):
            return None, {}
        return about, {entry.id: entry for entry in index.read_entries(path)}
    except DataError as error:
        _log.info("%s", error)
        return None, {}


def _kept(candidate: Candidate, old: Mapping[str, Entry], changed: set[str], folder: Path) -> Entry | None:
    """Return the entry of a candidate if it is still true; None if it is to be opened."""
    entry = old.get(candidate.id)
    if entry is None or not changed.isdisjoint(entry.folders):
        return None
    files = {places.relative(path, folder) for path in candidate.files.values()}
    is_same = places.relative(candidate.path, folder) == entry.path and candidate.acquired == entry.found
    return entry if is_same and (not files or files == {file.path for file in entry.files}) else None


def _opened(
    candidates: Sequence[Candidate], settings: SceneSettings, folder: Path
) -> Iterator[Outcome[Candidate, Entry]]:
    """Yield the outcome of opening each candidate, in threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from run(partial(make_entry, settings=settings, folder=folder), candidates, pool, ahead=2 * _THREADS)


def _with_checksums(entry: Entry, checksums: Checksums) -> Entry:
    """Return an entry with the checksums of its files that are known."""
    known = {
        file.path: checksums[file.path][1]
        for file in entry.files
        if file.path in checksums and checksums[file.path][0] == file.size
    }
    if not known:
        return entry
    return replace(entry, files=tuple(replace(file, sha256=known.get(file.path, file.sha256)) for file in entry.files))


def _other(candidate: Candidate, folder: Path) -> index.OtherRecord:
    """Return a candidate that is no entry as a record."""
    return index.OtherRecord(
        name=candidate.name,
        path=places.relative(candidate.path, folder) or "",
        id=candidate.id,
        found=None if candidate.acquired is None else candidate.acquired.isoformat(),
        files=[places.relative(path, folder) or "" for path in candidate.files.values()],
        fault=candidate.fault,
    )
