"""Other programs pull what was pushed: skopeo, umoci and containerd."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cimlayer
from cimlayer import ExportedImage, export_image
from cimlayer.blobs.digests import Digest, chain_ids
from cimlayer.oci.registry.target import registry_target
from support.containers import Layer, Store
from support.registries import docker_registry

Run = Callable[..., str]


@pytest.fixture
def pushed(store: Store, layers: list[Layer], tmp_path: Path) -> Iterator[tuple[str, ExportedImage]]:
    """``HOST/NAME:TAG`` of an image that is in docker-registry."""
    layout = store.layout(tmp_path / "layout", [store.image(layers)])
    top = cimlayer.import_image(layout, tmp_path / "layers", sync=False).top
    with docker_registry(tmp_path) as host:
        name = f"{host}/win/app:v1"
        with registry_target(f"docker://{name}", tls_verify=False) as target:
            image = export_image(top, target)
        yield name, image


def run(*command: str | Path) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def ctr(tmp_path: Path) -> Iterator[Run]:
    """The client of a containerd that needs no more than root's rights: it runs nothing, and mounts nothing."""
    if not shutil.which("containerd") or not shutil.which("ctr"):
        pytest.skip("containerd is not installed")
    with tempfile.TemporaryDirectory(prefix="ctd-") as folder:  # a socket's path must be short
        config = tmp_path / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{folder}/s"\n',
            encoding="utf-8",
        )
        with (tmp_path / "containerd.log").open("wb") as log:
            daemon = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
        try:
            wait_for(daemon, ["ctr", "-a", f"{folder}/s", "version"])
            yield lambda *words: run("ctr", "-a", f"{folder}/s", *words)
        finally:
            daemon.terminate()
            daemon.wait()


def wait_for(daemon: subprocess.Popen[bytes], question: list[str]) -> None:
    while subprocess.run(question, capture_output=True, check=False).returncode:
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(0.05)
            pytest.skip("containerd cannot run here")


def digests(image: ExportedImage) -> set[str]:
    return {image.digest, image.config_digest, *(layer.digest for layer in image.layers)}


def test_containerd_pulls_and_unpacks_it(pushed: tuple[str, ExportedImage], ctr: Run) -> None:
    name, image = pushed
    options = ["--plain-http", "--platform", "windows/amd64"]
    said = ctr("image", "pull", *options, "--snapshotter", "native", "--print-chainid", name)
    assert set(ctr("content", "ls", "-q").split()) == digests(image)
    chain = chain_ids([Digest.parse(layer.diff_id, "diff ID") for layer in image.layers])
    assert f"image chain ID: {chain[-1]}" in said
    (listed,) = [line for line in ctr("image", "ls").splitlines() if line.startswith(name)]
    assert image.digest in listed
    assert "windows/amd64" in listed


def test_skopeo_and_umoci_read_it(pushed: tuple[str, ExportedImage], tmp_path: Path) -> None:
    name, image = pushed
    of_platform = ["--override-os", "windows", "--override-arch", "amd64"]
    said = json.loads(run("skopeo", "inspect", *of_platform, "--tls-verify=false", f"docker://{name}"))
    assert (said["Digest"], said["Os"], said["Architecture"]) == (image.digest, "windows", "amd64")
    assert said["Layers"] == [layer.digest for layer in image.layers]
    copy = f"{tmp_path}/copy:v1"
    run("skopeo", "copy", *of_platform, "--src-tls-verify=false", f"docker://{name}", f"oci:{copy}")
    blobs = {f"sha256:{path.name}" for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir()}
    assert blobs == digests(image)
    run("umoci", "raw", "unpack", "--rootless", "--image", copy, tmp_path / "rootfs")
    assert (tmp_path / "rootfs" / "Files" / "noise").stat().st_size == 600_000
