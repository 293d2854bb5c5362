"""What the options about container registries say. Workers get it too, which have no use for click."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cimlayer.events import CancellationToken
    from cimlayer.oci.registry.source import ContainerRegistry
    from cimlayer.oci.registry.target import RegistryTarget

PREFIX = "docker://"


@dataclass(slots=True, frozen=True)
class RegistryOptions:
    """The options of :func:`~cimlayer.cli.registries.registry_options`."""

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
