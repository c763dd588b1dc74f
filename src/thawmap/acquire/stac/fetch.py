"""Sentinel-2 scenes of an area, cut out of a catalogue's files into folders that thawmap reads."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http, PatienceEnded
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.stac.conventions import asset_of
from thawmap.acquire.stac.matching import Item
from thawmap.acquire.stac.offers import folder_name, item_and_address
from thawmap.acquire.stac.signing import Signer, signed, signer_for
from thawmap.acquire.windows import cut_window
from thawmap.config.acquire import StacImagery
from thawmap.data.sources.finding import usable_id
from thawmap.engine.run import run
from thawmap.errors import DataError
from thawmap.files.atomic import alone, atomic, write_json
from thawmap.files.hashes import file_sha256

FOLDER = "scenes"
"""Folder of an acquisition with the scenes, by site."""
_STEP_M = 60.0  # windows of all bands have the same edges: a pixel of the coarsest is 60 m

_log = logging.getLogger(__name__)


class Taken(Protocol):
    """A scene of a plan that is to be fetched, for one area."""

    @property
    def area(self) -> str:
        """Name of the area."""

    @property
    def id(self) -> str:
        """The item's id."""

    @property
    def item(self) -> Mapping[str, Any]:
        """What the offer holds as its item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a run of `fetch` has left on disk.

    Attributes:
        files: Files of this run.
        size: Their length in bytes.
        before: Number of scenes that were there already.
        failed: Folder, relative to the acquisition's, to the reason why a scene is not there.
    """

    files: tuple[Path, ...] = ()
    size: int = 0
    before: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A scene to fetch for an area; ``folder`` is relative to the acquisition's."""

    area: Area
    item: Item
    address: str
    folder: Path
    bands: tuple[str, ...]


def fetch(  # noqa: PLR0913 - all that a run of an acquisition has
    http: Http,
    settings: StacImagery,
    areas: Sequence[Area],
    taken: Sequence[Taken],
    root: Path,
    ledger: Ledger,
    *,
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
    connections: int = 8,
) -> Fetched:
    """Fetch scenes for areas: a window of each band, and the item, in a folder of each scene.

    A scene's folder appears when it is whole. What the ledger knows and is there is left alone, without a request. One
    scene that fails does not stop the others.

    Args:
        http: Sends the requests.
        settings: Which bands.
        areas: The areas, by whose names scenes are taken.
        taken: The scenes.
        root: Folder of the acquisition.
        ledger: Is told of each file, with its length and hash, before it appears; and of each failure.
        note: Is told of each failure.
        progress: Is told how many scenes are done, of how many.
        connections: Scenes that are fetched at once.

    Raises:
        PatienceEnded: If a catalogue is busy for too long; what was done stays.
        DataError: If a plan names an area or a folder that cannot be.
    """
    jobs = list(_jobs(settings, areas, taken))
    fetcher = _Fetcher(http, root, ledger)
    missing = [job for job in jobs if not fetcher.is_there(job)]
    done, files, size, failed = len(jobs) - len(missing), list[Path](), 0, dict[str, str]()
    before = done
    if progress is not None:
        progress(done, len(jobs))
    with ThreadPoolExecutor(max(connections, 1)) as pool:
        for outcome in run(fetcher.fetch, missing, pool, ahead=max(connections, 1)):
            done += 1
            if outcome.value is not None:
                files += [path for path, _ in outcome.value]
                size += sum(length for _, length in outcome.value)
            elif fetcher.stopped is None:
                reason = str(outcome.error)
                failed[outcome.item.folder.as_posix()] = reason
                ledger.append("failed", path=outcome.item.folder.as_posix(), id=outcome.item.item["id"], reason=reason)
                note(f"{outcome.item.folder.name} for {outcome.item.area.name}: {reason}")
            if progress is not None:
                progress(done, len(jobs))
    if fetcher.stopped is not None:
        raise fetcher.stopped
    return Fetched(files=tuple(sorted(files)), size=size, before=before, failed=failed)


def is_fetched(root: Path, ledger: Ledger, area: str, item_id: str, bands: Sequence[str]) -> bool:
    """Return whether a scene's bands for an area are on disk, as the ledger says.

    Args:
        root: Folder of the acquisition.
        ledger: Its ledger.
        area: Name of the area.
        item_id: Id of the scene's item.
        bands: Names of the bands.
    """
    folder = Path(FOLDER) / area / folder_name(item_id)
    return _are_there(root, folder, _names(folder, bands), _known(ledger))


