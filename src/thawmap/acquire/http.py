"""The one way to services: paced, patient requests, with keys for their own host only."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self

import httpx

from thawmap.acquire.addresses import Request, origin, origins, parsed, redirected
from thawmap.acquire.answers import (
    Answer,
    AnswerLost,
    PatienceEnded,
    Refused,
    Stopped,
    header_time,
    keep_logs_clean,
    refusal,
    without_query,
)
from thawmap.acquire.pacing import Pace, backoff, rest
from thawmap.acquire.transport import LargeBodies, has_proxy
from thawmap.errors import ServiceError

__all__ = ["Answer", "AnswerLost", "Http", "PatienceEnded", "Refused", "Stopped", "without_query"]

USUAL_RATE = 4.0
"""Requests a second to an endpoint for which no rate is given."""
_MOST_HOPS = 10
_MOST_TRIES = 8  # of a request that fails by itself while its service may be well
_FIRST_TRIES = 5  # to reach a service that has not answered yet
_WORTH_NOTING_S = 5.0
_BUSY = (429,)
_PASSING = (408, 425, 502, 503, 504)  # of a service that is restarted or overloaded

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """A failure of one try that may pass."""

    reason: str
    response: httpx.Response | None = None
    wait_s: float | None = None
    is_unsent: bool = False


class Http:
    """Requests to services, for several threads; a context manager.

    A request is repeated while the service is busy (429, 5xx) or the connection breaks, until the patience ends; what
    it asks for in Retry-After is obeyed by all threads. Each endpoint has its own rate.

    Args:
        credentials: Keys by host, host:port, or scheme://host:port. They are sent there only, unencrypted only to this
            machine itself, and never after a redirect elsewhere.
        rates: Requests a second by name of an endpoint; others 4 a second, by host where an endpoint has no name.
        patience_s: How long to wait for a service that is busy or fails.
        connections: Most connections at once.
        note: Is told in a sentence about long waits; called from any thread.
        timeout_s: Longest silence of a service in the middle of an answer.
    """

    def __init__(
        self,
        *,
        credentials: Mapping[str, httpx.Auth] | None = None,
        rates: Mapping[str, float] | None = None,
        patience_s: float = 86400.0,
        connections: int = 8,
        note: Callable[[str], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        keep_logs_clean()
        self._credentials = {place: auth for key, auth in (credentials or {}).items() for place in origins(key)}
        self._rates = dict(rates or {})
        self._patience_s = patience_s
        self._note = note or _log.info
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._large = httpx.Client(transport=LargeBodies(), cookies=_no_cookies())
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 20.0), pool=None),
            limits=httpx.Limits(max_connections=connections + 2, max_keepalive_connections=connections + 2),
            headers={"User-Agent": "thawmap"},
            cookies=_no_cookies(),
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return a text with the hosts of its credentials, and nothing of these."""
        hosts = sorted({host for _, host, _ in self._credentials})
        return f"Http(with credentials for: {', '.join(hosts) or 'nobody'})"

    def close(self) -> None:
        """End all waits, and close the connections."""
        self._closed.set()
        self._client.close()
        self._large.close()

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        endpoint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to a GET of an address.

        Args:
            url: The address.
            params: Goes into its query, beside what is there.
            endpoint: Name of the rate that counts.
            headers: Sent with it.

        Raises:
            Refused: If the service refuses it for good.
            PatienceEnded: If it is busy for too long.
            ServiceError: If it cannot be reached.
        """
        address = parsed(url)
        address = address.copy_merge_params(dict(params)) if params else address
        return self._answer(Request(method="GET", url=address, headers=headers or {}), endpoint)

    def post(self, url: str, body: Any, *, endpoint: str = "", repeat: bool) -> Answer:
        """Return the answer to a POST of a JSON value.

        Args:
            url: The address.
            body: The JSON value.
            endpoint: Name of the rate that counts.
            repeat: Whether sending it twice changes nothing, as for a search. If not, it is sent again only where it
                is certain that the service has not taken it: no connection, or 429.

        Raises:
            AnswerLost: If it must not be repeated, and it is not known whether it arrived.
            Refused: If the service refuses it for good.
            PatienceEnded: If it is busy for too long.
            ServiceError: If it cannot be reached.
        """
        request = Request(method="POST", url=parsed(url), body=body, is_repeatable=repeat)
        return self._answer(request, endpoint)

    def put(self, url: str, body: Any = None, *, endpoint: str = "") -> Answer:
        """Return the answer to a PUT of a JSON value, or of nothing; errors as of `get`."""
        return self._answer(Request(method="PUT", url=parsed(url), body=body), endpoint)

    @contextmanager
    def stream(
        self,
        url: str,
        *,
        endpoint: str = "",
        headers: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[httpx.Response]:
        """Yield an answer of status 200 to 299 whose body is still to be read.

        Errors as of `get`.

        The body comes as it was sent, by ``iter_raw``, and breaks with an httpx.TransportError; a piece holds until the
        next one is asked for.

        Args:
            url: The address.
            endpoint: Name of the rate that counts.
            headers: Sent with it.
            stop: Ends waits with `Stopped` when it is set.
        """
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        request = Request(method="GET", url=parsed(url), headers=sent, is_streamed=True)
        response = self._ask(request, endpoint, stop or self._closed)
        try:
            yield response
        finally:
            response.close()

    def _answer(self, request: Request, endpoint: str) -> Answer:
        return _whole(self._ask(request, endpoint, self._closed))

    def _ask(self, request: Request, endpoint: str, stop: threading.Event) -> httpx.Response:
        """Return the response to a request that was repeated until it came or is refused."""
        pace = self._pace(endpoint, request.url)
        started = time.monotonic()
        tries = 0
        while True:
            self._wait_turn(pace, started if tries else None, stop)
            sent = time.monotonic()
            fault, response = self._try(request, pace, stop)
            tries += 1
            if response is not None:
                pace.succeeded()
                return _checked(response, request.method)
            assert fault is not None
            pace.failed(sent=sent, answered=fault.response is not None, reason=fault.reason)
            status = fault.response.status_code if fault.response is not None else 0
            is_untaken = fault.is_unsent or status in _BUSY
            if not (request.is_repeatable or is_untaken):
                msg = f"{request.name} may or may not have arrived ({fault.reason}); look it up before asking again"
                raise AnswerLost(msg)
            if status in _BUSY or (status and fault.wait_s is not None):
                self._say(pace, fault, pace.pause(sent=sent, wait_s=fault.wait_s))
                continue
            self._give_up(request, fault, tries, pace)
            wait_s = backoff(tries)
            pace.check_patience(wait_s, started)
            self._say(pace, fault, wait_s)
            rest(wait_s, stop)

    def _wait_turn(self, pace: Pace, since: float | None, stop: threading.Event) -> None:
        while wait_s := pace.delay(since=since):
            rest(wait_s, stop)

    def _try(
        self, request: Request, pace: Pace, stop: threading.Event
    ) -> tuple[_Fault, None] | tuple[None, httpx.Response]:
        """Return why a request failed once, or the response to it."""
        try:
            response = self._follow(request, pace, stop)
            status = response.status_code
            if not request.is_streamed or not response.is_success:
                response.read()
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return _Fault(reason=_words(error), is_unsent=True), None
        except httpx.TransportError as error:
            return _Fault(reason=_words(error)), None
        except httpx.DecodingError:
            return _Fault(reason="its answer is damaged"), None
        _log.debug("%s: %d", request.name, status)
        if status in _BUSY or status in _PASSING or status >= 500:
            return _Fault(reason=f"it answers {status}", response=response, wait_s=_asked_wait(response)), None
        return None, response

    def _follow(self, request: Request, pace: Pace, stop: threading.Event) -> httpx.Response:
        """Return the response at the end of a request's redirects.

        Keys stay with their host.
        """
        for _ in range(_MOST_HOPS):
            response = self._send(request)
            onward = redirected(request, response)
            if onward is None:
                return response
            response.close()
            if origin(onward.url) == origin(request.url):
                self._wait_turn(pace, None, stop)
            request = onward
        msg = f"{request.name} is redirected {_MOST_HOPS} times; check the address"
        raise ServiceError(msg)

    def _send(self, request: Request) -> httpx.Response:
        """Return the response to one request, with its body unread."""
        built = self._client.build_request(
            request.method,
            request.url,
            headers=dict(request.headers),
            json=request.body,
        )
        auth = self._credentials.get(origin(request.url))
        client = self._large if request.is_streamed and not has_proxy() else self._client
        return client.send(built, auth=auth, stream=True, follow_redirects=False)

    def _pace(self, endpoint: str, url: httpx.URL) -> Pace:
        """Return the pace of an endpoint; where it has no name, of an address's host."""
        name = endpoint or url.netloc.decode("ascii")
        with self._lock:
            if name not in self._paces:
                title = url.host if not endpoint else f"{url.host} ({endpoint})"
                rate = self._rates.get(name, USUAL_RATE)
                self._paces[name] = Pace(title, rate=rate, patience_s=self._patience_s)
            return self._paces[name]

    def _give_up(self, request: Request, fault: _Fault, tries: int, pace: Pace) -> None:
        """Refuse to try a request again that failed too often.

        Raises:
            ServiceError: If it did.
        """
        if fault.response is None:
            if not pace.has_answered and tries >= _FIRST_TRIES:
                msg = f"{request.name} reaches nobody ({fault.reason}); check the address and the network"
                raise ServiceError(msg)
        elif fault.response.status_code not in _PASSING and tries >= _MOST_TRIES:
            raise refusal(_whole(fault.response), request.method)

    def _say(self, pace: Pace, fault: _Fault, wait_s: float) -> None:
        """Note a long wait."""
        if wait_s >= _WORTH_NOTING_S:
            self._note(f"{pace.name}: {fault.reason}; going on in {wait_s:.0f} s")


def _no_cookies() -> CookieJar:
    """Return a jar that keeps no cookies."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _checked(response: httpx.Response, method: str) -> httpx.Response:
    """Return a response that is no refusal.

    Raises:
        Refused: If it is one.
    """
    if response.is_success:
        return response
    raise refusal(_whole(response), method)


def _whole(response: httpx.Response) -> Answer:
    """Return a response that was read as an answer."""
    return Answer(
        status=response.status_code,
        content=response.content,
        headers=response.headers,
        url=without_query(str(response.request.url)),
        key=response.request.headers.get("authorization", "").rpartition(" ")[2],
    )


def _asked_wait(response: httpx.Response) -> float | None:
    """Return the seconds to wait that Retry-After asks for; None where it does not.

    A date in it is counted from the service's own clock, as ours may be wrong.
    """
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = header_time(text)
        if until is None:
            return None
        now = header_time(response.headers.get("date")) or datetime.now(UTC)
        seconds = (until - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _words(error: httpx.HTTPError) -> str:
    """Return a lost connection's reason in words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
