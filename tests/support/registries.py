"""A container registry for tests, on the loopback interface: in memory, with a hook that sees each request first."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.containers import Store, digest_of

USER, PASSWORD = "user", "correct horse"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
HTPASSWD = "user:$2b$05$KnSEJsOH6X17Pci.7sn5KOt6re60CuzVNMLcGBxF7BCAk0aNRUkTu\n"  # bcrypt of PASSWORD

Headers = Mapping[str, str]
Hook = Callable[["Request"], bool]


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]


class Request(BaseHTTPRequestHandler):
    """One request; a hook answers with ``answer`` and returns True."""

    protocol_version = "HTTP/1.1"
    server: FakeRegistry
    body: bytes

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.body = self._read_body()
        self.server.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
        if self.server.hook is not None and self.server.hook(self):
            return
        if url.path == "/token":
            self.server.give_token(self)
        elif self.server.allows(self):
            self.server.serve(self, url.path)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, status: int, body: bytes = b"", headers: Headers | None = None, cut: int | None = None) -> None:
        """A whole answer; with ``cut``, only that many bytes of its body, and the end of the connection."""
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        self.start(status, {name: value for name, value in headers.items() if value})
        if self.command != "HEAD":
            self.send(body[:cut])
        if cut is not None:
            self.hang_up()

    def start(self, status: int, headers: Headers) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(data)
            self.wfile.flush()

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def fail(self, status: int, code: str, headers: Headers | None = None) -> None:
        self.answer(status, json.dumps({"errors": [{"code": code, "message": PASSWORD}]}).encode(), headers)

    def blob(self, data: bytes, headers: Headers | None = None, cut: int | None = None) -> None:
        """A blob, or the range of it that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None:
            self.answer(200, data, headers, cut)
            return
        start = int(match[1])
        there = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", **(headers or {})}
        self.answer(206, data[start:], there, cut)


