"""The options of commands that talk to container registries."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cimlayer.cli.hostpaths import HOST_PATH
from cimlayer.events import CancellationToken

if TYPE_CHECKING:
    from cimlayer.oci.registry.source import ContainerRegistry
    from cimlayer.oci.registry.target import RegistryTarget

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
PREFIX = "docker://"


@dataclass(slots=True, frozen=True)
class RegistryOptions:
    """What they say."""

    tls_verify: bool
    cert_dir: str | None
    authfile: str | None

    def source(
        self, location: str, cancel: CancellationToken
    ) -> contextlib.AbstractContextManager[str | ContainerRegistry]:
        """A source in a container registry with these options; any other location stays as it is."""
        if not location.startswith(PREFIX):
            return contextlib.nullcontext(location)
        with _urllib3_needed():
            from cimlayer.oci.registry.source import ContainerRegistry  # noqa: PLC0415
        return ContainerRegistry(location, cancel=cancel, **asdict(self))

    def target(
        self, location: str, cancel: CancellationToken
    ) -> contextlib.AbstractContextManager[str | RegistryTarget]:
        """A target likewise."""
        if not location.startswith(PREFIX):
            return contextlib.nullcontext(location)
        with _urllib3_needed():
            from cimlayer.oci.registry.target import registry_target  # noqa: PLC0415
        return registry_target(location, cancel=cancel, **asdict(self))


@contextlib.contextmanager
def _urllib3_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise OSError(errno.ENOSYS, str(error)) from error


def registry_options(command: _Command) -> _Command:
    """Add them to a command, which gets ``registry``."""

    @wraps(command)
    def with_options(*args: Any, tls_verify: bool, cert_dir: str | None, authfile: str | None, **options: Any) -> Any:
        return command(*args, registry=RegistryOptions(tls_verify, cert_dir, authfile), **options)

    decorated: Any = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
