"""The account of a user at the fake Planet: scenes, orders, links and charges, and the faults that are asked for."""

import hashlib
import json
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from planet_scenes import Scene, clipped, scenes_in, square_kilometres

FAULTS: dict[str, Any] = {
    "key": None,  # the only key that is let in; None: any
    "unauthorised": "",  # body of 401
    "clock_s": 0.0,  # how far the server's clock is ahead of the machine's
    "busy": "",  # a 1 for each request that is answered by 429, then a 0 for each that is not; used up from the left
    "retry_after": None,  # what 429 says
    "lost": [],  # of the next orders: "after" made, "before", "500 after", "500 before"
    "lost_gets": 0,  # so many GETs are cut off without an answer
    "states": ["success"],  # states that an order has at one look after another; the last one stays
    "failing": [],  # ids that are not delivered
    "failing_once": [],  # ids that are not delivered by the first order that has them
    "bad": [],  # ids with which an order is refused
    "bad_is_named": True,  # whether the refusal names them
    "quota_km2": None,  # orders beyond it are refused
    "subscriptions": [],  # answer of the old list of plans; None: 404
    "products": [],  # answer of the list of products; None: 404
    "coverage": {},  # clear percent inside the area by id
    "coverage_waits": 0,  # so many answers say that it is being computed
    "link_s": 86400.0,  # seconds that links live
    "expired_status": 401,
    "expired": {},  # part of a name: how many requests find its link expired
    "cut": {},  # part of a name: list of bytes after which a body breaks off, one for each request
    "wrong_sha256": "",  # part of a name whose checksum in the manifest is another file's
    "wrong_size": "",  # part of a name whose size in the manifest is one byte more
    "rename": {},  # names in results and manifest that are changed
    "twice": "",  # part of a name that stands in results and manifest twice
    "foreign": "",  # address that results lead to instead of this server's
    "hidden": [],  # names that results lack
    "redirect": False,  # whether downloads lead on to another host (localhost instead of 127.0.0.1)
    "ignores_filter": False,
    "repeats_item": False,  # the first item of a page is the last of the one before, as it was earlier
    "repeats_page": False,  # a page leads to itself
    "empty_page": False,  # the first page is empty, and leads on
    "foreign_page": "",  # address that pages lead to
}  # fmt: skip
_NAMES = {
    "analytic_sr_udm2": ("3B_AnalyticMS_SR", "3B_udm2"), "analytic_8b_sr_udm2": ("3B_AnalyticMS_SR_8b", "3B_udm2"),
    "analytic_udm2": ("3B_AnalyticMS", "3B_udm2"), "analytic_8b_udm2": ("3B_AnalyticMS_8b", "3B_udm2"),
}  # fmt: skip
_ASSETS = {
    "udm2": "ortho_udm2", "SR_8b": "ortho_analytic_8b_sr", "SR": "ortho_analytic_4b_sr", "8b": "ortho_analytic_8b",
}  # fmt: skip


