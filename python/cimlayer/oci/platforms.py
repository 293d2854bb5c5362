"""Platforms of container images, and which one is wanted (OCI image specification, "Image Index", ``platform``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(slots=True, frozen=True)
class Platform:
    """What a container image runs on. An empty field is unknown; in a wish it means any."""

    os: str
    architecture: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From ``OS[/ARCHITECTURE[/OS.VERSION]]``, such as ``windows/amd64/10.0.20348``; else ValueError."""
        parts = text.split("/")
        if not all(parts) or len(parts) > 3:
            raise ValueError(f"not a platform as OS/ARCHITECTURE/OS.VERSION: {text!r}")
        return cls(*parts)

    @classmethod
    def wanted(cls, platform: str | Platform | None, os_version: str | None) -> Platform:
        """What a caller asks for: Windows unless it says otherwise; ValueError for two versions."""
        asked = WINDOWS if platform is None else platform if isinstance(platform, Platform) else cls.parse(platform)
        if os_version is None:
            return asked
        if asked.os_version not in ("", os_version):
            raise ValueError(f"the platform {asked} has another version than {os_version!r}")
        return replace(asked, os_version=os_version)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether this is what is wanted; a wanted version may be the beginning of this one, up to a dot."""
        return (
            self.os == wanted.os
            and wanted.architecture in ("", self.architecture)
            and (not wanted.os_version or f"{self.os_version}.".startswith(f"{wanted.os_version}."))
        )

    @property
    def version(self) -> tuple[int, ...]:
        """The numbers of the version, to be compared; none if it is unknown or has other parts."""
        parts = self.os_version.split(".")
        return tuple(map(int, parts)) if all(re.fullmatch("[0-9]{1,9}", part) for part in parts) else ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.os_version) if part)


WINDOWS = Platform("windows")
UNKNOWN = Platform("unknown")  # what an OCI index calls an entry that is no container image
