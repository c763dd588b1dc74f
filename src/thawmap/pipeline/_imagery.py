"""Who has the images: what the verb acquire asks of Planet and of STAC catalogues."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.offers import Offer
from thawmap.acquire.plan import Plan
from thawmap.acquire.planet import coverage, delivery, history, orders, owned, quota, search, service
from thawmap.acquire.planet.credentials import LaterLogin
from thawmap.acquire.planet.requests import Wish
from thawmap.acquire.progress import size_text
from thawmap.acquire.stac import fetch as windows
from thawmap.acquire.stac import look
from thawmap.acquire.stac import offers as stac_offers
from thawmap.acquire.stac.conventions import KNOWN, catalogue_of
from thawmap.config import AcquireSettings, PlanetImagery, StacImagery
from thawmap.text import counted

_NOT_KEPT = "the plan keeps only the addresses of scenes that make a date; plan again with rules that it obeys"

Note = Callable[[str], None]
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a run of fetching images brought.

    Attributes:
        lines: Sentences for the user.
        done: Number of files, or scenes, that were fetched now.
        skipped: Number of scenes that were there.
        failed: What did not come, and why.
    """

    lines: tuple[str, ...] = ()
    done: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """Somebody who has images: what can be asked, and what it costs."""

    @property
    def is_paid(self) -> bool:
        """Whether images are ordered and paid before they can be fetched."""
        ...

    @property
    def catalogues(self) -> tuple[str, ...]:
        """Names of the catalogues, the preferred first."""
        ...

    def login(self, note: Note) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        """Return credentials by host, and requests a second by endpoint.

        ``note`` is told which login is used.
        """
        ...

    def find(self, http: Http, area: Area, ledger: Ledger, note: Note) -> list[Offer]:
        """Return what there is for an area, with what is on disk already marked."""
        ...

    def look_inside(self, http: Http, area: Area, offers: Sequence[Offer], ledger: Ledger, note: Note) -> list[Offer]:
        """Return offers with the clear fraction inside an area, where that can be asked."""
        ...

    def outstanding(self, plan: Plan, ledger: Ledger) -> "orders.Outstanding | None":
        """Return what is still to be ordered; None where nothing needs an order."""
        ...

    def order(self, http: Http, plan: Plan, ledger: Ledger, note: Note) -> tuple[str, ...]:
        """Order what is still to be ordered; return sentences."""
        ...

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Fetch what the plan takes."""
        ...


def provider_of(settings: AcquireSettings, folder: Path) -> "Planet | Catalogues | None":
    """Return who has the images that the settings ask for; None if they ask for none."""
    if isinstance(settings.imagery, PlanetImagery):
        return Planet(settings, settings.imagery, folder)
    return None if settings.imagery is None else Catalogues(settings, settings.imagery, folder)


@dataclass(frozen=True, slots=True)
class Planet:
    """PlanetScope images, ordered from Planet."""

    settings: AcquireSettings
    imagery: PlanetImagery
    folder: Path
    is_paid: bool = True
    catalogues: tuple[str, ...] = ("planet",)

    def login(self, note: Note) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        """Return the user's login, looked for when it is needed, and Planet's rates."""
        return {self.imagery.address: LaterLogin(self.imagery.address, note)}, service.RATES

    def find(self, http: Http, area: Area, ledger: Ledger, note: Note) -> list[Offer]:
        """Return the scenes that Planet has for an area."""
        offers = search.find(http, self.imagery, area, self.settings.seasons(), note)
        return owned.with_owned(offers, self.imagery, area, self.folder, ledger, note)

    def look_inside(self, http: Http, area: Area, offers: Sequence[Offer], ledger: Ledger, note: Note) -> list[Offer]:
        """Return offers with the clear fraction that Planet tells of the area."""
        if not self.imagery.look_inside:
            return list(offers)
        return coverage.look_inside(http, self.imagery, area, offers, ledger, note)

    def left_km2(self, http: Http, ledger: Ledger, note: Note) -> float | None:
        """Return the square kilometres that may be asked for; None: no limit."""
        account = quota.quota(http, self.imagery)
        note(account.sentence)
        own = self.imagery.quota_km2
        own_left = None if own is None else max(own - history.spent_km2(ledger), 0.0)
        return min((limit for limit in (own_left, account.left_km2) if limit is not None), default=None)

    def outstanding(self, plan: Plan, ledger: Ledger) -> orders.Outstanding:
        """Return the orders that are still to be placed."""
        return orders.outstanding(self.imagery, _wishes(plan), plan.areas, ledger)

    def order(self, http: Http, plan: Plan, ledger: Ledger, note: Note) -> tuple[str, ...]:
        """Place the orders that are still to be placed."""
        placed = orders.order(http, self.imagery, _wishes(plan), plan.areas, ledger, note, manners=self._manners())
        scenes, km2 = sum(len(each.items) for each in placed), sum(each.km2 for each in placed)
        return (f"{counted(len(placed), 'order')} of {counted(scenes, 'scene')} at Planet, about {km2:.1f} km2 in all",)

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Wait for the orders, and fetch what they bring."""
        del plan  # the ledger knows what was ordered
        received = delivery.fetch(
            http, self.imagery, self.folder, ledger, note, progress=report, manners=self._manners()
        )
        failed = {f"order {number}": text for number, text in enumerate((*received.missing, *received.faults), 1)}
        line = f"{counted(received.files, 'file')} of Planet on disk, {size_text(received.size)}"
        return Brought(lines=(line,), done=received.new, failed=failed)

    def _manners(self) -> service.Manners:
        """Return how Planet is treated: as the settings say."""
        return service.Manners(connections=self.settings.connections, patience_s=60 * self.settings.patience_minutes)


