"""A fake Planet that tests talk to: its scenes, its faults, its account of requests and charges."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import shapely
from serving import served
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.planet.requests import Wish
from thawmap.acquire.planet.service import Manners
from thawmap.config import PlanetImagery

KEY = "PLAKplantedkey0123456789"
AREA = Area("Lena", shapely.box(126.0, 72.0, 126.2, 72.05))
SECOND = Area("Peel", shapely.box(-135.0, 67.0, -134.8, 67.05))
ASSETS = [
    "ortho_analytic_4b", "ortho_analytic_4b_sr", "ortho_analytic_4b_xml", "ortho_analytic_8b", "ortho_analytic_8b_sr",
    "ortho_analytic_8b_xml", "ortho_udm2",
]  # fmt: skip
FAST = Manners(pause_s=0.02, settle_s=0.02, patience_s=60.0)
_FIRST = datetime(2019, 7, 1, 4, 0, tzinfo=UTC)


def item_of(number: int, outline: BaseGeometry = AREA.outline, **properties: Any) -> dict[str, Any]:
    """An item in the form of the Data API; each number is another time."""
    acquired = _FIRST + timedelta(minutes=number)
    time = f"{acquired:%Y-%m-%dT%H:%M:%S.%fZ}"
    return {
        "type": "Feature", "id": f"{acquired:%Y%m%d_%H%M%S}_{number % 100:02d}_10{number % 97:02x}",
        "geometry": json.loads(shapely.to_geojson(outline)), "assets": ASSETS,
        "_permissions": [f"assets.{name}:download" for name in ASSETS],
        "properties": {
            "acquired": time, "published": time, "updated": time, "cloud_cover": 0.02, "clear_percent": 97,
            "ground_control": True, "quality_category": "standard", "publishing_stage": "finalized",
            "instrument": "PS2", "item_type": "PSScene", "satellite_id": f"10{number % 97:02x}",
            "strip_id": f"{number}",
        } | properties,
    }  # fmt: skip


class FakePlanet:
    """A running fake Planet."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = httpx.Client(base_url=address, timeout=60.0)
        self.settings = PlanetImagery(provider="planet", address=address)

    def control(self, **faults: Any) -> dict[str, Any]:
        """Add scenes, or ask for faults."""
        answer: dict[str, Any] = self._client.post("/_control", json=faults).json()
        return answer

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def reset(self) -> None:
        """Forget all but the key."""
        self.control(reset=True, key=KEY)

    def add(self, *items: dict[str, Any], size: int = 2_000) -> list[str]:
        """Add scenes; return their ids."""
        self.control(scenes=[{"item": item, "size": size} for item in items])
        return [item["id"] for item in items]

    def add_many(self, count: int, outline: BaseGeometry = AREA.outline) -> list[str]:
        """Add a number of scenes of an area; return their ids."""
        return self.add(*(item_of(number, outline) for number in range(count)))

    @property
    def log(self) -> list[dict[str, Any]]:
        """The requests so far."""
        log: list[dict[str, Any]] = self._client.get("/_log").json()
        return log

    @property
    def charged(self) -> dict[str, Any]:
        """What was charged so far."""
        charged: dict[str, Any] = self._client.get("/_charged").json()
        return charged

    def posts(self) -> int:
        """How many orders were sent."""
        return sum(entry["method"] == "POST" and entry["path"].endswith("/orders/v2") for entry in self.log)

    def http(self, **options: Any) -> Http:
        """A way to it without a limit of its rate."""
        host = self.address.removeprefix("http://")
        names = ("search", "coverage", "quota", "order", "state", "list", "download")
        rates = {host: 1e5, f"localhost:{host.rpartition(':')[2]}": 1e5} | {f"planet-{name}": 1e5 for name in names}
        return Http(**{"rates": rates, "credentials": {self.address: _Key()}, "patience_s": 30.0} | options)


class _Key(httpx.Auth):
    """The planted key, as Planet's package sends it."""

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Authorization"] = f"api-key {KEY}"
        yield request


@contextmanager
def fake_planet(*arguments: str | Path) -> Iterator[FakePlanet]:
    """Run a fake Planet until the block ends."""
    with served("planet", *arguments) as address:
        planet = FakePlanet(address)
        try:
            planet.reset()
            yield planet
        finally:
            planet.close()


def wishes(ids: list[str], km2: float = 1.0) -> list[Wish]:
    """Wishes for scenes."""
    return [Wish(id=id_, updated="2019-07-01T00:00:00Z", km2=km2) for id_ in ids]


def ledger_in(folder: Path) -> Ledger:
    """The ledger of a folder, read anew."""
    return Ledger.open(folder / "ledger.jsonl")


def silent(_: str) -> None:
    """Take a sentence, and do nothing with it."""
