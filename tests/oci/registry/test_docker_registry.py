"""The container registry of Docker, as Debian has it: TLS, passwords and signed tokens."""

from __future__ import annotations

import base64
import json
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

import cimlayer
from cimlayer import ContainerRegistry
from cimlayer.oci.registry.target import registry_target
from support.containers import Layer, Store, chain_ids
from support.registries import BASIC, HTPASSWD, docker_registry, login


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    (tmp_path / "certs").mkdir()
    made.cert_pem.write_to_path(tmp_path / "certs" / "ca.crt")
    return made


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """The configuration of a container registry with a certificate of that authority."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    return {"tls": {"certificate": str(tmp_path / "server.crt"), "key": str(tmp_path / "server.key")}}


def skopeo(*arguments: str | Path) -> str:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    done = subprocess.run(["skopeo", *arguments], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def push(store: Store, layers: list[Layer], target: str, tmp_path: Path) -> None:
    layout = store.layout(tmp_path / "layout", [store.image(layers)])
    options = ["--dest-cert-dir", tmp_path / "certs", "--dest-authfile", tmp_path / "auth.json"]
    skopeo("copy", "--preserve-digests", *options, f"oci:{layout}", target)


def pull(target: str, tmp_path: Path, layers: list[Layer]) -> None:
    directory = tmp_path / "layers"
    with ContainerRegistry(target, cert_dir=tmp_path / "certs", authfile=tmp_path / "auth.json") as source:
        image = cimlayer.import_image(source, directory, sync=False)
    assert [f"sha256:{each.path.name}" for each in image.layers] == chain_ids(layers)
    shutil.rmtree(directory)


def test_an_image_is_pulled_over_tls_with_a_password(
    store: Store, layers: list[Layer], tls: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD, encoding="utf-8")
    auth = {"htpasswd": {"realm": "a realm", "path": str(tmp_path / "htpasswd")}}
    with docker_registry(tmp_path, http=tls, auth=auth) as host:
        login(tmp_path, host)
        target = f"docker://{host}/win/app:v1"
        push(store, layers, target, tmp_path)
        pull(target, tmp_path, layers)
        login(tmp_path, host, username="user", password="wrong")
        with pytest.raises(PermissionError, match="does not accept the credentials"):
            pull(target, tmp_path, layers)
        login(tmp_path, "127.0.0.1:1")
        with pytest.raises(PermissionError, match="no credentials for"):
            pull(target, tmp_path, layers)


@dataclass
class TokenServer:
    url: str
    asked: list[dict[str, list[str]]]


@pytest.fixture
def token_server(authority: trustme.CA, tmp_path: Path) -> Iterator[TokenServer]:
    """Signs JSON web tokens (RFC 7519) with a certificate of the authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    issued = authority.issue_cert("token.example")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    asked: list[dict[str, list[str]]] = []

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def token(query: dict[str, list[str]]) -> str:
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "issuer", "sub": "user", "aud": query["service"][0], "exp": now + 60, "nbf": now - 60}
        head = {"typ": "JWT", "alg": "ES256", "x5c": [x5c]}
        claims |= {"iat": now, "jti": "1", "access": access}
        text = ".".join(encoded(json.dumps(each).encode()) for each in (head, claims))
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            asked.append(query)
            good = self.headers.get("Authorization") == BASIC
            body = json.dumps({"token": token(query), "expires_in": 60}).encode() if good else b"{}"
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield TokenServer(f"https://127.0.0.1:{server.server_port}/auth", asked)
        server.shutdown()
        thread.join()


def test_an_image_is_pulled_with_a_signed_token(
    store: Store, layers: list[Layer], tls: dict[str, object], token_server: TokenServer, tmp_path: Path
) -> None:
    bundle = str(tmp_path / "certs" / "ca.crt")
    token = {"realm": token_server.url, "service": "a service", "issuer": "issuer", "rootcertbundle": bundle}
    with docker_registry(tmp_path, http=tls, auth={"token": token}) as host:
        login(tmp_path, host)
        target = f"docker://{host}/win/app:v1"
        push(store, layers, target, tmp_path)
        token_server.asked.clear()
        pull(target, tmp_path, layers)
        assert [(each["service"], each["scope"]) for each in token_server.asked] == [
            (["a service"], ["repository:win/app:pull"])
        ]


def test_what_is_pushed_is_mounted_in_another_repository(
    store: Store, layers: list[Layer], tls: dict[str, object], token_server: TokenServer, tmp_path: Path
) -> None:
    bundle = str(tmp_path / "certs" / "ca.crt")
    token = {"realm": token_server.url, "service": "a service", "issuer": "issuer", "rootcertbundle": bundle}
    options = {"cert_dir": tmp_path / "certs", "authfile": tmp_path / "auth.json"}
    first = cimlayer.import_image(store.layout(tmp_path / "layout", [store.image(layers)]), tmp_path / "1", sync=False)
    with docker_registry(tmp_path, http=tls, auth={"token": token}) as host:
        login(tmp_path, host)
        with registry_target(f"docker://{host}/win/base", **options) as target:  # type: ignore[arg-type]
            pushed = cimlayer.export_image(first.top, target)
        with ContainerRegistry(f"docker://{host}/win/base", **options) as source:  # type: ignore[arg-type]
            top = cimlayer.import_image(source, tmp_path / "2", sync=False).top
        with registry_target(f"docker://{host}/win/new:v1", **options) as target:  # type: ignore[arg-type]
            assert [each.digest for each in cimlayer.export_image(top, target).layers] == [
                each.digest for each in pushed.layers
            ]
    asked = re.findall(
        r'"POST /v2/win/new/blobs/uploads/([^ ]*) HTTP/1.1" (\d+)', (tmp_path / "log").read_text("utf-8")
    )
    assert [("mount=" in query, status) for query, status in asked if status != "401"] == [(True, "201")] * 2 + [
        (False, "202")
    ]
    repositories = tmp_path / "data" / "docker" / "registry" / "v2" / "repositories"
    assert not list(repositories.glob("*/*/_uploads/*"))
