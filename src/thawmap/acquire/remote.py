"""Files on the web that are read in pieces, by ranges of their bytes."""

import io
import re
from collections.abc import Callable, Iterable

from thawmap.acquire.http import Answer, Http, Refused, without_query
from thawmap.errors import ServiceError

ENDPOINT = "assets"
"""Name of the rate of requests for pieces of files."""
RATE = 50.0
"""Requests a second for pieces of files, of which an image needs a few."""
Address = str | Callable[[bool], str]
"""Address of a file, or a function that gives a fresh one, called with True where the last one was refused."""

_PIECE = 64 * 1024  # bytes that are fetched and kept together
_GAP = 2  # pieces that are not needed, and are fetched with those around them
_LONGEST = 128  # pieces in one request
_REFUSED = (401, 403)  # statuses of addresses that have expired
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RemoteFile:
    """A file on the web; pieces of it are fetched when they are read, and kept.

    Reading never raises: a fault is kept in ``fault``, and what is read is short.

    Args:
        http: Sends the requests.
        address: Where it is; never shown with its query.

    Attributes:
        name: Its address without query.
        fault: The first error of a read; None so far.
    """

    def __init__(self, http: Http, address: Address) -> None:
        self._http = http
        self._address = address
        self._pieces: dict[int, bytes] = {}
        self._etag: str | None = None
        self._size: int | None = None
        self.name = without_query(address if isinstance(address, str) else address(False))
        self.fault: ServiceError | None = None

    def size(self) -> int:
        """Return its length in bytes.

        Raises:
            ServiceError: If it cannot be fetched.
        """
        if self._size is None:
            self.fetch([(0, 1)])
        assert self._size is not None
        return self._size

    def read(self, start: int, count: int) -> bytes:
        """Return bytes of it; fewer at its end, and after a fault."""
        try:
            end = min(start + count, self.size())
            if start >= end:
                return b""
            self.fetch([(start, end)])
        except ServiceError as error:
            self.fault = self.fault or error
            return b""
        first, last = start // _PIECE, (end - 1) // _PIECE
        joined = b"".join(self._pieces[number] for number in range(first, last + 1))
        return joined[start - first * _PIECE : end - first * _PIECE]

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch the bytes of ranges, start and end, that are not here yet.

        Raises:
            ServiceError: If they do not come, or the file has changed meanwhile.
        """
        wanted = {number for start, end in ranges for number in range(start // _PIECE, -(-end // _PIECE))}
        if self._size is not None:
            wanted = {number for number in wanted if number * _PIECE < self._size}
        for first, last in _runs(sorted(wanted - self._pieces.keys())):
            if not all(number in self._pieces for number in range(first, last + 1)):  # else it came whole
                self._fetch(first, last)

    def forget(self, *, keeping: frozenset[int] = frozenset()) -> None:
        """Drop the pieces that are here, but for some."""
        self._pieces = {number: piece for number, piece in self._pieces.items() if number in keeping}

    def kept(self) -> frozenset[int]:
        """Return the numbers of the pieces that are here."""
        return frozenset(self._pieces)

    def open(self, _: str, mode: str = "rb") -> "Cursor":  # noqa: ARG002 - as openers are called
        """Return a new cursor at its begin, as `rasterio.open` wants of an opener."""
        return Cursor(self)

    def _fetch(self, first: int, last: int) -> None:
        """Fetch the pieces from one number to another.

        Raises:
            ServiceError: If they do not come whole.
        """
        start, end = first * _PIECE, (last + 1) * _PIECE
        answer = self._ask({"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"})
        content, got = answer.content, _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status == 200:  # a server that gives files whole only
            start, size = 0, len(content)
        elif answer.status == 206 and got is not None and int(got[1]) == start:
            size = int(got[3])
        else:
            msg = f"{self.name} does not come in pieces; its server must answer to Range"
            raise ServiceError(msg)
        etag = answer.headers.get("etag")
        if self._size not in (None, size) or (self._etag is not None and etag != self._etag):
            msg = f"{self.name} has changed while it was read; run the command again"
            raise ServiceError(msg)
        if answer.status == 206 and len(content) < min(end, size) - start:
            msg = f"{self.name} comes short: {len(content)} bytes of {min(end, size) - start}; run the command again"
            raise ServiceError(msg)
        self._size, self._etag = size, etag
        for offset in range(0, len(content), _PIECE):
            piece = content[offset : offset + _PIECE]
            if len(piece) == _PIECE or start + offset + len(piece) == size:
                self._pieces[(start + offset) // _PIECE] = piece

    def _ask(self, headers: dict[str, str]) -> Answer:
        """Return the answer to a request for it, with a fresh address if one is refused."""
        if isinstance(self._address, str):
            return self._http.get(self._address, endpoint=ENDPOINT, headers=headers)
        try:
            return self._http.get(self._address(False), endpoint=ENDPOINT, headers=headers)
        except Refused as error:
            if error.status not in _REFUSED:
                raise
            return self._http.get(self._address(True), endpoint=ENDPOINT, headers=headers)


class Cursor(io.RawIOBase):
    """A position in a remote file, from which libraries read as from any file."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, and return the new position."""
        try:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
            self._position = (self._file.size() if base is None else base) + offset
        except ServiceError as error:
            self._file.fault = self._file.fault or error
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; fewer at the end, and after a fault."""
        content = self._file.read(self._position, 2**62 if count < 0 else count)
        self._position += len(content)
        return content


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Return sorted numbers as runs, first and last, over small gaps and not too long."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number - runs[-1][1] <= _GAP + 1 and number - runs[-1][0] < _LONGEST:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
