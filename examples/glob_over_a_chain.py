"""What matches a pattern in a layer, and in each one below: `python -m examples.glob_over_a_chain LAYER PATTERN`."""

import sys

import cimlayer

for link in cimlayer.image_chain(sys.argv[1]):
    if link.image is not None:
        for path in cimlayer.CimPath(link.image).glob(sys.argv[2]):
            entry = path.stat()
            print(link.image.stem, path.as_posix(), entry.size, entry.last_write_datetime)
