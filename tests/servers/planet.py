"""A fake Planet on loopback: `planet.py PORT [FOLDER]` serves the scenes that lie in FOLDER.

Answers have the shapes of the recorded ones. Tests add scenes of their own and ask for faults by POST /_control, whose
keys are described at `FAULTS`; GET /_log gives the requests, GET /_charged the square kilometres.
"""

import asyncio
import hashlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from planet_account import Planet
from planet_scenes import Scene, matches
from shapely.geometry import shape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORTS: dict[tuple[str, int], asyncio.Transport] = {}


class _Protocol(H11Protocol):
    """HTTP whose connections can be cut off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _TRANSPORTS[tuple(transport.get_extra_info("peername"))] = transport


def hang_up(request: Request) -> Response:
    """Cut off a request's connection without an answer."""
    _TRANSPORTS[tuple(request.scope["client"])].abort()
    return Response()


class Service:
    """The answers to each kind of request."""

    def __init__(self, planet: Planet) -> None:
        self.planet = planet

    async def search(self, request: Request) -> Response:
        body = await request.json()
        wanted = body["filter"]
        if "geometry" in body:
            area = {"type": "GeometryFilter", "field_name": "geometry", "config": body["geometry"]}
            wanted = {"type": "AndFilter", "config": [wanted, area]}
        found = [
            scene.item for scene in self.planet.scenes.values()
            if scene.item["properties"]["item_type"] in body["item_types"]
            and (self.planet.faults["ignores_filter"] or matches(scene.item, wanted))
        ]  # fmt: skip
        field, _, way = request.query_params.get("_sort", "published desc").partition(" ")
        found.sort(key=lambda item: (str(item["properties"][field]), item["id"]), reverse=way == "desc")
        id_ = uuid.uuid4().hex
        size = min(int(request.query_params.get("_page_size", 250)), 250)
        self.planet.searches[id_] = {"items": found, "size": size}
        return self.page(request, id_, -1 if self.planet.faults["empty_page"] else 0)

    def page(self, request: Request, id_: str, number: int) -> Response:
        here = f"{str(request.base_url).rstrip('/')}/data/v1/searches/{id_}/results?_page="
        items, size = self.planet.searches[id_]["items"], self.planet.searches[id_]["size"]
        first = max(number * size - (self.planet.faults["repeats_item"] and number > 0), 0)
        features = items[first : (number + 1) * size] if number >= 0 else []
        if features and self.planet.faults["repeats_item"] and number > 0:  # as it was before it was published anew
            old = {**features[0]["properties"], "updated": "2019-06-01T00:00:00Z", "cloud_cover": 0.4}
            features = [{**features[0], "properties": old}, *features[1:]]
        follows = (number + 1) * size < len(items)
        then = f"{here}{number + (not self.planet.faults['repeats_page'])}" if follows else None
        if then and self.planet.faults["foreign_page"]:
            then = self.planet.faults["foreign_page"]
        links = {"_first": f"{here}0", "_next": then, "_self": f"{here}{number}"}
        return JSONResponse({"_links": links, "features": features, "type": "FeatureCollection"})

    async def next_page(self, request: Request) -> Response:
        return self.page(request, request.path_params["id"], int(request.query_params["_page"]))

    async def stats(self, request: Request) -> Response:
        body = await request.json()
        years: dict[str, int] = {}
        for scene in self.planet.scenes.values():
            if matches(scene.item, body["filter"]):
                year = scene.item["properties"]["acquired"][:4]
                years[year] = years.get(year, 0) + 1
        rows = [{"count": count, "start_time": f"{year}-01-01T00:00:00.0Z"} for year, count in sorted(years.items())]
        return JSONResponse({"buckets": rows, "interval": "year", "utc_offset": "+0h"})

    async def item(self, request: Request) -> Response:
        scene = self.planet.scenes.get(request.path_params["id"])
        return JSONResponse(scene.item) if scene else JSONResponse({"general": [{"message": "Not found"}]}, 404)

    async def assets(self, request: Request) -> Response:
        scene = self.planet.scenes[request.path_params["id"]]
        return JSONResponse({name: {"status": "inactive", "type": name} for name in scene.item["assets"]})

    async def coverage(self, request: Request) -> Response:
        id_, area = request.path_params["id"], shape((await request.json())["geometry"])
        if self.planet.faults["coverage_waits"] > 0:
            self.planet.faults["coverage_waits"] -= 1
            return JSONResponse({"status": "pending"}, 202)
        if id_ not in self.planet.scenes or not area.intersects(shape(self.planet.scenes[id_].item["geometry"])):
            return JSONResponse({"message": "no overlap"}, 400)
        clear = self.planet.scenes[id_].item["properties"].get("clear_percent", 0)
        return JSONResponse({"clear_percent": self.planet.faults["coverage"].get(id_, clear), "status": "complete"})

    async def create(self, request: Request) -> Response:
        body = await request.json()
        lost = self.planet.faults["lost"].pop(0) if self.planet.faults["lost"] else ""
        status, answer = (0, {}) if "before" in lost else self.planet.place(body)
        if lost.startswith("500"):
            return HTMLResponse("<html>bad gateway</html>", 500)
        return hang_up(request) if lost else JSONResponse(answer, status)

    async def listed(self, request: Request) -> Response:
        asked, base = request.query_params, str(request.base_url).rstrip("/")
        start, _, end = asked.get("created_on", "/").partition("/")
        found = [
            order for order in self.planet.orders.values()
            if asked.get("name", order["name"]) == order["name"] and asked.get("name__contains", "") in order["name"]
            and asked.get("state", order["state"]) == order["state"]
            and order["created_on"] >= start.replace("..", "") and (end in {"", ".."} or order["created_on"] < end)
        ]  # fmt: skip
        first, size = int(asked.get("page_marker", 0)), int(asked.get("page_size", 20))
        links = {"_self": str(request.url)}
        if first + size < len(found):
            links["next"] = f"{base}/compute/ops/orders/v2?{urlencode({**asked, 'page_marker': first + size})}"
        shown = [self.planet.described(order["id"]) for order in found[first : first + size]]
        return JSONResponse({"_links": links, "orders": shown})

    async def order(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        if id_ not in self.planet.orders:
            return JSONResponse({"message": f"Could not load order ID: {id_}."}, 404)
        if request.method == "PUT":
            if self.planet.orders[id_]["state"] != "queued":
                return JSONResponse({"message": "Order not in a cancellable state"}, 409)
            self.planet.orders[id_].update(state="cancelled", _states=["cancelled"])
            self.planet.charges[:] = [charge for charge in self.planet.charges if charge["order"] != id_]
        else:
            self.planet.look(id_)
        return JSONResponse(self.planet.described(id_, base=str(request.base_url).rstrip("/")))

    async def load(self, _: Request) -> Response:
        states = [order["state"] for order in self.planet.orders.values()]
        counts = {"queued_orders": states.count("queued"), "running_orders": states.count("running")}
        return JSONResponse({"organization": counts, "user": counts})

    async def download(self, request: Request) -> Response:
        expires, id_, name = request.query_params["token"].removeprefix("SECRET").split("~")
        early = next((part for part, count in self.planet.faults["expired"].items() if part in name and count), None)
        if early is not None:
            self.planet.faults["expired"][early] -= 1
        if early is not None or float(expires) < self.planet.now:
            return HTMLResponse("<html><body>Link has expired</body></html>", self.planet.faults["expired_status"])
        if self.planet.faults["redirect"] and request.url.hostname != "localhost":
            return RedirectResponse(str(request.url.replace(hostname="localhost")), 302)
        return self.body_of(request, name, self.planet.delivered(id_)[name])

    def body_of(self, request: Request, name: str, content: bytes) -> Response:
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        span = request.headers.get("range", "")
        is_same = request.headers.get("if-range", tag) == tag
        first = int(span.removeprefix("bytes=").partition("-")[0]) if is_same and span else 0
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": str(len(content) - first)}
        if span and first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cuts = next((cuts for part, cuts in self.planet.faults["cut"].items() if part in name and cuts), [])
        stop = cuts.pop(0) if cuts else None

        async def pieces() -> AsyncIterator[bytes]:
            if stop is None:
                yield content[first:]
                return
            yield content[first : first + stop]
            await asyncio.sleep(0.05)  # what was written goes out
            hang_up(request)

        return StreamingResponse(pieces(), 206 if span and first else 200, headers)

    async def quota(self, _: Request) -> Response:
        rows = self.planet.faults["products"]
        if rows is None:
            return JSONResponse({"message": "not found"}, 404)
        return JSONResponse({"meta": {"args": {}, "count": len(rows), "next": None, "prev": None}, "results": rows})

    async def subscriptions(self, _: Request) -> Response:
        rows = self.planet.faults["subscriptions"]
        return JSONResponse({"message": "not found"}, 404) if rows is None else JSONResponse(rows)

    async def control(self, request: Request) -> Response:
        asked = await request.json()
        if asked.pop("reset", False):
            self.planet.forget()
        for scene in asked.pop("scenes", []):
            self.planet.scenes[scene["item"]["id"]] = Scene(item=scene["item"], size=scene.get("size", 20_000))
        self.planet.faults.update(asked)
        return JSONResponse(self.planet.faults)

    async def log(self, _: Request) -> Response:
        return JSONResponse(self.planet.log)

    async def charged(self, _: Request) -> Response:
        names = [order["name"] for order in self.planet.orders.values()]
        return JSONResponse({"km2": self.planet.charged_km2, "items": self.planet.charges, "orders": names})

    def routes(self) -> list[Route]:
        """Return the service's routes."""
        v2 = "/compute/ops/orders/v2"
        scene = "/data/v1/item-types/PSScene/items/{id}"
        return [
            Route("/data/v1/quick-search", self.search, methods=["POST"]),
            Route("/data/v1/searches/{id}/results", self.next_page),
            Route("/data/v1/stats", self.stats, methods=["POST"]),
            Route(scene, self.item),
            Route(f"{scene}/assets/", self.assets),
            Route(f"{scene}/coverage", self.coverage, methods=["POST"]),
            Route(v2, self.create, methods=["POST"]),
            Route(v2, self.listed),
            Route(f"{v2}/{{id}}", self.order, methods=["GET", "PUT"]),
            Route("/compute/ops/stats/orders/v2", self.load),
            Route("/compute/ops/download/", self.download),
            Route("/account/v1/my/products", self.quota),
            Route("/auth/v1/experimental/public/my/subscriptions", self.subscriptions),
            Route("/_control", self.control, methods=["POST"]),
            Route("/_log", self.log),
            Route("/_charged", self.charged),
        ]


def service(planet: Planet) -> Starlette:
    """Return the service, which notes each request and refuses those that it is asked to refuse."""

    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path.startswith("/_"):
            return await go_on(request)
        entry = {
            "at": time.time(), "method": request.method, "path": request.url.path, "host": request.url.hostname,
            "authorised": "authorization" in request.headers, "range": request.headers.get("range"), "status": 0,
        }  # fmt: skip
        planet.log.append(entry)
        answer = refused(request) or await go_on(request)
        entry["status"] = answer.status_code
        answer.headers["Date"] = f"{datetime.fromtimestamp(planet.now, UTC):%a, %d %b %Y %H:%M:%S GMT}"
        return answer

    def refused(request: Request) -> Response | None:
        faults = planet.faults
        busy, faults["busy"] = faults["busy"][:1], faults["busy"][1:]
        if busy == "1":
            after = {} if faults["retry_after"] is None else {"Retry-After": str(faults["retry_after"])}
            return JSONResponse({"message": "Too many requests"}, 429, after)
        if request.method == "GET" and faults["lost_gets"] > 0:
            faults["lost_gets"] -= 1
            return hang_up(request)
        is_link = request.url.path == "/compute/ops/download/"
        if faults["key"] and not is_link and request.headers.get("authorization") != f"api-key {faults['key']}":
            return Response(faults["unauthorised"], 401)
        return None

    return Starlette(routes=Service(planet).routes(), middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


if __name__ == "__main__":
    served = service(Planet(Path(sys.argv[2]) if len(sys.argv) > 2 else None))
    uvicorn.run(served, host="127.0.0.1", port=int(sys.argv[1]), http=_Protocol, log_level="warning", date_header=False)