def _jobs(settings: StacImagery, areas: Sequence[Area], taken: Sequence[Taken]) -> Iterator[_Job]:
    """Yield what is to be fetched, each scene of an area once.

    Raises:
        DataError: If a plan names an area that is none, or an id that cannot name a folder.
    """
    by_name = {area.name: area for area in areas}
    seen = set[Path]()
    for scene in taken:
        name = folder_name(scene.id)
        if scene.area not in by_name or not name or usable_id(name) != name or usable_id(scene.area) != scene.area:
            msg = f"the plan takes {scene.id!r} for {scene.area!r}, which cannot be fetched; plan again"
            raise DataError(msg)
        folder = Path(FOLDER) / scene.area / name
        item, address = item_and_address(scene.item)
        if folder not in seen:
            seen.add(folder)
            yield _Job(area=by_name[scene.area], item=item, address=address, folder=folder, bands=settings.bands)


class _Fetcher:
    """Fetches single scenes, in several threads; stops for good when patience ends."""

    def __init__(self, http: Http, root: Path, ledger: Ledger) -> None:
        self._http = http
        self._root = root
        self._ledger = ledger
        self._known = _known(ledger)
        self._signers: dict[str, Signer | None] = {}
        self._lock = threading.Lock()
        self.stopped: PatienceEnded | None = None

    def is_there(self, job: _Job) -> bool:
        """Return whether all files of a job are on disk, as the ledger says."""
        return _are_there(self._root, job.folder, _names(job.folder, job.bands), self._known)

    def fetch(self, job: _Job) -> list[tuple[Path, int]]:
        """Fetch what a job lacks; return the files and their lengths.

        Raises:
            DataError: If a file there is not of an earlier run, or an image cannot be read.
            ServiceError: If an image does not come.
        """
        if self.stopped is not None:
            raise self.stopped
        folder = self._root / job.folder
        try:
            with alone(folder):
                if folder.exists():
                    return self._complete(job)
                with atomic(folder) as draft:
                    draft.mkdir()
                    written = [self._cut(job, band, draft / f"{band}.tif") for band in job.bands]
                    written.append(self._write_item(job, draft))
                    return written
        except PatienceEnded as error:
            self.stopped = error
            raise

    def _complete(self, job: _Job) -> list[tuple[Path, int]]:
        """Fetch the files that a folder lacks, one by one.

        Raises:
            DataError: If one that is there is not of an earlier run.
        """
        names = _names(job.folder, job.bands)
        for name in names:
            path = self._root / name
            if path.exists() and name.as_posix() not in self._known:
                msg = f"{path} is not of an earlier run, and nothing is replaced unasked; move it away"
                raise DataError(msg)
        lacking = [name for name in names if not _are_there(self._root, job.folder, [name], self._known)]
        written = [self._cut(job, name.stem, self._root / name) for name in lacking if name.suffix == ".tif"]
        if any(name.suffix == ".json" for name in lacking):
            written.append(self._write_item(job, self._root / job.folder))
        return written

    def _cut(self, job: _Job, band: str, path: Path) -> tuple[Path, int]:
        """Cut a band's window out of its file; return its final path and its length."""
        asset = asset_of(job.item, band)
        if asset is None:
            msg = f"it has no file for {band}; leave it out of 'bands', or plan again"
            raise DataError(msg)
        href = signed(self._signer(job.address), asset["href"])
        final = job.folder / path.name
        tell = partial(self._ledger.append, "file", path=final.as_posix(), id=job.item["id"])
        cut = cut_window(
            href,
            job.area.outline,
            path,
            step_m=_STEP_M,
            http=self._http,
            before=lambda cut: tell(size=cut.size, sha256=cut.sha256, source=cut.source),
        )
        return self._root / final, cut.size

    def _write_item(self, job: _Job, folder: Path) -> tuple[Path, int]:
        """Write an item beside its bands; return its final path and its length."""
        path = folder / f"{job.folder.name}.json"
        with atomic(path) as draft:
            write_json(draft, job.item)
            size, final = draft.stat().st_size, job.folder / path.name
            digest = file_sha256(draft)
            self._ledger.append("file", path=final.as_posix(), id=job.item["id"], size=size, sha256=digest)
        return self._root / final, size

    def _signer(self, address: str) -> Signer | None:
        """Return the signer of a catalogue, one for all threads."""
        with self._lock:
            if address not in self._signers:
                self._signers[address] = signer_for(self._http, address)
            return self._signers[address]


def _names(folder: Path, bands: Sequence[str]) -> list[Path]:
    """Return the files of a scene, relative to the acquisition's folder."""
    return [*(folder / f"{band}.tif" for band in bands), folder / f"{folder.name}.json"]


def _known(ledger: Ledger) -> dict[str, int]:
    """Return the files that a ledger tells of, and the lengths that they had last."""
    return {str(event.get("path")): int(event.get("size", -1)) for event in ledger.of("file")}


def _are_there(root: Path, folder: Path, names: Sequence[Path], known: Mapping[str, int]) -> bool:
    """Return whether files of a folder are on disk with the lengths that are known."""
    paths = [(root / name, known.get(name.as_posix())) for name in names]
    return (root / folder).is_dir() and all(path.is_file() and path.stat().st_size == size for path, size in paths)
