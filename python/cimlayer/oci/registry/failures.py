"""Why a request failed, and whether trying it again may help."""

from __future__ import annotations

import email.utils
import json
import random
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from http import HTTPStatus

from cimlayer.blobs.arrival import LONGEST_WAIT
from cimlayer.events import CancellationToken

LONGEST_RETRY_AFTER = 60.0  # seconds that a server may ask us to wait
TRIES = 6  # in a row without progress
PROGRESS = 1 << 16  # bytes that count as progress
_FIRST_WAIT, _LONGEST_BACKOFF = 0.5, 8.0  # seconds

_TRANSIENT = {408, 429, 500, 502, 503, 504}
_ERROR_TEXT = 1 << 16
_CODE = re.compile("[A-Z][A-Z0-9_]{0,39}")  # of the distribution specification ("Error Codes"), never free text


class RequestError(Exception):
    """A request that failed. ``status`` is 0 if there was no answer; its text has no URL, header or credentials."""

    def __init__(
        self, reason: str, *, status: int = 0, transient: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.transient = transient
        self.retry_after = retry_after


class ConnectError(RequestError):
    """No connection could be made; ``tls`` says that something answered that does not speak TLS."""

    def __init__(self, reason: str, *, tls: bool) -> None:
        super().__init__(reason)
        self.tls = tls


def status_error(status: int, headers: Mapping[str, str], body: bytes, hint: str = "") -> RequestError:
    """What an answer other than success says."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    code = _code_of(body)
    wait = _retry_after(headers.get("Retry-After", ""))
    transient = status in _TRANSIENT
    if transient and wait is not None and wait > LONGEST_RETRY_AFTER:
        transient = False
        hint = f"; it asks to wait for {wait:.0f} s{hint}"
    text = f"{phrase} ({code})" if code else phrase
    return RequestError(text + hint, status=status, transient=transient, retry_after=wait)


def _code_of(body: bytes) -> str:
    try:
        code = json.loads(body[:_ERROR_TEXT])["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3)."""
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    now = datetime.now(timezone.utc if date.tzinfo else None)
    return max(0.0, (date - now).total_seconds())


class Retries:
    """How often something has failed in a row, and the wait before the next try."""

    def __init__(self, cancel: CancellationToken) -> None:
        self._cancel = cancel
        self._failures = 0
        self._progress = 0

    def progressed(self, size: int) -> None:
        """Count bytes that had not arrived before."""
        self._progress += size
        if self._progress >= PROGRESS:
            self._failures = 0

    def wait(self, error: RequestError) -> None:
        """Wait before the next try; raises the error if there should be none."""
        self._failures += 1
        self._progress = 0
        if not error.transient:
            raise error
        if self._failures >= TRIES:
            raise RequestError(f"{error} (tried {TRIES} times)", status=error.status) from error
        backoff: float = min(_FIRST_WAIT * 2 ** (self._failures - 1), _LONGEST_BACKOFF) * random.uniform(0.5, 1)
        end = time.monotonic() + max(backoff, error.retry_after or 0)
        while (left := end - time.monotonic()) > 0:
            self._cancel.raise_if_cancelled()
            time.sleep(min(left, LONGEST_WAIT))
