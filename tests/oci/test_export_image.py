"""Chains of layers as container images in files: each form is read by others, and gives the same layers again."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import cimlayer
from cimfs_ext.regf import Hive
from cimlayer import ExportedImage, export_image
from cimlayer.errors import FormatError, LimitError
from cimlayer.events import CancellationToken, OperationCancelledError
from cimlayer.layer.utilityvm import CURRENT_VERSION
from support.commands import call, succeed
from support.containers import HIVE, HIVES, Layer, Store, base_tar, child_tar, digest_of, gzipped
from support.tars import TarBuilder

REG_SZ, REG_DWORD = 1, 4
CONFIG = {"Entrypoint": ["c:\\app.exe"], "Env": ["A=1"], "User": "ContainerUser"}
LAYERS = [gzipped(base_tar(a=b"a" * 10_000)), gzipped(child_tar(b=b"b" * 10_000))]
HISTORY = [{"created_by": "base"}, {"created_by": "ENV A=1", "empty_layer": True}, {"created_by": "child"}]
FORMS = ["oci:{}/o:v1", "oci-archive:{}/oa.tar:v1", "docker-archive:{}/da.tar:win/app:v1", "dir:{}/d"]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers that were imported from an image."""
    root = tmp_path_factory.mktemp("imported")
    store = Store()
    image = store.image(LAYERS, config={"config": CONFIG, "history": HISTORY})
    return cimlayer.import_image(store.layout(root / "layout", [image]), root / "layers", sync=False).top


