"""Elevation of areas: windows of the ArcticDEM mosaic, found in its catalogue or given as tiles.

    <folder>/elevation/<tile>_<area>_dem.tif    heights as the mosaic has them: its grid, its numbers, its gaps
    <folder>/elevation/<tile>_<area>_dem.json   mosaic, version, and where it is from

``<area>`` is a hash of the ground with its margin, which with the tile decides the window. Mosaics are read in the
order of names, so that overlaps of tiles resolve the same way every time.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area, grown
from thawmap.acquire.http import Http, PatienceEnded, without_query
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.stac.matching import Item
from thawmap.acquire.stac.search import search
from thawmap.acquire.windows import BesideAreaError, cut_window
from thawmap.config.acquire import ElevationRequest
from thawmap.data.sources.finding import usable_id
from thawmap.engine.run import run
from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import alone, atomic, write_json
from thawmap.files.hashes import file_sha256, sha256
from thawmap.files.listing import files_below, matches
from thawmap.files.records import Record, checked

FOLDER = "elevation"
"""Folder of an acquisition with the elevation of all areas."""
MOSAIC = "ArcticDEM"
_WEB = ("http", "https", "s3")
_ENDINGS = (".tif", ".tiff")
_HEIGHTS = ("_dem", "_reg_dem")  # ends of the names of a tile's heights, in its versions
_COMPANIONS = ("_mad", "_count", "_mindate", "_maxdate", "_datamask", "_browse", "_matchtag", "_hillshade")


class TileRow(Record):
    """A tile of a plan, for one area."""

    area: str
    id: str
    href: str
    version: str
    resolution_m: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a run of `fetch` has left on disk for an area.

    Attributes:
        files: Windows of this run.
        size: Their length in bytes.
        before: Number of windows that were there.
        failed: Id of a tile to the reason why its window is not there.
    """

    files: tuple[Path, ...] = ()
    size: int = 0
    before: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


