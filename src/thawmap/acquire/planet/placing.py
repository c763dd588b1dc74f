"""Placing one order exactly once, whatever becomes of the answer."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from thawmap.acquire.http import Answer, AnswerLost, Refused
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.planet.history import SOURCE
from thawmap.acquire.planet.requests import Request
from thawmap.acquire.planet.service import Service, link, objects
from thawmap.data.sources.finding import parse_time
from thawmap.errors import ServiceError
from thawmap.text import counted, printable

ORDERS = "/compute/ops/orders/v2"
_MOST_TRIES = 5  # of placing one order
_LOOKS = 3  # for an order whose answer was lost, before it is placed again
_FETCHABLE = timedelta(days=89)  # Planet keeps the files of an order for 90 days
_LOST_STATES = frozenset({"failed", "cancelled"})
_MOST_SINGLE = 3  # scenes refused one by one, with no reason that names them, before all are given up

_log = logging.getLogger(__name__)


class SiteRefused(ServiceError):  # noqa: N818 - it reads as what happened
    """Planet takes no order for a site, whatever scenes are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placer:
    """What places orders.

    Attributes:
        service: Planet's service.
        ledger: Is told of each order before it is placed, and after.
        note: Is told what was found or refused.
        settle_s: Pause before looking again for an order whose answer was lost.
    """

    service: Service
    ledger: Ledger
    note: Callable[[str], None]
    settle_s: float = 10.0

    def place_all(self, request: Request) -> int:
        """Place a request without refused scenes; return the number of orders made.

        Planet refuses an order as a whole for one bad scene. That is taken out where the refusal names it; else the
        request is divided until it is alone.

        Raises:
            SiteRefused: If Planet refuses all of it.
            ServiceError: If the quota does not suffice, or Planet cannot be asked.
        """
        waiting, placed, alone = [request], 0, 0
        while waiting:
            part = waiting.pop(0)
            try:
                self.place(part)
                placed += 1
            except Refused as error:
                reason = _reason(error)
                if _is_about_quota(error):
                    self._refuse(part, [], reason, void=True)
                    msg = (
                        f"Planet refuses an order of {counted(len(part.ids), 'scene')} for {part.site}, about"
                        f" {part.km2:,.1f} km2, since the quota does not suffice ({reason}); take less in the plan"
                    )
                    raise ServiceError(msg) from None
                bad = _named_in(error.answer, part.ids)
                alone += len(part.ids) == 1 and not bad
                if error.status not in {400, 403, 404, 422} or (alone >= _MOST_SINGLE and not placed):
                    self._refuse(part, [], reason)
                    msg = f"Planet refuses an order for {part.site}, whatever scenes are in it: {reason}"
                    raise SiteRefused(msg) from None
                bad = bad or (part.ids if len(part.ids) == 1 else [])
                self._refuse(part, bad, reason)
                rest = [part.without(bad)] if bad else part.halves()
                waiting = [*(smaller for smaller in rest if smaller.wishes), *waiting]
        return placed

    def place(self, request: Request) -> str:
        """Return Planet's id of a request, which is placed unless Planet has it already.

        Its name is in the ledger, on the disk, before it is sent. Where the answer is lost, the order is looked up by
        its name; only if it is not there it is sent again.

        Raises:
            Refused: If Planet does not take it.
            ServiceError: If it is not known in the end whether Planet has it.
        """
        self.ledger.append(
            "asked", source=SOURCE, name=request.name, site=request.site, km2=round(request.km2, 4),
            items={wish.id: wish.updated for wish in request.wishes}, recipe=request.recipe.hash,
            bundle=request.recipe.bundle, tools=list(request.recipe.tools), project=request.project,
        )  # fmt: skip
        order = self.look_up(request.name)
        tries = 0
        while order is None:
            tries += 1
            try:
                url = self.service.url(ORDERS)
                answer = self.service.post(url, request.body, endpoint="planet-order", repeat=False)
                order = _id_of(answer)
            except AnswerLost as error:
                _log.info("%s", error)
                order = self._look_again(request.name)
            if order is not None:
                self.ledger.append("placed", source=SOURCE, name=request.name, order=order)
                return order
            if tries >= _MOST_TRIES:
                msg = (
                    f"Planet's answers to an order for {request.site} were lost {tries} times, and it does not list the"
                    f" order {request.name}; run the same command again later, which looks it up first"
                )
                raise ServiceError(msg)
        self.note(f"{request.site}: Planet has this order of {counted(len(request.ids), 'scene')} already ({order})")
        self.ledger.append("placed", source=SOURCE, name=request.name, order=order, adopted=True)
        return order

    def look_up(self, name: str) -> str | None:
        """Return Planet's id of an order by its name; None where there is none.

        One whose files cannot be fetched does not count.

        Raises:
            ServiceError: If Planet cannot be asked.
        """
        url = self.service.url(f"{ORDERS}?{urlencode({'name': name, 'source_type': 'all'})}")
        first = self.service.get(url, endpoint="planet-list")
        now = first.date or datetime.now(UTC)
        pages = self.service.pages(first.json(), following=_next, endpoint="planet-list")
        same = [order for page in pages for order in objects(page, "orders") if order.get("name") == name]
        usable = [order for order in same if isinstance(order.get("id"), str) and _is_usable(order, now)]
        newest = max(usable, key=lambda order: str(order.get("created_on")), default=None)
        return newest["id"] if newest is not None else None

    def _look_again(self, name: str) -> str | None:
        """Return the id of an order that may only just have been made."""
        for look in range(_LOOKS):
            time.sleep(self.settle_s if look else 0.0)
            order = self.look_up(name)
            if order is not None:
                return order
        return None

    def _refuse(self, request: Request, items: list[str], reason: str, *, void: bool = False) -> None:
        """Note that Planet refused a request, and which of its scenes for good."""
        self.ledger.append("refused", source=SOURCE, name=request.name, items=items, reason=reason, void=void)
        for item in items:
            self.note(f"{request.site}: {item} is refused by Planet and left out: {reason}")


