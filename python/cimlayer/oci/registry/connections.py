"""HTTP connections to container registries: TLS, proxies, and reading that can be cancelled and gives up.

urllib3's connections are used without its pools, which rewrite the queries of signed URLs, and log them.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import io
import os
import queue
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    from urllib3 import HTTPResponse
    from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
    from urllib3.exceptions import HTTPError, IncompleteRead
    from urllib3.util import wait_for_read, wait_for_write
    from urllib3.util.ssltransport import SSLTransport
except ImportError as error:
    raise ImportError("container registries need urllib3: pip install 'cimlayer[registry]'") from error

from cimlayer.blobs.arrival import LONGEST_WAIT
from cimlayer.events import CancellationToken
from cimlayer.oci.registry.failures import ConnectError, RequestError
from cimlayer.oci.registry.proxies import Proxies, Proxy

CONNECT_TIMEOUT = 15.0  # seconds, for each address and each step of a handshake
_LONGEST_CONNECT = 60.0  # and for all of them
STALL_TIMEOUT = 30.0  # seconds of waiting, in which at least _LEAST bytes must arrive
_LEAST = 1 << 10
_SHORT_BODY = 1 << 16  # bytes of an error's text
_IDLE = 4  # connections that are kept for one origin
_SENT_AT_ONCE = 1 << 16

Origin = tuple[str, str, int]  # scheme, host and port


def origin_of(url: urllib.parse.SplitResult) -> Origin:
    """What a URL's credentials are bound to (RFC 9110, 4.3.1)."""
    return url.scheme, (url.hostname or "").lower(), url.port or {"https": 443}.get(url.scheme, 80)


class Deadline(CancellationToken):
    """A token that cancels what takes longer than that many seconds, whatever happens to other tokens."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    @property
    def cancelled(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end


@contextlib.contextmanager
def failures_named(connecting: Origin | None = None, proxy: Proxy | None = None) -> Iterator[None]:
    """What can go wrong with a connection, as a RequestError; while ``connecting`` as a ConnectError."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError) as error:
        reason = _reason(error)
        if connecting is None:
            raise RequestError(reason, transient=True) from error
        scheme, host, port = connecting
        not_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError)
        through = "" if proxy is None else f" through the proxy {proxy}"
        hint = "; it may be a server of plain HTTP" if not_tls else ""
        raise ConnectError(
            f"cannot connect to {scheme}://{host}:{port}{through}: {reason}{hint}", tls=not_tls
        ) from error


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


class _Patience:
    """Waits for a socket that does not block: until it is ready, nothing has happened for too long, or cancelled."""

    def __init__(self, cancel: CancellationToken, stall_timeout: float) -> None:
        self.cancel = cancel
        self.stall_timeout = stall_timeout
        self._waited = 0.0
        self._moved = 0

    def moved(self, count: int) -> None:
        """Count bytes that went through."""
        self._moved += count
        if self._moved >= _LEAST:
            self._moved, self._waited = 0, 0.0

    def wait(self, sock: socket.socket, *, write: bool) -> None:
        """Wait a moment; TimeoutError if that was one too many."""
        self.cancel.raise_if_cancelled()
        if self._waited >= self.stall_timeout:
            raise TimeoutError(f"no progress for {self.stall_timeout:.0f} s")
        start = time.monotonic()
        (wait_for_write if write else wait_for_read)(sock, LONGEST_WAIT)
        self._waited += time.monotonic() - start


