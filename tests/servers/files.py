"""A file server with Range, ETag and Date that counts what it sends and fails on request.

files.py PORT FOLDER [CERTIFICATE.pem] serves the files of FOLDER by GET, at /NAME and, while T is valid, at
/signed/NAME?token=T; with a certificate it speaks TLS.
POST /_control takes a JSON object, whose keys are all optional:
    "faults": {"/NAME" or "*": [fault, ...]}   one fault for each of the next requests; null for none
    "tokens": ["T", ...]                      which tokens are valid
    "etags": false                            no ETag and no Last-Modified; "weak": weak ETags only
    "ranges": false                           Range is left out of account
    "date": "..."                             the Date of every answer
    "clear": true                             forget faults and log
A fault is an object: "status" (with "headers" and "body"), "drop" (close without an answer), "cut" (close after so many
bytes of the body), "stall" (send so many bytes of the body, and wait for half a minute), "over" (a body of so many
more bytes than the file), "length" (a Content-Length that is not the file's), "chunked" (no length; with "cut" broken
off), "endless" (neither), "content" (another body), "redirect" (an address), "headers" (more of them), "pace" (seconds
of rest after each 64 kB), "after" (drop the answer to a POST after it was counted).
GET /_log gives the requests in order: method, path, query, time, port (the client's), headers, status, sent (bytes of
the body), body.
Any other POST or PUT is answered with {"count": how many of them were taken at that path}.
"""

import contextlib
import email.utils
import hashlib
import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 2**16