class FakeRegistry(ThreadingHTTPServer):
    """Keeps a Store. ``auth`` is ``basic``, ``bearer`` or empty; each token is good for ``token_uses`` requests."""

    daemon_threads = True

    def __init__(self, store: Store, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Request)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.store = store
        self.tags: dict[str, str] = {}  # NAME:TAG -> digest
        self.types: dict[str, str] = {}  # digest of a manifest -> media type
        self.uploads: dict[str, bytes] = {}
        self.mountable: set[str] = set()  # repositories whose blobs may be mounted
        self.seen: list[Seen] = []
        self.hook: Hook | None = None
        self.auth = ""
        self.anonymous = False
        self.challenge: str | None = None
        self.token_uses = 1 << 30
        self.tokens: dict[str, int] = {}
        shown = f"[{host}]" if ":" in host else host
        self.host = f"{shown}:{self.server_port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.host}"

    def handle_error(self, *args: object) -> None:
        pass

    def tag(self, name: str, descriptor: Mapping[str, Any]) -> str:
        """Give a manifest or an index a name; returns what to pull."""
        self.tags[name] = descriptor["digest"]
        for digest, data in self.store.blobs.items():
            if data.startswith(b'{"schemaVersion"'):
                self.types[digest] = json.loads(data)["mediaType"]
        return f"docker://{self.host}/{name}"

    def asked(self, method: str, part: str) -> list[Seen]:
        return [each for each in self.seen if each.method == method and part in each.path]

    def allows(self, request: Request) -> bool:
        given = request.headers.get("Authorization", "")
        if not self.auth or (self.auth == "basic" and given == BASIC):
            return True
        token = given.removeprefix("Bearer ")
        if self.auth == "bearer" and self.tokens.get(token, 0) > 0:
            self.tokens[token] -= 1
            return True
        name = re.match("/v2/(.+)/(?:manifests|blobs)/", request.path)
        scope = f',scope="repository:{name[1]}:pull"' if name else ""
        bearer = f'Bearer realm="{self.url}/token",service="the service"{scope}'
        challenge = self.challenge or {"basic": 'Basic realm="a, b"', "bearer": bearer}[self.auth]
        request.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def give_token(self, request: Request) -> None:
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        given = request.headers.get("Authorization")
        if given == BASIC or form.get("refresh_token") == "identity" or (self.anonymous and given is None):
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = self.token_uses
            request.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())
        else:
            request.fail(401, "UNAUTHORIZED")

    def serve(self, request: Request, path: str) -> None:
        match = re.fullmatch("/v2/(.+)/(manifests|blobs)/(.+)", path)
        if path == "/v2/":
            request.answer(200, b"{}")
        elif match is None:
            request.fail(404, "NAME_UNKNOWN")
        elif match[3].startswith("uploads/") or request.command in ("POST", "PUT", "PATCH"):
            self.take(request, *match.groups())
        elif match[2] == "manifests":
            digest = self.tags.get(f"{match[1]}:{match[3]}", match[3])
            if digest not in self.types or self.types[digest] not in request.headers.get("Accept", ""):
                request.fail(404, "MANIFEST_UNKNOWN")
            else:
                request.answer(200, self.store.blobs[digest], {"Content-Type": self.types[digest]})
        elif match[3] in self.store.blobs:
            request.blob(self.store.blobs[match[3]])
        else:
            request.fail(404, "BLOB_UNKNOWN")

    def take(self, request: Request, name: str, kind: str, rest: str) -> None:
        """A blob or a manifest that is pushed; an upload goes on only where the last answer said."""
        if kind == "manifests":
            digest = digest_of(request.body)
            self.store.blobs[digest] = request.body
            self.tags[f"{name}:{rest}"] = digest
            self.types[digest] = request.headers["Content-Type"]
            request.answer(201, b"", {"Docker-Content-Digest": digest})
            return
        place = rest.removeprefix("uploads/")
        if request.query.get("from") in self.mountable:
            request.answer(201)
            return
        if request.command == "POST":
            place = f"{len(self.uploads)}.0"
            self.uploads[place] = b""
        data = self.uploads.pop(place, None)
        if data is None or (request.command != "POST" and request.query.get("_state") != "a/b="):
            request.fail(404, "BLOB_UPLOAD_UNKNOWN")
            return
        if request.command == "DELETE":
            request.answer(204)
            return
        data += request.body
        if request.command == "PUT":
            if digest_of(data) != request.query.get("digest"):
                request.fail(400, "DIGEST_INVALID")
                return
            self.store.blobs[digest_of(data)] = data
            request.answer(201)
            return
        number, _, step = place.partition(".")
        place = f"{number}.{int(step) + 1}"
        self.uploads[place] = data
        request.answer(
            202, b"", {"Location": f"/v2/{name}/blobs/uploads/{place}?_state=a%2Fb%3D", "Range": f"0-{len(data) - 1}"}
        )


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """A server answers until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def running(
    store: Store | None = None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[FakeRegistry]:
    """A container registry that answers until the end of the block."""
    with FakeRegistry(store or Store(), tls, host) as server, serving(server):
        yield server


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """TLS for a server of that name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def certificates(folder: Path, authority: trustme.CA) -> Path:
    """A directory for ``--cert-dir``."""
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    return folder


def login(folder: Path, host: str, **entry: str) -> Path:
    """A file of credentials."""
    path = folder / "auth.json"
    entry = entry or {"auth": BASIC.removeprefix("Basic ")}
    path.write_text(json.dumps({"auths": {host: entry}}), encoding="utf-8")
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def docker_registry(folder: Path, **config: Any) -> Iterator[str]:
    """Debian's docker-registry; gives its host and port."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    host = f"127.0.0.1:{free_port()}"
    http = {"addr": host, "secret": "secret", **config.pop("http", {})}
    document = {"version": 0.1, "http": http, "storage": {"filesystem": {"rootdirectory": str(folder / "data")}}}
    (folder / "config.yml").write_text(json.dumps(document | config), encoding="utf-8")  # JSON is YAML
    with (folder / "log").open("wb") as log:
        command = ["docker-registry", "serve", str(folder / "config.yml")]
        env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}  # its settings
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        try:
            _wait_for(host, process, folder / "log")
            yield host
        finally:
            process.terminate()
            process.wait()


def _wait_for(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it listens, or has ended."""
    name, _, port = host.partition(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((name, int(port)), 1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            pytest.fail(log.read_text(errors="replace", encoding="utf-8"))
