"""Layers as block images: each holds its own files alone, and all of a container's are merged when they are mounted."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from cimfs_ext.image import ImageWriter
from cimfs_ext.implementation import Implementation
from cimfs_ext.names import upcase_key
from cimlayer.errors import UnsupportedCallError
from cimlayer.events import CancellationToken
from cimlayer.image.block import BlockImage, BlockKind, create_block_image, seal_image
from cimlayer.layer.writer import CimLayerWriter


class BlockCimLayerWriter(CimLayerWriter):
    r"""Writes one layer as a single-file block image, with the methods of :class:`~cimlayer.CimLayerWriter`.

    Nothing of the parents is in the image, so a removal becomes a tombstone, which hides what the parents have once
    the images are merged; and a link whose target this layer does not add becomes a merge link, which is looked up
    then. The hives and the scratch disks lie in the directory of the image's file, one directory per layer, and
    ``parents`` (from the immediate parent to the base) are looked for in theirs.

    With ``verified`` the image is sealed when it is closed; :attr:`root_hash` has its hash then. If that fails, the
    committed image stays, and :func:`cimlayer.image.block.seal_image` may be tried again. Only the system's
    library of newer Windows writes such images (:func:`cimlayer.image.features.is_block_cim_supported`); elsewhere the
    constructor raises :class:`~cimlayer.errors.UnsupportedCallError`.

    A utility VM is kept as it is: its boot store would name a ``.cim`` file, and there is none.
    """

    def __init__(
        self,
        image: BlockImage,
        parents: Sequence[BlockImage] = (),
        *,
        verified: bool = False,
        scratch_disks: bool = True,
        sync: bool = True,
        implementation: str | Implementation | None = None,
        cancel: CancellationToken | None = None,
    ) -> None:
        """Open a new image; ValueError if it or a parent is on a block device, which has no room for the hives."""
        for block_image in (image, *parents):
            if block_image.kind is not BlockKind.SINGLE_FILE:
                raise ValueError(f"a layer's image is in a single file, not on a {block_image.kind.value}")
        self._block_image = image
        self._verified = verified
        self._made_file = False
        self._added: set[bytes] = set()
        self._links: dict[bytes, tuple[str, str]] = {}  # name and target, by the name's key
        self.root_hash = b""
        super().__init__(
            Path(image.native_path).parent,
            [Path(parent.native_path).parent for parent in parents],
            sync=sync,
            implementation=implementation,
            utility_vm="keep",
            scratch_disks=scratch_disks,
            cancel=cancel,
        )

    def _open_image(self) -> ImageWriter:
        self.standard.directory.make_directory()
        self._made_file = not os.path.lexists(self._block_image.native_path)
        return create_block_image(self._block_image, verified=self._verified, implementation=self._implementation)

    def _take_directory(self) -> None:
        """It is there, and a file with several images has several layers' files beside it."""

    def _admit(self, path: str) -> None:
        self._added.add(upcase_key(path))
        self._links.pop(upcase_key(path), None)  # it has taken the link's place

    def _add_link(self, path: str, target: str, outside: bool) -> None:
        """Only at the end is it known whether this layer has the target."""
        key = upcase_key(path)
        self._links.pop(key, None)
        self._links[key] = (path, target)

    def _remove(self, path: str) -> None:
        self.image.tombstone(path)

    def _remove_contents(self, directory: str) -> None:
        raise UnsupportedCallError(errno.ENOSYS, "a block image hides single paths, not the contents of one", directory)

    def _commit(self) -> None:
        for name, target in self._links.values():
            self._link(name, target)
        super()._commit()
        self.image.close()
        if self._verified:
            self.root_hash = seal_image(self._block_image.path, implementation=self._implementation)

    def _link(self, name: str, target: str) -> None:
        if upcase_key(target) not in self._added:
            self.image.create_merge_link(name, target)
            return
        self.builder.make_link(name, target)
        self._added.add(upcase_key(name))  # it may itself be a target

    def _abandon(self) -> None:
        """A file that held other images before stays, and a layer that was committed, also if it cannot be sealed."""
        super()._abandon()
        image: ImageWriter | None = getattr(self, "image", None)
        if self._made_file and not (image is not None and image.committed):
            with contextlib.suppress(OSError):
                Path(self._block_image.native_path).unlink()
            with contextlib.suppress(OSError):
                Path(self._block_image.native_path).parent.rmdir()
