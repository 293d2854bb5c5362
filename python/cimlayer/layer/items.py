"""What the bytes of a layer's writer belong to: a file of the image, a standard file, an alternate stream.

Each takes a Win32 backup stream (Microsoft, "WIN32_STREAM_ID") or its content alone, in pieces of any size.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cimfs_ext.backupstream import BackupStreamParser
from cimfs_ext.builder import LayerBuilder
from cimfs_ext.image import ImageWriter
from cimlayer.errors import FormatError
from cimlayer.formats.fileinfo import FILE_ATTRIBUTE_REPARSE_POINT, Attachments, FileBasicInfo
from cimlayer.layer.directory import write_through
from cimlayer.layer.standard import StandardFiles

if TYPE_CHECKING:
    from cimfs_ext.backupstream import _Event

_ZEROS = bytes(1 << 16)
_HEADER_SIZE = 20  # bytes of a WIN32_STREAM_ID without a name


class _RawContent:
    """Takes what hcsshim's importer writes: the content itself; ``doubt`` is why it is no backup stream."""

    def __init__(self, size: int, name: str, doubt: FormatError | None = None) -> None:
        self._size, self._name, self._doubt = size, name, doubt
        self._taken = 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[_Event]:
        view = memoryview(data).cast("B")
        self._taken += len(view)
        if self._taken > self._size:
            raise self._error(f"more than the {self._size} bytes that were announced")
        return [("data", view)] if len(view) else []

    def finish(self) -> None:
        if self._taken < self._size:
            raise self._error(f"{self._taken} bytes where {self._size} were announced")

    def _error(self, text: str) -> FormatError:
        if self._doubt is not None:
            text = f"no backup stream ({self._doubt}), nor the content: {text}"
        return FormatError(text, self._name, self._taken)


class Item:
    """What the bytes after an addition belong to."""

    def __init__(self, name: str, size: int, raw: bool | None) -> None:
        """``size`` is the bytes of its main data; ``raw`` is that of :class:`~cimlayer.CimLayerWriter`."""
        self._name, self._size = name, size
        self._parser: BackupStreamParser | _RawContent | None = None
        self._begin = bytearray()  # until there is a parser
        if raw is not None or size == 0:
            self._parser = _RawContent(size, name) if raw else BackupStreamParser(size, name)
        self._written = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._written = True
        if self._parser is None:
            self._begin += memoryview(data).cast("B")
            if len(self._begin) < _HEADER_SIZE:
                return
            data, self._parser = self._begin, self._recognized()
        for event in self._parser.feed(data):
            self._take(event)

    def finish(self) -> None:
        """That was all. Nothing at all is as good as the backup stream of an empty file."""
        if self._written or self._size:
            if self._parser is None:
                self._parser = self._recognized()
                for event in self._parser.feed(self._begin):
                    self._take(event)
            self._parser.finish()
        self._end()

    def _recognized(self) -> BackupStreamParser | _RawContent:
        """A backup stream has a header, and is longer than the content, so that less than a header is the content."""
        if len(self._begin) < _HEADER_SIZE:
            whole = len(self._begin) == self._size
            return _RawContent(self._size, self._name) if whole else BackupStreamParser(self._size, self._name)
        try:
            BackupStreamParser(self._size, self._name).feed(self._begin[:_HEADER_SIZE])
        except FormatError as error:
            return _RawContent(self._size, self._name, error)
        return BackupStreamParser(self._size, self._name)

    def discard(self) -> None:
        """Let go of what is open: the layer is abandoned."""

    def _take(self, event: _Event) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


_REPARSE = 8

_FIELDS = {
    2: ("extended_attributes", "EA buffer"),
    3: ("security_descriptor", "security descriptor"),
    _REPARSE: ("reparse_data", "reparse data"),
}  # by the stream ID of a backup stream


class _Gathered:
    """Attachments that may be given when a file is added, or come in the backup stream, or both if it is the same."""

    def __init__(self, name: str, attachments: Attachments) -> None:
        self._name = name
        self.attachments = attachments

    def take(self, stream: int, data: bytes) -> None:
        field, kind = _FIELDS[stream]
        if getattr(self.attachments, field) not in (b"", data):
            raise FormatError(f"the backup stream has another {kind} than the one that was given", self._name)
        self.attachments = replace(self.attachments, **{field: data})

    def has(self, stream: int) -> bool:
        return bool(getattr(self.attachments, _FIELDS[stream][0]))


