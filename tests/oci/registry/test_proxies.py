"""Proxies of the environment: through which one a host is reached, and what it gets to see."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import cimlayer
from cimlayer import ContainerRegistry, export_image
from cimlayer.oci.registry.proxies import Proxies
from cimlayer.oci.registry.target import registry_target
from support.containers import Layer, Store, chain_ids
from support.platforms import same_everywhere
from support.proxies import Proxy, proxying
from support.registries import PASSWORD, USER, FakeRegistry, certificates, free_port, running, server_context

NAME = "registry.example"  # only the proxy knows it


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, store: Store, layers: list[Layer]) -> Iterator[FakeRegistry]:
    with running(store, server_context(authority, NAME)) as server:
        server.tag("app:latest", store.image(layers))
        yield server


@pytest.fixture(params=["http", "https"])
def proxy(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[tuple[Proxy, str]]:
    """A proxy and its URL, with the password that it wants."""
    with proxying(server_context(authority) if request.param == "https" else None) as server:
        server.open = False
        yield server, f"{request.param}://{USER}:{urllib.parse.quote(PASSWORD)}@{server.host}"


@same_everywhere
def test_an_image_comes_and_goes_through_a_proxy(
    secure: FakeRegistry,
    proxy: tuple[Proxy, str],
    authority: trustme.CA,
    layers: list[Layer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, url = proxy
    monkeypatch.setenv("https_proxy", url)
    certs = certificates(tmp_path / "certs", authority)
    reference = f"docker://{NAME}:{secure.server_port}/app"
    with ContainerRegistry(reference, cert_dir=certs) as source:
        image = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert [f"sha256:{each.path.name}" for each in image.layers] == chain_ids(layers)
    with registry_target(f"{reference}:new", cert_dir=certs) as target:
        digest = export_image(image.top, target, compression="none").digest
    assert secure.tags["app:new"] == digest
    assert set(server.asked) == {("CONNECT", f"{NAME}:{secure.server_port}")}
    assert not [each for each in secure.seen if "Proxy-Authorization" in each.headers]


def test_plain_http_is_asked_of_the_proxy(
    registry: FakeRegistry,
    image: str,
    proxy: tuple[Proxy, str],
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, url = proxy
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates(tmp_path / "certs", authority) / "ca.crt"))
    at = f"{NAME}:{registry.server_port}"
    with ContainerRegistry(f"docker://{at}/win/app:v1", tls_verify=False) as source:
        with pytest.raises(ConnectionError):  # https has no proxy, and nobody else knows the name
            list(source.references())
        monkeypatch.setenv("https_proxy", url)
    with ContainerRegistry(f"docker://{at}/win/app:v1", tls_verify=False) as source:
        assert len(list(source.references())) == 1
    assert server.asked[-1] == ("GET", f"http://{at}/v2/win/app/manifests/v1")
    assert not [each for each in registry.seen if "Proxy-Authorization" in each.headers]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password_is_named(
    scheme: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying(server_context(authority) if scheme == "https" else None) as server:
        server.open = False
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://me:secret@{server.host}")
        reference = f"docker://{NAME}/app"
        with (
            ContainerRegistry(reference, cert_dir=certificates(tmp_path / "certs", authority)) as source,
            pytest.raises(ConnectionError, match=rf"{NAME}:443 through the proxy {scheme}://{server.host}: .*407") as e,
        ):
            list(source.references())
    assert "secret" not in str(e.value)


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    at = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("https_proxy", at)
    with (
        ContainerRegistry(f"docker://{NAME}/app") as source,
        pytest.raises(ConnectionError, match=f"through the proxy http://{at}: .*refused"),
    ):
        list(source.references())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("socks5://me:secret@127.0.0.1:1", "is a SOCKS proxy"),
        ("socks5h://127.0.0.1:1", "is a SOCKS proxy"),
        ("ftp://me:secret@127.0.0.1", "is not of the form"),
        ("http://me:secret", "is not of the form"),
        ("http://me:secret@[", "is not of the form"),
        ("http://me:secret@", "is not of the form"),
    ],
)
@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, reason: str
) -> None:
    monkeypatch.setenv(variable, url)
    with (
        ContainerRegistry(f"docker://{NAME}/app") as source,
        pytest.raises(ValueError, match=f"the proxy for https {reason}") as caught,
    ):
        list(source.references())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "bypassed"),
    [
        ("", "a.example", 443, False),
        ("", "localhost", 5000, True),
        ("", "127.0.0.9", 5000, True),
        ("", "::1", 5000, True),
        ("*", "a.example", 443, True),
        ("b.example, a.example", "a.example", 443, True),
        ("a.example", "A.Example.", 443, True),
        ("example", "a.example", 443, True),
        (".example", "a.example", 443, True),
        ("*.example", "a.example", 443, True),
        ("xample", "a.example", 443, False),
        ("a.example:5000", "a.example", 5000, True),
        ("a.example:5000", "a.example", 443, False),
        (".example:443", "a.example", 443, True),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "a.example", 443, False),
        ("10.0.0.0/99,nonsense/8,:,.", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::7", 443, True),
        ("fd00::7", "fd00::7", 443, True),
        ("[fd00::7]:443", "fd00::7", 443, True),
        ("[fd00::7]:5000", "fd00::7", 443, False),
    ],
)
def test_hosts_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, port: int, bypassed: bool
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    found = Proxies().find("https", host, port)
    assert (found is None) == bypassed
    assert str(found) in ("None", "http://proxy.example:3128")


def test_each_scheme_has_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy.example")
    assert str(Proxies().find("http", "a.example", 80)) == "http://proxy.example:80"
    assert Proxies().find("https", "a.example", 443) is None
    monkeypatch.setenv("ALL_PROXY", "https://user:secret@other.example")
    found = Proxies().find("https", "a.example", 443)
    assert str(found) == "https://other.example:443"
    assert "secret" not in repr(found)
