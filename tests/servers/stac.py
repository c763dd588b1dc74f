"""A STAC API with its assets, which does what catalogues do wrong on request.

stac.py PORT FOLDER serves the items (*.json) of FOLDER and its other files:
    /v1                  an API that knows filter, query and sort, and tells how many items match
    /api/stac/v1         the same in the manner of the Planetary Computer: tells no number, signs its files
    /files/NAME          a file, with Range
    /signed/ACCOUNT/NAME the same for those who have a token of /api/sas/v1/token/...
    /BUCKET/NAME         the same in the manner of S3 (GET and HEAD), for the bucket eodata
    /static/NAME         the same again, for static catalogues: JSON as it lies there
Relative hrefs of items become addresses below /files, or below /signed in the second API.

stac.py PORT FILE.json answers from a file of recorded pairs of request and response instead.

POST /_control takes a JSON object, whose keys are all optional:
    "faults": [fault, ...]   one for each of the next requests to the path in "at" ("search" or "file"); null for none:
                             {"status": 429, "headers": {...}}, {"cut": bytes} of a body, {"short": bytes} of one that
                             looks whole, {"drop": true}
    "ignore": [...]          members of a search that are left out of account: filter, datetime, intersects, collections
    "lose": [n, ...]         the n-th item on a second or later page is not there; "hide": [id, ...] never is
    "pages": "repeat" (each page twice), "empty" (an empty one between two), "circle", "cut" (ends after the first)
    "most": items on a page at most
    "count": false           tells no number; a number: tells that one
    "tokens_s": seconds that a token lives; "clock_s": what the server's clock is wrong by; "revoke": true ends tokens
    "clear": true            forgets all of it, and the log
GET /_log gives the requests in order: method, path, query, body, time, headers, status.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import attr
import cql2
import shapely
import uvicorn
from fastapi import APIRouter
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions.filter import SearchFilterExtension
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.extensions.query import QueryExtension
from stac_fastapi.extensions.sort import SortExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.links import CollectionLinks
from stac_fastapi.types.rfc3339 import str_to_interval
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
COMPARED = {
    "lte": lambda stored, value: stored <= value,
    "gte": lambda stored, value: stored >= value,
    "eq": lambda stored, value: stored == value,
    "in": lambda stored, value: stored in value,
}


class State:
    """What the server does wrong, and what it was asked."""

    def __init__(self):
        self.clear()
        self.serial = 0

    def clear(self):
        self.faults, self.log = {"search": [], "file": [], "token": []}, []
        self.ignore, self.lose, self.hide, self.pages, self.count = [], [], [], "", True
        self.most = 1000
        self.tokens_s, self.clock_s, self.tokens = 3600, 0, {}

    def control(self, words):
        if words.get("clear"):
            self.clear()
        self.faults[words.get("at", "search")].extend(words.get("faults", []))
        for name in ("ignore", "lose", "hide", "pages", "count", "most", "tokens_s", "clock_s"):
            setattr(self, name, words.get(name, getattr(self, name)))
        if words.get("revoke"):
            self.tokens = {}

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=self.clock_s)

    def token(self):
        self.serial += 1
        name, until = f"secret{self.serial}", self.now() + timedelta(seconds=self.tokens_s)
        self.tokens[name] = until
        return {"msft:expiry": until.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": f"st=now&sig={name}"}

    def is_valid(self, query):
        until = self.tokens.get(parse_qs(query).get("sig", [""])[0])
        return until is not None and until > self.now()


STATE = State()


def read_items(folder, port, prefix):
    """The items below a folder, with addresses of this server."""
    items = []
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        if content.get("type") != "Feature":
            continue
        for asset in content["assets"].values():
            if "://" not in asset["href"]:
                name = (path.parent / asset["href"]).resolve().relative_to(folder.resolve()).as_posix()
                asset["href"] = f"http://127.0.0.1:{port}{prefix}/{name}"
        items.append(content)
    return sorted(items, key=lambda item: (item["properties"]["datetime"], item["id"]), reverse=True)


@attr.s
class MemoryClient(BaseCoreClient):
    items = attr.ib(factory=list)
    tells = attr.ib(default=True)

    def all_collections(self, **kwargs):
        ids = sorted({item["collection"] for item in self.items})
        return {"collections": [self.get_collection(name, **kwargs) for name in ids], "links": []}

    def get_collection(self, collection_id, **kwargs):
        if collection_id not in {item["collection"] for item in self.items}:
            raise NotFoundError(collection_id)
        links = CollectionLinks(collection_id=collection_id, base_url=str(kwargs["request"].base_url)).create_links()
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        return {
            "type": "Collection", "stac_version": "1.0.0", "id": collection_id, "description": "", "license": "other",
            "extent": extent, "links": links,
        }  # fmt: skip

    def get_item(self, item_id, collection_id, **_):
        for item in self.items:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return item
        raise NotFoundError(item_id)

    def item_collection(self, collection_id, bbox=None, datetime=None, limit=10, token=None, **kwargs):
        asked = {"collections": [collection_id], "bbox": bbox, "datetime": datetime, "limit": limit, "token": token}
        return self._search(asked, kwargs["request"], is_post=False)

    def get_search(self, **kwargs):
        request = kwargs.pop("request")
        return self._search(kwargs, request, is_post=False)

    def post_search(self, _, **kwargs):
        return self._search(json.loads(kwargs["request"]._body), kwargs["request"], is_post=True)

    def _search(self, asked, request, *, is_post):
        asked = {key: value for key, value in asked.items() if value is not None and key not in STATE.ignore}
        matching = [item for item in self.items if _matches(item, asked) and item["id"] not in STATE.hide]
        limit = min(int(asked.get("limit") or 10), STATE.most)
        start, step = (int(number) for number in str(asked.get("token") or "0.0").split("."))
        features = matching[start : start + limit]
        if start:
            features = [item for number, item in enumerate(features) if number not in STATE.lose]
        upcoming = f"{start + limit}.0" if start + limit < len(matching) else None
        if STATE.pages == "repeat" and not step:
            upcoming = f"{start}.1"
        elif STATE.pages == "empty" and upcoming:
            features, upcoming = ([], f"{start}.1") if start and not step else (features, upcoming)
        elif STATE.pages == "circle":
            upcoming = upcoming or "0.0"
        elif STATE.pages == "cut":
            features, upcoming = (features, upcoming) if start == 0 else ([], None)
        links = []
        if upcoming and is_post:
            body = {**json.loads(request._body), "token": upcoming}
            links = [{"rel": "next", "method": "POST", "href": str(request.url), "body": body, "merge": False}]
        elif upcoming:
            links = [{"rel": "next", "method": "GET", "href": str(request.url.include_query_params(token=upcoming))}]
        page = {"type": "FeatureCollection", "features": features, "links": links, "numberReturned": len(features)}
        if self.tells and STATE.count is not False:
            page["numberMatched"] = len(matching) if STATE.count is True else STATE.count
        return page


def _matches(item, asked):
    """Whether an item is one that a search asks for."""
    if asked.get("collections") and item["collection"] not in asked["collections"]:
        return False
    shape = shapely.geometry.shape(item["geometry"])
    if asked.get("bbox") and not shape.intersects(shapely.box(*map(float, asked["bbox"]))):
        return False
    ground = asked.get("intersects")
    if ground and not shape.intersects(
        shapely.geometry.shape(json.loads(ground) if isinstance(ground, str) else ground)
    ):
        return False
    if asked.get("datetime"):
        interval = str_to_interval(asked["datetime"])
        first, last = interval if isinstance(interval, tuple) else (interval, interval)
        if not (first or EARLIEST) <= datetime.fromisoformat(item["properties"]["datetime"]) <= (last or LATEST):
            return False
    for name, tests in (asked.get("query") or {}).items():
        stored = item["properties"].get(name)
        if stored is None or not all(COMPARED[test](stored, value) for test, value in tests.items()):
            return False
    tests = asked.get("filter")
    return not tests or bool(cql2.Expr(tests).matches(item))


def api(prefix, items, *, tells):
    """A STAC API with the usual extensions, below a prefix."""
    extensions = [SearchFilterExtension(), QueryExtension(), SortExtension(), TokenPaginationExtension()]
    post = create_post_request_model(extensions)
    return StacApi(
        settings=ApiSettings(
            enable_response_models=False,
            openapi_url="/api",
            docs_url="/api.html",
            stac_fastapi_title="fake",
            stac_fastapi_version="1",
            stac_fastapi_description="A catalogue of tests",
            stac_fastapi_landing_id="fake",
        ),
        client=MemoryClient(items=items, tells=tells, extensions=extensions),
        extensions=extensions,
        router=APIRouter(prefix=prefix),
        search_post_request_model=post,
        search_get_request_model=create_get_request_model(extensions),
        middlewares=[],
    ).app


class Faults:
    """What stands before the applications: the log, and what is broken on request."""

    def __init__(self, plain, apis):
        self.plain, self.apis = plain, apis

    async def app(self, scope, receive, send):
        """Hand a request to the application of its path."""
        path = scope["path"]
        prefix = next((prefix for prefix in self.apis if path == prefix or path.startswith(f"{prefix}/")), None)
        if prefix == path:
            scope = {**scope, "path": f"{path}/", "raw_path": f"{path}/".encode()}
        await self.apis.get(prefix, self.plain)(scope, receive, send)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"].startswith("/_"):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        entry = self._entry(scope, body)
        at = "search" if scope["path"].endswith("/search") else "token" if "/token/" in scope["path"] else "file"
        fault = (STATE.faults[at].pop(0) if STATE.faults[at] else None) or {}
        if "status" in fault:
            entry["status"] = fault["status"]
            response = PlainTextResponse(fault.get("body", "busy"), fault["status"], headers=fault.get("headers"))
            await response(scope, receive, send)
            return

        told = False

        async def again():
            nonlocal told
            if told:  # whoever asks again waits for the end of the connection
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def sending(message):
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                dated = (b"date", format_datetime(STATE.now(), usegmt=True).encode())
                message = {**message, "headers": [*message["headers"], dated]}
            await send(message)

        if fault:
            await self._broken(scope, again, sending, fault)
        else:
            await self.app(scope, again, sending)

    def _entry(self, scope, body):
        entry = {
            "method": scope["method"],
            "path": unquote(scope["path"]),
            "query": scope["query_string"].decode(),
            "body": body.decode("utf-8", "replace"),
            "time": time.time(),
            "headers": {name.decode(): text.decode("latin-1") for name, text in scope["headers"]},
            "status": None,
        }
        STATE.log.append(entry)
        return entry

    async def _broken(self, scope, receive, send, fault):
        """Send only a part of an answer's body."""
        parts = []

        async def keep(message):
            parts.append(message)

        await self.app(scope, receive, keep)
        body = b"".join(part.get("body", b"") for part in parts)
        most = fault.get("cut", fault.get("short", 0))
        kept = [pair for pair in parts[0]["headers"] if pair[0] != b"content-length"]
        length = most if "short" in fault else len(body)
        await send({**parts[0], "headers": [*kept, (b"content-length", str(length).encode())]})
        await send({"type": "http.response.body", "body": body[:most], "more_body": "short" not in fault})
        if "short" not in fault:
            msg = "broken off"
            raise ConnectionResetError(msg)


