"""The ``cimlayer`` command: here only what it takes to start it, so that Ctrl-C is quiet from the first moment."""

# What `signal` wraps: that one takes milliseconds to load, in which Ctrl-C would be a traceback.
import _signal as signal  # type: ignore[import-not-found]
import os

__all__ = ["main"]

INTERRUPTED: int = 128 + signal.SIGINT


def main() -> None:
    """Run the command named by the program's arguments, then end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from cimlayer.cli.program import run  # noqa: PLC0415  what an interrupt ends may be long

    try:
        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def started() -> None:
    """All modules are there. From now on, an interrupt is an exception: there may be something to clean up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
