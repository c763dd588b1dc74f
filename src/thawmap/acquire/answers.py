"""Answers of services: what they hold, the errors that they mean, addresses without secrets."""

import html
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from thawmap.errors import ServiceError
from thawmap.text import printable

_SHOWN = 300  # characters of an answer that a message repeats
_ADDRESS = re.compile(r"\bhttps?://[^\s\"'<>\\]+", re.IGNORECASE)
_TOKEN = re.compile(r"(?i)\b(api-key|bearer|basic)\s+[^\s\"',;]+|\beyJ[\w-]+(?:\.[\w-]*)+")
_SIGNATURE = re.compile(
    r"(?i)\b(sig|signature|token|key|password|secret|x-amz-[\w-]+|x-goog-[\w-]+)(\s*[=:]\s*)[^\s&]+"
)
_XML_WORDS = re.compile(r"<(?:Code|Message)>[^<]*")
_MARKUP = re.compile(r"<[^>]*>")
_LOUD = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "urllib3.connectionpool",
)
"""Loggers that write whole addresses and headers."""


def without_query(url: str) -> str:
    """Return an address for messages: no user name, password, query or fragment.

    >>> without_query("https://me:pw@host.org:8443/a/b.tif?token=secret#part")
    'https://host.org:8443/a/b.tif'
    """
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return "an address that is none"
    host = parts.netloc.rpartition("@")[2]
    path = parts.path.partition(";")[0] if host else parts.path
    return printable(f"{parts.scheme}://{host}{path}" if host else path)


def without_secrets(text: str) -> str:
    """Return a text in which addresses have no query, and keys and tokens are cut.

    >>> without_secrets("see https://a.org/x?sig=1 with api-key PLAK123")
    'see https://a.org/x with api-key ...'
    """
    text = _ADDRESS.sub(lambda match: without_query(match[0]), text)
    text = _SIGNATURE.sub(r"\1\2...", text)
    return _TOKEN.sub(lambda match: f"{match[1]} ..." if match[1] else "...", text)


def header_time(text: str | None) -> datetime | None:
    """Return the UTC time of a header such as Date; None where it is missing or none."""
    try:
        time = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A service's whole answer to one request.

    Attributes:
        status: Its HTTP status.
        content: Its body, decoded as its headers say.
        headers: Its headers; names in any case.
        url: Where it came from in the end, without user name and query.
        key: The key that it was asked for with; no message repeats it.
    """

    status: int
    content: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    url: str
    key: str = field(default="", repr=False)

    @property
    def date(self) -> datetime | None:
        """UTC time of the service's own clock; None where it does not say."""
        return header_time(self.headers.get("date"))

    def json(self) -> Any:
        """Return the JSON value in the body.

        Raises:
            ServiceError: If it holds none.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            got = self.words() or "nothing"
            msg = f"{self.url} answers with {got!r} where JSON is expected; try again later, or check the address"
            raise ServiceError(msg) from None

    def words(self) -> str:
        """Return the first words of the body as a line of text, without markup and secrets."""
        text = self.content[: 10 * _SHOWN].decode("utf-8", "replace")
        if text.lstrip().startswith("<"):
            parts = _XML_WORDS.findall(text)  # the rest of a storage's error may repeat signatures
            text = html.unescape(_MARKUP.sub(" ", " ".join(parts) if parts else text))
        text = text.replace(self.key, "...") if self.key else text
        text = printable(" ".join(without_secrets(text).split()))
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


class AnswerLost(ServiceError):  # noqa: N818 - it reads as what happened
    """It is not known whether a request that must not be repeated has arrived."""


class PatienceEnded(ServiceError):  # noqa: N818 - it reads as what happened
    """A service was busy, or failed, for longer than the user wants to wait."""


class Stopped(ServiceError):  # noqa: N818 - it reads as what happened
    """A wait was ended from outside."""


class Refused(ServiceError):  # noqa: N818 - it reads as what happened
    """A service refuses a request, and would again.

    Attributes:
        answer: What it said.
    """

    def __init__(self, message: str, *, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self.answer.status


def refusal(answer: Answer, method: str) -> Refused:
    """Return the error of an answer that refuses a request of a method such as GET."""
    remedies = {
        301: "give the new address",
        308: "give the new address",
        401: "check the credentials",
        403: "check the credentials, and what the account may do",
        404: "check the address",
        409: "see what is there already",
    }
    words = answer.words()
    if 300 <= answer.status < 400:
        words = f"it leads to {without_query(answer.headers.get('location', 'nowhere'))}"
    remedy = remedies.get(answer.status, "see what the service says")
    said = f": {words}" if words else " and no word of why"
    return Refused(f"{method} {answer.url} is refused with {answer.status}{said}; {remedy}", answer=answer)


class _Quiet(logging.Filter):
    """A filter that lets only warnings pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_QUIET = _Quiet()


def keep_logs_clean() -> None:
    """Stop the lines in which libraries log whole addresses and headers, with their tokens."""
    for name in _LOUD:
        logging.getLogger(name).addFilter(_QUIET)  # which a logger has only once
