"""Landsat trends of an area, from scenes of Collection 2 in a catalogue to a file that thawmap reads.

    <folder>/trends/<site>.tif          brightness, greenness, wetness per decade; float32, NaN where there is none
    <folder>/trends/<site>.json         what they were made from
    <folder>/observations/<site>.tif    clear dates of each pixel; not in the first folder, where all are trends

Scenes are read in windows, side by side; nothing of them stays but sums. What was read is kept in
``trends/.<site>.sums`` until the trends are whole, so that a run that is broken off reads nothing twice.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http, PatienceEnded
from thawmap.acquire.landsat_kept import KeptSums
from thawmap.acquire.landsat_reading import BlockReader, Seen, trend_grid
from thawmap.acquire.landsat_scenes import SceneRow, find, passes, rows_of
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.stac.signing import Signer, signer_for
from thawmap.acquire.trends import DatedValues, Observations, TrendSums, day_of, rows_at_once
from thawmap.config.acquire import LandsatTrends
from thawmap.data.raster.io import Encoding, raster_writer
from thawmap.engine.run import run
from thawmap.errors import DataError
from thawmap.files.atomic import alone, atomic, write_json
from thawmap.files.hashes import file_sha256, json_sha256, sha256
from thawmap.files.records import read_object
from thawmap.geo.crs import crs_of

__all__ = ["Trends", "fetch", "find"]

FOLDER, OBSERVATIONS = "trends", "observations"
"""Folders of an acquisition with the trends, and with the numbers of clear dates, by site."""
_FORMAT = 1
_MEMORY = 1.2e9  # bytes for sums and scenes that are read
_BANDS = ("tc_brightness", "tc_greenness", "tc_wetness")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """What a run of `fetch` has left on disk for an area.

    Attributes:
        path: The file of trends; None where there is none.
        used: Number of scenes in them.
        is_new: Whether this run made them.
        failed: Id of a scene to the reason why it is not in them.
    """

    path: Path | None
    used: int = 0
    is_new: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)


def fetch(  # noqa: PLR0913 - all that a run of an acquisition has
    http: Http,
    settings: LandsatTrends,
    area: Area,
    rows: Sequence[Mapping[str, Any]],
    root: Path,
    ledger: Ledger,
    *,
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
    connections: int = 8,
    memory: float = _MEMORY,
) -> Trends:
    """Compute the trends of an area from the scenes of a plan, and write them.

    What was made from the same scenes, settings and area is left alone, without a request. A scene that cannot be read
    is named and left out; a rerun tries those again.

    Args:
        http: Sends the requests.
        settings: Masks, harmonisation, and how slopes are fitted.
        area: The area.
        rows: Rows of the plan; those of other areas are passed over.
        root: Folder of the acquisition.
        ledger: Is told of each file before it appears, and of each scene that is left out.
        note: Is told of these in a sentence.
        progress: Is told how many scenes are done, of how many.
        connections: Scenes that are read at once.
        memory: Bytes for sums and scenes; a larger area is worked on in blocks of rows.

    Raises:
        PatienceEnded: If the catalogue's files do not come for too long; what was read stays.
        ConfigError: If a row is nonsense, or Theil-Sen needs more memory than it may take.
        DataError: If a file there is not of an earlier run, or cannot be written.
    """
    scenes = rows_of(rows, area)
    if not scenes:
        return Trends(path=None)
    job = _Job(http=http, settings=settings, area=area, scenes=tuple(scenes), root=root, ledger=ledger)
    finished = job.finished()
    if finished is not None:
        return finished
    job.check_replaceable()
    with alone(job.path):
        return job.run(note, progress, connections=connections, memory=memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The trends of one area that are to be made."""

    http: Http
    settings: LandsatTrends
    area: Area
    scenes: tuple[SceneRow, ...]
    root: Path
    ledger: Ledger

    @property
    def path(self) -> Path:
        """The file of trends."""
        return self.root / FOLDER / f"{self.area.name}.tif"

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """The files that are made, the record last."""
        return self.path, self.root / OBSERVATIONS / self.path.name, self.path.with_suffix(".json")

    @property
    def made_from(self) -> str:
        """Hash of all that decides the trends."""
        settings = self.settings.model_dump(mode="json", exclude={"address", "collection", "years", "months", "cloud"})
        ids = sorted(scene.id for scene in self.scenes)
        return json_sha256({"format": _FORMAT, "settings": settings, "area": self.area.outline.wkt, "scenes": ids})

    def finished(self) -> Trends | None:
        """Return the trends that are there, made from the same.

        None where they are to be made.
        """
        sizes = {event.get("path"): event.get("size") for event in self.ledger.of("file")}
        for path in self.files:
            if not path.is_file() or sizes.get(self._name(path)) != path.stat().st_size:
                return None
        try:
            record = read_object(self.files[-1])
        except (OSError, ValueError):
            return None
        if record.get("made_from") != self.made_from or record.get("left_out"):
            return None
        return Trends(path=self.path, used=len(record.get("scenes", ())))

    def check_replaceable(self) -> None:
        """Refuse to replace files that no earlier run has made.

        Raises:
            DataError: If there is one.
        """
        known = {event.get("path") for event in self.ledger.of("file")}
        for path in self.files:
            if path.exists() and self._name(path) not in known:
                msg = f"{path} is not of an earlier run, and nothing is replaced unasked; move it away"
                raise DataError(msg)

    def run(
        self,
        note: Callable[[str], None],
        progress: Callable[[int, int], None] | None,
        *,
        connections: int,
        memory: float,
    ) -> Trends:
        """Read all scenes, block by block, and write the trends."""
        grid, groups = trend_grid(self.area), passes(self.scenes)
        readers = max(min(connections, len(groups)), 1)
        settings, height = self.settings, grid.height
        step = rows_at_once(grid.width, dates=len(self.scenes), method=settings.method, readers=readers, memory=memory)
        blocks = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        kept = KeptSums(self.path.with_name(f".{self.area.name}.sums"), f"{self.made_from} {step}")
        work = _Work(
            http=self.http, settings=settings, grid=grid, groups=groups, kept=kept, readers=readers,
            progress=progress, steps=len(blocks) * len(groups),
        )  # fmt: skip
        slopes, number, failed = [], [], dict[str, str]()
        for block, rows in enumerate(blocks):
            observations = work.block(block, rows, failed)
            slopes.append(
                observations.slopes(min_observations=settings.min_observations, min_span_years=settings.min_span_years)
            )
            number.append(observations.number)
        for identity, reason in sorted(failed.items()):
            self.ledger.append("failed", path=self._name(self.path), id=identity, reason=reason)
            note(f"{self.area.name}: trends are without {identity}: {reason}")
        if len(failed) == len(self.scenes):
            return Trends(path=None, failed=failed)
        self._write(grid, blocks, slopes, number, failed)
        if not failed:
            kept.remove()
        return Trends(path=self.path, used=len(self.scenes) - len(failed), is_new=True, failed=failed)

    def _write(
        self,
        grid: GeoBox,
        blocks: Sequence[slice],
        slopes: Sequence[npt.NDArray[np.float32]],
        number: Sequence[npt.NDArray[np.uint16]],
        failed: Mapping[str, str],
    ) -> None:
        """Write trends, observations, and the record of what they were made from."""
        trends, observations, record = self.files
        encodings: tuple[tuple[Path, Encoding, Sequence[npt.NDArray[Any]]], ...] = (
            (trends, Encoding(dtype="float32", bands=3, nodata=np.nan, descriptions=_BANDS), slopes),
            (observations, Encoding(dtype="uint16", descriptions=("observations",), overviews="nearest"), number),
        )
        record.unlink(missing_ok=True)  # it is true of what lies beside it, and the last to come
        for path, encoding, parts in encodings:
            with atomic(path) as draft:
                with raster_writer(draft, grid, encoding) as writer:
                    for rows, part in zip(blocks, parts, strict=True):
                        writer.write(rows.start, part)
                self._tell(path, draft)
        with atomic(record) as draft:
            write_json(draft, self._record(grid, failed, np.concatenate(list(number))))
            self._tell(record, draft)

    def _record(self, grid: GeoBox, failed: Mapping[str, str], number: npt.NDArray[np.uint16]) -> dict[str, Any]:
        """Return JSON values of what the trends were made from, and how."""
        used = [scene for scene in self.scenes if scene.id not in failed]
        return {
            "what": "trends per decade of 3650 days of Crist's tasselled cap, Landsat Collection 2 Level 2 Tier 1",
            "made_from": self.made_from,
            "settings": self.settings.model_dump(mode="json"),
            "area": {"name": self.area.name, "outline": sha256(self.area.outline.wkt, digits=16)},
            "grid": {"crs": crs_of(grid), "shape": list(grid.shape), "transform": list(grid.affine)[:6]},
            "observations": {"median": float(np.median(number)), "most": int(number.max())},
            "scenes": [scene.id for scene in used],
            "sensors": {
                name: sum(scene.sensor == name for scene in used) for name in sorted({scene.sensor for scene in used})
            },
            "left_out": dict(failed),
        }

    def _tell(self, path: Path, draft: Path) -> None:
        """Tell the ledger of a file that is about to appear."""
        self.ledger.append("file", path=self._name(path), size=draft.stat().st_size, sha256=file_sha256(draft))

    def _name(self, path: Path) -> str:
        """Return a file's path from the acquisition's folder."""
        return path.relative_to(self.root).as_posix()


