"""What container images a source has."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cimlayer.events import CancellationToken
from cimlayer.limits import DEFAULT_LIMITS, Limits
from cimlayer.oci.locations import opened_source
from cimlayer.oci.platforms import UNKNOWN, Platform
from cimlayer.oci.selection import candidates_by_reference
from cimlayer.oci.sources import ImageSource


@dataclass(slots=True, frozen=True)
class ListedImage:
    """A container image of a source, and how it may be asked for.

    ``references`` are its names and, last, ``@N`` with the number of its entry. ``digest`` is None in a docker archive,
    which has no manifests. ``problem`` says why the image cannot be used: most often an index names it, and it is
    not in the source.
    """

    references: tuple[str, ...]
    platform: Platform
    digest: str | None
    problem: str | None


def list_images(
    source: str | os.PathLike[str] | ImageSource,
    *,
    reference: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    cancel: CancellationToken | None = None,
) -> list[ListedImage]:
    """The container images of a source in its order, without attestations and other artifacts; no layer is read.

    ``source``, ``reference`` and what is raised are as for :func:`~cimlayer.import_image`.
    """
    cancel = cancel or CancellationToken()
    with opened_source(source, reference, cancel, limits) as (images, wanted):
        return [
            ListedImage(each.references, candidate.platform, candidate.digest, _text(candidate.problem))
            for each in candidates_by_reference(images, wanted, cancel.raise_if_cancelled)
            for candidate in each.candidates
            if candidate.platform.os not in ("", UNKNOWN.os) or candidate.problem is not None
        ]


def _text(error: Exception | None) -> str | None:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return None if error is None else str(error)