def replayed(pairs, port):
    """An application that answers as recorded; the first host's addresses are this server's."""
    parts = urlsplit(pairs[0]["request"]["url"])
    origin, here = f"{parts.scheme}://{parts.netloc}", f"http://127.0.0.1:{port}"
    pairs = json.loads(json.dumps(pairs).replace(origin, here))

    async def answer(request):
        body = json.loads(await request.body() or "null")
        for pair in pairs:
            asked = pair["request"]
            path, own = urlsplit(asked["url"]).path, asked.get("body") or {}
            paging = {key: (body or {}).get(key) for key in ("next", "token")}
            if (request.method, request.url.path.rstrip("/")) == (asked["method"], path.rstrip("/")) and all(
                own.get(key) == value for key, value in paging.items()
            ):
                response = pair["response"]
                return JSONResponse(response["body"], response["status"])
        return PlainTextResponse("not recorded", 404)

    return [Route("/{path:path}", answer, methods=["GET", "POST"])]


def file_routes(folder):
    """Routes to the files of a folder."""

    def whole(name):
        path = (folder / name).resolve()
        is_there = path.is_file() and path.is_relative_to(folder.resolve())
        return FileResponse(path) if is_there else PlainTextResponse("no such file", 404)

    async def plain(request):
        return whole(request.path_params["name"])

    async def signed(request):
        if not STATE.is_valid(request.url.query):
            return PlainTextResponse("<Error>Signature not valid in the specified time frame</Error>", 403)
        return whole(request.path_params["name"])

    async def token(_):
        return JSONResponse(STATE.token())

    return [
        Route("/files/{name:path}", plain),
        Route("/static/{name:path}", plain),
        Route("/eodata/{name:path}", plain),
        Route("/signed/{container}/{name:path}", signed),
        Route("/api/sas/v1/token/{account}/{container}", token),
    ]


async def control(request):
    STATE.control(await request.json())
    return Response(status_code=204)


async def log(_):
    return JSONResponse(STATE.log)


def main(port, source):
    """Serve until the process is ended."""
    routes = [Route("/_control", control, methods=["POST"]), Route("/_log", log)]
    apis = {}
    if source.is_file():
        routes += replayed(json.loads(source.read_text()), port)
    else:
        plain, signed = (read_items(source, port, prefix) for prefix in ("/files", "/signed/container"))
        routes += file_routes(source)
        apis = {"/api/stac/v1": api("/api/stac/v1", signed, tells=False), "/v1": api("/v1", plain, tells=True)}
    app = Faults(Starlette(routes=routes), apis)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", date_header=False, server_header=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