def find(http: Http, settings: ElevationRequest, area: Area, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return rows, JSON values, of the mosaic's tiles that an area with its margin touches, by id.

    Args:
        http: Sends the requests.
        settings: Version and resolution; the catalogue, or tiles that are there already.
        area: The area.
        note: Is told if there is no tile.

    Raises:
        ConfigError: If tiles are given and there are none.
        ServiceError: If the catalogue cannot be searched to its end.
    """
    if settings.tiles is not None:
        hrefs = {_tile_id(href): href for href in _given(settings.tiles)}
    else:
        collection = f"arcticdem-mosaics-{settings.version}-{settings.resolution_m}m"
        items = search(http, settings.address, [collection], outline=grown(area, settings.margin_m), note=note)
        hrefs = {item["id"]: href for item in items if (href := _heights_of(item)) is not None}
    if not hrefs:
        note(f"{area.name}: {MOSAIC} {settings.version} has no tile there; it gets no elevation")
    return [
        {
            "area": area.name,
            "id": identity,
            "href": without_query(href),
            "version": settings.version,
            "resolution_m": settings.resolution_m,
        }
        for identity, href in sorted(hrefs.items())
    ]


def fetch(  # noqa: PLR0913 - all that a run of an acquisition has
    http: Http,
    settings: ElevationRequest,
    area: Area,
    rows: Sequence[Mapping[str, Any]],
    root: Path,
    ledger: Ledger,
    *,
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
    connections: int = 8,
) -> Fetched:
    """Cut the windows of an area out of the tiles of a plan.

    What the ledger knows and is there is left alone, without a request. Tiles that were given and lie elsewhere are
    passed over, once.

    Args:
        http: Sends the requests.
        settings: The margin.
        area: The area.
        rows: Rows of the plan; those of other areas are passed over.
        root: Folder of the acquisition.
        ledger: Is told of each file before it appears, and of each failure.
        note: Is told of each failure in a sentence.
        progress: Is told how many tiles are done, of how many.
        connections: Tiles that are read at once.

    Raises:
        PatienceEnded: If a tile does not come for too long; what was done stays.
        ConfigError: If a row is nonsense.
    """
    cutter = _Cutter(http, grown(area, settings.margin_m), root, ledger)
    tiles = _rows_of(rows, area)
    missing = [tile for tile in tiles if not cutter.is_there(tile)]
    done, files, size, failed = len(tiles) - len(missing), list[Path](), 0, dict[str, str]()
    with ThreadPoolExecutor(max(connections, 1)) as pool:
        for outcome in run(cutter.cut, missing, pool, ahead=max(connections, 1)):
            if cutter.stopped is not None:
                raise cutter.stopped
            if outcome.error is not None:
                failed[outcome.item.id] = outcome.error
                ledger.append("failed", path=cutter.name(outcome.item), id=outcome.item.id, reason=outcome.error)
                note(f"{area.name}: elevation of {outcome.item.id}: {outcome.error}")
            elif outcome.value is not None:
                files.append(outcome.value)
                size += outcome.value.stat().st_size
            done += 1
            if progress is not None:
                progress(done, len(tiles))
    return Fetched(files=tuple(sorted(files)), size=size, before=len(tiles) - len(missing), failed=failed)


def _rows_of(rows: Sequence[Mapping[str, Any]], area: Area) -> list[TileRow]:
    """Return the rows of a plan that are of an area, checked.

    Raises:
        ConfigError: If a person made one of them into nonsense.
    """
    try:
        tiles = [checked(dict(row), TileRow) for row in rows if row.get("area") == area.name]
        odd = next((tile.id for tile in tiles if usable_id(tile.id) != tile.id), None)
        if odd is not None:
            msg = f"has the tile {odd!r}, which can name no file"
            raise ValueError(msg)  # noqa: TRY301 - said as any other fault of a row
    except ValueError as error:
        msg = f"a row of 'elevation' in the plan {error}; undo what was edited, or plan again"
        raise ConfigError(msg) from error
    return tiles


class _Cutter:
    """Cuts windows out of tiles, in several threads.

    Stops for good when patience ends.
    """

    def __init__(self, http: Http, outline: BaseGeometry, root: Path, ledger: Ledger) -> None:
        self._http = http
        self._outline = outline
        self._root = root
        self._ledger = ledger
        self._ground = sha256(outline.wkt, digits=8)
        self._known = {event.get("path"): event.get("size") for event in ledger.of("file")}
        self._beside = {event.get("path") for event in ledger.of("beside")}
        self.stopped: PatienceEnded | None = None

    def name(self, tile: TileRow) -> str:
        """Return the path of a tile's window from the acquisition's folder."""
        return f"{FOLDER}/{tile.id}_{self._ground}_dem.tif"

    def is_there(self, tile: TileRow) -> bool:
        """Return whether a tile's window and record are there, or the tile is known to lie elsewhere."""
        name = self.name(tile)
        paths = [self._root / name, (self._root / name).with_suffix(".json")]
        return name in self._beside or all(
            path.is_file() and self._known.get(path.relative_to(self._root).as_posix()) == path.stat().st_size
            for path in paths
        )

    def cut(self, tile: TileRow) -> Path | None:
        """Cut a tile's window; return its file, or None for a tile that lies elsewhere.

        Raises:
            DataError: If a file there is not of an earlier run, or the tile is damaged.
            ServiceError: If the tile does not come.
        """
        if self.stopped is not None:
            raise self.stopped
        name = self.name(tile)
        path = self._root / name
        record = path.with_suffix(".json")
        if path.exists() and name not in self._known:
            msg = f"{path} is not of an earlier run, and nothing is replaced unasked; move it away"
            raise DataError(msg)
        is_web = urlsplit(tile.href).scheme in _WEB
        try:
            with alone(path), atomic(record) as draft, atomic(path) as window:
                cut = cut_window(tile.href if is_web else Path(tile.href), self._outline, window, http=self._http)
                write_json(draft, _record(tile, cut.source, cut.window.bounds))
                tell = partial(self._ledger.append, "file", id=tile.id)
                tell(path=name, size=cut.size, sha256=cut.sha256, source=cut.source, version=tile.version)
                record_name = record.relative_to(self._root).as_posix()
                tell(path=record_name, size=draft.stat().st_size, sha256=file_sha256(draft))
        except BesideAreaError:
            self._ledger.append("beside", path=name, id=tile.id)
            return None
        except PatienceEnded as error:
            self.stopped = error
            raise
        return path


def _record(tile: TileRow, source: str, window: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return JSON values that say what a window is of."""
    return {
        "mosaic": MOSAIC,
        "version": tile.version,
        "resolution_m": tile.resolution_m,
        "tile": tile.id,
        "source": source,
        "window": list(window),
        "heights": "metres above the ellipsoid of WGS 84",
    }


def _heights_of(item: Item) -> str | None:
    """Return the href of an item's heights; None if it has none."""
    assets = item.get("assets")
    asset = assets.get("dem") if isinstance(assets, dict) else None
    href = asset.get("href") if isinstance(asset, dict) else None
    return href if isinstance(href, str) and href else None


def _given(tiles: Path) -> list[str]:
    """Return addresses or paths of the heights of tiles in a folder, a pattern or a list.

    Raises:
        ConfigError: If there is none.
    """
    if tiles.is_dir():
        hrefs = [str(path) for path in files_below([tiles])]
    elif tiles.is_file() and not tiles.name.lower().endswith(_ENDINGS):
        try:
            lines = [line.strip() for line in tiles.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            msg = f"{tiles} cannot be read as a list of tiles; give a text file with one on each line"
            raise ConfigError(msg) from error
        kept = [line for line in lines if line and not line.startswith("#")]
        hrefs = [
            line if urlsplit(line).scheme in ("http", "https", "s3") else str(tiles.parent / line) for line in kept
        ]
    else:
        hrefs = [str(path) for path in matches(str(tiles))]
    rasters = [href for href in hrefs if without_query(href).lower().endswith(_ENDINGS)]
    heights = [href for href in rasters if not PurePosixPath(without_query(href)).stem.lower().endswith(_COMPANIONS)]
    if not heights:
        msg = f"{tiles} holds no GeoTIFF of heights; correct 'acquire.elevation.tiles': a folder, pattern or list"
        raise ConfigError(msg)
    return heights


def _tile_id(href: str) -> str:
    """Return the id of a tile from the name of its heights."""
    stem = PurePosixPath(without_query(href)).stem
    for ending in sorted(_HEIGHTS, key=len, reverse=True):
        stem = stem.removesuffix(ending)
    return usable_id(stem)
