"""A stand-in for the hub: as much of its HTTP interface as publishing needs, in memory, on this machine alone.

Repositories are dictionaries of path -> content.  Whoever shows TOKEN may write.  A Space is served under /pages.
"""

import base64
import hashlib
import json
import mimetypes
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent.parent
Lerpbench = Callable[..., subprocess.CompletedProcess[str]]
TOKEN = "hf_" + "standin"
LARGE = (".zip", ".parquet")  # what goes through the large file protocol


class Hub:
    """What was asked of it and what it holds.  `repositories`: (kind, OWNER/NAME) -> path -> content."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.settings: dict[tuple[str, str], dict[str, Any]] = {}
        self.pull_requests: list[tuple[str, dict[str, bytes]]] = []
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        return self.repositories[kind, name]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("POST", "PUT") and not path.startswith("/blobs/") and not self.allowed():
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        for pattern, respond in ROUTES:
            if found := re.fullmatch(pattern, path):
                return respond(self, body, *found.groups())
        return self.answer(404, {"error": f"no such page: {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # ---------------------------------------------------------------------------------------------- what it answers

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        key = (asked.get("type", "model"), f"{asked['organization']}/{asked['name']}")
        if key in self.hub.repositories:
            return self.answer(409, {"error": "You already created this repo", "url": f"{self.hub.url}/{key[1]}"})
        self.hub.repositories[key], self.hub.settings[key] = {".gitattributes": b""}, asked
        return self.answer(200, {"url": f"{self.hub.url}/{key[0]}s/{key[1]}", "name": key[1]})

    def preupload(self, body: bytes, kind: str, name: str) -> None:
        if (kind, name) not in self.hub.repositories:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        return self.answer(200, {"files": modes})

    def batch(self, body: bytes, *_: str) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def blob(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self.answer(200)

    def commit(self, body: bytes, kind: str, name: str) -> None:
        proposed = "create_pr=1" in self.path
        files = dict(self.hub.repositories[kind, name])
        for line in body.splitlines():
            value = json.loads(line)["value"]
            match json.loads(line)["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        if proposed:
            self.hub.pull_requests.append((name, files))
        else:
            self.hub.repositories[kind, name] = files
        made = {"commitUrl": f"{self.hub.url}/{name}/commit/1", "commitOid": "1" * 40}
        self.answer(200, made | {"pullRequestUrl": f"{self.hub.url}/{name}/discussions/1" if proposed else None})

    def tree(self, _: bytes, kind: str, name: str) -> None:
        files = self.hub.repositories[kind, name]
        self.answer(200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()])

    def resolve(self, _: bytes, kind: str, name: str, path: str) -> None:
        content = self.hub.repositories.get((kind, name), {}).get(path)
        if content is None:
            missing = "EntryNotFound" if (kind, name) in self.hub.repositories else "RepoNotFound"
            return self.answer(404, {"error": "not found"}, {"X-Error-Code": missing})
        tag = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": "1" * 40})

    def of_model(self, body: bytes, name: str, path: str) -> None:
        self.resolve(body, "model", name, path)

    def right(self, _: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def page(self, _: bytes, name: str, path: str) -> None:
        content = self.hub.repositories["space", name].get(path or "index.html")
        kind = mimetypes.guess_type(path or "index.html")[0] or "application/octet-stream"
        self.answer(404 if content is None else 200, content or b"", {"Content-Type": kind})


ROUTES = (
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.right),
    (r"/api/(\w+)s/([\w.-]+/[\w.-]+)/preupload/main", Handler.preupload),
    (r"/api/(\w+)s/([\w.-]+/[\w.-]+)/commit/main", Handler.commit),
    (r"/api/(\w+)s/([\w.-]+/[\w.-]+)/tree/main", Handler.tree),
    (r"/.*?([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", Handler.batch),
    (r"/blobs/(\w+)", Handler.blob),
    (r"/(\w+)s/([\w.-]+/[\w.-]+)/resolve/main/(.+)", Handler.resolve),
    (r"/([\w.-]+/[\w.-]+)/resolve/main/(.+)", Handler.of_model),
    (r"/pages/([\w.-]+/[\w.-]+)/(.*)", Handler.page),
)


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
