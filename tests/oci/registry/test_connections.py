"""Connections to container registries: TLS, proxies, hosts of every kind, and no waiting without end."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from cimlayer import ContainerRegistry
from cimlayer.errors import OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.oci.registry.connections import Connections
from support.containers import Layer, Store
from support.platforms import same_everywhere
from support.registries import FakeRegistry, certificates, free_port, login, running, server_context

pytestmark = same_everywhere


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, store: Store, layers: list[Layer]) -> Iterator[FakeRegistry]:
    with running(store, server_context(authority)) as server:
        server.tag("app:latest", store.image(layers))
        yield server


def look(host: str, **options: object) -> str:
    """The digest of an image."""
    with ContainerRegistry(f"docker://{host}/app", **options) as source:  # type: ignore[arg-type]
        return next(iter(source.references())).descriptor.digest


# ---- TLS ----


def test_a_certificate_of_an_unknown_authority_is_refused(secure: FakeRegistry) -> None:
    with pytest.raises(ConnectionError, match=r"cannot connect to https://127\.0\.0\.1:.*certificate"):
        look(secure.host)
    assert secure.seen == []


def test_an_authority_may_be_added(secure: FakeRegistry, authority: trustme.CA, tmp_path: Path) -> None:
    assert look(secure.host, cert_dir=certificates(tmp_path / "certs", authority)) == secure.tags["app:latest"]


def test_the_systems_authorities_may_be_others(
    secure: FakeRegistry, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates(tmp_path / "certs", authority) / "ca.crt"))
    assert look(secure.host)


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    certs = certificates(tmp_path / "certs", authority)
    with (
        running(tls=server_context(authority, "elsewhere.example")) as server,
        pytest.raises(ConnectionError, match=r"certificate.*127\.0\.0\.1"),
    ):
        look(server.host, cert_dir=certs)


def test_certificates_need_not_be_checked(secure: FakeRegistry) -> None:
    assert look(secure.host, tls_verify=False)


def test_a_client_certificate_is_shown(
    store: Store, layers: list[Layer], tmp_path: Path, authority: trustme.CA
) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    certs = certificates(tmp_path / "certs", authority)
    with running(store, context) as server:
        server.tag("app:latest", store.image(layers))
        with pytest.raises(ConnectionError):
            look(server.host, cert_dir=certs)
        mine = authority.issue_cert("me@example.org")
        mine.private_key_pem.write_to_path(certs / "me.key")
        mine.cert_chain_pems[0].write_to_path(certs / "me.cert")
        assert look(server.host, cert_dir=certs)


@pytest.mark.parametrize("name", ["bad.crt", "bad.cert"])
def test_a_broken_certificate_is_named(secure: FakeRegistry, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match=name):
        look(secure.host, cert_dir=tmp_path)


def test_a_password_never_goes_over_plain_http_unasked(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    registry.auth = "basic"
    with pytest.raises(ConnectionError, match="may be a server of plain HTTP"):
        look(registry.host, authfile=login(tmp_path, registry.host))
    assert registry.seen == []


def test_https_does_not_turn_into_http(secure: FakeRegistry, authority: trustme.CA, tmp_path: Path) -> None:
    certs = certificates(tmp_path / "certs", authority)
    with running() as plain:
        secure.hook = lambda request: request.answer(307, b"", {"Location": f"{plain.url}/x"}) is None
        with pytest.raises(OSError, match="plain HTTP"):
            look(secure.host, cert_dir=certs)
        secure.hook, secure.auth = None, "bearer"
        secure.challenge = f'Bearer realm="{plain.url}/token"'
        with pytest.raises(OSError, match="plain HTTP"):
            look(secure.host, cert_dir=certs, authfile=login(tmp_path, secure.host))
        assert plain.seen == []


# ---- hosts ----


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_hosts_of_every_kind(host: str, store: Store, layers: list[Layer]) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    with running(store, host="127.0.0.1" if host == "localhost" else host) as server:
        server.tag("app:latest", store.image(layers))
        name = f"localhost:{server.server_port}" if host == "localhost" else server.host
        assert look(name, tls_verify=False)
        assert {each.headers["Host"] for each in server.seen} == {name}


def test_nobody_there_is_said_at_once() -> None:
    port = free_port()
    with pytest.raises(ConnectionError, match=f"cannot connect to https://127.0.0.1:{port}: .*refused"):
        look(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=f"cannot connect to https://127.0.0.1:{port}: .*refused"):
        look(f"127.0.0.1:{port}", tls_verify=False)


def test_what_is_no_http_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(b"220 smtp ready\r\n")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with pytest.raises(ConnectionError, match="not valid HTTP"):
            look(f"127.0.0.1:{listener.getsockname()[1]}", tls_verify=False)
        with contextlib.suppress(OSError):  # Windows shuts down connections only
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_connections_are_used_again(registry: FakeRegistry, image: str, store: Store) -> None:
    connections = set()

    def hook(request: object) -> bool:
        connections.add(request.client_address)  # type: ignore[attr-defined]
        return False

    registry.hook = hook
    with ContainerRegistry(image, tls_verify=False) as source:
        (reference,) = source.references()
        for _ in range(3):
            list(source.references())
    assert reference.descriptor.digest == registry.tags["win/app:v1"]
    assert len(connections) == 1


def test_nothing_is_logged(
    registry: FakeRegistry, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.auth = "bearer"
    with (
        caplog.at_level(logging.DEBUG),
        ContainerRegistry(image, tls_verify=False, authfile=login(tmp_path, registry.host)) as source,
    ):
        list(source.references())
    assert caplog.text == ""


# ---- cancelling ----


@contextlib.contextmanager
def silent(heard: Callable[[], None]) -> Iterator[str]:
    """A server that calls ``heard`` when a client has said something, and never answers."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                heard()
                over.wait()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join()


def test_a_handshake_can_be_cancelled() -> None:
    cancel = CancellationToken()
    with silent(cancel.cancel) as host, pytest.raises(OperationCancelledError):
        look(host, cancel=cancel)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_waiting_for_a_proxy_can_be_cancelled(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = CancellationToken()
    with silent(cancel.cancel) as proxy, pytest.raises(OperationCancelledError):
        monkeypatch.setenv("https_proxy", f"{scheme}://{proxy}")
        look("registry.example", cancel=cancel)


@pytest.mark.parametrize("tls", [False, True])
def test_sending_can_be_cancelled(tls: bool, authority: trustme.CA) -> None:
    """To a server that reads no more."""
    cancel, over = CancellationToken(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            with server_context(authority).wrap_socket(connection, server_side=True) if tls else connection as mine:
                mine.recv(1)
                cancel.cancel()
                over.wait()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        url = urllib.parse.urlsplit(f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(OperationCancelledError):
            Connections(cancel, verify=False).open("PUT", url, {}, bytes(32 << 20))
        over.set()
        thread.join()


def test_looking_up_a_name_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, over = CancellationToken(), threading.Event()

    def getaddrinfo(*args: object) -> None:
        cancel.cancel()
        over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "nobody")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    with pytest.raises(OperationCancelledError):
        look("registry.example", cancel=cancel)
    over.set()


def test_a_name_that_is_not_found_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *args: over.wait() and [])
    monkeypatch.setattr("cimlayer.oci.registry.connections._LONGEST_CONNECT", 0.0)
    with pytest.raises(ConnectionError, match=r"cannot connect to https://registry\.example:443: no connection in 0 s"):
        look("registry.example")
    over.set()


def test_a_name_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectionError, match=r"https://registry\.example:443: Name or service not known"):
        look("registry.example")
