"""Container images that are pushed: what is sent, where, how often, and what is left when it fails."""

from __future__ import annotations

import json
import random
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import cimlayer
from cimlayer import ExportedImage, export_image
from cimlayer.events import CancellationToken, OperationCancelledError
from cimlayer.oci.registry.target import registry_target
from support.containers import OCI_FOREIGN, OCI_LAYER, Store, base_tar, child_tar, digest_of, gzipped, plain
from support.platforms import same_everywhere
from support.registries import FakeRegistry, Request, login, running

pytestmark = same_everywhere

CHUNK = 100_000
FOREIGN = f"{OCI_FOREIGN}+gzip"


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imported")
    store = Store()
    layers = [gzipped(base_tar()), gzipped(child_tar(noise=random.Random(1).randbytes(350_000)))]
    layout = store.layout(root / "layout", [store.image(layers)])
    return cimlayer.import_image(layout, root / "layers", sync=False).top


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cimlayer.oci.registry.target.CHUNK", CHUNK)


def push(top: Path, registry: FakeRegistry, name: str = "win/new:v1", authfile: Path | None = None) -> ExportedImage:
    with registry_target(f"docker://{registry.host}/{name}", tls_verify=False, authfile=authfile) as target:
        return export_image(top, target)


def sent(registry: FakeRegistry) -> list[str]:
    return [each.method for each in registry.seen if each.method in ("POST", "PATCH", "PUT")]


def test_small_blobs_are_sent_whole_and_large_ones_in_chunks(registry: FakeRegistry, top: Path) -> None:
    image = push(top, registry)
    assert registry.tags["win/new:v1"] == image.digest
    assert all(digest_of(registry.store.blobs[layer.digest]) == layer.digest for layer in image.layers)
    assert sent(registry) == ["POST", "PUT", "POST", *["PATCH"] * 3, "PUT", "POST", "PUT", "PUT"]
    assert all(
        int(each.headers["Content-Length"]) <= CHUNK for each in registry.seen if "Content-Length" in each.headers
    )


def test_what_is_pushed_is_pulled_again(registry: FakeRegistry, top: Path, tmp_path: Path) -> None:
    push(top, registry)
    with cimlayer.ContainerRegistry(f"docker://{registry.host}/win/new:v1", tls_verify=False) as source:
        back = cimlayer.import_image(source, tmp_path / "layers", sync=False)
    assert back.platform == "windows/amd64/10.0.20348.1"


def test_what_is_there_is_not_sent_again(registry: FakeRegistry, top: Path) -> None:
    base = push(top.parent / push(top, registry, "win/new:all").layers[0].path.name, registry, "win/new:base")
    registry.seen.clear()
    push(top, registry, "win/new:again")
    assert sent(registry) == ["PUT"]
    assert base.layers[0].digest in "".join(each.path for each in registry.asked("HEAD", "/blobs/"))


def test_the_blob_of_the_import_is_taken_if_its_tar_is_the_same(
    registry: FakeRegistry, top: Path, tmp_path: Path
) -> None:
    """Compressed by another program, it has a digest that we cannot make."""
    export_image(top, f"dir:{tmp_path}/d", compression="none")
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_bytes())
    tars = [(tmp_path / "d" / each["digest"][7:]).read_bytes() for each in manifest["layers"]]
    layers = [gzipped(tar) for tar in tars]
    assert layers[1].digest not in {each.digest for each in export_image(top, f"dir:{tmp_path}/gzip").layers}
    image = registry.tag("win/new:old", registry.store.image(layers))
    with cimlayer.ContainerRegistry(image, tls_verify=False) as source:
        back = cimlayer.import_image(source, tmp_path / "layers", sync=False).top
    pushed = push(back, registry)
    assert [layer.digest for layer in pushed.layers] == [layer.digest for layer in layers]
    assert sent(registry) == ["POST", "PUT", "PUT"]  # the configuration and the manifest


@pytest.mark.parametrize("absolute", [False, True])
def test_the_last_location_counts_with_its_query(registry: FakeRegistry, top: Path, absolute: bool) -> None:
    if absolute:
        answer = Request.answer

        def hook(request: Request) -> bool:
            def absolute_answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
                headers = dict(headers or {})
                if "Location" in headers:
                    headers["Location"] = urllib.parse.urljoin(registry.url, headers["Location"])
                answer(request, status, body, headers)

            request.answer = absolute_answer  # type: ignore[assignment, method-assign]
            return False

        registry.hook = hook
    push(top, registry)
    puts = [each.path for each in registry.asked("PUT", "/uploads/")]
    assert all("?_state=a%2Fb%3D&digest=sha256%3A" in path for path in puts)