class ImageFileItem(Item):
    """A file that goes to the image; it is made there when its data begins, since metadata may come first."""

    def __init__(
        self,
        builder: LayerBuilder,
        name: str,
        info: FileBasicInfo,
        size: int,
        attachments: Attachments,
        raw: bool | None,
    ) -> None:
        """The attachments are those that are known before the backup stream."""
        super().__init__(name, size, raw)
        self._builder, self._info = builder, info
        self._gathered = _Gathered(name, attachments)
        self._target: _OpenStream | _GatheredStream = _OpenStream(builder.image)
        self._created = False

    def _take(self, event: _Event) -> None:
        if event[0] == "attachment":
            self._take_attachment(event[1], event[2])
            return
        self._create()
        if event[0] == "stream":
            self._begin_stream(f"{self._name}:{event[1]}", event[2])
        elif event[0] == "data":
            self._target.write(event[1])
        else:
            self._target.skip(event[1])

    def _begin_stream(self, name: str, size: int | None) -> None:
        self._target.finish()
        if size is None:
            self._target = _GatheredStream(self._builder, name)
        else:
            self._builder.add_stream(name, size)
            self._target = _OpenStream(self._builder.image)

    def _take_attachment(self, stream: int, data: bytes) -> None:
        if self._created and not self._gathered.has(stream):
            raise FormatError("metadata behind the data in a backup stream", self._name)
        self._gathered.take(stream, data)

    def _create(self) -> None:
        if not self._created:
            self._builder.create(self._name, self._info, self._size, self._gathered.attachments)
            self._created = True

    def _end(self) -> None:
        self._create()
        self._target.finish()
        self._builder.image.close_stream()

    def discard(self) -> None:
        """Close a temporary file."""
        self._target.discard()


class _OpenStream:
    """The stream of the image that is open. Zeros wait for data: a stream without any need not be written."""

    def __init__(self, image: ImageWriter) -> None:
        self._image = image
        self._zeros = 0
        self._has_data = False

    def skip(self, count: int) -> None:
        self._zeros += count

    def write(self, data: bytes | memoryview) -> None:
        self._has_data = True
        self._write_zeros()
        self._image.write(data)

    def _write_zeros(self) -> None:
        while self._zeros > 0:
            piece = min(self._zeros, len(_ZEROS))
            self._image.write(memoryview(_ZEROS)[:piece])
            self._zeros -= piece

    def finish(self) -> None:
        """The image closes it when the next one is opened."""
        if self._has_data:
            self._write_zeros()

    def discard(self) -> None:
        """The image is abandoned as a whole."""


class _GatheredStream:
    """A sparse alternate stream: its size is known at its end, and an image asks for it at the beginning."""

    def __init__(self, builder: LayerBuilder, name: str) -> None:
        self._builder, self._name = builder, name
        import tempfile  # noqa: PLC0415  hardly any layer needs one

        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by finish or discard

    def write(self, data: bytes | memoryview) -> None:
        write_through(self._file, data)

    def skip(self, count: int) -> None:
        self._file.seek(count, os.SEEK_CUR)

    def finish(self) -> None:
        with self._file:
            size = self._file.tell()
            self._file.truncate(size)
            self._file.seek(0)
            self._builder.add_stream(self._name, size)
            while piece := self._file.read(1 << 20):
                self._builder.image.write(piece)

    def discard(self) -> None:
        self._file.close()


class StreamItem(Item):
    """An alternate stream; its data comes as a data stream or as the stream itself."""

    def __init__(self, builder: LayerBuilder, name: str, size: int, raw: bool | None) -> None:
        """``name`` is ``path:stream``; it is opened at once."""
        super().__init__(name, size, raw)
        self._image = builder.image
        self._content = _OpenStream(builder.image)
        builder.add_stream(name, size)

    def _take(self, event: _Event) -> None:
        if event[0] == "data":
            self._content.write(event[1])
        elif event[0] == "zeros":
            self._content.skip(event[1])
        else:
            raise FormatError("an alternate stream takes nothing but its data", self._name)

    def _end(self) -> None:
        self._content.finish()
        self._image.close_stream()


class RootItem(Item):
    """The root directory, which is there already and has no metadata of its own."""

    def __init__(self) -> None:
        """What is written to it is read and dropped."""
        super().__init__("", 0, None)

    def _take(self, event: _Event) -> None:
        if event[0] != "attachment":
            raise FormatError("the root directory takes no data", self._name)

    def _end(self) -> None:
        pass


class StandardFileItem(Item):
    """A standard file: its data goes to the layer directory."""

    def __init__(
        self,
        builder: LayerBuilder,
        standard: StandardFiles,
        name: str,
        info: FileBasicInfo,
        size: int,
        attachments: Attachments,
        raw: bool | None,
    ) -> None:
        """The attachments are those that are known before the backup stream."""
        super().__init__(name, size, raw)
        self._builder = builder
        self._gathered = _Gathered(name, attachments)
        self._file, self._operation = standard.add(name, info, attachments)

    def _take(self, event: _Event) -> None:
        if event[0] == "attachment":
            if event[1] == _REPARSE:  # a symbolic link, after all
                self._builder.add(self._name, self._operation.info.file_attributes | FILE_ATTRIBUTE_REPARSE_POINT)
            self._gathered.take(event[1], event[2])
        elif event[0] == "data":
            write_through(self._file, event[1])
        elif event[0] == "zeros":
            self._file.seek(event[1], os.SEEK_CUR)
        else:
            raise FormatError("a stream on a file that is processed outside the image", self._name)

    def _end(self) -> None:
        with self._file:
            self._file.truncate(self._size)
        attachments = self._gathered.attachments
        self._builder.check_descriptor(self._name, attachments.security_descriptor)
        self._operation.attachments = attachments

    def discard(self) -> None:
        """Close the file in the layer directory."""
        self._file.close()
