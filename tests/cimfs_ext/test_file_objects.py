"""Images whose files are file objects, and the files of an image as file objects."""

import io
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from cimfs_ext import errors
from cimfs_ext.reader import ImageReader
from support.images import DIRECTORY, METADATA, TIME, add, make_image, writer

LARGE = bytes(range(256)) * 1000
FILES = {"d": None, "d\\small": b"small", "large": LARGE, "empty": b""}


class Remote:
    """A directory as object storage has it: each read is counted, and may fail."""

    def __init__(self, directory: Path) -> None:
        self.files = {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}
        self.bytes_read = 0
        self.open_now = 0
        self.failure: BaseException | None = None
        self.kind: Callable[[Remote, str], object] = RemoteFile

    def __call__(self, name: str) -> object:
        if name not in self.files:
            raise FileNotFoundError(name)
        self.open_now += 1
        return self.kind(self, name)


class RemoteFile(io.RawIOBase):
    def __init__(self, remote: Remote, name: str) -> None:
        super().__init__()
        self.remote, self.content, self.position = remote, remote.files[name], 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, len(self.content))[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:  # at most 1,000 bytes at a time, as a socket may
        if self.remote.failure is not None:
            raise self.remote.failure
        data = self.content[self.position :][: min(size, 1000)]
        self.position += len(data)
        self.remote.bytes_read += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self.remote.open_now -= 1
        super().close()


def contents(image: ImageReader) -> dict[str, bytes]:
    return {path: image.read(entry) for path, entry in image.walk() if not entry.is_directory}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_image(tmp_path, "base.cim", FILES)
    with writer(tmp_path, "base.cim", "child.cim") as image:
        add(image, "described", b"x" * 300, **METADATA, creation_time=TIME)
        image.create_alternate_stream("described:zone", 3)
        image.write(b"abc")
        image.commit()
    return tmp_path


@pytest.fixture
def remote(directory: Path) -> Remote:
    return Remote(directory)


def test_an_image_of_file_objects_is_the_image(directory: Path, remote: Remote) -> None:
    with ImageReader(directory / "child.cim") as local, ImageReader("child.cim", files=remote) as image:
        assert list(image.walk()) == list(local.walk())
        assert contents(image) == contents(local)
        entry = image.stat("described")
        assert image.read(entry, stream="zone") == b"abc"
        assert image.security_descriptor(entry) == local.security_descriptor(entry)
        assert image.extended_attributes(entry) == local.extended_attributes(entry)
        assert image.reparse_data(entry) == local.reparse_data(entry)
        assert (image.region_sets, image.last_file_id) == (local.region_sets, local.last_file_id)
        assert image.verify() == local.verify()
        assert (image.name, image.directory) == ("child.cim", "")
        with ImageReader("base.cim", files=remote) as base:
            assert image.is_fork_of(base)
    assert remote.open_now == 0


def test_only_what_is_looked_at_is_read(tmp_path: Path) -> None:
    make_image(tmp_path, "a.cim", {f"f{n:03}": bytes([n]) * 100_000 for n in range(100)})
    remote = Remote(tmp_path)
    with ImageReader("a.cim", files=remote) as image:
        image.listdir()
        assert image.read("f007") == bytes([7]) * 100_000
        assert remote.bytes_read < 600_000


def test_exceptions_of_the_files_come_through_unchanged(remote: Remote) -> None:
    class NetworkDownError(Exception):
        pass

    down = NetworkDownError("no route")
    with ImageReader("child.cim", files=remote) as image:
        file = image.open("large")
        remote.failure = down
        calls: list[Callable[[], object]] = [lambda: file.read(10), image.verify, lambda: image.read("described")]
        for call in calls:
            with pytest.raises(NetworkDownError) as raised:
                call()
            assert raised.value is down
        remote.failure = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            file.read(10)
        remote.failure = MemoryError()
        with pytest.raises(MemoryError):
            file.read(10)
        remote.failure = None
        assert file.read(10) == LARGE[:10]
        assert image.verify().ok
    remote.failure = down
    with pytest.raises(NetworkDownError) as raised:
        ImageReader("child.cim", files=remote)
    assert raised.value is down
    assert remote.open_now == 0


def test_what_the_callable_raises(remote: Remote) -> None:
    with pytest.raises(KeyError):
        ImageReader("a.cim", files={}.__getitem__)
    with pytest.raises(errors.ImageNotFoundError, match=r"missing\.cim"):
        ImageReader("missing.cim", files=remote)
    with ImageReader("base.cim", files=remote) as base:
        region = base.region_sets[0].file_names()[0]
    del remote.files[region]
    with pytest.raises(errors.CorruptImageError, match=f"the region file is missing in {region}"):
        ImageReader("child.cim", files=remote)


@pytest.mark.parametrize("wrong", [None, "a text", 5])
def test_the_callable_returns_no_file(wrong: object) -> None:
    with pytest.raises(TypeError, match="binary files"):
        ImageReader("a.cim", files=lambda _: wrong)  # type: ignore[arg-type, return-value]


def test_files_that_lie(remote: Remote) -> None:
    class Longer(RemoteFile):
        def seek(self, offset: int, whence: int = 0) -> int:
            super().seek(offset, whence)
            self.position += 1 << 20 if whence == io.SEEK_END else 0
            return self.position

    class Shorter(RemoteFile):
        def seek(self, offset: int, whence: int = 0) -> int:
            super().seek(offset, whence)
            self.position //= 2 if whence == io.SEEK_END else 1
            return self.position

    class Generous(RemoteFile):
        def read(self, size: int = -1) -> bytes:
            return super().read(size) + bytes(1001)

    class Text(RemoteFile):
        def read(self, size: int = -1) -> str:  # type: ignore[override]
            return "text"

    class NonBlocking(RemoteFile):
        def read(self, size: int = -1) -> None:  # type: ignore[override]
            return None

    def read_all(kind: type[RemoteFile]) -> None:
        remote.kind = kind
        with ImageReader("child.cim", files=remote) as image:
            contents(image)
            report = image.verify()
            if not report.ok:
                raise errors.CorruptImageError(0, str(report.problems[0]))

    for lying in (Longer, Shorter):
        with pytest.raises(errors.CorruptImageError):
            read_all(lying)
    for wrong, kind in ((Generous, OSError), (Text, TypeError), (NonBlocking, BlockingIOError)):
        with pytest.raises(kind):
            read_all(wrong)
    assert remote.open_now == 0


def test_threads_share_an_image_of_file_objects(remote: Remote) -> None:
    failures: list[BaseException] = []

    def work(image: ImageReader, number: int) -> None:
        try:
            for _ in range(5):
                assert image.read("large") == LARGE
                assert len(list(image.walk())) == 5
        except BaseException as error:
            failures.append(error)

    with ImageReader("child.cim", files=remote) as image:
        threads = [threading.Thread(target=work, args=(image, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert remote.open_now == 0


def test_a_file_may_not_close_the_image_that_reads_it(remote: Remote) -> None:
    class Closing(RemoteFile):
        def read(self, size: int = -1) -> bytes:
            if images:
                images[0].close()
            return super().read(size)

    images: list[ImageReader] = []
    remote.kind = Closing
    with ImageReader("child.cim", files=remote) as image:
        images.append(image)
        for call in (lambda: image.read("large"), image.verify, lambda: image.last_file_id):
            try:
                call()
            except RuntimeError as error:
                assert "in use" in str(error)
        images.clear()
        assert image.read("large") == LARGE


# ---- arguments ----


def test_kinds_of_paths(directory: Path) -> None:
    with ImageReader(directory / "child.cim") as image:
        for path in ("d/small", "D\\SMALL", PurePosixPath("d/small"), PureWindowsPath("d/small"), Path("d", "small")):
            assert image.stat(path).size == 5
            assert image.read(path) == b"small"
            assert image.exists(path)
        assert image.stat(PurePosixPath()).is_directory
        assert [entry.name for entry in image.listdir(PureWindowsPath("d"))] == ["small"]
        for wrong in (b"d", 5, None, ["d"], io.BytesIO()):
            for call in (image.stat, image.exists, image.listdir, image.read, image.open, image.streams):
                with pytest.raises(TypeError):
                    call(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                next(image.walk(wrong))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            image.open("large", stream=b"zone")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="mode"):
            image.open("large", "w")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [b"a.cim", 5, None, ["a.cim"]])
def test_an_image_has_no_other_kind_of_path(wrong: object) -> None:
    for files in (None, io.BytesIO):
        with pytest.raises(TypeError):
            ImageReader(wrong, files=files)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ImageReader("a.cim", files="a.cim")  # type: ignore[arg-type]


def test_a_layer_directory_stands_for_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cim-layers").mkdir()
    (tmp_path / "1").mkdir()
    make_image(tmp_path / "cim-layers", "1.cim", FILES)
    monkeypatch.chdir(tmp_path / "1")
    for path in (tmp_path / "1", f"{tmp_path}/1/", ".", "../1", tmp_path / "cim-layers" / "1.cim"):
        with ImageReader(path) as image:
            assert image.name == "1.cim"
    for path in (tmp_path, tmp_path / "cim-layers"):
        with pytest.raises(errors.ImageNotFoundError, match="not a CIM layer"):
            ImageReader(path)


def test_what_an_image_shows_of_itself(directory: Path) -> None:
    image = ImageReader(directory / "child.cim")
    assert repr(image) == f"<cimlayer.ImageReader 'child.cim' in {str(directory)!r}>"
    assert not image.closed
    file = image.open("d/small")
    assert repr(file) == "<cimlayer.StreamReader name='d/small' mode='rb'>"
    image.close()
    assert image.closed
    assert repr(image).startswith("<closed ")


# ---- files of an image ----


def test_a_file_of_an_image_is_a_raw_file(directory: Path) -> None:
    with ImageReader(directory / "child.cim") as image:
        file = image.open("large")
        assert (file.name, file.mode, file.readable(), file.seekable()) == ("large", "rb", True, True)
        assert (file.writable(), file.isatty(), file.closed) == (False, False, False)
        assert image.open("described", stream="zone").name == "described:zone"
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"")
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 5)
        with pytest.raises(TypeError):
            file.seek(0.5)  # type: ignore[arg-type]
        with pytest.raises((pickle.PicklingError, TypeError)):
            pickle.dumps(file)
        for beyond in (len(LARGE) + 5, 1 << 70):
            assert file.seek(beyond) == file.tell() == beyond
            assert file.read(5) == file.readall() == b""
        assert file.seek(-5, io.SEEK_END) == len(LARGE) - 5
        assert file.read(50) == LARGE[-5:]
        with file:
            pass
        for call in (file.read, file.readall, file.tell, file.readable, file.seekable, lambda: file.seek(0)):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_files_of_an_image_in_other_readers(tmp_path: Path) -> None:
    archive, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("inside.txt", LARGE)
    with tarfile.open(fileobj=tar, mode="w") as tarred:
        member = tarfile.TarInfo("inside.txt")
        member.size = len(LARGE)
        tarred.addfile(member, io.BytesIO(LARGE))
    make_image(tmp_path, "a.cim", {"a.zip": archive.getvalue(), "a.tar": tar.getvalue(), "t.txt": b"one\ntwo\n"})
    with ImageReader(tmp_path / "a.cim") as image:
        with zipfile.ZipFile(image.open("a.zip")) as zipped:
            assert zipped.read("inside.txt") == LARGE
        with tarfile.open(fileobj=image.open("a.tar")) as tarred:
            inside = tarred.extractfile("inside.txt")
            assert inside is not None
            assert inside.read() == LARGE
        with io.TextIOWrapper(io.BufferedReader(image.open("t.txt")), "utf-8") as text:
            assert list(text) == ["one\n", "two\n"]


def test_directories_have_no_content(directory: Path) -> None:
    with ImageReader(directory / "child.cim") as image, pytest.raises(IsADirectoryError):
        image.open("d")
    assert DIRECTORY == 0x10
