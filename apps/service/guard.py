"""Who may ask, and how much: before a byte of a request is read."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .config import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "TooLarge"]

#: Open to all: what watches over the service needs no token, nor does who reads what it can do.
_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_BELOW = "/static-offline-docs/"


class TooLarge(Exception):  # noqa: N818 - not raised to users
    """A body grew beyond what is allowed."""


class Guard:
    """Lets a request through to ``app`` if its host, its origin, its token and its size are right.

    A browser sends the host and the origin that a page is of: a page of elsewhere has another
    origin, and one that made its own name point here has another host.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str], token: str | None, max_bytes: int
    ) -> None:
        """``hosts`` are the names by which the service may be called; the loopback's always are."""
        self._app, self._hosts, self._max_bytes = app, {h.lower() for h in hosts}, max_bytes
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let it through with a body that is counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refused = self._refusal(scope["path"], headers)
        if refused:
            await _answer(send, *refused)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._max_bytes:
                raise TooLarge
            return message

        await self._app(scope, counted, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        host = _name_of(headers.get(b"host", b"").decode("latin-1"))
        if not self._is_ours(host):
            return 421, "host", "this service is not called that; see --allow-host"
        origin = headers.get(b"origin")
        if origin is not None and not self._is_ours(_origin(origin.decode("latin-1"))):
            return 403, "origin", "pages of elsewhere may not ask here"
        is_open = path in _OPEN or path.startswith(_OPEN_BELOW)
        if not is_open and not self._knows(headers.get(b"authorization", b"")):
            return 401, "token", "give the token, as in Authorization: Bearer …"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            return 413, "too_large", f"more than {self._max_bytes} bytes"
        return None

    def _is_ours(self, host: str) -> bool:
        return is_loopback(host) or host in self._hosts

    def _knows(self, given: bytes) -> bool:
        if self._token is None:
            return True
        kind, _, token = given.partition(b" ")
        same = hmac.compare_digest(token.strip(), self._token)
        return same and kind.lower() == b"bearer"


def _name_of(host: str) -> str:
    """A host without its port."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _origin(origin: str) -> str:
    """The host of an origin; of none, such as a file's, it is empty."""
    return _name_of(origin.partition("://")[2])


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
