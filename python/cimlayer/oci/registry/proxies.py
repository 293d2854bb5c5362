"""Proxies of the environment: through which one a host is reached, if any.

Sources: the documentation of Go's golang.org/x/net/http/httpproxy, which docker, podman and skopeo follow, and
``urllib.request.getproxies``, which knows the settings of Windows and macOS too.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

from cimlayer.oci.registry.credentials import Credentials

_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True, frozen=True)
class Proxy:
    """A proxy, which speaks ``http`` or ``https``, and the headers that it wants."""

    scheme: str
    host: str
    port: int
    headers: dict[str, str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class Proxies:
    """The proxies of ``http_proxy``, ``https_proxy`` and ``all_proxy``, but for the hosts in ``no_proxy``."""

    def __init__(self) -> None:
        self._urls = urllib.request.getproxies()
        self._of_system = not urllib.request.getproxies_environment()

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for a host. ValueError, which has no password in it, for one that cannot be used."""
        url = self._urls.get(scheme) or self._urls.get("all")
        if not url or self._bypassed(host.lower().rstrip("."), port):
            return None
        try:
            parsed = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
            at = parsed.hostname, parsed.port
        except ValueError:
            parsed, at = urllib.parse.urlsplit(""), (None, None)
        if parsed.scheme.startswith("socks"):
            raise ValueError(f"the proxy for {scheme} is a SOCKS proxy: only http:// and https:// proxies can be used")
        if parsed.scheme not in _PORTS or not at[0]:
            raise ValueError(f"the proxy for {scheme} is not of the form http[s]://[USER:PASSWORD@]HOST[:PORT]")
        return Proxy(parsed.scheme, at[0], at[1] or _PORTS[parsed.scheme], _headers(parsed))

    def _bypassed(self, host: str, port: int) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True  # as in Go
        if self._of_system:
            return bool(urllib.request.proxy_bypass(host))
        return any(_matches(entry, host, port) for entry in self._urls.get("no", "").replace(",", " ").lower().split())


def _headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    username, password = (urllib.parse.unquote(text or "") for text in (proxy.username, proxy.password))
    return {"Proxy-Authorization": Credentials(username, password).basic}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry (``*``, a domain, an address or a CIDR block, perhaps with a port) includes a host."""
    if entry == "*":
        return True
    name, _, number = entry.rpartition(":")
    if name and number.isdigit() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    address = _address(host)
    if address is None:
        return bool(entry) and (host == entry or host.endswith(f".{entry}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