@dataclass(slots=True, kw_only=True)
class _Work:
    """Reading scenes of all blocks, in several threads.

    Stops for good when patience ends.
    """

    http: Http
    settings: LandsatTrends
    grid: GeoBox
    groups: Sequence[tuple[SceneRow, ...]]
    kept: KeptSums
    readers: int
    progress: Callable[[int, int], None] | None
    steps: int
    done: int = 0
    stopped: PatienceEnded | None = None
    signers: dict[str, Signer | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make a signer for each catalogue."""
        for address in sorted({scene.address for group in self.groups for scene in group}):
            self.signers[address] = signer_for(self.http, address)

    def block(self, number: int, rows: slice, failed: dict[str, str]) -> Observations:
        """Return the observations of a block.

        Scenes that cannot be read are put into ``failed``.

        Passes with such a scene come last, without it, and are not kept: a rerun reads them again.

        Raises:
            PatienceEnded: If files do not come for too long; what was read is kept.
        """
        reader = BlockReader(self.http, self.settings, self.grid, rows)
        dates = sum(map(len, self.groups))
        is_dated = self.settings.method == "theil-sen"
        observations: TrendSums | DatedValues = (
            DatedValues.empty(reader.shape, dates) if is_dated else TrendSums.empty(reader.shape)
        )
        known = self.kept.restore(number, observations)
        missing = [group for group in self.groups if _key(group) not in known]
        self._step(len(self.groups) - len(missing))
        broken = [group for group in missing if any(scene.id in failed for scene in group)]
        try:
            for group, seen, faults in self._read(reader, [group for group in missing if group not in broken], {}):
                if faults:
                    failed |= faults
                    broken.append(group)
                else:
                    _add(observations, group, seen)
                    known.add(_key(group))
                    self.kept.save_now_and_then(number, observations, known)
                self._step(1)
        finally:
            self.kept.save(number, observations, known)
        for group, seen, faults in self._read(reader, broken, dict(failed)):
            failed |= faults
            _add(observations, group, seen)
        return observations

    def _read(
        self, reader: BlockReader, groups: Sequence[tuple[SceneRow, ...]], failed: Mapping[str, str]
    ) -> Iterator[tuple[tuple[SceneRow, ...], list[Seen], dict[str, str]]]:
        """Yield passes with what their scenes show, and the faults of those that cannot be read.

        Raises:
            PatienceEnded: If files do not come for too long.
        """

        def read(scene: SceneRow) -> Seen | None:
            if self.stopped is not None:
                raise self.stopped
            try:
                return reader.read(scene, self.signers[scene.address])
            except PatienceEnded as error:
                self.stopped = error
                raise

        def read_pass(group: tuple[SceneRow, ...]) -> tuple[list[Seen], dict[str, str]]:
            outcomes = list(run(read, [scene for scene in group if scene.id not in failed]))
            faults = {outcome.item.id: outcome.error for outcome in outcomes if outcome.error is not None}
            return [outcome.value for outcome in outcomes if outcome.value is not None], faults

        with ThreadPoolExecutor(self.readers) as pool:
            for outcome in run(read_pass, groups, pool, ahead=self.readers + 1):
                if self.stopped is not None:
                    raise self.stopped
                assert outcome.value is not None, outcome.error
                yield outcome.item, *outcome.value

    def _step(self, groups: int) -> None:
        """Tell of passes that are done."""
        self.done += groups
        if self.progress is not None and groups:
            self.progress(self.done, self.steps)


def _key(group: Sequence[SceneRow]) -> str:
    """Return the name of a pass."""
    return " ".join(scene.id for scene in group)


def _add(observations: TrendSums | DatedValues, group: Sequence[SceneRow], seen: Sequence[Seen]) -> None:
    """Add what a pass shows to observations, each pixel once."""
    if not seen:
        return
    day = day_of(group[0].time)
    taken = np.zeros(observations.number.shape, np.bool_) if len(seen) > 1 else None
    for part in seen:
        height, width = part.valid.shape
        valid = part.valid
        if taken is not None:
            under = taken[part.row : part.row + height, part.col : part.col + width]
            valid = valid & ~under
            under |= valid
        observations.add(day, part.values, valid, row=part.row, col=part.col)