@dataclass(frozen=True, slots=True)
class Catalogues:
    """Sentinel-2 images, cut out of the open files of STAC catalogues."""

    settings: AcquireSettings
    imagery: StacImagery
    folder: Path
    is_paid: bool = False

    @property
    def catalogues(self) -> tuple[str, ...]:
        """Names of the catalogues, in the order of the settings."""
        return tuple(catalogue_of(setting, KNOWN).name for setting in self.imagery.catalogues)

    def login(self, note: Note) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        """Return nothing: open catalogues need no login."""
        del note
        return {}, {}

    def find(self, http: Http, area: Area, ledger: Ledger, note: Note) -> list[Offer]:
        """Return the scenes that the catalogues have for an area."""
        del ledger
        return stac_offers.find(http, self.imagery, area, self.settings.seasons(), note)

    def look_inside(self, http: Http, area: Area, offers: Sequence[Offer], ledger: Ledger, note: Note) -> list[Offer]:
        """Return offers with the clear fraction of the area, by their scene classification."""
        if not self.imagery.look_inside:
            return list(offers)
        return look.look_inside(http, area, offers, ledger, note, connections=self.settings.connections)

    def outstanding(self, plan: Plan, ledger: Ledger) -> None:
        """Return None: nothing is ordered."""
        del plan, ledger

    def order(self, http: Http, plan: Plan, ledger: Ledger, note: Note) -> tuple[str, ...]:
        """Order nothing."""
        del http, plan, ledger, note
        return ("what the plan takes is free, and needs no order",)

    def fetch(self, plan: Plan, ledger: Ledger, note: Note, report: Report, http: Http) -> Brought:
        """Cut the scenes that the plan takes out of the catalogues' files."""
        taken = [_Taken(item.area, item.offer.id, item.offer.item) for item in plan.taken if item.offer.item]
        unknown = {item.offer.id: _NOT_KEPT for item in plan.taken if not item.offer.item}
        fetched = windows.fetch(
            http, self.imagery, plan.areas, taken, self.folder, ledger,
            note=note, progress=report, connections=self.settings.connections,
        )  # fmt: skip
        scenes = len(taken) - fetched.before - len(fetched.failed)
        line = f"{counted(scenes, 'scene')} fetched, {size_text(fetched.size)}; {fetched.before} were there"
        return Brought(lines=(line,), done=scenes, skipped=fetched.before, failed={**fetched.failed, **unknown})


def unfetched(folder: Path, ledger: Ledger) -> list[str]:
    """Return sentences on scenes of catalogues that could not be fetched, and are not there."""
    failed = {event["path"]: event["reason"] for event in ledger.of("failed") if "path" in event}
    return [
        f"{path} could not be fetched: {reason}; fetch again"
        for path, reason in failed.items()
        if not (folder / path).exists()
    ]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A scene of a plan that is to be fetched for an area."""

    area: str
    id: str
    item: Mapping[str, Any]


def _wishes(plan: Plan) -> dict[str, list[Wish]]:
    """Return the scenes that a plan takes as wishes, by site."""
    wishes: dict[str, list[Wish]] = {}
    for item in plan.taken:
        wish = Wish(id=item.offer.id, updated=item.offer.processing, km2=item.km2)
        wishes.setdefault(item.area, []).append(wish)
    return wishes
