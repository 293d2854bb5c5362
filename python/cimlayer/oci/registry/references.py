"""References to container images in a container registry: ``HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]``.

Sources of the form: the OCI distribution specification 1.1 ("Pulling manifests") and the package ``reference`` of
distribution, which completes ``ubuntu`` to ``docker.io/library/ubuntu:latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "docker://"
DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}
_LONGEST = 255  # characters of a repository's name

_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?",
    re.ASCII,
)


@dataclass(slots=True, frozen=True)
class RegistryReference:
    """A container image in a container registry, by tag or by digest; the digest decides if both are there."""

    host: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, location: str) -> RegistryReference:
        """From ``docker://[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]``; else ValueError, which repeats no password."""
        text = location.removeprefix(PREFIX)
        first = text.partition("/")[0]
        has_host = "/" in text and ("." in first or ":" in first or first == "localhost")
        match = _REFERENCE.fullmatch(text if has_host else f"{DOCKER_HUB}/{text}")
        if match is None or len(match["repository"]) > _LONGEST:
            if "@" in text:  # what precedes it may be a password
                raise ValueError(
                    "not a reference as docker://HOST[:PORT]/NAME[:TAG][@DIGEST]; credentials belong in an authfile"
                )
            raise ValueError(f"{location[:_LONGEST]}: not a reference as docker://HOST[:PORT]/NAME[:TAG][@DIGEST]")
        host, repository = match["host"].lower(), match["repository"]
        if host in _DOCKER_HUB_NAMES:
            host = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        tag = match["tag"] or (None if match["digest"] else "latest")
        return cls(host, repository, tag, match["digest"])

    @property
    def endpoint(self) -> str:
        """The host and port that answer for it."""
        return "registry-1.docker.io" if self.host == DOCKER_HUB else self.host

    @property
    def version(self) -> str:
        """The digest or tag that the container registry is asked for."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{PREFIX}{self.host}/{self.repository}{tag}{digest}"
