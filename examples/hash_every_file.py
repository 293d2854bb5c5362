"""The SHA-256 of every file of a layer, as sha256sum prints it: `python -m examples.hash_every_file LAYER`."""

import hashlib
import sys

import cimlayer

with cimlayer.ImageReader(sys.argv[1]) as image:
    for path, entry in image.walk("Files"):
        if not entry.is_directory:
            digest = hashlib.sha256()
            with image.open(entry) as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            print(digest.hexdigest(), path.replace("\\", "/"), sep="  ")
