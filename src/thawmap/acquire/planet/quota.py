"""Planet's quota: square kilometres that the account may still order."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thawmap.acquire.http import Http, Refused
from thawmap.acquire.planet.service import Service, objects
from thawmap.config import PlanetImagery
from thawmap.errors import ServiceError
from thawmap.text import counted, printable

_PRODUCTS = "/account/v1/my/products"
_PLANS = "/auth/v1/experimental/public/my/subscriptions"
_CLOSED = frozenset({"inactive", "expired", "cancelled", "canceled", "disabled"})
_METRES = frozenset({"sqm", "m2", "sqmeters"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuota:
    """What one plan of an account allows.

    Attributes:
        name: Its name.
        total_km2: All that it allows; None: no limit.
        used_km2: What was used of it.
    """

    name: str
    total_km2: float | None
    used_km2: float

    @property
    def left_km2(self) -> float | None:
        """Square kilometres left; None: no limit."""
        return None if self.total_km2 is None else max(self.total_km2 - self.used_km2, 0.0)

    @property
    def sentence(self) -> str:
        """The plan in words."""
        if self.total_km2 is None:
            return f"{self.name}: no limit ({self.used_km2:,.0f} km2 used)"
        return f"{self.name}: {self.left_km2:,.0f} of {self.total_km2:,.0f} km2 left"


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may still order.

    Attributes:
        plans: Its plans that are open.
    """

    plans: tuple[PlanQuota, ...]

    @property
    def left_km2(self) -> float | None:
        """Square kilometres left in all plans together; None: no limit, or not known."""
        left = [plan.left_km2 for plan in self.plans]
        known = [value for value in left if value is not None]
        return sum(known) if left and len(known) == len(left) else None

    @property
    def sentence(self) -> str:
        """What is left, in words."""
        if not self.plans:
            return "Planet does not say how much quota is left"
        plans = "; ".join(plan.sentence for plan in self.plans)
        return f"quota at Planet: {plans}" + (
            f" ({counted(len(self.plans), 'plan')}; an order is paid by one of them)" if len(self.plans) > 1 else ""
        )


def quota(http: Http, settings: PlanetImagery) -> Quota:
    """Return what the account may still order.

    Of the list of plans, and of the list of products where these are not only for reservations: Planet has both, and
    accounts that are in one of them only.

    Raises:
        ServiceError: If Planet cannot be reached, or refuses the login.
    """
    service = Service(http, settings.address)
    plans = [*filter(None, map(_plan, _rows(service, _PLANS)))]
    return Quota(tuple(plans or filter(None, map(_product, _rows(service, _PRODUCTS)))))


def _rows(service: Service, path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list; none where the service does not have it."""
    try:
        first = service.get(service.url(path), endpoint="planet-quota").json()
    except Refused:
        return

    def following(page: Any) -> str | None:
        meta = page.get("meta") if isinstance(page, dict) else None
        url = meta.get("next") if isinstance(meta, dict) else None
        return url if isinstance(url, str) else None

    for page in service.pages(first, following=following, endpoint="planet-quota"):
        yield from objects(page, "results")


def _plan(row: Mapping[str, Any]) -> PlanQuota | None:
    """Return the quota in a row of the list of plans; None where it is closed."""
    if str(row.get("state", "active")).lower() in _CLOSED:
        return None
    described = row.get("plan")
    name = described.get("name") if isinstance(described, dict) else row.get("name")
    has_limit = row.get("quota_enabled") is not False and row.get("quota_sqkm") is not None
    total = _km2(row.get("quota_sqkm"), "sqkm") if has_limit else None
    name = printable(str(name or row.get("id") or "plan"))
    return PlanQuota(name=name, total_km2=total, used_km2=_km2(row.get("quota_used"), "sqkm"))


def _product(row: Mapping[str, Any]) -> PlanQuota | None:
    """Return the quota in a row of the list of products; None where it pays no order."""
    if str(row.get("state", "active")).lower() in _CLOSED or row.get("supports_reservation") is True:
        return None
    units = str(row.get("quota_units", "sqkm"))
    has_limit = row.get("unlimited_quota") is not True and row.get("quota_total") is not None
    total = _km2(row.get("quota_total"), units) if has_limit else None
    name = printable(str(row.get("title") or row.get("name") or "product"))
    return PlanQuota(name=name, total_km2=total, used_km2=_km2(row.get("quota_used"), units))


def _km2(value: Any, units: str) -> float:
    """Return a number, or a text of one, in square kilometres; 0 for nothing.

    Raises:
        ServiceError: If it is no number, or in another unit.
    """
    try:
        number = float(0 if value is None else value)
    except (TypeError, ValueError):
        number = math.nan
    unit = units.lower().replace(" ", "")
    if not math.isfinite(number) or (unit not in _METRES and unit not in {"sqkm", "km2"}):
        msg = (
            f"Planet says a quota of {printable(str(value))!r} {printable(units)!r}, which is no number of square"
            " kilometres; set 'acquire.imagery.quota_km2'"
        )
        raise ServiceError(msg)
    return number / 1e6 if unit in _METRES else number
