"""``python -m cimlayer``: the command."""

from cimlayer.cli import main

main()
