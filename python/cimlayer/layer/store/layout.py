"""Where the parts of a store lie.

::

    STORE/KEY/                  a layer's directory, as import_image makes it
    STORE/cim-layers/KEY.cim    its CIM, which appears last; beside it region and object ID files
    STORE/.cimlayer/claims/     who is at work on which layer
    STORE/.cimlayer/pins/KEY    an empty file for each layer that is to stay
    STORE/.cimlayer/runs/RUN    a file for each import of many images; without it, its workers stop
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cimfs_ext.imagepath import CIM_DIRECTORY
from cimlayer.layer.paths import store_of

_OWN = ".cimlayer"
REMOVING = "removing"  # in a claim: the CIM of a layer that goes, if nobody turns out to need it


@dataclass(slots=True, frozen=True)
class StoreLayout:
    """The paths of one store."""

    root: Path

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> StoreLayout:
        """The store at a path, which may be that of its directory of images, too."""
        return cls(store_of(path))

    @property
    def images(self) -> Path:
        """The directory of the CIMs."""
        return self.root / CIM_DIRECTORY

    @property
    def claims(self) -> Path:
        """The directory of claims."""
        return self.root / _OWN / "claims"

    @property
    def pins(self) -> Path:
        """The directory of pins."""
        return self.root / _OWN / "pins"

    @property
    def runs(self) -> Path:
        """The directory of runs."""
        return self.root / _OWN / "runs"

    def layer(self, key: str) -> Path:
        """A layer's directory."""
        return self.root / key

    def image(self, key: str) -> Path:
        """A layer's CIM."""
        return self.images / f"{key}.cim"

    def make(self) -> None:
        """Make the directories that are missing."""
        for directory in (self.images, self.claims, self.pins, self.runs):
            directory.mkdir(parents=True, exist_ok=True)
