"""Blobs whose connections break: they go on where they were, or end with an error that says where."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from cimlayer import BlobDescriptor, ContainerRegistry
from cimlayer.errors import OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.oci.registry import failures
from support.containers import OCI_FOREIGN, OCI_LAYER, Store, digest_of
from support.platforms import same_everywhere
from support.registries import FakeRegistry, Request, free_port, login, running

pytestmark = same_everywhere

DATA = bytes(range(251)) * 4000
DIGEST = digest_of(DATA)
BLOB = BlobDescriptor(DIGEST, len(DATA), OCI_LAYER)
Step = Callable[[Request], None]


@pytest.fixture
def served(registry: FakeRegistry, store: Store) -> FakeRegistry:
    store.blobs[DIGEST] = DATA
    return registry


def steps(server: FakeRegistry, *answers: Step) -> list[str | None]:
    """Answer the first GETs of the blob so; gives the ranges that were asked for."""
    left, ranges = list(answers), []

    def hook(request: Request) -> bool:
        if request.command == "GET" and DIGEST in request.path:
            ranges.append(request.headers.get("Range"))
            if left:
                left.pop(0)(request)
                return True
        return False

    server.hook = hook
    return ranges


def cut(size: int) -> Step:
    return lambda request: request.blob(DATA, cut=size)


def busy(status: int = 503, **headers: str) -> Step:
    return lambda request: request.fail(
        status, "UNAVAILABLE", {name.replace("_", "-"): v for name, v in headers.items()}
    )


def read(file: BinaryIO) -> bytes:
    data, buffer = b"", memoryview(bytearray(100_000))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        data += buffer[:count]
    return data


def pull(server: FakeRegistry, blob: BlobDescriptor = BLOB, offset: int = 0, **options: float) -> bytes:
    with (
        ContainerRegistry(f"docker://{server.host}/app", tls_verify=False, **options) as source,  # type: ignore[arg-type]
        source.open_blob(blob, offset) as file,
    ):
        return read(file)


def test_what_is_cut_goes_on_by_range(served: FakeRegistry) -> None:
    ranges = steps(served, cut(300_000), busy(), busy(429, Retry_After="0"), cut(200_000))
    assert pull(served) == DATA
    assert ranges == [None, *["bytes=300000-"] * 3, "bytes=500000-"]


def test_an_offset_is_a_range_too(served: FakeRegistry) -> None:
    ranges = steps(served)
    assert pull(served, offset=1000) == DATA[1000:]
    assert ranges == ["bytes=1000-"]


def test_a_server_without_ranges_is_read_again(served: FakeRegistry) -> None:
    whole: Step = lambda request: request.answer(200, DATA)  # noqa: E731
    steps(served, cut(300_000), lambda request: request.answer(200, DATA, cut=600_000), whole)
    assert pull(served) == DATA


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content-Range": f"bytes 400000-{len(DATA) - 1}/{len(DATA)}"},
        {"Content-Range": "bytes nonsense"},
        {},
    ],
)
def test_a_wrong_range_is_not_believed(served: FakeRegistry, wrong: dict[str, str]) -> None:
    ranges = steps(served, cut(300_000), lambda request: request.answer(206, DATA[400_000:], wrong))
    assert pull(served) == DATA
    assert ranges == [None, "bytes=300000-", None]


def test_a_range_that_begins_earlier_is_taken(served: FakeRegistry) -> None:
    early = {"Content-Range": f"bytes 200000-{len(DATA) - 1}/{len(DATA)}"}
    ranges = steps(served, cut(300_000), lambda request: request.answer(206, DATA[200_000:], early))
    assert pull(served) == DATA
    assert len(ranges) == 2


def test_a_refused_range_is_asked_for_as_a_whole(served: FakeRegistry) -> None:
    ranges = steps(served, cut(300_000), busy(416))
    assert pull(served) == DATA
    assert ranges == [None, "bytes=300000-", None]


def test_a_connection_that_stalls_is_replaced(served: FakeRegistry) -> None:
    over = threading.Event()

    def stall(request: Request) -> None:
        request.start(200, {"Content-Length": str(len(DATA))})
        request.send(DATA[:300_000])
        over.wait()

    ranges = steps(served, stall)
    try:
        assert pull(served, stall_timeout=0.2) == DATA
    finally:
        over.set()
    assert ranges[0] is None
    assert len(ranges) == 2


def test_a_drop_now_and_then_is_no_progress(served: FakeRegistry) -> None:
    """Each answer brings a byte, as many as there are tries."""
    ranges = steps(served, *[cut(1)] * 100)
    with pytest.raises(ConnectionError, match=rf"blob {DIGEST}: offset 6: .*closed early \(tried 6 times\)"):
        pull(served)
    assert len(ranges) == failures.TRIES


def test_a_server_that_stays_busy_is_given_up(served: FakeRegistry) -> None:
    ranges = steps(served, cut(300_000), *[busy()] * 100)
    with pytest.raises(OSError, match="503 Service Unavailable") as caught:
        pull(served)
    assert caught.value.filename == f"docker://{served.host}/app:latest"
    assert str(caught.value.strerror).startswith(f"blob {DIGEST}: offset 300000: ")
    assert len(ranges) == failures.TRIES


@pytest.mark.parametrize("status", [400, 403, 404, 410, 501])
def test_a_refusal_is_final(served: FakeRegistry, status: int) -> None:
    ranges = steps(served, busy(status))
    with pytest.raises(OSError, match=str(status)):
        pull(served)
    assert len(ranges) == 1


def test_a_server_cannot_make_us_wait_for_ever(served: FakeRegistry) -> None:
    ranges = steps(served, busy(429, Retry_After="3600"))
    with pytest.raises(OSError, match=r"429 Too Many Requests \(UNAVAILABLE\); it asks to wait for 3600 s"):
        pull(served)
    assert len(ranges) == 1


def test_what_is_too_long_is_not_read_to_its_end(served: FakeRegistry) -> None:
    def endless(request: Request) -> None:
        request.start(200, {})
        request.send(DATA * 4)
        request.hang_up()

    steps(served, endless)
    assert pull(served) == DATA + DATA[:1]


def test_what_is_too_short_ends_there(served: FakeRegistry) -> None:
    ranges = steps(served, lambda request: request.answer(200, DATA[:1000]))
    assert pull(served) == DATA[:1000]
    assert len(ranges) == 1


def test_a_connection_that_ends_the_blob_may_have_been_cut(served: FakeRegistry) -> None:
    def until_close(size: int) -> Step:
        return lambda request: request.answer(200, DATA, {"Content-Length": ""}, cut=size)

    steps(served, until_close(100_000), until_close(len(DATA)))
    assert pull(served) == DATA


def test_a_cut_behind_the_last_byte_is_no_failure(served: FakeRegistry) -> None:
    ranges = steps(
        served, lambda request: request.answer(200, DATA, {"Content-Length": str(len(DATA) + 9)}, cut=1 << 30)
    )
    assert pull(served) == DATA
    assert len(ranges) == 1


def test_chunks_are_put_together_and_nothing_is_decoded(served: FakeRegistry) -> None:
    def chunked(request: Request) -> None:
        request.start(200, {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"})
        for at in range(0, len(DATA), 70_000):
            piece = DATA[at : at + 70_000]
            request.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.send(b"0\r\n\r\n")

    steps(served, chunked)
    assert pull(served) == DATA
    assert {each.headers["Accept-Encoding"] for each in served.seen} == {"identity"}


def test_reading_ends_when_it_is_cancelled(served: FakeRegistry) -> None:
    over, cancel = threading.Event(), CancellationToken()

    def stall(request: Request) -> None:
        request.start(200, {"Content-Length": str(len(DATA))})
        cancel.cancel()
        over.wait()

    steps(served, stall)
    source = ContainerRegistry(f"docker://{served.host}/app", tls_verify=False, cancel=cancel)
    with source, source.open_blob(BLOB) as file, pytest.raises(OperationCancelledError):
        read(file)
    over.set()


def test_waiting_ends_when_it_is_cancelled(served: FakeRegistry) -> None:
    cancel = CancellationToken()

    def wait(request: Request) -> None:
        cancel.cancel()
        request.fail(503, "UNAVAILABLE", {"Retry-After": "60"})

    steps(served, wait)
    source = ContainerRegistry(f"docker://{served.host}/app", tls_verify=False, cancel=cancel)
    with source, source.open_blob(BLOB) as file, pytest.raises(OperationCancelledError):
        read(file)


# ---- redirects ----


def test_credentials_do_not_follow_a_redirect_and_a_cut_asks_for_a_fresh_one(
    served: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with running() as storage:
        cuts = [300_000, 300_000]
        signatures: list[str] = []

        def redirect(request: Request) -> bool:
            if request.command != "GET" or DIGEST not in request.path or "Authorization" not in request.headers:
                return False
            signatures.append(f"a%2fb+c%20d{len(signatures)}")
            request.answer(307, b"", {"Location": f"{storage.url}/bucket?X-Sig={signatures[-1]}&e"})
            return True

        def stored(request: Request) -> bool:
            if len(signatures) == 2 and len(storage.seen) == 2:
                request.fail(403, "DENIED")  # the signature has expired
            else:
                request.blob(DATA, cut=cuts.pop(0) if cuts else None)
            return True

        served.auth, served.hook, storage.hook = "basic", redirect, stored
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(login(tmp_path, served.host)))
        assert pull(served) == DATA
        assert [each.path for each in storage.seen] == [f"/bucket?X-Sig={sign}&e" for sign in signatures]
        assert len(signatures) == 4
        assert not [each for each in storage.seen if "Authorization" in each.headers]


@pytest.mark.parametrize(
    "location", ["/again", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/", "http://[", "file:///etc/passwd"]
)
def test_a_redirect_that_leads_nowhere_is_an_error(served: FakeRegistry, location: str) -> None:
    def redirect(request: Request) -> bool:
        if request.command == "GET" and request.path != "/v2/":
            request.answer(302, b"", {"Location": location})
            return True
        return False

    served.hook = redirect
    with pytest.raises(OSError, match=r"redirect|not http"):
        pull(served)
    assert len(served.seen) < 20


# ---- foreign layers ----


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    with running() as server:
        server.store.blobs[DIGEST] = DATA
        server.hook = lambda request: request.blob(DATA) is None
        yield server


def foreign(*urls: str, media_type: str = f"{OCI_FOREIGN}+gzip") -> BlobDescriptor:
    return BlobDescriptor(DIGEST, len(DATA), media_type, urls)


def test_a_foreign_layer_comes_from_its_urls_if_need_be(
    served: FakeRegistry, elsewhere: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del served.store.blobs[DIGEST]
    served.auth = "basic"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(login(tmp_path, served.host)))
    dead = f"http://127.0.0.1:{free_port()}/x"
    assert pull(served, foreign("file:///etc/passwd", dead, f"{elsewhere.url}/x")) == DATA
    assert not [each for each in elsewhere.seen if "Authorization" in each.headers]


def test_a_foreign_layer_of_the_container_registry_is_not_fetched_elsewhere(
    served: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    assert pull(served, foreign(f"{elsewhere.url}/x")) == DATA
    assert elsewhere.seen == []


def test_urls_of_other_layers_are_nobodys_business(served: FakeRegistry, elsewhere: FakeRegistry) -> None:
    del served.store.blobs[DIGEST]
    with pytest.raises(FileNotFoundError, match=DIGEST):
        pull(served, foreign(f"{elsewhere.url}/x", media_type=f"{OCI_LAYER}+gzip"))
    assert elsewhere.seen == []


def test_a_foreign_layer_that_is_nowhere_is_named(served: FakeRegistry) -> None:
    del served.store.blobs[DIGEST]
    with pytest.raises(OSError, match=f"{DIGEST}: offset 0: cannot connect to http://127.0.0.1"):
        pull(served, foreign(f"http://127.0.0.1:{free_port()}/x"))
