"""Authentication to a container registry: Basic, and bearer tokens of a token server.

Sources: RFC 7617, and distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cimlayer.oci.registry.challenges import Challenge
from cimlayer.oci.registry.credentials import Credentials, find_credentials
from cimlayer.oci.registry.failures import RequestError
from cimlayer.oci.registry.references import RegistryReference

_CLIENT_ID = "cimlayer"
_DEFAULT_LIFETIME = 60.0  # seconds, where the token server says none
_MARGIN = 5.0  # seconds before the end in which a token is not used

Send = Callable[[str, urllib.parse.SplitResult, Mapping[str, str], bytes | None], bytes]


class Authentication:
    """The Authorization header for one repository. Thread safe.

    Credentials are looked up when they are asked for, sent to the container registry only if it asks for Basic, and
    otherwise to the token server alone that it names. ``send`` makes a request to that and returns the answer's body.
    """

    def __init__(
        self, reference: RegistryReference, actions: str, authfile: str | os.PathLike[str] | None, send: Send
    ) -> None:
        self._reference = reference
        self._actions = actions
        self._authfile = authfile
        self._send = send
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._looked_up = False
        self._header: str | None = None
        self._challenge: Challenge | None = None  # whose token ends
        self._end = 0.0
        self._pulled_too = ""  # another repository, and the last one that a token was asked for
        self._last_pulled_too = ""

    @property
    def has_credentials(self) -> bool:
        """Whether there were credentials, if they were needed."""
        return self._credentials is not None

    @contextlib.contextmanager
    def pulling_too(self, repository: str) -> Iterator[None]:
        """In the block, a token lets its bearer pull from another repository as well."""
        with self._lock:
            self._pulled_too = repository
        try:
            yield
        finally:
            with self._lock:
                self._pulled_too = ""

    def header(self) -> str | None:
        """What to send, as far as it is known."""
        with self._lock:
            lacks = self._pulled_too not in ("", self._last_pulled_too)
            if self._challenge is not None and (lacks or time.monotonic() >= self._end):
                self._renew(self._challenge)
            return self._header

    def answer(self, challenges: Iterable[Challenge], refused: str | None) -> bool:
        """Whether there is another header to try after one was refused."""
        with self._lock:
            if self._header not in (None, refused):
                return True  # another thread was faster
            by_scheme = {challenge.scheme: challenge for challenge in reversed(list(challenges))}
            if "bearer" in by_scheme and by_scheme["bearer"].parameters.get("realm"):
                self._renew(by_scheme["bearer"])
                return True
            credentials = self._found() if "basic" in by_scheme else None
            if credentials is None or credentials.identity_token or credentials.basic == refused:
                return False
            self._header = credentials.basic
            return True

    def _found(self) -> Credentials | None:
        if not self._looked_up:
            self._credentials = find_credentials(self._reference.host, self._reference.repository, self._authfile)
            self._looked_up = True
        return self._credentials

    def _renew(self, challenge: Challenge) -> None:
        start = time.monotonic()
        self._last_pulled_too = self._pulled_too
        answer = self._ask(challenge)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not re.fullmatch("[\x21-\x7e]+", token):  # an error would show the header
            raise RequestError("the token server's answer has no token")
        lifetime = answer.get("expires_in")
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or lifetime <= 0:
            lifetime = _DEFAULT_LIFETIME
        self._header = f"Bearer {token}"
        self._challenge = challenge
        self._end = start + max(lifetime - _MARGIN, lifetime / 2)

    def _ask(self, challenge: Challenge) -> dict[str, Any]:
        realm = urllib.parse.urlsplit(challenge.parameters["realm"])
        fields = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
        fields += [("scope", scope) for scope in self._scopes(challenge)]
        credentials = self._found()
        headers: dict[str, str] = {}
        if credentials is not None and credentials.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", credentials.identity_token),
                ("client_id", _CLIENT_ID),
                *[(name, value) for name, value in fields if name != "scope"],
                ("scope", " ".join(value for name, value in fields if name == "scope")),
            ]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = self._send("POST", realm, headers, urllib.parse.urlencode(form).encode())
        else:
            if credentials is not None:
                headers["Authorization"] = credentials.basic
                fields.append(("account", credentials.username))
            query = "&".join(filter(None, (realm.query, urllib.parse.urlencode(fields))))
            body = self._send("GET", realm._replace(query=query), headers, None)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise RequestError("the token server's answer is no JSON object")
        return answer

    def _scopes(self, challenge: Challenge) -> list[str]:
        """The challenge's, which names what one request needs; to push, all that is going to be needed."""
        own = f"repository:{self._reference.repository}:{self._actions}"
        asked = challenge.parameters.get("scope", "").split()
        if asked and self._actions == "pull":
            return asked
        return [own, f"repository:{self._pulled_too}:pull"] if self._pulled_too else [own]
