"""Requests and their addresses: which key belongs to which host, and where a redirect leads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from thawmap.acquire.answers import without_query
from thawmap.errors import ConfigError, ServiceError

_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPING_METHOD = (307, 308)
_LOCAL = ("127.0.0.1", "::1", "localhost")
_TRAVELLING = ("accept", "accept-encoding", "range", "if-range")  # headers that a foreign host may see

Origin = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it is sent, again and again where it may be."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    is_repeatable: bool = True
    is_streamed: bool = False

    @property
    def name(self) -> str:
        """The request in messages."""
        return f"{self.method} {without_query(str(self.url))}"


def _is_host(name: str) -> bool:
    """Return whether a text may be the name of a host."""
    return bool(name) and "%" not in name


def origins(key: str) -> list[Origin]:
    """Return the origins that the key of a credential stands for.

    Raises:
        ConfigError: If it is no host, host:port or scheme://host:port.
    """
    try:
        url = httpx.URL(key if "://" in key else f"https://{key}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if not _is_host(url.host):
        msg = f"{without_query(key)!r} names no host for credentials; give host, host:port or https://host:port"
        raise ConfigError(msg)
    schemes = [url.scheme] if "://" in key else ["https", "http"] if url.host in _LOCAL else ["https"]
    return [origin(httpx.URL(url, scheme=scheme)) for scheme in schemes]


def origin(url: httpx.URL) -> Origin:
    """Return scheme, host and port of an address."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def parsed(url: str) -> httpx.URL:
    """Return an address that can be asked.

    Raises:
        ServiceError: If it is none.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not _is_host(parsed.host):
        msg = f"{without_query(url)!r} is no address; one that begins with https:// is expected"
        raise ServiceError(msg)
    return parsed


def redirected(request: Request, response: httpx.Response) -> Request | None:
    """Return the request that a redirect leads to.

    None where it is none, or must not be followed.
    """
    location = response.headers.get("location")
    if response.status_code not in _REDIRECTS or not location:
        return None
    try:
        url = parsed(str(request.url.join(location)))
    except httpx.InvalidURL:
        return None
    is_foreign = origin(url) != origin(request.url)
    if request.method != "GET" and (
        response.status_code not in _KEEPING_METHOD or (is_foreign and not (request.is_repeatable and request.body))
    ):
        return None
    headers = {name: text for name, text in request.headers.items() if not is_foreign or name.lower() in _TRAVELLING}
    return replace(request, url=url, headers=headers)
