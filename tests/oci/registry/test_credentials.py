"""Credentials from the files and helper programs of docker and podman."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from cimlayer.oci.registry.credentials import Credentials, find_credentials

ALICE, BOB = Credentials("alice", "a:b"), Credentials("bob", "\u00e4")
HOST = "registry.example.com:5000"


def encoded(credentials: Credentials) -> dict[str, str]:
    return {"auth": credentials.basic.removeprefix("Basic ")}


def write(path: Path, **document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without any credentials."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def authfile(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def test_without_any_file_there_are_none() -> None:
    assert find_credentials(HOST, "a") is None


@pytest.mark.parametrize(
    "key",
    [HOST, f"{HOST}/", f"http://{HOST}", f"https://{HOST}/v2/", f"https://{HOST}/v1", f"{HOST}/a/b", f"{HOST}/a"],
)
def test_keys_in_every_form_are_found(authfile: Path, key: str) -> None:
    write(authfile, auths={key.upper() if key == HOST else key: encoded(ALICE)})
    assert find_credentials(HOST, "a/b", authfile) == ALICE


@pytest.mark.parametrize(
    "key", ["registry.example.com", "registry.example.com:5001", f"{HOST}/b", f"x{HOST}", "docker.io"]
)
def test_another_host_port_or_namespace_is_not_meant(authfile: Path, key: str) -> None:
    write(authfile, auths={key: encoded(ALICE)})
    assert find_credentials(HOST, "a/b", authfile) is None


def test_the_most_specific_entry_counts(authfile: Path) -> None:
    write(authfile, auths={HOST: encoded(ALICE), f"{HOST}/a": encoded(BOB)})
    assert [find_credentials(HOST, name, authfile) for name in ("a/b", "ab")] == [BOB, ALICE]


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_has_several_names(authfile: Path, key: str) -> None:
    write(authfile, auths={key: encoded(ALICE)})
    assert find_credentials("docker.io", "library/x", authfile) == ALICE


def test_files_are_looked_up_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        (tmp_path / "home" / ".docker" / "config.json", None),
        (tmp_path / "docker" / "config.json", "DOCKER_CONFIG"),
        (tmp_path / "home" / ".config" / "containers" / "auth.json", None),
        (tmp_path / "xdg" / "containers" / "auth.json", "XDG_CONFIG_HOME"),
        (tmp_path / "run" / "containers" / "auth.json", "XDG_RUNTIME_DIR"),
        (tmp_path / "named.json", "REGISTRY_AUTH_FILE"),
    ]
    for number, (path, variable) in enumerate(places):
        wanted = Credentials(f"user{number}", "p")
        write(path, auths={HOST: encoded(wanted)})
        if variable is not None:
            folder = path.parent.parent if path.parent.name == "containers" else path.parent
            monkeypatch.setenv(variable, str(path if variable.endswith("FILE") else folder))
        assert find_credentials(HOST, "a") == wanted
    assert find_credentials(HOST, "a", write(tmp_path / "other.json", auths={HOST: encoded(BOB)})) == BOB
    assert find_credentials(HOST, "a", write(tmp_path / "other.json")) is None


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_credentials(HOST, "a", tmp_path / "none.json")


def test_user_and_password_may_be_apart_and_a_token_wins(authfile: Path) -> None:
    write(authfile, auths={HOST: {"username": "alice", "password": "a:b"}}, credsStore="", HttpHeaders={"X": "y"})
    assert find_credentials(HOST, "a", authfile) == ALICE
    write(authfile, auths={HOST: {**encoded(ALICE), "identitytoken": "t"}})
    found = find_credentials(HOST, "a", authfile)
    assert found is not None
    assert found.identity_token == "t"


@pytest.mark.parametrize(
    "text",
    [
        "no JSON secret",
        "[]",
        '"secret"',
        json.dumps({"auths": {HOST: {"auth": "secret!"}}}),
        json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"secret").decode()}}}),
        json.dumps({"auths": {HOST: {"username": "u", "password": ["secret"]}}}),
    ],
)
def test_a_broken_file_is_refused_and_not_repeated(authfile: Path, text: str) -> None:
    authfile.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="auth") as caught:
        find_credentials(HOST, "a", authfile)
    assert "secret" not in str(caught.value)


def test_a_repr_has_no_password() -> None:
    assert "a:b" not in repr(ALICE)
    assert "alice" not in repr(ALICE)


def helper(tmp_path: Path, name: str, answer: str, code: int = 0) -> None:
    path = tmp_path / "bin" / f"docker-credential-{name}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!/bin/sh\nread host\necho \"$1 $host\" >> {tmp_path}/asked\ncat <<'X'\n{answer}\nX\nexit {code}\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


needs_shell = pytest.mark.skipif(os.name != "posix", reason="the helpers of these tests are shell scripts")


@needs_shell
def test_helpers_are_asked_and_the_one_of_the_host_first(tmp_path: Path, authfile: Path) -> None:
    helper(tmp_path, "good", json.dumps({"ServerURL": HOST, "Username": "alice", "Secret": "a:b"}))
    helper(tmp_path, "token", json.dumps({"Username": "<token>", "Secret": "t"}))
    write(authfile, credHelpers={HOST: "good"}, credsStore="broken")
    assert find_credentials(HOST, "a", authfile) == ALICE
    assert (tmp_path / "asked").read_text("utf-8") == f"get {HOST}\n"
    write(authfile, credsStore="token")
    assert find_credentials(HOST, "a", authfile) == Credentials("", "", "t")
    write(authfile, credsStore="good")
    assert find_credentials("docker.io", "a", authfile) == ALICE
    assert (tmp_path / "asked").read_text("utf-8").endswith("get https://index.docker.io/v1/\n")


@needs_shell
def test_a_helper_without_credentials_leaves_it_to_the_file(tmp_path: Path, authfile: Path) -> None:
    helper(tmp_path, "none", "credentials not found in native keychain", 1)
    write(authfile, credsStore="none", auths={HOST: encoded(ALICE)})
    assert find_credentials(HOST, "a", authfile) == ALICE
    write(authfile, credsStore="none", auths={HOST: {}})
    assert find_credentials(HOST, "a", authfile) is None


@needs_shell
@pytest.mark.parametrize(
    ("answer", "code"), [("secret", 1), ("secret", 0), ('["secret"]', 0), ('{"Username": "u", "Secret": 1}', 0)]
)
def test_a_helper_that_fails_is_named_and_not_repeated(tmp_path: Path, authfile: Path, answer: str, code: int) -> None:
    helper(tmp_path, "broken", answer, code)
    write(authfile, credsStore="broken")
    with pytest.raises((OSError, ValueError), match="docker-credential-broken") as caught:
        find_credentials(HOST, "a", authfile)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "../x", "a b", 1])
def test_a_helper_that_cannot_be_run_is_named(authfile: Path, name: object) -> None:
    write(authfile, credsStore=name)
    with pytest.raises((OSError, ValueError), match=str(name)):
        find_credentials(HOST, "a", authfile)
