"""Lists a zip, NuGet package or jar in a layer without unpacking it: `python -m examples.zip_in_a_layer LAYER PATH`."""

import sys
import zipfile

import cimlayer

with cimlayer.CimPath(sys.argv[1], sys.argv[2]).open("rb") as file, zipfile.ZipFile(file) as archive:
    for member in archive.infolist():
        print(member.file_size, member.filename)
