"""Choosing an image in a source."""

from __future__ import annotations

from pathlib import Path

from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import Platform
from cimlayer.oci.selection import ContainerImage
from cimlayer.oci.selection import select as select_image
from support.containers import base_tar, gzipped

LAYER = gzipped(base_tar())


def select(source: Path, platform: str = "windows") -> ContainerImage:
    with opened_source(source) as (images, reference):
        return select_image(images, Platform.parse(platform), reference)