@pytest.mark.parametrize("arrived", [0, 40_000, CHUNK])
def test_a_chunk_that_is_cut_goes_on_where_it_was(registry: FakeRegistry, top: Path, arrived: int) -> None:
    cuts = [2]

    def hook(request: Request) -> bool:
        if request.command == "GET" and "/uploads/" in request.path:
            place = urllib.parse.urlsplit(request.path).path.rpartition("/")[2]
            size = len(registry.uploads[place])
            headers = {"Location": request.path, "Range": f"0-{max(size - 1, 0)}"}
            request.answer(204, b"", headers)
            return True
        if request.command == "PATCH":
            cuts[0] -= 1
            if cuts[0] == 0:
                place = urllib.parse.urlsplit(request.path).path.rpartition("/")[2]
                registry.uploads[place] += request.body[:arrived]
                request.hang_up()
                return True
        return False

    registry.hook = hook
    image = push(top, registry)
    assert digest_of(registry.store.blobs[image.layers[1].digest]) == image.layers[1].digest


def test_busy_answers_are_tried_again(registry: FakeRegistry, top: Path) -> None:
    busy = ["POST", "PUT"]

    def hook(request: Request) -> bool:
        if request.command in busy:
            busy.remove(request.command)
            request.fail(503, "UNAVAILABLE")
            return True
        if request.command == "GET" and "/uploads/" in request.path:
            request.answer(204, b"", {"Location": request.path, "Range": "0-0"})
            return True
        return False

    registry.hook = hook
    push(top, registry)
    assert busy == []


def test_an_answer_that_is_lost_behind_the_whole_blob_is_no_failure(registry: FakeRegistry, top: Path) -> None:
    lost = [1]

    def hook(request: Request) -> bool:
        if request.command == "PUT" and "/uploads/" in request.path and lost:
            lost.pop()
            registry.store.blobs[digest_of(request.body)] = request.body
            request.hang_up()
            return True
        return False

    registry.hook = hook
    push(top, registry)
    assert not lost


@pytest.mark.parametrize(("status", "kind"), [(403, PermissionError), (413, OSError), (404, FileNotFoundError)])
def test_a_refusal_is_final_and_names_the_blob(
    registry: FakeRegistry, top: Path, status: int, kind: type[OSError]
) -> None:
    def hook(request: Request) -> bool:
        if request.command == "PATCH":
            request.fail(status, "DENIED")
            return True
        return False

    registry.hook = hook
    with pytest.raises(kind, match=rf"blob sha256:[0-9a-f]{{64}}: offset 0: {status}") as caught:
        push(top, registry)
    assert caught.value.filename == f"docker://{registry.host}/win/new:v1"
    assert registry.tags == {}


def test_one_token_for_pulling_and_pushing(registry: FakeRegistry, top: Path, tmp_path: Path) -> None:
    registry.auth = "bearer"
    push(top, registry, authfile=login(tmp_path, registry.host))
    (asked,) = registry.asked("GET", "/token")
    assert "scope=repository%3Awin%2Fnew%3Apull%2Cpush" in asked.path


def test_a_location_elsewhere_gets_no_credentials(registry: FakeRegistry, top: Path, tmp_path: Path) -> None:
    registry.auth = "basic"
    with running() as elsewhere:
        elsewhere.hook = lambda request: request.answer(201) is None
        registry.hook = lambda request: (
            request.command == "POST"
            and "Authorization" in request.headers
            and request.answer(202, b"", {"Location": f"{elsewhere.url}/put?sig=a%2fb"}) is None
        )
        push(top, registry, authfile=login(tmp_path, registry.host))
        assert elsewhere.seen
        assert all(each.path.startswith("/put?sig=a%2fb&digest=") for each in elsewhere.seen if each.method == "PUT")
        assert not [each for each in elsewhere.seen if "Authorization" in each.headers]


def test_an_image_is_not_pushed_to_a_digest(registry: FakeRegistry, top: Path) -> None:
    with pytest.raises(ValueError, match="pushed to a tag"):
        push(top, registry, f"win/new@sha256:{'0' * 64}")
    assert registry.seen == []


def test_blobs_that_are_not_compressed_keep_their_digest(registry: FakeRegistry, tmp_path: Path) -> None:
    store = Store()
    layout = store.layout(tmp_path / "layout", [store.image([plain(base_tar())])])
    top = cimlayer.import_image(layout, tmp_path / "layers", sync=False).top
    with registry_target(f"docker://{registry.host}/a:1", tls_verify=False) as target:
        first = export_image(top, target, compression="none")
        assert export_image(top, target, compression="none") == first


# ---- what is in another repository ----


