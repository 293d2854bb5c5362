"""Imports a container image, with progress, until Ctrl-C: `python -m examples.import_with_progress SOURCE STORE`."""

import signal
import sys

import cimlayer

token = cimlayer.CancellationToken()
signal.signal(signal.SIGINT, lambda *_: token.cancel())
try:
    image = cimlayer.import_image(sys.argv[1], sys.argv[2], progress=print, cancel=token)
    print(image.top)
except cimlayer.OperationCancelledError:
    sys.exit("cancelled; the layers that were complete stay for the next time")
