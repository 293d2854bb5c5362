"""A proxy for tests, on the loopback interface; whatever name it is asked for, it goes to the loopback interface."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.registries import BASIC, serving


class _Request(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, *args: object) -> None:
        pass

    def _allowed(self) -> bool:
        self.server.asked.append((self.command, self.path))
        if self.server.open or self.headers.get("Proxy-Authorization") == BASIC:
            return True
        self.send_error(407)
        return False

    def do_GET(self) -> None:
        if not self._allowed():
            return
        url = urllib.parse.urlsplit(self.path)
        headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", url.port)) as there:
            there.request(self.command, url.path, headers=headers)
            answer = there.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    do_HEAD = do_GET

    def do_CONNECT(self) -> None:
        if not self._allowed():
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self._pump, args=(there, self.connection))
            back.start()
            self._pump(self.connection, there)
            back.join()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Proxy(ThreadingHTTPServer):
    """Passes on plain HTTP, and whatever comes behind CONNECT; wants a password unless it is ``open``."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.asked: list[tuple[str, str]] = []
        self.open = True
        self.host = f"127.0.0.1:{self.server_port}"

    def handle_error(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def proxying(tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy until the end of the block."""
    with Proxy(tls) as server, serving(server):
        yield server