@pytest.fixture
def pulled(registry: FakeRegistry, top: Path, tmp_path: Path) -> Path:
    """An image of that container registry, with foreign layers, whose blobs win/new does not have."""
    export_image(top, f"dir:{tmp_path}/d", compression="none")
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_bytes())
    layers = [gzipped((tmp_path / "d" / each["digest"][7:]).read_bytes()) for each in manifest["layers"]]
    image = registry.tag("win/base:1", registry.store.image([replace(each, media_type=FOREIGN) for each in layers]))
    with cimlayer.ContainerRegistry(image, tls_verify=False) as source:
        top = cimlayer.import_image(source, tmp_path / "layers", sync=False).top
    registry.seen.clear()
    old = {layer.digest for layer in layers}

    def hook(request: Request) -> bool:
        missing = request.command == "HEAD" and request.path.rpartition("/")[2] in old
        if missing and registry.allows(request):
            request.fail(404, "BLOB_UNKNOWN")
        return missing

    registry.hook = hook
    return top


def test_blobs_of_another_repository_are_mounted(registry: FakeRegistry, pulled: Path, tmp_path: Path) -> None:
    registry.mountable, registry.auth = {"win/base"}, "bearer"
    image = push(pulled, registry, authfile=login(tmp_path, registry.host))
    assert [layer.digest for layer in image.layers] == [layer.original for layer in image.layers]
    mounts = [urllib.parse.unquote(each.path) for each in registry.asked("POST", "mount=")]
    assert mounts == [f"/v2/win/new/blobs/uploads/?mount={layer.digest}&from=win/base" for layer in image.layers]
    assert sent(registry) == ["POST", "POST", "POST", "PUT", "PUT"]  # two mounts, the configuration, the manifest
    manifest = json.loads(registry.store.blobs[image.digest])
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"{OCI_LAYER}+gzip"}
    scopes = [
        urllib.parse.parse_qs(urllib.parse.urlsplit(each.path).query)["scope"]
        for each in registry.asked("GET", "/token")
    ]
    own = "repository:win/new:pull,push"
    assert scopes == [[own], [own, "repository:win/base:pull"]]


def test_a_mount_that_is_not_made_is_an_upload(registry: FakeRegistry, pulled: Path) -> None:
    image = push(pulled, registry)
    assert [layer.digest for layer in image.layers] != [layer.original for layer in image.layers]
    assert len(registry.asked("POST", "mount=")) == 2
    assert len(registry.asked("DELETE", "/uploads/")) == 2
    assert registry.uploads == {}


@pytest.mark.parametrize("status", [400, 403, 405, 500])
def test_a_mount_that_is_refused_is_an_upload(registry: FakeRegistry, pulled: Path, status: int) -> None:
    hook = registry.hook
    assert hook is not None
    registry.hook = lambda request: (
        hook(request) or ("mount=" in request.path and request.fail(status, "DENIED") is None)
    )
    image = push(pulled, registry)
    assert registry.tags["win/new:v1"] == image.digest


def test_a_token_server_that_knows_no_other_repository_does_not_stop_a_push(
    registry: FakeRegistry, pulled: Path, tmp_path: Path
) -> None:
    registry.auth = "bearer"
    hook = registry.hook
    assert hook is not None
    registry.hook = lambda request: (
        hook(request) or ("win%2Fbase" in request.path and request.fail(403, "DENIED") is None)
    )
    push(pulled, registry, authfile=login(tmp_path, registry.host))
    assert len(registry.asked("GET", "/token")) == 2


def test_nothing_is_mounted_from_another_host(registry: FakeRegistry, pulled: Path) -> None:
    with running() as other:
        push(pulled, other)
        assert other.asked("POST", "mount=") == []


# ---- uploads that fail ----


def failing(registry: FakeRegistry, then: Callable[[Request], None]) -> None:
    def hook(request: Request) -> bool:
        if request.command != "PATCH":
            return False
        then(request)
        return True

    registry.hook = hook


def test_an_upload_that_fails_is_cancelled(registry: FakeRegistry, top: Path) -> None:
    failing(registry, lambda request: request.fail(403, "DENIED"))
    with pytest.raises(PermissionError):
        push(top, registry)
    assert len(registry.asked("DELETE", "_state=a%2Fb%3D")) == 1
    assert registry.uploads == {}


def test_an_upload_is_cancelled_with_the_push(registry: FakeRegistry, top: Path) -> None:
    cancel = CancellationToken()

    def then(request: Request) -> None:
        cancel.cancel()
        request.fail(503, "UNAVAILABLE")

    failing(registry, then)
    with (
        pytest.raises(OperationCancelledError),
        registry_target(f"docker://{registry.host}/win/new:v1", tls_verify=False, cancel=cancel) as target,
    ):
        export_image(top, target, cancel=cancel)
    assert registry.uploads == {}
    assert registry.tags == {}


def test_a_server_that_does_not_answer_cannot_hold_a_push_that_failed(registry: FakeRegistry, top: Path) -> None:
    over = threading.Event()
    failing(registry, lambda request: request.fail(403, "DENIED"))
    refuse = registry.hook
    assert refuse is not None
    registry.hook = lambda request: refuse(request) or (request.command == "DELETE" and over.wait())
    with pytest.raises(PermissionError):
        push(top, registry)
    over.set()
