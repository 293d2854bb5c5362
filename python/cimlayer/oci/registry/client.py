"""Requests to one repository of a container registry: authorized, redirected, and their failures classified."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import urllib.parse
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TypeVar

from cimlayer.errors import FormatError, OperationCancelledError
from cimlayer.events import CancellationToken
from cimlayer.oci.registry.authentication import Authentication
from cimlayer.oci.registry.challenges import parse_challenges
from cimlayer.oci.registry.connections import STALL_TIMEOUT, Connections, Deadline, Exchange, origin_of
from cimlayer.oci.registry.failures import ConnectError, RequestError, Retries, status_error
from cimlayer.oci.registry.references import RegistryReference

_MOST_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
_ERROR_LIMIT = 1 << 16  # and of an error's
_FAREWELL = 1.0  # seconds

_T = TypeVar("_T")

_ERRORS: dict[int, tuple[type[OSError], int]] = {
    401: (PermissionError, errno.EACCES),
    403: (PermissionError, errno.EACCES),
    404: (FileNotFoundError, errno.ENOENT),
}


class Client:
    """One repository. Thread safe, but for the responses, each of which belongs to one thread.

    HTTPS is used; with ``tls_verify`` false its certificates are not checked, and plain HTTP is used with hosts that do
    not speak TLS. ``actions`` is what tokens are to allow: ``pull`` or ``pull,push``.
    """

    def __init__(
        self,
        reference: RegistryReference,
        cancel: CancellationToken,
        *,
        actions: str = "pull",
        tls_verify: bool = True,
        cert_dir: str | os.PathLike[str] | None = None,
        authfile: str | os.PathLike[str] | None = None,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self.reference = reference
        self.cancel = cancel
        self._connections = Connections(cancel, verify=tls_verify, cert_dir=cert_dir, stall_timeout=stall_timeout)
        self._authentication = Authentication(reference, actions, authfile, self._ask_token_server)
        self._tls_verify = tls_verify
        self._scheme: str | None = "https" if tls_verify else None  # None: to be found out
        self._reached: set[tuple[str, str, int]] = set()
        self._headers = {"User-Agent": f"cimlayer/{version('cimlayer')}", "Accept-Encoding": "identity"}

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._connections.close()

    def url(self, path: str) -> urllib.parse.SplitResult:
        """The URL of something in the repository; ``path`` may have a query."""
        base = f"{self._scheme or 'https'}://{self.reference.endpoint}/v2/{self.reference.repository}/"
        return urllib.parse.urlsplit(base + path)

    def failed(self, error: RequestError, what: str = "", offset: int | None = None) -> OSError:
        """What a caller gets to see of a failure: the repository, the blob, the offset."""
        kind, code = _ERRORS.get(
            error.status, (ConnectionError, errno.ECONNABORTED) if not error.status else (OSError, errno.EIO)
        )
        parts = (what, "" if offset is None else f"offset {offset}", str(error))
        failure = kind(code, ": ".join(filter(None, parts)), str(self.reference))
        failure.__cause__ = error
        return failure

    # ---- requests ----

    def read(
        self, path: str, limit: int, headers: Mapping[str, str] | None = None, *, what: str = ""
    ) -> tuple[Mapping[str, str], bytes]:
        """GET a document of at most ``limit`` bytes, tried again where that may help; its headers and bytes."""

        def once() -> tuple[Mapping[str, str], bytes]:
            exchange = self.open("GET", path, headers or {})
            return exchange.headers, _read_all(exchange, limit, what)

        return self.retried(once, what)

    def retried(self, action: Callable[[], _T], what: str) -> _T:
        """The result of an action that is tried again where that may help; OSError if it does not."""
        retries = Retries(self.cancel)
        while True:
            try:
                try:
                    return action()
                except RequestError as error:
                    retries.wait(error)
            except RequestError as error:
                raise self.failed(error, what) from error

    def open(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Exchange:
        """One request to the repository, authorized and redirected. RequestError unless the answer is a success."""
        if self._scheme is None:
            self._find_scheme()
        return self._succeeded(self._follow(method, self.url(path), headers, body, authorized=True))

    def open_url(
        self, method: str, url: urllib.parse.SplitResult, headers: Mapping[str, str], body: bytes | None
    ) -> Exchange:
        """A request where an answer said; it is authorized only if that is the same host and port."""
        authorized = origin_of(self._usable(url)) == origin_of(self.url(""))
        return self._succeeded(self._follow(method, url, headers, body, authorized=authorized))

    def open_elsewhere(self, url: str, headers: Mapping[str, str]) -> Exchange:
        """GET a URL that a document names; nobody's credentials are sent."""
        try:
            parsed = urllib.parse.urlsplit(url)
        except ValueError:
            raise RequestError("a URL that cannot be used") from None
        return self._succeeded(self._follow("GET", parsed, headers, None, authorized=False))

    def pulling_too(self, repository: str) -> contextlib.AbstractContextManager[None]:
        """In the block, requests may be about another repository of the same host too."""
        return self._authentication.pulling_too(repository)

    def abandon(self, url: urllib.parse.SplitResult) -> None:
        """DELETE what nobody goes on with: one try of a second at most, also after everything else was cancelled."""
        client = copy.copy(self)
        client._connections = self._connections.until(Deadline(_FAREWELL))
        with contextlib.suppress(RequestError, FormatError, ValueError, OSError, OperationCancelledError):
            client.open_url("DELETE", url, {}, None).finish()

    def _find_scheme(self) -> None:
        """Plain HTTP, if it may be used, where the host does not speak TLS."""
        for scheme in ("https", "http"):
            self._scheme = scheme
            try:
                self._send("GET", self.url("")._replace(path="/v2/"), {}, None, trusted=True).finish()
                return
            except ConnectError as error:
                self._scheme = None
                has_port = origin_of(self.url(""))[2] != 443
                if scheme == "http" or (has_port and not error.tls):
                    raise
            except RequestError:
                return  # it does speak, and the request itself will say what is wrong

    def _succeeded(self, answer: tuple[Exchange, bool]) -> Exchange:
        exchange, here = answer
        if 200 <= exchange.status < 300:
            return exchange
        try:
            body = _read_all(exchange, _ERROR_LIMIT, "")
        except (RequestError, FormatError):
            body = b""
        host, hint = self.reference.host, ""
        if here and exchange.status == 401:
            known = self._authentication.has_credentials
            hint = f"; {host} does not accept the credentials" if known else f"; there are no credentials for {host}"
        error = status_error(exchange.status, exchange.headers, body, hint)
        if not here and exchange.status in (401, 403):
            error.transient = True  # a signed URL that has expired: the next try gets another one
        raise error

    def _follow(
        self,
        method: str,
        url: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        authorized: bool,
    ) -> tuple[Exchange, bool]:
        """The answer behind all redirects, and whether it is that of the host that was asked."""
        first = origin_of(self._usable(url))
        for _ in range(_MOST_REDIRECTS + 1):
            if authorized:
                exchange = self._send_authorized(method, url, headers, body)
            else:
                exchange = self._send(method, url, headers, body, trusted=False)
            location = exchange.headers.get("Location")
            if exchange.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                return exchange, origin_of(url) == first
            exchange.finish()
            url = self._usable(_joined(url, location))
            authorized = authorized and origin_of(url) == first
        raise RequestError(f"more than {_MOST_REDIRECTS} redirects")

    def _send_authorized(
        self, method: str, url: urllib.parse.SplitResult, headers: Mapping[str, str], body: bytes | None
    ) -> Exchange:
        renewed = False
        while True:
            header = self._authentication.header()
            given = headers if header is None else {**headers, "Authorization": header}
            exchange = self._send(method, url, given, body, trusted=True)
            if exchange.status != 401 or renewed:
                return exchange
            challenges = parse_challenges(exchange.headers.getlist("WWW-Authenticate"))
            try:
                renewed = self._authentication.answer(challenges, header)
            except BaseException:
                exchange.close()
                raise
            if not renewed:
                return exchange
            exchange.finish()

    def _send(
        self,
        method: str,
        url: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        trusted: bool,
    ) -> Exchange:
        origin = origin_of(url)
        try:
            exchange = self._connections.open(method, url, {**self._headers, **headers}, body, trusted=trusted)
        except ConnectError as error:
            error.transient = origin in self._reached
            raise
        self._reached.add(origin)
        return exchange

    def _usable(self, url: urllib.parse.SplitResult) -> urllib.parse.SplitResult:
        try:
            usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            usable = False
        if not usable or url.username is not None:
            raise RequestError("a URL that is not http://HOST or https://HOST")
        if url.scheme == "http" and self._tls_verify:
            raise RequestError(f"plain HTTP from {url.hostname} is used only if TLS need not be verified")
        return url

    def _ask_token_server(
        self, method: str, url: urllib.parse.SplitResult, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        """The token server may be another host: the container registry names it. A redirect gets no credentials."""
        retries = Retries(self.cancel)
        while True:
            try:
                exchange = self._send(method, self._usable(url), headers, body, trusted=False)
                location = exchange.headers.get("Location")
                if method == "GET" and exchange.status in _REDIRECTS and location:
                    exchange.finish()
                    exchange, _ = self._follow("GET", _joined(url, location), {}, None, authorized=False)
                return _read_all(self._succeeded((exchange, True)), _TOKEN_LIMIT, f"token server {url.hostname}")
            except RequestError as error:
                try:
                    retries.wait(error)
                except RequestError as final:
                    raise RequestError(f"token server {url.hostname}: {final}", status=final.status) from final


def _joined(url: urllib.parse.SplitResult, location: str) -> urllib.parse.SplitResult:
    """A location as it is, its query untouched; relative ones are completed (RFC 9110, 10.2.2)."""
    try:
        return urllib.parse.urlsplit(urllib.parse.urljoin(url.geturl(), location))
    except ValueError:
        raise RequestError("a redirect to what is no URL") from None


def _read_all(exchange: Exchange, limit: int, what: str) -> bytes:
    """A whole body. FormatError if it has more than ``limit`` bytes."""
    pieces, size = [], 0
    try:
        while data := exchange.read(limit + 1 - size):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise FormatError(f"more than {limit} bytes are too many for a document", what)
    finally:
        exchange.close()
    return b"".join(pieces)
