"""A file on its way: its unfinished bytes on disk, what they are of, and whether it is whole."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from thawmap.acquire.answers import without_query
from thawmap.acquire.names import PART, RECORD
from thawmap.errors import ServiceError
from thawmap.text import printable

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file that is to be fetched.

    Attributes:
        url: Its address, or a function that asks for a fresh one: called before the first byte is fetched, and once
            more when the address has expired.
        path: Where it is to lie.
        size: Its bytes, where known before.
        sha256: As 64 hex digits, where known before.
        md5: As 32 hex digits, where known before.
        what: The file in messages; empty: the path.
        endpoint: Name of the rate that counts; empty: of its host.
    """

    url: str | Callable[[], str]
    path: Path
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    what: str = ""
    endpoint: str = ""

    @property
    def name(self) -> str:
        """The file in messages."""
        return printable(self.what or str(self.path))

    @property
    def is_known(self) -> bool:
        """Whether anything is known before that tells the file from another."""
        return any(value is not None for value in (self.size, self.sha256, self.md5))

    def allows(self, *, size: int, sha256: str, md5: str | None) -> bool:
        """Return whether a file of a size and checksums may be it.

        MD5 counts where SHA-256 is not known.
        """
        fits = self.size in (None, size) and _lower(self.sha256) in (None, sha256)
        return fits and (self.sha256 is not None or _lower(self.md5) in (None, _lower(md5)))


class WrongFileError(ServiceError):
    """What a service sends is not the file that was wanted."""


class ChangedError(ServiceError):
    """The file on the service is not the one any more of which a part was fetched."""


