"""The options of commands that talk to container registries."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.cli.registrychoice import RegistryOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--tls-verify",
        type=click.BOOL,
        default=True,
        metavar="BOOL",
        help="false: check no certificates, and use plain HTTP with a container registry that does not speak TLS.",
    ),
    click.option(
        "--cert-dir",
        metavar="DIR",
        type=HOST_PATH,
        help="Directory of CAs (*.crt) and client certificates (*.cert, *.key).",
    ),
    click.option("--authfile", metavar="FILE", type=HOST_PATH, help="File of credentials, as docker login writes it."),
)


def registry_options(command: _Command) -> _Command:
    """Add them to a command, which gets ``registry``."""

    @wraps(command)
    def with_options(*args: Any, tls_verify: bool, cert_dir: str | None, authfile: str | None, **options: Any) -> Any:
        return command(*args, registry=RegistryOptions(tls_verify, cert_dir, authfile), **options)

    decorated: Any = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
