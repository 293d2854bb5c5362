r"""One value of the registry of a layer: `python -m examples.registry_value LAYER SOFTWARE 'Microsoft\X' NAME`."""

import sys

import cimlayer

layer, hive, key, name = sys.argv[1:]
try:
    print(cimlayer.open_hive(layer, hive)[key].value(name).value)
except FileNotFoundError as error:
    sys.exit(f"not there: {error}")
