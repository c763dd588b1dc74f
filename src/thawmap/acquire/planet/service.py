"""Planet's service: its addresses, rates below its limits, refusals in words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from thawmap.acquire.http import Answer, Http, Refused
from thawmap.errors import ServiceError

RATES: Mapping[str, float] = {
    "planet-search": 5.0, "planet-coverage": 5.0, "planet-quota": 2.0,
    "planet-order": 2.0, "planet-state": 2.0, "planet-list": 2.0, "planet-download": 4.0,
}  # fmt: skip
"""Requests a second by endpoint; Planet allows 10 of searching, 3 of ordering, 5 of downloads."""

ITEM_TYPE = "PSScene"
_MOST_PAGES = 100_000
_UNAUTHORISED, _FORBIDDEN = 401, 403


@dataclass(frozen=True, slots=True)
class Manners:
    """How a run treats the service.

    Attributes:
        connections: Files that are fetched side by side.
        patience_s: How long to wait for orders.
        pause_s: Pause between two looks at orders.
        settle_s: Pause before looking again for an order whose answer was lost.
    """

    connections: int = 8
    patience_s: float = 86400.0
    pause_s: float = 20.0
    settle_s: float = 10.0


USUAL = Manners()


class LoginRefused(ServiceError):  # noqa: N818 - it reads as what happened
    """Planet does not accept the login, for whatever is asked."""


@dataclass(frozen=True, slots=True)
class Service:
    """Planet's service by its address; links that lead elsewhere are refused."""

    http: Http
    address: str

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return f"{self.address.rstrip('/')}{path}"

    def get(self, url: str, *, endpoint: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Return the answer to a GET of an address of the service.

        Errors are those of `Http.get`; that of a login is in words.
        """
        self.check_own(url)
        return _in_words(lambda: self.http.get(url, params=params, endpoint=endpoint))

    def post(self, url: str, body: Any, *, endpoint: str, repeat: bool) -> Answer:
        """Return the answer to a POST to an address of the service.

        Errors are those of `Http.post`; that of a login is in words.
        """
        self.check_own(url)
        return _in_words(lambda: self.http.post(url, body, endpoint=endpoint, repeat=repeat))

    def is_own(self, url: str) -> bool:
        """Return whether an address is of the service."""
        own, other = urlsplit(self.address), urlsplit(url)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc)

    def check_own(self, url: str) -> None:
        """Refuse an address that is not of the service.

        Raises:
            ServiceError: If it is of another.
        """
        if not self.is_own(url):
            host = urlsplit(url).hostname or "no host"
            msg = f"an answer of {self.address} leads to {host}, which is not asked; check 'acquire.imagery.address'"
            raise ServiceError(msg)

    def pages(self, first: Any, *, following: Callable[[Any], str | None], endpoint: str) -> Iterator[Any]:
        """Yield a page's JSON and those that follow it, until there is none.

        Args:
            first: The first page.
            following: Returns the address of the page after one.
            endpoint: Name of the rate that counts.

        Raises:
            ServiceError: If a page leads back to one that was there.
        """
        page, seen = first, set[str]()
        while True:
            yield page
            url = following(page)
            if not url:
                return
            if url in seen or len(seen) >= _MOST_PAGES:
                msg = f"{self.address} gives the same page of a list again and again; try again later"
                raise ServiceError(msg)
            seen.add(url)
            page = self.get(url, endpoint=endpoint).json()


def _in_words(ask: Callable[[], Answer]) -> Answer:
    """Return the answer to a request; a login that is refused becomes a sentence.

    Raises:
        LoginRefused: If it is.
    """
    try:
        return ask()
    except Refused as error:
        if error.status != _UNAUTHORISED:
            raise
        said = error.answer.words()
        if "expired" in said.lower():
            msg = "Planet says that the login has expired (401); run 'planet auth login', or give a new key"
        else:
            msg = (
                f"Planet does not accept the credentials (401{f': {said}' if said else ''}); check the key or login at"
                " planet.com, and that no old PL_API_KEY is in the environment"
            )
        raise LoginRefused(msg) from None


def objects(value: Any, key: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key of an answer; empty if it has none."""
    rows = value.get(key) if isinstance(value, dict) else value
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def link(value: Any, name: str) -> str | None:
    """Return a link of an answer by its name; None where it has none."""
    links = value.get("_links") if isinstance(value, dict) else None
    url = links.get(name) if isinstance(links, dict) else None
    return url if isinstance(url, str) and url else None
