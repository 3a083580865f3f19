"""Serves the application on one address until it is stopped."""

import errno
import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp

from extraction_assets.host.locations import BROWSER_HOST, BROWSER_PORT

_SECONDS_TO_END = 3
_WAITING = 128  # connections that the system keeps until they are accepted


class AddressError(ValueError):
    """An address that cannot be listened on; the message is one sentence."""


def listen(host: str = BROWSER_HOST, port: int | None = None) -> socket.socket:
    """A socket that listens; if no port is given and the usual one in use, on a free one. Raises AddressError."""
    try:
        family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise AddressError(f"{host} is not a name or an address of this machine: choose another with --host") from error
    for chosen in [port] if port is not None else [BROWSER_PORT, 0]:
        try:
            return socket.create_server((str(address[0]), chosen), family=family, backlog=_WAITING)
        except OSError as error:
            refusal = _refusal(host, chosen, error)
    raise refusal


def _refusal(host: str, port: int, error: OSError) -> AddressError:
    if isinstance(error, PermissionError):
        return AddressError(f"port {port} needs an administrator: choose another with --port")
    if port and is_address_in_use(error):
        return AddressError(f"port {port} is in use by another program: choose another with --port")
    return AddressError(f"{host} cannot be listened on ({error.strerror}): choose another with --host")


def is_address_in_use(error: OSError) -> bool:
    """Whether another program listens there already."""
    return error.errno == errno.EADDRINUSE


def address_of(listening: socket.socket) -> str:
    """The URL of what listens, for a person: ``http://127.0.0.1:3080``."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address that a socket listens on."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answer requests until this process is asked to end (Ctrl-C, SIGTERM)."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
        proxy_headers=False,
    )
    uvicorn.Server(config).run(sockets=[listening])