class _Arriving(io.RawIOBase):
    """What a server sends. The socket does not block: waiting is done here, where it can be cancelled."""

    def __init__(self, sock: socket.socket, file: BinaryIO, patience: _Patience) -> None:
        super().__init__()
        self._sock = sock
        self._file = file  # keeps the socket open until the response is closed
        self._patience = patience
        sock.settimeout(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            self._patience.cancel.raise_if_cancelled()
            try:
                count = self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._patience.wait(self._sock, write=False)
            except ssl.SSLWantWriteError:
                self._patience.wait(self._sock, write=True)
            else:
                self._patience.moved(count)
                return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Sending:
    """A connection that sends so that it can be cancelled. While it is being made, a thread of its own waits."""

    patience: _Patience | None = None
    sock: Any

    def send(self, data: Any) -> None:
        if self.patience is None:
            super().send(data)  # type: ignore[misc]  # of an HTTPConnection
            return
        nested = isinstance(self.sock, SSLTransport)
        self.sock.settimeout(self.patience.stall_timeout if nested else 0)
        left = memoryview(data)
        while left:
            self.patience.cancel.raise_if_cancelled()
            piece = left[:_SENT_AT_ONCE]
            try:
                if nested:  # TLS inside TLS loses what the outer one does not take at once
                    self.sock.sendall(piece)
                count = len(piece) if nested else self.sock.send(piece)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.patience.wait(self.sock, write=True)
            except ssl.SSLWantReadError:
                self.patience.wait(self.sock, write=False)
            else:
                self.patience.moved(count)
                left = left[count:]


class _HttpConnection(_Sending, HTTPConnection):
    pass


class _HttpsConnection(_Sending, HTTPSConnection):
    pass


_Connection = _HttpConnection | _HttpsConnection


class Exchange:
    """A response whose body is still to be read, as it is: nothing is decoded. For one thread."""

    def __init__(self, response: HTTPResponse, connection: _Connection, keep: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._connection = connection
        self._keep = keep
        self._failed = False

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be distinguished from a connection that was closed early."""
        return self._response.length_remaining is not None or bool(self._response.chunked)

    def read(self, size: int) -> bytes:
        """What has arrived, after waiting for it; empty at the end. RequestError if the connection fails."""
        try:
            with failures_named():
                return self._response.read1(size) or b""
        except BaseException:
            self._failed = True  # urllib3 has closed the response, as it does at the end of a body
            raise

    def close(self) -> None:
        """Leave the connection to the next request if the whole body was read; else close it."""
        finished = self._response.closed and not self._failed
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
        self._proxies = Proxies()
        self._idle: dict[tuple[Origin, bool], list[_Connection]] = {}
        self._lock = threading.Lock()

    def until(self, deadline: Deadline) -> Connections:
        """The same connections, with another end."""
        others = copy.copy(self)
        others._cancel = deadline
        return others

    def open(
        self,
        method: str,
        url: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        trusted: bool = False,
    ) -> Exchange:
        """Send a request and return when the response's head is there."""
        origin = origin_of(url)
        proxy = self._proxies.find(*origin)
        connection = self._idle_connection(origin, trusted) or self._new_connection(origin, trusted, proxy)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if proxy is not None and url.scheme == "http":
            target = f"{url.scheme}://{url.netloc}{target}"
            headers = {**headers, **proxy.headers}
        connection.patience = _Patience(self._cancel, self._stall_timeout)
        connection.response_class = self._response  # type: ignore[assignment]
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

    def _keep(self, origin: Origin, trusted: bool, connection: _Connection) -> None:
        with self._lock:
            kept = self._idle.setdefault((origin, trusted), [])
            if connection.sock is not None and len(kept) < _IDLE and not self._cancel.cancelled:
                kept.append(connection)
                return
        connection.close()

    def _idle_connection(self, origin: Origin, trusted: bool) -> _Connection | None:
        with self._lock:
            kept = self._idle.get((origin, trusted), [])
            while kept:
                connection = kept.pop()
                if connection.is_connected:
                    return connection
                connection.close()
        return None

    def _new_connection(self, origin: Origin, trusted: bool, proxy: Proxy | None) -> _Connection:
        scheme, host, port = origin
        at = (host, port) if proxy is None else (proxy.host, proxy.port)
        tunnel = proxy is not None and scheme == "https"
        connection: _Connection
        if scheme == "http" and (proxy is None or proxy.scheme == "http"):
            connection = _HttpConnection(*at, timeout=CONNECT_TIMEOUT)
        else:
            config = ProxyConfig(self._context(False), False, None, None) if tunnel else None
            context = self._context(trusted and scheme == "https")
            connection = _HttpsConnection(*at, timeout=CONNECT_TIMEOUT, ssl_context=context, proxy_config=config)
        if tunnel and proxy is not None:
            connection.set_tunnel(host, port, proxy.headers, proxy.scheme)
        with failures_named(origin, proxy):
            self._connect(connection)
        connection.timeout = 0  # from here on, waiting is ours
        return connection

    def _connect(self, connection: _Connection) -> None:
        """In a thread, which is left behind if need be: nothing interrupts the lookup of a name, or a handshake."""
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        given_up = threading.Event()

        def connect() -> None:
            failure: BaseException | None = None
            try:
                connection.connect()
            except BaseException as error:
                failure = error
            outcome.put(failure)
            if failure is not None or given_up.is_set():
                connection.close()

        threading.Thread(target=connect, name="cimlayer-connect", daemon=True).start()
        try:
            failure = self._outcome(outcome)
        except BaseException:
            given_up.set()
            if not outcome.empty():
                connection.close()
            raise
        if failure is not None:
            raise failure

    def _outcome(self, outcome: queue.SimpleQueue[BaseException | None]) -> BaseException | None:
        end = time.monotonic() + _LONGEST_CONNECT
        while time.monotonic() < end:
            self._cancel.raise_if_cancelled()
            with contextlib.suppress(queue.Empty):
                return outcome.get(timeout=LONGEST_WAIT)
        raise TimeoutError(f"no connection in {_LONGEST_CONNECT:.0f} s")

    def _response(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **options)
        arriving = _Arriving(sock, response.fp, _Patience(self._cancel, self._stall_timeout))
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
