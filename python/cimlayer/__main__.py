"""``python -m cimlayer``: the command."""

from cimlayer.cli import main

if __name__ == "__main__":
    main()
