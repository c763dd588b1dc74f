"""A transport of httpx for large bodies, which come as views of one buffer.

httpx's own copies each body several times, in pieces of 64 kB; on a fast network that is what a download waits for.
"""

import http.client
import select
import ssl
import threading
import time
from collections.abc import Iterator
from typing import cast
from urllib.request import getproxies

import httpx

_LEAST, _MOST = 2**16, 2**19  # bytes of a piece; the most fit into a processor's cache
_SLOW_S, _FAST_S = 1.0, 0.1  # a piece that takes longer is halved, one that takes less is doubled

Origin = tuple[str, bytes, int]


class LargeBodies(httpx.BaseTransport):
    """GET requests whose bodies are read in large pieces, over connections that are kept.

    A piece of ``Response.iter_raw`` is a view that holds until the next one is asked for.
    """

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request, its body unread."""
        origin = (request.url.scheme, request.url.raw_host, request.url.port or 0)
        timeouts = request.extensions.get("timeout", {})
        connection = self._kept(origin) or self._connected(origin, timeouts.get("connect"))
        with self._lock:
            self._busy.add(connection)
        try:
            assert connection.sock is not None
            connection.sock.settimeout(timeouts.get("read"))
            response = _asked(connection, request)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.give_back(origin, connection, is_usable=False)
            raise _lost(error) from None
        headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in response.getheaders()]
        body = _Body(self, origin, connection, response)
        return httpx.Response(response.status, headers=headers, stream=body, request=request)

    def close(self) -> None:
        """Close all connections, those that are being read too."""
        with self._lock:
            self._is_closed = True
            kept = [connection for idle in self._idle.values() for connection in idle]
            busy = list(self._busy)
            self._idle.clear()
        for connection in busy:
            if connection.sock is not None:
                _shut(connection)  # which wakes the thread that reads from it, and closes it
        for connection in kept:
            connection.close()

    def give_back(self, origin: Origin, connection: http.client.HTTPConnection, *, is_usable: bool) -> None:
        """Keep a connection for the next request, or close it."""
        with self._lock:
            self._busy.discard(connection)
            is_usable = is_usable and not self._is_closed
            if is_usable:
                self._idle.setdefault(origin, []).append(connection)
        if not is_usable:
            connection.close()

    def _kept(self, origin: Origin) -> http.client.HTTPConnection | None:
        """Return a connection that is still open; None where there is none."""
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.sock is not None and not _is_readable(connection):
                return connection
            connection.close()  # the other side has closed it, or sent more than it said

    def _connected(self, origin: Origin, timeout: float | None) -> http.client.HTTPConnection:
        """Return a new connection."""
        scheme, host, port = origin[0], origin[1].decode("ascii").strip("[]"), origin[2] or None
        connection: http.client.HTTPConnection
        if scheme == "https":
            with self._lock:
                self._context = self._context or httpx.create_ssl_context()
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from None
        return connection


class _Body(httpx.SyncByteStream):
    """The body of a response, and the connection that it comes from."""

    def __init__(
        self,
        transport: LargeBodies,
        origin: Origin,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection
        self._response = response
        self._is_whole = self._is_done = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield pieces; each is a view of the same buffer."""
        buffer = memoryview(bytearray(_MOST))
        size = _LEAST
        while True:
            started = time.monotonic()
            read = self._read(buffer[:size])
            if not read:
                break
            yield cast("bytes", buffer[:read])  # a view is as good where it is only read
            took = time.monotonic() - started
            size = max(size // 2, _LEAST) if took > _SLOW_S else min(size * 2, _MOST) if took < _FAST_S else size
        if self._response.length:
            msg = f"the body ends {self._response.length} bytes too early"
            raise httpx.RemoteProtocolError(msg)
        self._is_whole = True

    def close(self) -> None:
        """Keep the connection if the body was read to its end."""
        if self._is_done:
            return
        self._is_done = True
        is_usable = self._is_whole and not self._response.will_close
        self._response.close()
        self._transport.give_back(self._origin, self._connection, is_usable=is_usable)

    def _read(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, and return how many these are."""
        try:
            return self._response.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _lost(error) from None


def has_proxy() -> bool:
    """Return whether requests of this machine go through a proxy."""
    return any(name in ("http", "https", "all") for name in getproxies())


def _asked(connection: http.client.HTTPConnection, request: httpx.Request) -> http.client.HTTPResponse:
    """Return the response to a request that is sent over a connection."""
    target = request.url.raw_path.decode("ascii")
    connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
    for name, text in request.headers.raw:
        connection.putheader(name, text)
    connection.endheaders(request.read() or None)
    return connection.getresponse()


def _lost(error: Exception) -> httpx.TransportError:
    """Return the error of httpx for one of a connection that was lost."""
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout("it has gone silent")
    if isinstance(error, http.client.HTTPException):
        return httpx.RemoteProtocolError(str(error) or type(error).__name__)
    return httpx.ReadError(str(error))


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    """Return whether an idle connection has something to read, such as its end."""
    watch = select.poll()
    watch.register(connection.sock, select.POLLIN)
    return bool(watch.poll(0))


def _shut(connection: http.client.HTTPConnection) -> None:
    """End a connection under a thread that reads from it."""
    try:
        connection.sock.shutdown(2)
    except OSError:
        return  # it has just ended by itself
