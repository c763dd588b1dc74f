"""Orders at Planet by the ledger: what was asked for, and what became of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thawmap.acquire.ledger import Ledger
from thawmap.acquire.planet.requests import AGAIN
from thawmap.text import counted

SOURCE = "planet"
FINAL = frozenset({"success", "partial", "failed", "cancelled"})
"""States in which Planet leaves an order."""


@dataclass(slots=True, kw_only=True)
class Order:
    """An order by the ledger.

    Attributes:
        name: Its name.
        site: Name of the site.
        items: When Planet had changed each scene, as it was ordered; by id.
        recipe: Hash of how they are made.
        bundle: Files of a scene.
        km2: Square kilometres that it costs, about.
        asked: UTC time at which it was asked for, by this machine's clock.
        id: Planet's id of it; empty while it is not known whether it was taken.
        is_adopted: Whether it was found at Planet rather than placed by this run.
        is_refused: Whether Planet did not take it.
        is_void: Whether it is as if it had never been asked for: Planet never got it, or the quota did not suffice.
        refused: Reason by scene that Planet refused with it.
        reason: Why Planet did not take it; empty if it did.
        state: The last state that Planet told.
        hints: What Planet says of its faults.
        is_received: Whether all that it brought is on disk.
        missing: Scenes that it did not bring, once it is received or failed.
    """

    name: str
    site: str
    items: Mapping[str, str]
    recipe: str
    bundle: str = ""
    km2: float = 0.0
    asked: str = ""
    id: str = ""
    is_adopted: bool = False
    is_refused: bool = False
    is_void: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    state: str = ""
    hints: tuple[str, ...] = ()
    is_received: bool = False
    missing: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether it is not known if Planet took it."""
        return not self.id and not self.is_refused

    @property
    def is_final(self) -> bool:
        """Whether Planet is done with it."""
        return self.state in FINAL

    @property
    def is_second(self) -> bool:
        """Whether it asks again for what another one did not bring."""
        return self.name.endswith(AGAIN)

    @property
    def kept(self) -> set[str]:
        """Scenes that it brought, or will."""
        if self.is_refused or self.state == "cancelled":
            return set()
        return set(self.items) - set(self.missing)


def orders(ledger: Ledger) -> list[Order]:
    """Return the orders at Planet that a ledger tells of, the oldest first."""
    found: dict[str, Order] = {}
    for event in ledger.events:
        if event.get("source") != SOURCE:
            continue
        name = event.get("name", "")
        if event["event"] == "asked":
            found[name] = _asked(event)  # once more, if Planet refused it, never got it, or it was cancelled
        elif name in found:
            _apply(found[name], event)
    return list(found.values())


def _asked(event: Mapping[str, Any]) -> Order:
    return Order(
        name=event["name"],
        site=event["site"],
        items=dict(event["items"]),
        recipe=event["recipe"],
        bundle=event.get("bundle", ""),
        km2=float(event.get("km2", 0.0)),
        asked=event.get("time", ""),
    )


def _apply(order: Order, event: Mapping[str, Any]) -> None:
    """Change an order as an event tells."""
    kind = event["event"]
    if kind == "placed":
        order.id, order.is_adopted = event["order"], bool(event.get("adopted"))
    elif kind == "refused":
        order.is_refused, order.reason, order.is_void = True, event["reason"], bool(event.get("void"))
        order.refused = dict.fromkeys(event["items"], event["reason"])
    elif kind == "state":
        order.state, order.hints = event["state"], tuple(map(str, event.get("hints", ())))
    elif kind == "received":
        order.is_received = True
        order.missing = tuple(event.get("missing", ()))


def settled(found: list[Order], site: str, recipe: str) -> set[str]:
    """Return the ids of a site's scenes that need no order in a recipe.

    Each was ordered or refused before.
    """
    same = [order for order in found if order.site == site and order.recipe == recipe]
    ids: set[str] = set()
    for order in same:
        ids |= set(order.refused)
        if not order.is_refused and order.state != "cancelled":
            ids |= set(order.items)
    return ids


def spent_km2(ledger: Ledger) -> float:
    """Return the square kilometres that orders have cost so far, about.

    Of scenes that came, or are to come.
    """
    return sum(order.km2 * len(order.kept) / max(len(order.items), 1) for order in orders(ledger))


def status(ledger: Ledger) -> list[str]:
    """Return sentences that say what became of all orders at Planet, and what to do."""
    found = orders(ledger)
    if not found:
        return ["nothing was ordered from Planet"]
    second = {item: order for order in found if order.is_second for item in order.items}
    return [sentence for order in found for sentence in _sentences(order, second)]


def _sentences(order: Order, second: Mapping[str, Order]) -> Iterator[str]:
    """Yield sentences on one order."""
    title = f"{order.site}: {counted(len(order.items), 'scene')}, {order.km2:,.1f} km2"
    number = f" (order {order.id})" if order.id else f" (named {order.name})"
    if order.is_refused:
        for item, reason in order.refused.items():
            yield f"{order.site}: {item} was refused by Planet and is not asked for again: {reason}"
        return
    if order.is_unknown:
        yield f"{title}: asked for at {order.asked}, and not known whether Planet has it{number}; 'order' looks it up"
    elif not order.is_final:
        state = order.state or "placed"
        yield f"{title}: {state} at Planet{number}; 'fetch' waits for it"
    elif order.state == "cancelled":
        yield f"{title}: cancelled at Planet{number}; 'order' asks for it again"
    elif order.state == "failed":
        yield f"{title}: failed at Planet{number}"
    elif not order.is_received:
        yield f"{title}: ready at Planet{number}; 'fetch' brings it"
    else:
        yield f"{title}: on disk{number}"
    hints = f" ({'; '.join(order.hints)})" if order.hints else ""
    for item in order.missing:
        yield f"{order.site}: {item} did not come{hints}{_later(order, second.get(item))}"


def _later(order: Order, second: Order | None) -> str:
    """Return a clause on what became of a scene that an order did not bring."""
    if order.is_second:
        return "; it was asked for twice"
    if second is None:
        return "; 'fetch' asks for it once more"
    if second.is_refused:
        return f"; it was asked for once more, and Planet refused: {second.reason}"
    return f"; it was asked for once more as {second.name}"
