"""What keeps other sites out, and text from outside from becoming more than text.

A page of another site can make the reader's browser send requests to this server. Three things answer that: requests
that name another host are refused (a rebound DNS name is one), whatever writes needs a token that only pages of this
server hold, and no page of this server runs a script or takes a style that is not a file of it.
"""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""No script or style inside a page, no outside address, no frame around it."""

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@?#\s]+)(?::(?P<port>[0-9]{1,5}))?")

NOT_ANOTHER_SITE = frozenset({"same-origin", "none"})
"""What a browser's ``Sec-Fetch-Site`` says of a form of this server, or of an address that somebody typed."""


class ForbiddenError(ValueError):
    """A request that may come from another site; the message is one sentence."""


def host_name(header: str) -> str | None:
    """The name in a Host header, in lower case without port, brackets and a final dot; None if it is not one."""
    match = _HOST.fullmatch(header)
    if match is None or not 0 < int(match["port"] or 80) < 65536:
        return None
    return match["name"].strip("[]").rstrip(".").lower()


def is_allowed_host(header: str, allowed: Iterable[str]) -> bool:
    """Whether a Host header names this server: ``localhost``, an address in digits, or a name in ``allowed``.

    DNS can lead any name here, but no address in digits needs it. The port may be another: an SSH tunnel changes it.
    """
    name = host_name(header)
    return name is not None and (name == "localhost" or _is_address(name) or name in {one.lower() for one in allowed})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: refuses requests for other hosts and adds ``HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self.app, self.allowed_hosts = app, tuple(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        given = Headers(scope=scope).getlist("host")
        if len(given) == 1 and is_allowed_host(given[0], self.allowed_hosts):
            await self.app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers)


async def _refuse(send: Send) -> None:
    sentence = b"This server does not go by the name in the Host header; --allow-host NAME adds a name.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(sentence)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": sentence})


class Token:
    """The token that pages of this server put into their forms. It lasts as long as the process."""

    FIELD = "csrf"

    def __init__(self) -> None:
        self.value = secrets.token_urlsafe(32)

    def check(self, headers: Headers, sent: str | None) -> None:
        """Raises ForbiddenError if a form is not from a page of this server."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        if foreign or (site is not None and site not in NOT_ANOTHER_SITE):
            raise ForbiddenError("this form was sent from another site, so nothing was changed")
        if not hmac.compare_digest((sent or "").encode(), self.value.encode()):
            raise ForbiddenError("this page is from before the server started again: reload it and send it once more")
