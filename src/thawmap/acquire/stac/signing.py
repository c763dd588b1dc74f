"""Signed addresses of the Planetary Computer's files: tokens, fetched when needed, kept in memory."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from thawmap.acquire.http import Http
from thawmap.acquire.remote import Address
from thawmap.acquire.stac.matching import parse_time
from thawmap.errors import ServiceError

ENDPOINT = "tokens"
"""Name of the rate of requests for tokens."""
_API = "/api/stac/v1"  # path of the catalogue, beside which tokens are given
_TOKENS = "/api/sas/v1/token"
_STORE = ".blob.core.windows.net"
_MARGIN_S = 60.0  # a token is not used in the last minute of its life
_KEY = "PC_SDK_SUBSCRIPTION_KEY"
"""Variable of the environment with the key of a subscription, which is not needed."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A token, and until when it may be used, by this process' own clock."""

    query: str
    until: float


class Signer:
    """Signs the addresses of a catalogue's files; for several threads.

    The life of a token is counted by the server's clock. Tokens are never written anywhere.

    Args:
        http: Sends the requests.
        address: Address of the catalogue.
        clock: Seconds that only grow.
    """

    def __init__(self, http: Http, address: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(address)
        self._http = http
        self._host = parts.netloc
        self._tokens_at = f"{parts.scheme}://{parts.netloc}{_TOKENS}"
        self._clock = clock
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()

    def address(self, href: str) -> Address:
        """Return an href that needs no token as it is, else a function that signs it."""
        parts = urlsplit(href)
        if parts.scheme not in ("http", "https") or not (parts.netloc.endswith(_STORE) or parts.netloc == self._host):
            return href
        container = parts.path.strip("/").split("/")
        account = parts.netloc.partition(".")[0] if parts.netloc.endswith(_STORE) else container.pop(0)
        return lambda is_refused: f"{href}?{self._query(f'{account}/{container[0]}', is_refused=is_refused)}"

    def _query(self, place: str, *, is_refused: bool) -> str:
        """Return a valid token for an account and container; a new one after a refusal."""
        with self._lock:
            token = self._tokens.get(place)
            if token is None or is_refused or self._clock() >= token.until:
                token = self._tokens[place] = self._fetch(place)
            return token.query

    def _fetch(self, place: str) -> _Token:
        """Return a new token for an account and container.

        Raises:
            ServiceError: If none comes.
        """
        key = os.environ.get(_KEY)
        started = self._clock()
        answer = self._http.get(
            f"{self._tokens_at}/{place}",
            endpoint=ENDPOINT,
            headers={"Ocp-Apim-Subscription-Key": key} if key else None,
        )
        content = answer.json()
        query, expiry = (content.get(name) if isinstance(content, dict) else None for name in ("token", "msft:expiry"))
        until = parse_time(expiry)
        if not isinstance(query, str) or until is None:
            msg = f"{answer.url} gives no token to read files with; try again later, or name another catalogue"
            raise ServiceError(msg)
        life_s = (until - (answer.date or datetime.now(UTC))).total_seconds()
        return _Token(query, started + life_s - _MARGIN_S)


def signer_for(http: Http, address: str) -> Signer | None:
    """Return a signer for a catalogue's address if it is a Planetary Computer's.

    Else None.
    """
    return Signer(http, address) if urlsplit(address).path.rstrip("/") == _API else None


def signed(signer: Signer | None, href: str) -> Address:
    """Return an href as it is read: signed where there is a signer for it."""
    return href if signer is None else signer.address(href)
