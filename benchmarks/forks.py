"""Makes what the task `fork` of `benchmarks.compare` forks from: `python -m benchmarks.forks TAR DIRECTORY`.

A large layer out of the tar and a small one of 2,000 files, and for each of them two tars of ten files: `near.tar` adds
them to one directory, `far.tar` to ten that lie far apart.
"""

import argparse
import subprocess
from pathlib import Path

from benchmarks.inputs import DESCRIPTORS, add_hives, add_made_up_files
from cimlayer import ImageReader, get_cim_path_from_layer
from examples.layer_tar import LayerTar

FILES = 10
GENERATED = "Files/Data"  # where the generated inputs have their directories


def _write_small(tar: Path) -> None:
    with tar.open("wb") as out, LayerTar(out) as layer:
        add_hives(layer)
        add_made_up_files(layer, directories=20, files_in_each=100, mean_size=100)


def _write_changes(tar: Path, directories: list[str]) -> None:
    with tar.open("wb") as out, LayerTar(out) as layer:
        for number in range(FILES):
            parent = f"{GENERATED}/{directories[number * len(directories) // FILES]}"
            layer.directory(parent, DESCRIPTORS[0])
            layer.file(f"{parent}/new-{number}.txt", b"new %d" % number * 100, DESCRIPTORS[number])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make two parent layers, and the tars of their child layers.")
    parser.add_argument("tar", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    small = options.directory / "small.tar"
    _write_small(small)
    for name, tar in (("large", options.tar), ("small", small)):
        layer = options.directory / name / "1"
        subprocess.run(["cimlayer", "import", "--quiet", "--no-sync", str(tar), str(layer)], check=True)
        with ImageReader(get_cim_path_from_layer(layer)) as image:
            directories = [entry.name for entry in image.listdir(GENERATED) if entry.is_directory]
        _write_changes(options.directory / name / "near.tar", directories[:1])
        _write_changes(options.directory / name / "far.tar", directories)


if __name__ == "__main__":
    main()
