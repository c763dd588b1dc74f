"""Pages of a STAC API, followed to their end; a catalogue that loses items is asked again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from thawmap.acquire.http import Http
from thawmap.acquire.stac.documents import ENDPOINT, Document, key_of
from thawmap.acquire.stac.matching import Item
from thawmap.errors import ServiceError
from thawmap.text import counted

_LIMIT = 100  # items that are asked for on a page
_SHARES = (1.0, 0.61, 0.37, 0.23)
"""Of the size of the first page, in rounds: what was lost between two pages lies inside of one in the next round."""
_MOST = 100_000  # items of one search; more are of a catalogue that leaves the search out of account
_MOST_BARREN = 20  # pages in a row that bring nothing new
_TRIES = 3  # of a page whose body is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an API is searched.

    Attributes:
        name: The API's name in messages.
        url: The address.
        is_post: Whether it takes a POST, else a GET.
    """

    name: str
    url: str
    is_post: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """A request for one page."""

    url: str
    body: dict[str, Any] | None

    @property
    def key(self) -> str:
        """Text that is equal for equal requests."""
        return key_of([self.url, self.body])


@dataclass(slots=True)
class _Round:
    """What one walk through all pages has brought.

    Attributes:
        items: Items and the addresses of their pages, by collection and id.
        told: Number of matching items, as the catalogue says; None where it does not.
        pages: Number of pages.
        size: Number of items on the first page.
        fault: Reason why the walk was left before its end; empty if it was not.
    """

    items: dict[str, tuple[Item, str]] = field(default_factory=dict)
    told: int | None = None
    pages: int = 0
    size: int = 0
    fault: str = ""


def all_items(
    http: Http, endpoint: Endpoint, body: dict[str, Any], note: Callable[[str], None]
) -> Iterator[tuple[Item, str]]:
    """Yield the items that an API finds, each once, with the address of its page.

    Pages are walked through until as many items are there as the API says that match; where it says nothing, and there
    are several pages, until a walk with pages of another size brings nothing new.

    Raises:
        ServiceError: If there is no end, or fewer items come than match.
    """
    items: dict[str, tuple[Item, str]] = {}
    last, size = _Round(), _LIMIT
    for number, share in enumerate(_SHARES):
        last = _walk(http, endpoint, {**body, "limit": max(int(size * share), 1)})
        size = size if number else min(max(last.size, 1), size)
        new = [key for key in last.items if key not in items]
        items.update((key, last.items[key]) for key in new)
        if number and new:
            note(f"{endpoint.name} lost {counted(len(new), 'item')} between its pages, which came when asked again")
        if _is_whole(last, len(items), is_confirmed=bool(number) and not new):
            yield from items.values()
            return
    told = "" if last.told is None else f" of {last.told}"
    fault = last.fault or "other ones each time"
    msg = (
        f"{endpoint.name} gives {counted(len(items), 'item')}{told} that match ({fault}), asked {len(_SHARES)} times; "
        f"nothing is chosen from a part: try again later, or name another catalogue"
    )
    raise ServiceError(msg)


def _is_whole(walk: _Round, items: int, *, is_confirmed: bool) -> bool:
    """Return whether a number of items is all, by what the last walk has shown.

    ``is_confirmed`` is True where that walk brought nothing that others had not.
    """
    if walk.told is not None:
        return items >= walk.told
    return not walk.fault and (walk.pages == 1 or is_confirmed)


def _walk(http: Http, endpoint: Endpoint, body: dict[str, Any]) -> _Round:
    """Return what the pages of a search bring, from the first to the end."""
    walk, asked, barren = _Round(), set[str](), 0
    request: _Request | None = _first(endpoint, body)
    while request is not None:
        if request.key in asked:
            walk.fault = "its pages lead in a circle"
            break
        asked.add(request.key)
        page = _page(http, request)
        before = len(walk.items)
        _gather(walk, page)
        if max(walk.told or 0, len(walk.items)) > _MOST:
            msg = (
                f"{endpoint.name} finds more than {_MOST} items for one area and time, so it leaves the search out of "
                f"account; name one of its collections, or another catalogue"
            )
            raise ServiceError(msg)
        barren = 0 if len(walk.items) > before else barren + 1
        if barren > _MOST_BARREN:
            walk.fault = f"{barren} pages in a row bring nothing new"
            break
        request = _next(page, request)
    return walk


def _first(endpoint: Endpoint, body: dict[str, Any]) -> _Request:
    """Return the request for the first page."""
    if endpoint.is_post:
        return _Request(endpoint.url, body)
    joined = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in body.items()}
    return _Request(_with_query(endpoint.url, joined), None)


def _with_query(url: str, parameters: dict[str, Any]) -> str:
    """Return an address with parameters added to its query."""
    return str(httpx.URL(url).copy_merge_params(parameters))


def _page(http: Http, request: _Request) -> Document:
    """Return a page; one whose body is damaged is asked for again.

    Raises:
        ServiceError: If it does not come whole.
    """
    for _ in range(_TRIES):
        if request.body is None:
            answer = http.get(request.url, endpoint=ENDPOINT)
        else:
            answer = http.post(request.url, request.body, endpoint=ENDPOINT, repeat=True)
        try:
            content = answer.json()
        except ServiceError as error:
            fault = error
            continue
        if isinstance(content, dict) and isinstance(content.get("features"), list):
            return Document(address=request.url, content=content)
        fault = ServiceError(f"{answer.url} answers with no list of items; check the address")
    raise fault


def _gather(walk: _Round, page: Document) -> None:
    """Add a page's items, and the number that it tells, to a walk."""
    walk.pages += 1
    walk.size = walk.size if walk.pages > 1 else len(page.content["features"])
    for item in page.content["features"]:
        content = item if isinstance(item, dict) else {}
        name = content.get("id") or f"item {len(walk.items)} without id"
        walk.items.setdefault(f"{content.get('collection')}/{name}", (content, page.address))
    told = _told(page)
    if told is not None:  # which moves while items are added: the least is certain
        walk.told = told if walk.told is None else min(walk.told, told)


def _told(page: Document) -> int | None:
    """Return how many items match, as a page says; None where it does not."""
    context = page.content.get("context")
    numbers = (page.content.get("numberMatched"), context.get("matched") if isinstance(context, dict) else None)
    return next((number for number in numbers if isinstance(number, int) and not isinstance(number, bool)), None)


def _next(page: Document, request: _Request) -> _Request | None:
    """Return the request for the page behind a page; None behind the last."""
    link = next((link for link in page.links if link.get("rel") == "next"), None)
    if link is None:
        return None
    url = page.resolve(link)
    if str(link.get("method", "GET")).upper() != "POST":
        return _Request(url, None)
    told = link.get("body")
    body: dict[str, Any] = told if isinstance(told, dict) else {}
    return _Request(url, {**(request.body or {}), **body} if link.get("merge") is True else body)