def written(layout: Path, image: ExportedImage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration, out of an OCI layout."""
    documents = (layout / "blobs" / digest.replace(":", "/") for digest in (image.digest, image.config_digest))
    manifest, config = (json.loads(path.read_bytes()) for path in documents)
    return manifest, config


def changes(old: Path, new: Path) -> list[str]:
    """What differs but for the times of what an import makes itself."""
    made = ("M / (times)", "M Hives/ (times)", "M layout (times)")
    return [line for line in call("diff", old, new).stdout.splitlines() if line not in made]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_imported_again(top: Path, tmp_path: Path, form: str) -> None:
    destination = form.format(tmp_path)
    export_image(top, destination)
    back = cimlayer.import_image(destination, tmp_path / "back", sync=False)
    assert back.platform == "windows/amd64/10.0.20348.1"
    assert changes(top, back.top) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_by_skopeo(top: Path, tmp_path: Path, form: str) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    destination = form.format(tmp_path)
    export_image(top, destination)
    copy = f"oci:{tmp_path}/copy:v1"
    subprocess.run(["skopeo", "copy", destination, copy], check=True, capture_output=True)
    assert changes(top, cimlayer.import_image(copy, tmp_path / "back", sync=False).top) == []


def test_umoci_unpacks_the_layout(top: Path, tmp_path: Path) -> None:
    if not shutil.which("umoci"):
        pytest.skip("umoci is not installed")
    export_image(top, f"oci:{tmp_path}/o:v1")
    done = subprocess.run(
        ["umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/o:v1", tmp_path / "rootfs"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rootfs" / "Files" / "b").read_bytes() == b"b" * 10_000


def test_each_layer_is_what_export_writes(top: Path, tmp_path: Path) -> None:
    image = export_image(top, f"oci:{tmp_path}/o")
    manifest, config = written(tmp_path / "o", image)
    layers = [top.parent / each.path.name for each in image.layers]
    for at, (layer, descriptor) in enumerate(zip(layers, manifest["layers"], strict=True)):
        cimlayer.export_layer(layer, layers[:at][::-1], tmp_path / f"{at}.tar")
        tar = (tmp_path / f"{at}.tar").read_bytes()
        blob = (tmp_path / "o" / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert (len(blob), digest_of(blob)) == (descriptor["size"], descriptor["digest"])
        assert gzip.decompress(blob) == tar
        assert config["rootfs"]["diff_ids"][at] == digest_of(tar) == image.layers[at].diff_id


def test_progress_is_that_of_each_layer(top: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    image = export_image(top, f"oci:{tmp_path}/o", progress=events.append)
    last = {event.image: event.bytes for event in events}
    assert list(last) == [f"{layer.path.name}.cim" for layer in image.layers]
    assert all(10_000 <= size < 200_000 for size in last.values())


def test_the_configuration_is_that_of_the_import(top: Path, tmp_path: Path) -> None:
    _, config = written(tmp_path / "o", export_image(top, f"oci:{tmp_path}/o"))
    assert (config["os"], config["architecture"], config["os.version"]) == ("windows", "amd64", "10.0.20348.1")
    assert config["config"] == CONFIG
    assert config["history"] == [{"created_by": "base"}, {"created_by": "child"}]


def test_fields_of_the_configuration_are_replaced(top: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"Env": ["B=2"], "Labels": {"a": "b"}}), encoding="utf-8")
    options = ["--config", tmp_path / "config.json", "--os-version", "10.0.1.2", "--json"]
    said = json.loads(call("export-image", top, f"oci:{tmp_path}/o", *options).stdout)
    config = json.loads((tmp_path / "o" / "blobs" / said["config_digest"].replace(":", "/")).read_bytes())
    assert config["config"] == {**CONFIG, "Env": ["B=2"], "Labels": {"a": "b"}}
    assert config["os.version"] == "10.0.1.2"


@pytest.mark.parametrize("config", [{"Environment": []}, {"Env": "A=1"}, {"Env": [1]}, {"Labels": []}])
def test_an_invalid_configuration_is_refused_at_once(top: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=next(iter(config))):
        export_image(top, f"oci:{tmp_path}/o", config=config)
    assert not (tmp_path / "o").exists()


def test_layers_that_were_imported_alone_have_no_history(tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(base_tar())
    cimlayer.import_layer(tmp_path / "base.tar", tmp_path / "layers" / "1", sync=False)
    image = export_image(tmp_path / "layers" / "1", f"oci:{tmp_path}/o")
    _, config = written(tmp_path / "o", image)
    assert "os.version" not in config
    assert image.layers[0].original is None


def software(**values: int) -> bytes:
    """A SOFTWARE hive with numbers of the version of Windows."""
    hive = Hive.empty(0)
    for name, value in values.items():
        hive.set_value(CURRENT_VERSION, name, REG_DWORD, value.to_bytes(4, "little"))
    hive.set_value(CURRENT_VERSION, "CurrentBuild", REG_SZ, "20348\0".encode("utf-16-le"))
    return hive.to_bytes()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base layer and a child that updates its revision, imported alone."""
    root = tmp_path_factory.mktemp("numbered")
    base, child = TarBuilder(), TarBuilder()
    for name in HIVES:
        content = software(CurrentMajorVersionNumber=10, CurrentMinorVersionNumber=0, UBR=1)
        base.file(f"Files/Windows/System32/config/{name}", content if name == "SOFTWARE" else HIVE)
    child.file("Hives/SOFTWARE_DELTA", software(UBR=2700))
    (root / "base.tar").write_bytes(base.finish())
    (root / "child.tar").write_bytes(child.finish())
    cimlayer.import_layer(root / "base.tar", root / "layers" / "1", sync=False)
    cimlayer.import_layer(root / "child.tar", root / "layers" / "2", [root / "layers" / "1"], sync=False)
    return root / "layers"


def test_the_version_of_windows_is_that_of_the_software_hive(numbered: Path, tmp_path: Path) -> None:
    for layer, version in (("1", "10.0.20348.1"), ("2", "10.0.20348.2700")):
        image = export_image(numbered / layer, f"oci:{tmp_path}/{layer}")
        assert written(tmp_path / layer, image)[1]["os.version"] == version
        assert image.platform == f"windows/amd64/{version}"
    assert export_image(numbered / "2", f"oci:{tmp_path}/a", os_version="10.0.1").platform == "windows/amd64/10.0.1"


def test_a_version_that_nobody_knows_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(base_tar())
    cimlayer.import_layer(tmp_path / "base.tar", tmp_path / "layers" / "1", sync=False)
    result = call("export-image", tmp_path / "layers" / "1", f"oci:{tmp_path}/o", "--json")
    assert json.loads(result.stdout)["platform"] == "windows/amd64"
    assert "no os.version" in call("export-image", tmp_path / "layers" / "1", f"oci:{tmp_path}/p").stderr


@pytest.mark.parametrize(
    ("compression", "start"), [("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd"), ("none", b"")]
)
def test_compressions(top: Path, tmp_path: Path, compression: Any, start: bytes) -> None:
    image = export_image(top, f"dir:{tmp_path}/d", compression=compression)
    assert (tmp_path / "d" / image.layers[1].digest[7:]).read_bytes().startswith(start)
    assert changes(top, cimlayer.import_image(tmp_path / "d", tmp_path / "back", sync=False).top) == []


def test_a_docker_archive_is_never_compressed(top: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compression 'zstd'"):
        export_image(top, f"docker-archive:{tmp_path}/a.tar", compression="zstd")
    assert not (tmp_path / "a.tar").exists()


def test_the_same_chain_is_the_same_image(top: Path, tmp_path: Path) -> None:
    first, second = (export_image(top, f"oci-archive:{tmp_path}/{name}.tar") for name in "ab")
    assert first == second
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_layer_whose_tar_and_compression_are_ours_keeps_its_digest(top: Path, tmp_path: Path) -> None:
    first = export_image(top, f"oci:{tmp_path}/o")
    back = cimlayer.import_image(tmp_path / "o", tmp_path / "back", sync=False)
    again = export_image(back.top, f"oci:{tmp_path}/again")
    assert [layer.digest for layer in again.layers] == [layer.digest for layer in first.layers]
    assert [layer.original for layer in again.layers] == [layer.digest for layer in again.layers]
    assert "new blob" in call("export-image", top, f"dir:{tmp_path}/1").stderr
    assert succeed("export-image", back.top, f"dir:{tmp_path}/2") == f"{again.digest}\n"


# ---- what is there ----


def test_an_image_is_added_to_a_layout(top: Path, tmp_path: Path) -> None:
    for name in ("v1", "v2", "v1"):
        export_image(top, f"oci:{tmp_path}/o:{name}")
    export_image(top.parent / top.name, f"oci:{tmp_path}/o")
    index = json.loads((tmp_path / "o" / "index.json").read_bytes())
    names = [each.get("annotations", {}).get("org.opencontainers.image.ref.name") for each in index["manifests"]]
    assert names == ["v2", "v1", None]
    assert not list((tmp_path / "o").glob(".cimlayer-*"))


@pytest.mark.parametrize("form", FORMS[1:])
def test_what_is_there_is_not_replaced(top: Path, tmp_path: Path, form: str) -> None:
    destination = form.format(tmp_path)
    export_image(top, destination)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError):
        export_image(top, destination)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_something_else_is_left_alone(top: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").write_text("x", encoding="utf-8")
    with pytest.raises(FormatError, match="neither empty nor an OCI image layout"):
        export_image(top, f"oci:{tmp_path}/o")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["mine"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_nothing(top: Path, tmp_path: Path, form: str, there: bool) -> None:
    """In the second layer: the first has been written."""
    if there and form.startswith("oci:"):
        Store().layout(tmp_path / "o", [])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LimitError):
        export_image(top, form.format(tmp_path), limits=cimlayer.Limits(bytes=10_500))
    assert sorted(tmp_path.rglob("*")) == before


def test_it_can_be_cancelled(top: Path, tmp_path: Path) -> None:
    cancel = CancellationToken()
    cancel.cancel()
    with pytest.raises(OperationCancelledError):
        export_image(top, f"oci:{tmp_path}/o", cancel=cancel)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "destination", ["o", "ocidir:o", "docker-daemon:a", "oci:", "docker://A/b", "docker://a.b/c@x"]
)
def test_another_destination_is_refused(top: Path, destination: str) -> None:
    with pytest.raises(ValueError, match=r"DEST|SOURCE|not a reference"):
        export_image(top, destination)


def test_what_is_no_layer_is_one_error(tmp_path: Path) -> None:
    result = call("export-image", tmp_path / "nothing", f"dir:{tmp_path}/d")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "d").exists()


def test_history_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    store = Store()
    layer: Layer = LAYERS[0]
    image = store.image([layer], config={"history": [{"created_by": "a"}, {"created_by": "b"}], "config": []})
    top = cimlayer.import_image(store.layout(tmp_path / "l", [image]), tmp_path / "layers", sync=False).top
    _, config = written(tmp_path / "o", export_image(top, f"oci:{tmp_path}/o"))
    assert config["history"] == [{"created_by": "cimlayer"}]
    assert config["config"] == {}