class Part:
    """The bytes of a wanted file that are on disk so far, and their checksums.

    They lie in NAME.part; NAME.part.json says what they are of. Bytes that cannot be gone on from are removed.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.path = wanted.path.with_name(wanted.path.name + PART)
        self._record_path = wanted.path.with_name(wanted.path.name + RECORD)
        self._record: dict[str, Any] = {}
        self.size = 0
        self.total: int | None = None
        self._sha256, self._md5 = hashlib.sha256(), _md5(wanted)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        self._load()
        self._file = self.path.open("ab", buffering=0)
        if not self._record:
            self.restart()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.total is not None and self.size == self.total

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, as hex."""
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Close the file, and remove it if it is not whole and has no bytes."""
        self._file.close()
        if not (self.size or self.is_whole):
            forget(self.wanted)

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the bytes which are missing."""
        if not self.size:
            return {}
        validator = self._record.get("etag") or self._record.get("modified")
        return {"Range": f"bytes={self.size}-", **({"If-Range": validator} if validator else {})}

    def follow(self, response: httpx.Response) -> None:
        """Take up a response: go on where it does, or begin anew.

        Raises:
            ChangedError: If it goes on elsewhere, or with another file.
            WrongFileError: If it cannot be the wanted file.
        """
        _check_kind(response, self.wanted)
        validators = _validators(response)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            start, total = _content_range(response)
            is_same = all(validators.get(key) in (None, self._record.get(key)) for key in ("etag", "modified"))
            if start != self.size or not is_same or total not in (None, self.total):
                msg = f"{self.wanted.name} has changed on the service"
                raise ChangedError(msg)
            return
        total = _length(response)
        if self.wanted.size is not None and total not in (None, self.wanted.size):
            msg = f"{self.wanted.name} has {total} bytes on the service where {self.wanted.size} are expected"
            raise WrongFileError(msg)
        self.restart()
        self.total = total if total is not None else self.wanted.size
        self._record = {
            "url": without_query(str(response.request.url)),
            "total": self.total,
            **validators,
            **_expected(self.wanted),
        }
        self._record_path.write_text(json.dumps(self._record) + "\n", encoding="utf-8")

    def write(self, piece: bytes) -> None:
        """Add bytes.

        Raises:
            WrongFileError: If these are more than the file has.
            OSError: If the disk does not take them.
        """
        if self.total is not None and self.size + len(piece) > self.total:
            msg = f"{self.wanted.name} goes on beyond its {self.total} bytes"
            raise WrongFileError(msg)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        self._digest(piece)

    def end(self) -> None:
        """Note that the service has sent all.

        Raises:
            httpx.RemoteProtocolError: If it ended too early.
        """
        if self.total is None:
            self.total = self.size
        if self.size < self.total:
            msg = f"it ends {self.total - self.size} bytes too early"
            raise httpx.RemoteProtocolError(msg)

    def restart(self) -> None:
        """Forget all bytes."""
        self._file.truncate(0)
        self._record_path.unlink(missing_ok=True)
        self._record, self.size, self.total = {}, 0, None
        self._sha256, self._md5 = hashlib.sha256(), _md5(self.wanted)

    def check(self) -> None:
        """Refuse bytes that are not the wanted file.

        Raises:
            WrongFileError: If their number or a checksum differs from what was said before.
        """
        digests = {"sha256": self.sha256, "md5": self._md5.hexdigest() if self._md5 else None}
        for key, got in [("size", self.size), *digests.items()]:
            expected = getattr(self.wanted, key)
            expected = _lower(expected) if key != "size" else expected
            if got is not None and expected not in (None, got):
                msg = f"{self.wanted.name} came with {key} {got} where {expected} is expected"
                raise WrongFileError(msg)

    def sync(self) -> None:
        """Wait until the disk holds all bytes."""
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Forget all bytes, and remove it from the disk."""
        self.restart()
        self.close()

    def _load(self) -> None:
        """Take up what an earlier run left, if it can be gone on from."""
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
            with self.path.open("rb") as file:
                fits = isinstance(record, dict) and _fits(record, self.wanted)
                while fits and (piece := file.read(_PIECE)):
                    self._digest(piece)
        except (OSError, ValueError):
            return
        if fits and (record["total"] is None or self.size <= record["total"]):
            self._record, self.total = record, record["total"]

    def _digest(self, piece: bytes) -> None:
        self._sha256.update(piece)
        if self._md5:
            self._md5.update(piece)
        self.size += len(piece)


def forget(wanted: Wanted) -> None:
    """Remove what is left of the parts of a file that is there."""
    for ending in (PART, RECORD):
        wanted.path.with_name(wanted.path.name + ending).unlink(missing_ok=True)


def _lower(digest: str | None) -> str | None:
    """Return a checksum in lower case."""
    return digest and digest.lower()


def _md5(wanted: Wanted) -> Any:
    """Return a new MD5 where it is all that tells a wrong file; None elsewhere."""
    return hashlib.md5(usedforsecurity=False) if wanted.md5 and not wanted.sha256 else None


def _expected(wanted: Wanted) -> dict[str, Any]:
    """Return what is known before of a wanted file."""
    return {"size": wanted.size, "sha256": wanted.sha256, "md5": wanted.md5}


def _fits(record: dict[str, Any], wanted: Wanted) -> bool:
    """Return whether bytes with a record can be gone on from to a wanted file."""
    total = record.get("total")
    if "total" not in record or not (total is None or isinstance(total, int)):
        return False
    is_certain = record.get("etag") or record.get("modified") or wanted.sha256 or wanted.md5
    return bool(is_certain) and all(record.get(key) == value for key, value in _expected(wanted).items())


def _validators(response: httpx.Response) -> dict[str, str]:
    """Return what tells the file of a response from a later one: a strong ETag, or its date."""
    etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
    if etag and not etag.startswith("W/"):
        return {"etag": etag}
    return {"modified": modified} if modified and not etag else {}


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    """Return the first byte and the number of all bytes of a partial response.

    -1 where it does not say.
    """
    match = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _length(response: httpx.Response) -> int | None:
    """Return the number of bytes of a response's body.

    None where its headers do not say.
    """
    text = response.headers.get("content-length", "")
    return int(text) if text.isdigit() and "transfer-encoding" not in response.headers else None


def _check_kind(response: httpx.Response, wanted: Wanted) -> None:
    """Refuse a response that is a web page, compressed, or whose end could not be told.

    Raises:
        WrongFileError: If it is one.
    """
    headers = response.headers
    if headers.get("content-type", "").startswith("text/html") and not wanted.path.suffix.startswith(".htm"):
        msg = f"{wanted.name} is answered with a web page"
        raise WrongFileError(msg)
    if headers.get("content-encoding", "identity") != "identity":
        msg = f"{wanted.name} is sent as {printable(headers['content-encoding'])}, which was not asked for"
        raise WrongFileError(msg)
    says_end = _length(response) is not None or "chunked" in headers.get("transfer-encoding", "")
    if not (says_end or wanted.size is not None or wanted.sha256 or wanted.md5):
        msg = f"{wanted.name} is sent without its length, so that a cut file could not be told from a whole one"
        raise WrongFileError(msg)
