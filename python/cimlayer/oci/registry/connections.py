"""HTTP connections to container registries: TLS, proxies, and reading that can be cancelled and gives up.

urllib3's connections are used without its pools, which rewrite the queries of signed URLs, and log them.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    from urllib3 import HTTPResponse
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import HTTPError, IncompleteRead
    from urllib3.util import make_headers, wait_for_read, wait_for_write
except ImportError as error:
    raise ImportError("container registries need urllib3: pip install 'cimlayer[registry]'") from error

from cimlayer.blobs.arrival import LONGEST_WAIT
from cimlayer.events import CancellationToken
from cimlayer.oci.registry.failures import ConnectError, RequestError

CONNECT_TIMEOUT = 15.0  # seconds
STALL_TIMEOUT = 30.0  # seconds of waiting, in which at least _LEAST bytes must arrive
_LEAST = 1 << 10
_SHORT_BODY = 1 << 16  # bytes of an error's text
_IDLE = 4  # connections that are kept for one origin

Origin = tuple[str, str, int]  # scheme, host and port


def origin_of(url: urllib.parse.SplitResult) -> Origin:
    """What a URL's credentials are bound to (RFC 9110, 4.3.1)."""
    return url.scheme, (url.hostname or "").lower(), url.port or {"https": 443}.get(url.scheme, 80)


@contextlib.contextmanager
def failures_named(connecting: Origin | None = None) -> Iterator[None]:
    """What can go wrong with a connection, as a RequestError; while ``connecting`` as a ConnectError."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError) as error:
        reason = _reason(error)
        if connecting is None:
            raise RequestError(reason, transient=True) from error
        scheme, host, port = connecting
        not_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError)
        hint = "; it may be a server of plain HTTP" if not_tls else ""
        raise ConnectError(f"cannot connect to {scheme}://{host}:{port}: {reason}{hint}", tls=not_tls) from error


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line: the outer ones show objects and whole URLs."""
    while isinstance(error, HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'without a reason'})"
    if isinstance(error, IncompleteRead | http.client.IncompleteRead):
        return "the connection was closed early"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"the answer is not valid HTTP ({type(error).__name__})"


