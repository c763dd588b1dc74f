"""The index: all entries of a catalogue in one GeoParquet table, written and read.

Its columns are those of stac-geoparquet, and those that thawmap needs to find scenes again. Parquet is loaded only
where there is a catalogue.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from thawmap import __version__
from thawmap.data.catalogue.layout import (
    ABOUT,
    FOLDERS,
    FOUND,
    KIND,
    NAME,
    NOTES,
    PATH,
    PROCESSING,
    RECORD,
    REGION,
    USABLE,
    VERSION,
    Entry,
    File,
    Folder,
)
from thawmap.data.catalogue.records import record_text
from thawmap.data.catalogue.stac import EXTENSIONS, STAC_VERSION, asset, interval, properties
from thawmap.errors import DataError
from thawmap.files.records import Record, checked

if TYPE_CHECKING:
    import pyarrow as pa

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NO_FILES = "image"  # a table needs some file to describe
_SHA256_DIGITS = 64


class OtherRecord(Record):
    """A candidate that is no entry: it is at fault, or could not be opened."""

    name: str
    path: str
    id: str
    found: str | None = None
    files: list[str] = Field(default_factory=list)
    fault: str | None = None


class AboutRecord(Record):
    """What an index says of the whole catalogue."""

    version: int
    program: str
    kind: str
    settings: str
    roots: list[str]
    folders: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]
    others: list[OtherRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a catalogue says of itself.

    Attributes:
        kind: Kind of scenes.
        settings: Fingerprint of the settings with which they were opened.
        roots: Folders that were searched, from the catalogue's folder.
        folders: Their contents, and those of other folders with files of scenes.
        others: Candidates that are no entries.
    """

    kind: str
    settings: str
    roots: tuple[str, ...]
    folders: Mapping[str, Folder] = field(repr=False)
    others: tuple[OtherRecord, ...] = field(default=(), repr=False)


def index_bytes(entries: Sequence[Entry], items: Sequence[str], about: About) -> bytes:
    """Return the index of some entries as the bytes of a file, the same for the same.

    Args:
        entries: The scenes, in order of their ids.
        items: Path of each one's item, from the catalogue's folder.
        about: What the catalogue says of itself.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where there is a catalogue
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pa.table(_columns(entries, items))
    metadata = {b"geo": _geo(entries), ABOUT: _about_text(about)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_about(path: Path) -> About | None:
    """Read what a catalogue's index says of itself; None where it is none of ours.

    Raises:
        DataError: If it is damaged.
        OtherVersionError: If another version of the program wrote it.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where there is a catalogue
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        metadata = pq.read_metadata(path).metadata or {}
        if ABOUT not in metadata:
            return None
        content = json.loads(metadata[ABOUT])
        wrote = (content.get("version"), content.get("program")) if isinstance(content, dict) else (None, None)
        if wrote == (VERSION, __version__):
            return _about(checked(content, AboutRecord))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise damaged(path) from error
    msg = f"{path} was written by thawmap {wrote[1]} (layout {wrote[0]}), and not by this version; write it again"
    raise OtherVersionError(msg)


class OtherVersionError(DataError):
    """A catalogue was written by another version of the program."""


def damaged(path: Path) -> DataError:
    """Return a DataError for an index that cannot be read."""
    return DataError(f"{path} is damaged; write it again")


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns of an index as lists of values, by name.

    Raises:
        DataError: If it is damaged, or lacks one.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where there is a catalogue
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        # `read_table` would load pandas
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=list(names))
        return {name: table.column(name).to_pylist() for name in names}
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged(path) from error