class State:
    """What the server knows; one lock."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.faults, self.log, self.counts = {}, [], {}
        self.tokens, self.etags, self.ranges, self.date = set(), True, True, None

    def control(self, words):
        with self.lock:
            if words.get("clear"):
                self.faults, self.log, self.counts = {}, [], {}
            for path, faults in words.get("faults", {}).items():
                self.faults.setdefault(path, []).extend(faults)
            if "tokens" in words:
                self.tokens = set(words["tokens"])
            for name in ("etags", "ranges", "date"):
                setattr(self, name, words.get(name, getattr(self, name)))

    def fault(self, path):
        with self.lock:
            for name in (path, "*"):
                if self.faults.get(name):
                    return self.faults[name].pop(0) or {}
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return (timestamp is None and self.state.date) or super().date_time_string(timestamp)

    def do_GET(self):
        if self.path == "/_log":
            with self.state.lock:
                self._say(200, json.dumps(self.state.log).encode(), {"Content-Type": "application/json"})
            return
        self._noted()
        fault = self.state.fault(self.entry["path"])
        if not self._failed(fault):
            self._file(fault)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/_control":
            self.state.control(json.loads(body))
            self._say(200, b"{}", {})
            return
        self._noted(body)
        fault = self.state.fault(self.entry["path"])
        if self._failed(fault):
            return
        with self.state.lock:
            count = self.state.counts[self.entry["path"]] = self.state.counts.get(self.entry["path"], 0) + 1
        if fault.get("after"):
            self._drop()
            return
        self._body(json.dumps({"count": count}).encode(), 200, {"Content-Type": "application/json"}, fault)

    do_PUT = do_POST  # noqa: N815 - the library's name

    def _noted(self, body=b""):
        parts = urlsplit(self.path)
        self.entry = {
            "method": self.command,
            "path": unquote(parts.path),
            "query": parts.query,
            "time": time.time(),
            "port": self.client_address[1],
            "headers": {name.lower(): text for name, text in self.headers.items()},
            "status": None,
            "sent": 0,
            "body": body.decode("utf-8", "replace"),
        }
        with self.state.lock:
            self.state.log.append(self.entry)

    def _failed(self, fault):
        """Whether a fault is the whole answer."""
        if "drop" in fault:
            self._drop()
        elif "redirect" in fault:
            self._say(fault.get("status", 302), b"", {"Location": fault["redirect"]})
        elif "status" in fault:
            self._say(fault["status"], fault.get("body", "").encode(), fault.get("headers", {}))
        else:
            return False
        return True

    def _file(self, fault):
        path = self.entry["path"]
        if path.startswith("/signed/"):
            path = path.removeprefix("/signed")
            token = parse_qs(self.entry["query"]).get("token", [""])[0]
            if token not in self.state.tokens:
                self._say(403, b"<html><body>Request has expired</body></html>", {"Content-Type": "text/html"})
                return
        try:
            file = (self.state.folder / path.lstrip("/")).open("rb")
        except OSError:
            self._say(404, b"no such file", {})
            return
        with file:
            content = fault["content"].encode() if "content" in fault else None
            size = len(content) if content is not None else os.fstat(file.fileno()).st_size
            stamp = content or f"{path} {size} {os.fstat(file.fileno()).st_mtime_ns}".encode()
            etag = f'"{hashlib.sha256(stamp).hexdigest()[:16]}"'
            headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
            if self.state.etags == "weak":
                headers["ETag"] = f"W/{etag}"
            elif self.state.etags:
                headers["ETag"] = etag
                headers["Last-Modified"] = email.utils.formatdate(os.fstat(file.fileno()).st_mtime, usegmt=True)
            headers |= fault.get("headers", {})
            status, start = self._start(size, headers)
            if status == 416:
                self._say(416, b"", headers)
                return
            if content is None and not fault and not isinstance(self.connection, ssl.SSLSocket):
                self._send_whole(file, start, size, status, headers)
                return
            file.seek(start)
            self._body((content[start:] if content is not None else file.read()), status, headers, fault)

    def _start(self, size, headers):
        """Status and first byte for the range that is asked for."""
        asked = self.headers.get("range")
        condition = self.headers.get("if-range")
        fits = condition is None or condition in (headers.get("ETag"), headers.get("Last-Modified"))
        if not (asked and asked.startswith("bytes=") and fits and self.state.ranges):
            return 200, 0
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= size:
            headers["Content-Range"] = f"bytes */{size}"
            return 416, 0
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return 206, start

    def _head(self, status, headers):
        self.entry["status"] = status
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()

    def _say(self, status, body, headers):
        if hasattr(self, "entry"):
            self.entry["sent"] += len(body)
        else:
            self.entry = {}
        self._head(status, {"Content-Length": len(body), **headers})
        self.wfile.write(body)

    def _send_whole(self, file, start, size, status, headers):
        self._head(status, {"Content-Length": size - start, **headers})
        self.wfile.flush()
        while start < size:
            try:
                sent = os.sendfile(self.connection.fileno(), file.fileno(), start, 2**22)
            except OSError:
                self.close_connection = True
                return
            start += sent
            self.entry["sent"] += sent

    def _body(self, body, status, headers, fault):
        """A body with a fault in it."""
        body += b"x" * fault.get("over", 0)
        length = {"Content-Length": fault.get("length", len(body))}
        if "chunked" in fault:
            length = {"Transfer-Encoding": "chunked"}
        elif "endless" in fault:
            length = {"Connection": "close"}
        self._head(status, {**length, **headers})
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            for name in ("cut", "stall"):
                piece = piece[: max(fault.get(name, len(body)) - at, 0)]
            self._piece(piece, "chunked" in fault)
            if len(piece) < len(body[at : at + PIECE]):
                time.sleep(30 if "stall" in fault else 0)
                self._drop()
                return
            time.sleep(fault.get("pace", 0))
        if "chunked" in fault:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection |= "endless" in fault or fault.get("length", len(body)) != len(body)

    def _piece(self, piece, is_chunk):
        if piece:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunk else piece)
            self.wfile.flush()
            self.entry["sent"] += len(piece)

    def _drop(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A client that went away is no news."""


if __name__ == "__main__":
    Handler.state = State(Path(sys.argv[2]))
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
