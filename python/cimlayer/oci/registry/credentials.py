"""Credentials for container registries, from the files and helper programs of docker and podman.

Sources: docker login's documentation ("Credential stores", "Credential helpers", "Credential helper protocol") and
containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cimlayer.oci.registry.references import DOCKER_HUB

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_LARGEST = 1 << 20  # bytes of a file
_SHOWN = 100
_HELPER_TIMEOUT = 60  # seconds: it may ask the user
_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # a helper's name for an identity token


@dataclass(slots=True, frozen=True)
class Credentials:
    """A user name with a password, or an identity token (OAuth 2 refresh token). Neither is part of its repr."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(host: str, repository: str, authfile: str | os.PathLike[str] | None = None) -> Credentials | None:
    """The credentials for a repository; None if there are none.

    If ``authfile`` or REGISTRY_AUTH_FILE names a file, no other is read. By default, the first of these that has
    credentials counts: ``containers/auth.json`` in XDG_RUNTIME_DIR and in XDG_CONFIG_HOME (or ``~/.config``), and
    ``config.json`` in DOCKER_CONFIG (or ``~/.docker``). ValueError or OSError for a file that cannot be read, or a
    helper that fails; neither repeats what was read.
    """
    for path, required in _files(authfile):
        document = _read(path, required)
        found = _of_helpers(document, host, path) or _of_entries(document, host, repository, path)
        if found is not None:
            return found
    return None


def _files(authfile: str | os.PathLike[str] | None) -> Iterator[tuple[Path, bool]]:
    named = authfile or os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield Path(named), True
        return
    home = Path.home()
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json"), False
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "containers", "auth.json"), False
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker", "config.json"), False


def _read(path: Path, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise
        return {}
    try:
        document = json.loads(data) if len(data) <= _LARGEST else None
    except (ValueError, RecursionError):  # its text may have a password
        document = None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a file of credentials (a JSON object)")
    return document


# ---- helper programs ----


def _of_helpers(document: dict[str, Any], host: str, path: Path) -> Credentials | None:
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if _normalized(key) == host:
                return _ask_helper(name, host, path)
    store = document.get("credsStore")
    return _ask_helper(store, host, path) if store else None


def _ask_helper(name: object, host: str, path: Path) -> Credentials | None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{path}: not the name of a credential helper: {str(name)[:_SHOWN]!r}")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=(_DOCKER_HUB_KEY if host == DOCKER_HUB else host).encode(),
            capture_output=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise OSError(error.errno, f"the credential helper cannot be run: {error.strerror}", program) from error
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(errno.ETIMEDOUT, "the credential helper does not answer", program) from error
    if done.returncode:
        if _NOT_FOUND in done.stdout.decode("utf-8", "replace"):
            return None
        raise OSError(errno.EIO, f"the credential helper failed for {host}: exit code {done.returncode}", program)
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, LookupError, TypeError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise ValueError(f"{program}: the credential helper's answer for {host} has no Username and Secret")
    return Credentials("", "", secret) if username == _TOKEN_USER else Credentials(username, secret)


# ---- entries of the file itself ----


def _of_entries(document: dict[str, Any], host: str, repository: str, path: Path) -> Credentials | None:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return None
    entries = {_normalized(key): entry for key, entry in auths.items()}
    parts = [host, *repository.split("/")]
    for end in range(len(parts), 0, -1):  # the most specific one
        entry = entries.get("/".join(parts[:end]))
        if isinstance(entry, dict) and (found := _of_entry(entry, host, path)) is not None:
            return found
    return None


def _of_entry(entry: dict[str, Any], host: str, path: Path) -> Credentials | None:
    """None for an empty entry, which docker leaves where a helper has the credentials."""
    username, password, token = (entry.get(key) or "" for key in ("username", "password", "identitytoken"))
    if entry.get("auth"):
        try:
            decoded = base64.b64decode(entry["auth"], validate=True).decode()
        except (binascii.Error, ValueError, TypeError):
            decoded = ""
        username, colon, password = decoded.partition(":")
        password = password.strip("\0")  # older Dockers padded it
        if not colon:
            raise ValueError(f"{path}: the entry of {host} has no valid auth")
    if not all(isinstance(text, str) for text in (username, password, token)):
        raise ValueError(f"{path}: the entry of {host} is not of texts")
    return Credentials(username, password, token) if token or username else None


def _normalized(key: str) -> str:
    """``HOST[:PORT][/NAMESPACE]`` of a key, which older programs wrote as a URL."""
    text = re.sub("^https?://", "", key)
    if text != key:
        text = text.partition("/")[0]
    text = re.sub("(/v[12])?/*$", "", text)
    host, slash, namespace = text.partition("/")
    host = host.lower()
    return (DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host) + slash + namespace
