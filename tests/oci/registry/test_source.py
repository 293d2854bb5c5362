"""Container images out of a container registry: what is asked for, with what credentials, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cimlayer
from cimlayer import ContainerRegistry, ImportedImage
from cimlayer.errors import DigestMismatchError, FormatError
from support.containers import OCI_CONFIG, OCI_MANIFEST, Layer, Store, chain_ids, digest_of
from support.platforms import same_everywhere
from support.registries import PASSWORD, FakeRegistry, Request, login, running

SERVER_2022 = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
SERVER_2025 = {"os": "windows", "architecture": "amd64", "os.version": "10.0.26100.1"}


def pull(reference: str, directory: Path, authfile: Path | None = None, **options: str) -> ImportedImage:
    with ContainerRegistry(reference, tls_verify=False, authfile=authfile) as source:
        return cimlayer.import_image(source, directory, sync=False, **options)  # type: ignore[arg-type]


def layers_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*") if path.name != "cim-layers")


# ---- what is there ----


def test_an_image_is_imported_by_tag_and_its_layers_are_not_fetched_again(
    registry: FakeRegistry, image: str, layers: list[Layer], tmp_path: Path
) -> None:
    imported = pull(image, tmp_path / "layers")
    assert [f"sha256:{each.path.name}" for each in imported.layers] == chain_ids(layers)
    assert cimlayer.ImageReader(cimlayer.get_cim_path_from_layer(imported.top)).stat("Files/noise").size == 600_000
    registry.seen.clear()
    assert all(each.reused for each in pull(image, tmp_path / "layers").layers)
    assert not [each for each in registry.seen if any(layer.digest in each.path for layer in layers)]


def test_all_media_types_are_accepted_in_one_header(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    pull(image, tmp_path / "layers")
    (asked,) = registry.asked("GET", "/manifests/")
    assert asked.headers["Accept"].count("application/vnd.") == 4


def test_a_digest_decides_over_the_tag(
    registry: FakeRegistry, store: Store, layers: list[Layer], tmp_path: Path
) -> None:
    other = store.image(layers[:1], platform=SERVER_2025)
    image = registry.tag("app:v1", store.image(layers))
    assert pull(f"{image}@{other['digest']}", tmp_path / "layers").digest == other["digest"]
    assert len(registry.asked("GET", "/manifests/v1")) == 0


def test_a_manifest_other_than_that_of_the_digest_is_refused(
    registry: FakeRegistry, store: Store, image: str, layers: list[Layer], tmp_path: Path
) -> None:
    other = store.image(layers[:1])
    registry.tag("a:1", other)
    store.blobs[other["digest"]] = store.blobs[registry.tags["win/app:v1"]]
    with pytest.raises(DigestMismatchError, match=other["digest"]):
        pull(f"docker://{registry.host}/win/app@{other['digest']}", tmp_path / "layers")
    assert not (tmp_path / "layers").exists()


@same_everywhere
def test_one_of_several_platforms_is_chosen(
    registry: FakeRegistry, store: Store, layers: list[Layer], tmp_path: Path
) -> None:
    old = store.image(layers, platform=SERVER_2022)
    new = store.image(layers[:1], platform=SERVER_2025)
    attestation = store.image(layers[:1], platform={"os": "unknown", "architecture": "unknown"})
    entries = [
        {**each, "platform": json.loads(store.blobs[json.loads(store.blobs[each["digest"]])["config"]["digest"]])}
        for each in (old, new, attestation)
    ]
    nested = store.index([store.index(entries)])
    image = registry.tag("multi:1", nested)
    assert pull(image, tmp_path / "a", os_version="10.0.26100").digest == new["digest"]
    assert pull(image, tmp_path / "b", platform="windows/amd64/10.0.20348").digest == old["digest"]
    with pytest.raises(ValueError, match="more than one"):
        pull(image, tmp_path / "c")
    registry.seen.clear()
    with ContainerRegistry(image, tls_verify=False) as source:
        assert [each.digest for each in cimlayer.list_images(source)] == [old["digest"], new["digest"]]
    assert not [each for each in registry.seen if any(layer.digest in each.path for layer in layers)]


@pytest.mark.parametrize(
    "content_type", ["application/json", "", "application/vnd.oci.image.manifest.v1+json; charset=x"]
)
def test_a_manifest_says_itself_what_it_is(
    registry: FakeRegistry, store: Store, image: str, tmp_path: Path, content_type: str
) -> None:
    def hook(request: Request) -> bool:
        if "/manifests/" in request.path:
            request.answer(200, store.blobs[registry.tags["win/app:v1"]], {"Content-Type": content_type})
            return True
        return False

    registry.hook = hook
    assert pull(image, tmp_path / "layers").digest == registry.tags["win/app:v1"]


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"<html>login</html>", "text/html", "not JSON"),
        (b"[]", OCI_MANIFEST, "an object is needed"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b" " * (8 << 20) + b" ", OCI_MANIFEST, "too many"),
    ],
)
def test_what_is_no_manifest_is_one_error(
    registry: FakeRegistry, tmp_path: Path, body: bytes, content_type: str, error: str
) -> None:
    def hook(request: Request) -> bool:
        if "/manifests/" not in request.path:
            return False
        request.answer(200, body, {"Content-Type": content_type})
        return True

    registry.hook = hook
    with pytest.raises(FormatError, match=error):
        pull(f"docker://{registry.host}/app", tmp_path / "layers")
    assert not (tmp_path / "layers").exists()


def test_an_artifact_is_no_container_image(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    config = store.put({}, "application/vnd.example.config")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
    image = registry.tag("art:1", store.put(manifest, OCI_MANIFEST))
    with pytest.raises(ValueError, match="no container image"):
        pull(image, tmp_path / "layers")


def test_what_is_not_there_is_named(registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest latest: 404 Not Found \(MANIFEST_UNKNOWN\)") as caught:
        pull(f"docker://{registry.host}/none", tmp_path / "layers")
    assert caught.value.filename == f"docker://{registry.host}/none:latest"
    assert not (tmp_path / "layers").exists()


def test_busy_documents_are_asked_for_again(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    busy = [429, 503, 500]

    def hook(request: Request) -> bool:
        if "/v2/win/app/" in request.path and busy:
            request.fail(busy.pop(), "UNAVAILABLE")
            return True
        return False

    registry.hook = hook
    pull(image, tmp_path / "layers")
    assert not busy


def test_a_blob_of_another_content_is_refused_and_leaves_only_what_is_below(
    store: Store, image: str, layers: list[Layer], tmp_path: Path
) -> None:
    data = bytearray(layers[1].blob)
    data[-1000] ^= 1
    store.blobs[layers[1].digest] = bytes(data)
    with pytest.raises(DigestMismatchError, match=layers[1].digest):
        pull(image, tmp_path / "layers")
    assert [f"sha256:{name}" for name in layers_in(tmp_path / "layers")] == chain_ids(layers[:1])


def test_a_configuration_of_another_content_is_refused(store: Store, image: str, tmp_path: Path) -> None:
    (config,) = [json.loads(data)["config"] for data in store.blobs.values() if OCI_CONFIG.encode() in data]
    store.blobs[config["digest"]] = store.blobs[config["digest"]].replace(b"amd64", b"arm64")
    with pytest.raises(DigestMismatchError, match=config["digest"]):
        pull(image, tmp_path / "layers")


# ---- credentials ----


@pytest.fixture
def known(registry: FakeRegistry, tmp_path: Path) -> Path:
    return login(tmp_path, registry.host)


def sent(registry: FakeRegistry, scheme: str) -> list[str]:
    return [each.path for each in registry.seen if each.headers.get("Authorization", "").startswith(scheme)]


def test_basic_credentials_are_sent_once_they_are_asked_for(
    registry: FakeRegistry, image: str, known: Path, tmp_path: Path
) -> None:
    registry.auth = "basic"
    pull(image, tmp_path / "layers", known)
    assert len(sent(registry, "Basic")) == 4  # the manifest, the configuration and two layers


def test_one_anonymous_token_serves_a_whole_image(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    registry.auth, registry.anonymous = "bearer", True
    pull(image, tmp_path / "layers")
    assert [each.path for each in registry.asked("GET", "/token")] == [
        "/token?service=the+service&scope=repository%3Awin%2Fapp%3Apull"
    ]
    assert sent(registry, "Basic") == []


def test_the_password_is_for_the_token_server_alone(
    registry: FakeRegistry, image: str, known: Path, tmp_path: Path
) -> None:
    registry.auth = "bearer"
    pull(image, tmp_path / "layers", known)
    assert [path.partition("?")[0] for path in sent(registry, "Basic")] == ["/token"]


def test_a_token_that_has_expired_is_renewed_in_the_middle(
    registry: FakeRegistry, image: str, known: Path, tmp_path: Path
) -> None:
    registry.auth, registry.token_uses = "bearer", 1
    pull(image, tmp_path / "layers", known)
    assert len(registry.tokens) == 4


def test_an_identity_token_is_posted(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    registry.auth = "bearer"
    pull(image, tmp_path / "layers", login(tmp_path, registry.host, identitytoken="identity"))
    (asked,) = registry.asked("POST", "/token")
    assert asked.path == "/token"
    assert "Authorization" not in asked.headers


def test_of_several_challenges_one_that_is_known_is_taken(
    registry: FakeRegistry, image: str, known: Path, tmp_path: Path
) -> None:
    registry.auth, registry.challenge = "basic", 'Negotiate, Digest realm="a, b", nonce="x", Basic realm="c"'
    pull(image, tmp_path / "layers", known)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_wrong_credentials_are_tried_once_and_not_shown(
    registry: FakeRegistry, image: str, tmp_path: Path, auth: str
) -> None:
    registry.auth = auth
    wrong = login(tmp_path, registry.host, username="user", password="wrong horse")
    with pytest.raises(PermissionError, match=r"401 Unauthorized .*does not accept the credentials") as caught:
        pull(image, tmp_path / "layers", wrong)
    assert len(sent(registry, "Basic")) == 1
    assert "horse" not in str(caught.value)
    assert registry.host in str(caught.value)


def test_without_credentials_the_error_says_so(registry: FakeRegistry, image: str, tmp_path: Path) -> None:
    registry.auth = "basic"
    with pytest.raises(PermissionError, match=f"there are no credentials for {registry.host}") as caught:
        pull(image, tmp_path / "layers")
    assert PASSWORD not in str(caught.value)  # which the answer has in its text


def test_a_token_server_that_redirects_gets_no_password_sent_along(
    registry: FakeRegistry, image: str, known: Path, tmp_path: Path
) -> None:
    registry.auth = "bearer"
    with running() as stranger:

        def hook(request: Request) -> bool:
            if request.path.startswith("/token"):
                request.answer(302, b"", {"Location": f"{stranger.url}/elsewhere"})
                return True
            return False

        registry.hook = hook
        stranger.hook = lambda request: request.answer(200, b'{"token": "t"}') is None
        registry.tokens["t"] = 100
        pull(image, tmp_path / "layers", known)
        assert [each.path for each in stranger.seen] == ["/elsewhere"]
        assert "Authorization" not in stranger.seen[0].headers


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": "secret\\r\\nX: y"}', b'{"token": 1}']
)
def test_an_answer_without_a_token_is_an_error(
    registry: FakeRegistry, image: str, tmp_path: Path, answer: bytes
) -> None:
    registry.auth = "bearer"
    registry.hook = lambda request: request.path.startswith("/token") and request.answer(200, answer) is None
    with pytest.raises(OSError, match="token server") as caught:
        pull(image, tmp_path / "layers")
    assert "secret" not in str(caught.value)


def test_the_digest_of_a_blob_is_that_of_its_bytes(store: Store) -> None:
    """The fake container registry keeps its side."""
    assert store.put(b"x", "a/b")["digest"] == digest_of(b"x")