class Planet:
    """What the service knows: scenes, orders, searches, requests, and the faults that it is asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.faults: dict[str, Any] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew, with the scenes of the folder and no fault."""
        folder = self.folder
        self.scenes: dict[str, Scene] = {} if folder is None else scenes_in(folder)
        self.faults.update(json.loads(json.dumps(FAULTS)))
        self.orders: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.looks: dict[str, int] = {}
        self.charges: list[dict[str, Any]] = []
        self.searches: dict[str, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []

    @property
    def now(self) -> float:
        """Seconds since 1970 by the server's clock."""
        return time.time() + float(self.faults["clock_s"])

    def stamp(self, seconds: float | None = None) -> str:
        """Return a time as Planet writes it, with five decimals."""
        time_ = datetime.fromtimestamp(self.now if seconds is None else seconds, UTC)
        return f"{time_:%Y-%m-%dT%H:%M:%S.%f}"[:-1] + "Z"

    @property
    def charged_km2(self) -> float:
        return sum(charge["km2"] for charge in self.charges)

    def place(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Make an order; return status and answer."""
        product, tools = body["products"][0], body.get("tools", [])
        ids, aoi = product["item_ids"], next((tool["clip"]["aoi"] for tool in tools if "clip" in tool), None)
        if body.get("source_type") != "scenes" or product["product_bundle"] not in _NAMES or len(ids) > 500 or not ids:
            return refusal("Request body is not valid")
        bad = [id_ for id_ in ids if id_ in self.faults["bad"] or id_ not in self.scenes]
        if bad:
            named = f"No access to assets: PSScene/{bad[0]}/[ortho_analytic_4b_sr]"
            return refusal(named if self.faults["bad_is_named"] else "Problem confirming products")
        costs = {id_: square_kilometres(self.scenes[id_].item["geometry"], aoi) for id_ in ids}
        quota = self.faults["quota_km2"]
        if quota is not None and self.charged_km2 + sum(costs.values()) > quota:
            return 400, {"field": {}, "general": [{"message": "Download quota has been exceeded."}]}
        id_ = str(uuid.uuid4())
        failing = [*self.faults["failing"], *self.faults["failing_once"]]
        self.faults["failing_once"] = [item for item in self.faults["failing_once"] if item not in ids]
        delivered = [item for item in ids if item not in failing]
        self.charges += [{"order": id_, "item": item, "km2": costs[item]} for item in delivered]
        self.orders[id_] = {
            **{key: body[key] for key in ("name", "products", "tools", "order_type") if key in body},
            "id": id_, "created_on": self.stamp(), "last_modified": self.stamp(), "error_hints": [],
            "last_message": "Preparing order", "state": "queued", "_delivered": delivered, "_failing": failing,
            "_states": list(self.faults["states"]),
        }  # fmt: skip
        return 202, self.described(id_)

    def described(self, id_: str, *, base: str = "") -> dict[str, Any]:
        """Return an order as it is answered; with links where it is in a final state."""
        order = self.orders[id_]
        shown = {key: value for key, value in order.items() if not key.startswith("_")}
        links: dict[str, Any] = {"_self": f"{base}/compute/ops/orders/v2/{id_}"}
        if order["state"] in {"success", "partial", "running"} and base:
            links["results"] = list(self.results(id_, base))
        return {**shown, "_links": links}

    def look(self, id_: str) -> None:
        """Move an order on to its next state."""
        order = self.orders[id_]
        states = order["_states"]
        order["state"] = states[0] if len(states) == 1 else states.pop(0)
        wanted = order["products"][0]["item_ids"]
        if order["state"] in {"success", "partial"} and len(order["_delivered"]) < len(wanted):
            order["state"] = "partial" if order["_delivered"] else "failed"
            order["error_hints"] = [f"{item}: asset could not be made" for item in wanted if item in order["_failing"]]

    def results(self, id_: str, base: str) -> Any:
        """Yield the entries of an order's files, with links that live for some time."""
        expires = self.now + float(self.faults["link_s"])
        base = self.faults["foreign"] or base
        for name in self.delivered(id_):
            if name in self.faults["hidden"]:
                continue
            query = urlencode({"token": f"SECRET{expires:.3f}~{id_}~{name}"})
            entry = {
                "delivery": "success", "expires_at": self.stamp(expires), "name": self.called(f"{id_}/{name}", name),
                "location": f"{base}/compute/ops/download/?{query}",
            }  # fmt: skip
            yield entry
            if self.faults["twice"] and self.faults["twice"] in name:
                yield entry

    def called(self, path: str, name: str) -> str:
        """Return what results and manifest call a file."""
        return next((new for old, new in self.faults["rename"].items() if old in name), path)

    def delivered(self, id_: str) -> dict[str, bytes]:
        """Return the bytes of an order's files by their path below its folder, with its manifest."""
        if id_ not in self.files:
            order = self.orders[id_]
            aoi = next((tool["clip"]["aoi"] for tool in order["tools"] if "clip" in tool), None)
            stems, files, rows = _NAMES[order["products"][0]["product_bundle"]], {}, []
            for item in order["_delivered"]:
                for name, content in clipped(self.scenes[item], stems, aoi).items():
                    files[f"PSScene/{name}"] = content
                    rows.append(self.row(f"PSScene/{name}", content, item, order["products"][0]["product_bundle"]))
            twice = self.faults["twice"]
            rows += [row for row in rows if twice and twice in row["path"]]
            manifest = {"name": "", "files": rows}
            self.files[id_] = {"manifest.json": json.dumps(manifest, indent=1).encode(), **files}
        return self.files[id_]

    def row(self, name: str, content: bytes, item: str, bundle: str) -> dict[str, Any]:
        """Return a row of the manifest."""
        wrong = bool(self.faults["wrong_sha256"]) and self.faults["wrong_sha256"] in name
        longer = bool(self.faults["wrong_size"]) and self.faults["wrong_size"] in name
        notes = {"planet/item_id": item, "planet/item_type": "PSScene"}
        if not name.endswith(".json"):
            asset = next((asset for part, asset in _ASSETS.items() if part in name), "ortho_analytic_4b_xml")
            notes |= {"planet/asset_type": asset, "planet/bundle_type": bundle}
        return {
            "path": self.called(name, name), "media_type": "image/tiff" if name.endswith(".tif") else "text/plain",
            "size": len(content) + longer, "annotations": notes,
            "digests": {"md5": hashlib.md5(content).hexdigest(),
                        "sha256": hashlib.sha256(b"another" if wrong else content).hexdigest()},
        }  # fmt: skip


def refusal(message: str) -> tuple[int, dict[str, Any]]:
    """Return Planet's answer to an order that it does not take."""
    return 400, {
        "field": {"Products": [{"message": message}]}, "general": [{"message": "Unable to accept order"}],
    }  # fmt: skip
