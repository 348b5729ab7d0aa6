"""Who may ask, and how much: before a byte of a request is read."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from .errors import Busy, TooLargeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

#: Open to all: what watches over the service needs no token, nor does who reads what it can do,
#: nor the studio's pages, which ask for the token themselves.
_OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_BELOW = ("/static-offline-docs/", "/studio/")
#: Bodies of the largest size that are in memory at once.
_BODIES = 4
#: What decides; given twice, it would be unclear which one counts.
_ONCE = (b"host", b"origin", b"authorization", b"content-length", b"content-type")


class Guard:
    """Lets a request through to ``app`` if its host, its origin, its token and its size are right.

    A browser sends the host and the origin that a page is of: a page of elsewhere has another
    origin than the host that it calls, and one that made its own name point here has another host.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        token: str | None,
        max_bytes: int,
        told: Callable[[str, int], None],
    ) -> None:
        """``hosts`` are the names by which the service may be called.

        Addresses and localhost always are: no name of another's can be made to mean them. ``told``
        gets the route and the status of every answer.
        """
        self._app, self._hosts, self._max_bytes = app, {h.lower() for h in hosts}, max_bytes
        self._token = token.encode() if token else None
        self._told, self._held = told, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let it through with a body that is counted."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            size = len(message.get("body", b""))
            count, self._held = count + size, self._held + size
            if count > self._max_bytes:
                raise TooLargeError(f"more than {self._max_bytes} bytes")
            if self._held > _BODIES * self._max_bytes:
                raise Busy(1.0)
            return message

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._told(path, message["status"])
            await send(message)

        if refused := self._refusal(scope["path"], scope["headers"]):
            await _answer(telling, *refused)
            return
        try:
            await self._app(scope, counted, telling)
        finally:
            self._held -= count

    def _refusal(
        self, path: str, given: Iterable[tuple[bytes, bytes]]
    ) -> tuple[int, str, str] | None:
        names = [name for name, _ in given]
        if twice := [name for name in _ONCE if names.count(name) > 1]:
            return 400, "headers", f"{twice[0].decode()}: given twice"
        headers = dict(given)
        if b"transfer-encoding" in headers and b"content-length" in headers:
            return 400, "headers", "transfer-encoding and content-length: give one of them"
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_ours(host):
            return 421, "host", "this service is not called that; see --allow-host"
        origin = headers.get(b"origin")
        if origin is not None and _host_of(origin.decode("latin-1").lower()) != host:
            return 403, "origin", "pages of elsewhere may not ask here"
        is_open = path in _OPEN or path.startswith(_OPEN_BELOW)
        if not is_open and not self._knows(headers.get(b"authorization", b"")):
            return 401, "token", "give the token, as in Authorization: Bearer …"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            return 413, "too_large", f"more than {self._max_bytes} bytes"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a host, maybe with a port, means this service."""
        name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        if name == "localhost" or name in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _knows(self, given: bytes) -> bool:
        if self._token is None:
            return True
        kind, _, token = given.partition(b" ")
        same = hmac.compare_digest(token.strip(), self._token)
        return same and kind.lower() == b"bearer"


def _host_of(origin: str) -> str:
    """The host and the port of an origin; of none, such as a file's, it is empty."""
    return origin.partition("://")[2]


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
