"""Ordering what a plan takes: each scene of a site once, within the quota."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.planet import history
from thawmap.acquire.planet.placing import Placer, SiteRefused
from thawmap.acquire.planet.quota import quota
from thawmap.acquire.planet.requests import Recipe, Request, Wish, divided, recipe_of
from thawmap.acquire.planet.service import USUAL, Manners, Service
from thawmap.config import PlanetImagery
from thawmap.errors import ServiceError
from thawmap.text import counted

PROJECT = "thawmap"
"""Begins the names of orders."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What is to be ordered, and what need not be.

    Attributes:
        requests: Orders to place.
        notes: Sentences on outlines that are cut out with fewer vertices.
        before: How many of the scenes were ordered before.
    """

    requests: tuple[Request, ...]
    notes: tuple[str, ...]
    before: int

    @property
    def km2(self) -> float:
        """Square kilometres that it will cost, about."""
        return sum(request.km2 for request in self.requests)

    @property
    def scenes(self) -> int:
        """Number of scenes to order."""
        return sum(len(request.wishes) for request in self.requests)


def outstanding(
    settings: PlanetImagery,
    wishes: Mapping[str, Sequence[Wish]],
    areas: Sequence[Area],
    ledger: Ledger,
) -> Outstanding:
    """Return the orders that are still to be placed; nothing is asked for.

    What was ordered before, in the same bundle, by the same tools and with the same outline, is not among them, nor is
    what Planet has refused.

    Args:
        settings: What is wanted.
        wishes: Scenes by name of the site.
        areas: The areas of these sites.
        ledger: What was done before.

    Raises:
        ConfigError: If an area cannot be cut out.
    """
    placed = history.orders(ledger)
    requests: list[Request] = []
    notes: list[str] = []
    before = 0
    for area in sorted(areas, key=lambda area: area.name):
        recipe, note = recipe_of(settings, area)
        settled = history.settled(placed, area.name, recipe.hash)
        unique = {wish.id: wish for wish in wishes.get(area.name, ())}
        new = tuple(unique[id_] for id_ in sorted(unique) if id_ not in settled)
        before += len(unique) - len(new)
        if new:
            notes += [note] if note else []
            whole = Request(project=PROJECT, site=area.name, wishes=new, recipe=recipe)
            requests += divided(whole, settings.order_size)
    return Outstanding(tuple(requests), tuple(notes), before)


def order(
    http: Http,
    settings: PlanetImagery,
    wishes: Mapping[str, Sequence[Wish]],
    areas: Sequence[Area],
    ledger: Ledger,
    note: Callable[[str], None],
    *,
    manners: Manners = USUAL,
) -> list[history.Order]:
    """Place the orders that are still to be placed, and return all that Planet has.

    The caller holds the lock of the folder. Orders of which it is not known whether Planet has them are looked up
    first. Without anything to place, nothing is asked for.

    Args:
        http: The way to the service.
        settings: What is wanted.
        wishes: Scenes by name of the site.
        areas: The areas of these sites.
        ledger: What was done before, and is done.
        note: Is told what happens.
        manners: How the service is treated.

    Raises:
        ConfigError: If an area cannot be cut out; nothing is ordered.
        ServiceError: If the quota does not suffice, which is seen before anything is ordered; or Planet refuses or
            cannot be reached. A site for which it takes no order does not keep others from theirs.
    """
    placer = Placer(service=Service(http, settings.address), ledger=ledger, note=note, settle_s=manners.settle_s)
    resolve(placer)
    new = outstanding(settings, wishes, areas, ledger)
    if new.requests:
        _check_quota(http, settings, new.km2, ledger, note)
        for sentence in new.notes:
            note(sentence)
        _place(new.requests, placer)
    return [placed for placed in history.orders(ledger) if placed.id]


def _place(requests: Sequence[Request], placer: Placer) -> None:
    """Place requests; those of a site are left when Planet takes no order for it.

    Raises:
        SiteRefused: If there is such a site, once the others are placed.
        ServiceError: If the quota does not suffice, or Planet cannot be asked.
    """
    refused: dict[str, SiteRefused] = {}
    for request in requests:
        if request.site in refused:
            continue
        try:
            count = placer.place_all(request)
        except SiteRefused as error:
            placer.note(str(error))
            refused[request.site] = error
        else:
            placer.note(f"{request.site}: {counted(count, 'order')} placed for {counted(len(request.ids), 'scene')}")
    if refused:
        raise next(iter(refused.values()))


def resolve(placer: Placer) -> None:
    """Look up the orders of which it is not known whether Planet took them.

    One that Planet does not have was never taken, and its scenes can be ordered.
    """
    for unknown in [order for order in history.orders(placer.ledger) if order.is_unknown]:
        id_ = placer.look_up(unknown.name)
        if id_ is None:
            placer.ledger.append(
                "refused", source=history.SOURCE, name=unknown.name, items=[], reason="Planet never got it", void=True
            )
        else:
            placer.note(f"{unknown.site}: an order of which no answer came is at Planet ({id_})")
            placer.ledger.append("placed", source=history.SOURCE, name=unknown.name, order=id_, adopted=True)


def again(ledger: Ledger) -> list[Request]:
    """Return requests for scenes that did not come and were not asked for twice."""
    found = history.orders(ledger)
    asked = [order for order in found if order.is_second and not order.is_void]
    second = {(order.site, order.recipe, item) for order in asked for item in order.items}
    requests = []
    for order in found:
        absent = [item for item in order.missing if (order.site, order.recipe, item) not in second]
        if absent and order.state != "cancelled":
            event = ledger.of("asked", source=history.SOURCE, name=order.name)[-1]
            share = order.km2 / max(len(order.items), 1)
            wishes = tuple(Wish(id=item, updated=order.items[item], km2=share) for item in absent)
            recipe = Recipe(bundle=event["bundle"], tools=tuple(event["tools"]))
            project = event.get("project", PROJECT)
            requests.append(Request(project=project, site=order.site, wishes=wishes, recipe=recipe, is_second=True))
    return requests


def _check_quota(http: Http, settings: PlanetImagery, km2: float, ledger: Ledger, note: Callable[[str], None]) -> None:
    """Refuse to order more than the settings and the account allow.

    Raises:
        ServiceError: If it is more.
    """
    spent = history.spent_km2(ledger)
    if settings.quota_km2 is not None and spent + km2 > settings.quota_km2 * (1 + 1e-9):
        msg = (
            f"{km2:,.1f} km2 are to be ordered, after {spent:,.1f} km2 before, and 'acquire.imagery.quota_km2' allows"
            f" {settings.quota_km2:,.1f}; nothing is ordered: take less in the plan, or allow more"
        )
        raise ServiceError(msg)
    left = quota(http, settings)
    note(left.sentence)
    if left.left_km2 is not None and km2 > left.left_km2:
        msg = (
            f"{km2:,.1f} km2 are to be ordered, and {left.sentence}; nothing is ordered: take less in the plan, or set"
            " 'acquire.imagery.quota_km2' and plan again"
        )
        raise ServiceError(msg)