def _next(page: Any) -> str | None:
    return link(page, "next")


def _id_of(answer: Answer) -> str:
    """Return the id in the answer to an order.

    Raises:
        AnswerLost: If it holds none.
    """
    try:
        order = answer.json()
    except ServiceError as error:
        raise AnswerLost(str(error)) from error
    if not isinstance(order, dict) or not isinstance(order.get("id"), str):
        msg = f"{answer.url} answers to an order with no order"
        raise AnswerLost(msg)
    return str(order["id"])


def _is_usable(order: Mapping[str, Any], now: datetime) -> bool:
    """Return whether the files of an order that Planet lists can be fetched.

    Ages by the service's own clock, as ours may be wrong.
    """
    created = parse_time(str(order.get("created_on")))
    return order.get("state") not in _LOST_STATES and (created is None or now - created < _FETCHABLE)


def _messages(value: Any) -> Iterator[str]:
    """Yield the messages in an answer, wherever they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "message" and isinstance(inner, str):
                yield inner
            else:
                yield from _messages(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _messages(inner)


def _reason(error: Refused) -> str:
    """Return the reason of a refusal as Planet says it."""
    try:
        said = "; ".join(dict.fromkeys(_messages(error.answer.json())))
    except ServiceError:
        said = ""
    return printable(said)[:500] or error.answer.words() or f"status {error.status}, and no word of why"


def _is_about_quota(error: Refused) -> bool:
    """Return whether an order was refused for the quota; the status varies."""
    return "quota" in _reason(error).lower()


def _named_in(answer: Answer, ids: list[str]) -> list[str]:
    """Return the ids that a refusal names."""
    text = answer.content.decode("utf-8", "replace")
    words = set(re.findall(r"\w+", text))
    return [id_ for id_ in ids if id_ in words]