def read_entries(path: Path) -> list[Entry]:
    """Read all entries of an index.

    Raises:
        DataError: If it is damaged.
    """
    names = ("id", NAME, PATH, FOUND, FOLDERS, REGION, RECORD, "geometry", "bbox", "assets")
    columns = read_columns(path, names)
    try:
        return [_entry(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path) from error


def _entry(row: Mapping[str, Any]) -> Entry:
    """Return a row of an index as an entry."""
    record = json.loads(row[RECORD])
    assets = row["assets"]
    files = (
        File(key=key, path=path, size=size, mtime_ns=mtime, is_used=is_used, sha256=_sha256(assets[key]))
        for key, path, size, mtime, is_used in record["files"]
    )
    return Entry(
        id=row["id"],
        name=row[NAME],
        path=row[PATH],
        kind=record["kind"],
        region=row[REGION],
        found=None if row[FOUND] is None else datetime.fromisoformat(row[FOUND]),
        acquired=None if record["acquired"] is None else datetime.fromisoformat(record["acquired"]),
        processing=record["processing"],
        files=tuple(files),
        folders=tuple(row[FOLDERS]),
        crs=record["crs"],
        shape=tuple(record["shape"]),
        transform=tuple(record["transform"]),
        outline=row["geometry"],
        bbox=tuple(row["bbox"].values()),
        readings=record["readings"],
        masks=tuple(record["masks"]),
        scene_notes=tuple(record["scene_notes"]),
        notes=tuple(record["notes"]),
        usable=record["usable"],
    )


def _sha256(stored: Mapping[str, Any]) -> str | None:
    checksum = stored.get("file:checksum")
    return None if checksum is None else str(checksum)[-_SHA256_DIGITS:]


def _columns(entries: Sequence[Entry], items: Sequence[str]) -> "dict[str, pa.Array]":
    """Return the columns of an index by name."""
    import pyarrow as pa  # noqa: PLC0415 - only where there is a catalogue

    types = _types(entries)
    rows = [_row(entry, path) for entry, path in zip(entries, items, strict=True)]
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}


def _types(entries: Sequence[Entry]) -> "dict[str, pa.DataType]":
    """Return the type of each column of an index, by name."""
    import pyarrow as pa  # noqa: PLC0415 - only where there is a catalogue

    text, texts, number, time = pa.string(), pa.list_(pa.string()), pa.float64(), pa.timestamp("us", "UTC")
    keys = sorted({file.key for entry in entries for file in entry.files}) or [_NO_FILES]
    asset_fields = dict.fromkeys(("href", "type", "updated", "file:checksum"), text)
    file_type = pa.struct({**asset_fields, "roles": texts, "file:size": pa.int64()}.items())
    link_type = pa.struct([(key, text) for key in ("rel", "href", "type")])
    return {
        **dict.fromkeys(("type", "stac_version", "id"), text),
        "stac_extensions": texts,
        "geometry": pa.binary(),
        "bbox": pa.struct([(side, number) for side in _SIDES]),
        "links": pa.list_(link_type),
        "assets": pa.struct([(key, file_type) for key in keys]),
        **dict.fromkeys(("datetime", "start_datetime", "end_datetime"), time),
        **dict.fromkeys(("proj:code", "proj:wkt2"), text),
        "proj:shape": pa.list_(pa.int64()),
        "proj:transform": pa.list_(number),
        **dict.fromkeys((KIND, REGION, PROCESSING), text),
        USABLE: number,
        NOTES: texts,
        **dict.fromkeys((NAME, PATH, FOUND, RECORD), text),
        FOLDERS: texts,
    }


def _row(entry: Entry, path: str) -> dict[str, Any]:
    """Return an entry, and the path of its item, as a row of the index."""
    since, until = (None, None) if entry.acquired else interval(entry)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": entry.id,
        "geometry": entry.outline,
        "bbox": dict(zip(_SIDES, entry.bbox, strict=True)),
        "links": [{"rel": "self", "href": f"./{path}", "type": "application/geo+json"}],
        "assets": {file.key: asset(file, "./") for file in entry.files},
        "proj:wkt2": None,
        **properties(entry),
        "datetime": None if entry.acquired is None else entry.acquired.astimezone(UTC),
        "start_datetime": since,
        "end_datetime": until,
        NAME: entry.name,
        PATH: entry.path,
        FOUND: None if entry.found is None else entry.found.isoformat(),
        FOLDERS: list(entry.folders),
        RECORD: record_text(entry),
    }


def _geo(entries: Sequence[Entry]) -> bytes:
    """Return the metadata by which readers of GeoParquet know the geometry."""
    import shapely  # noqa: PLC0415 - only where there is a catalogue

    kinds = sorted({shapely.from_wkb(entry.outline).geom_type for entry in entries})
    column = {"encoding": "WKB", "geometry_types": kinds}
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()


def _about_text(about: About) -> bytes:
    """Return what a catalogue says of itself as JSON."""
    content = {
        "version": VERSION,
        "program": __version__,
        "kind": about.kind,
        "settings": about.settings,
        "roots": list(about.roots),
        "folders": {path: (folder.names, folder.stamps) for path, folder in sorted(about.folders.items())},
        "others": [other.model_dump(mode="json") for other in about.others],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _about(record: AboutRecord) -> About:
    """Return a checked record as what a catalogue says of itself."""
    return About(
        kind=record.kind,
        settings=record.settings,
        roots=tuple(record.roots),
        folders={path: Folder(names=names, stamps=stamps) for path, (names, stamps) in record.folders.items()},
        others=tuple(record.others),
    )