class _Arriving(io.RawIOBase):
    """What a server sends. The socket does not block: waiting is done here, where it can be cancelled."""

    def __init__(self, sock: socket.socket, file: BinaryIO, cancel: CancellationToken, stall_timeout: float) -> None:
        super().__init__()
        self._sock = sock
        self._file = file  # keeps the socket open until the response is closed
        self._cancel = cancel
        self._stall_timeout = stall_timeout
        self._waited = 0.0
        self._arrived = 0
        sock.settimeout(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            self._cancel.raise_if_cancelled()
            try:
                count = self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(write=False)
            except ssl.SSLWantWriteError:
                self._wait(write=True)
            else:
                self._arrived += count
                if self._arrived >= _LEAST:
                    self._arrived, self._waited = 0, 0.0
                return count

    def _wait(self, *, write: bool) -> None:
        if self._waited >= self._stall_timeout:
            raise TimeoutError(f"no progress for {self._stall_timeout:.0f} s")
        start = time.monotonic()
        (wait_for_write if write else wait_for_read)(self._sock, LONGEST_WAIT)
        self._waited += time.monotonic() - start

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class Exchange:
    """A response whose body is still to be read, as it is: nothing is decoded. For one thread."""

    def __init__(self, response: HTTPResponse, connection: HTTPConnection, keep: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._connection = connection
        self._keep = keep

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a connection that was closed early."""
        return self._response.length_remaining is not None or bool(self._response.chunked)

    def read(self, size: int) -> bytes:
        """What has arrived, after waiting for it; empty at the end. RequestError if the connection fails."""
        with failures_named():
            return self._response.read1(size) or b""

    def close(self) -> None:
        """Leave the connection to the next request if the whole body was read; else close it."""
        finished = self._response.closed
        self._response.close()
        if finished:
            self._keep()
        else:
            self._connection.close()

    def finish(self) -> None:
        """Read a short body that nobody needs, so that the connection can be kept, and close."""
        with contextlib.suppress(RequestError):
            left = _SHORT_BODY
            while left > 0 and (data := self.read(left)):
                left -= len(data)
        self.close()


class Connections:
    """Connections by origin, kept for the next request. Thread safe; each connection serves one thread at a time.

    With ``verify`` false, certificates are not checked. ``cert_dir`` has CAs (``*.crt``) in addition to those of the
    system, and client certificates (``*.cert`` with ``*.key``), as in containers-certs.d(5); those are shown to
    ``trusted`` hosts alone.
    """

    def __init__(
        self,
        cancel: CancellationToken,
        *,
        verify: bool = True,
        cert_dir: str | os.PathLike[str] | None = None,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self._cancel = cancel
        self._verify = verify
        self._stall_timeout = stall_timeout
        self._cert_dir = None if cert_dir is None else Path(cert_dir)
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._proxies = urllib.request.getproxies()
        self._idle: dict[tuple[Origin, bool], list[HTTPConnection]] = {}
        self._lock = threading.Lock()

    def open(
        self,
        method: str,
        url: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        body: bytes | BinaryIO | None = None,
        *,
        trusted: bool = False,
    ) -> Exchange:
        """Send a request and return when the response's head is there."""
        origin = origin_of(url)
        connection, proxied = self._connection(origin, trusted)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if proxied:
            target = f"{url.scheme}://{url.netloc}{target}"
            headers = {**headers, **_proxy_headers(self._proxies[url.scheme])}
        try:
            with failures_named():
                connection.request(
                    method, target, body=body, headers=headers, preload_content=False, decode_content=False
                )
                response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        return Exchange(response, connection, lambda: self._keep(origin, trusted, connection))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def _keep(self, origin: Origin, trusted: bool, connection: HTTPConnection) -> None:
        with self._lock:
            kept = self._idle.setdefault((origin, trusted), [])
            if connection.sock is not None and len(kept) < _IDLE and not self._cancel.cancelled:
                kept.append(connection)
                return
        connection.close()

    def _connection(self, origin: Origin, trusted: bool) -> tuple[HTTPConnection, bool]:
        """A connection, and whether its requests need the whole URL."""
        scheme, host, port = origin
        proxy = None if urllib.request.proxy_bypass(f"{host}:{port}") else self._proxies.get(scheme)
        proxied = proxy is not None and scheme == "http"
        with self._lock:
            kept = self._idle.get((origin, trusted), [])
            while kept:
                connection = kept.pop()
                if connection.is_connected:
                    return connection, proxied
                connection.close()
        return self._new_connection(origin, trusted, proxy), proxied

    def _new_connection(self, origin: Origin, trusted: bool, proxy: str | None) -> HTTPConnection:
        scheme, host, port = origin
        at = host, port
        if proxy is not None:
            parsed = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if parsed.scheme != "http" or not parsed.hostname:
                raise ValueError(f"the proxy for {scheme} is not of the form http://HOST[:PORT]")
            at = parsed.hostname, parsed.port or 80
        connection: HTTPConnection
        if scheme == "http":
            connection = HTTPConnection(*at, timeout=CONNECT_TIMEOUT)
        else:
            connection = HTTPSConnection(*at, timeout=CONNECT_TIMEOUT, ssl_context=self._context(trusted))
            if proxy is not None:
                connection.set_tunnel(host, port, _proxy_headers(proxy))
        with failures_named(origin):
            connection.connect()
        connection.response_class = self._response  # type: ignore[assignment]  # a proxy's answer is read as usual
        connection.timeout = self._stall_timeout  # of sending; reading does its own waiting
        return connection

    def _response(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **options)
        arriving = _Arriving(sock, response.fp, self._cancel, self._stall_timeout)
        response.fp = io.BufferedReader(arriving)
        return response

    def _context(self, trusted: bool) -> ssl.SSLContext:
        with self._lock:
            if trusted not in self._contexts:
                self._contexts[trusted] = self._new_context(trusted)
            return self._contexts[trusted]

    def _new_context(self, trusted: bool) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for path in [] if self._cert_dir is None else sorted(self._cert_dir.iterdir()):
            try:
                if path.suffix == ".crt":
                    context.load_verify_locations(path)
                elif path.suffix == ".cert" and trusted:
                    context.load_cert_chain(path, path.with_suffix(".key"))
            except OSError as error:  # which SSLError is too
                reason = getattr(error, "reason", None) or error.strerror
                raise ValueError(f"{path}: not a certificate that can be used ({reason})") from error
        return context


def _proxy_headers(proxy: str) -> dict[str, str]:
    parsed = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parsed.username is None:
        return {}
    pair = f"{urllib.parse.unquote(parsed.username)}:{urllib.parse.unquote(parsed.password or '')}"
    return dict(make_headers(proxy_basic_auth=pair))
