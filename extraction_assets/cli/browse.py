"""``browse``: the results as pages in a web browser."""

import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import DEFAULT_MODULE, main
from extraction_assets.cli.live import live_text
from extraction_assets.cli.terminal import echo

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from extraction_assets.browser.live import LiveText
    from extraction_assets.browser.results import OpenDatabase

_OF_THE_EXTRA = {"h11", "starlette", "uvicorn"}


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port; by default 3080, or a free one if that is in use.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="Another name that this server goes by.")
@click.option("--read-only", is_flag=True, help="Labels and notes can be read, not changed.")
@click.option("--live", metavar="NAME", help="Also show the features of any text, by extraction NAME's model and SAEs.")
@click.pass_obj
def browse(module: str, host: str, port: int | None, names: tuple[str, ...], read_only: bool, live: str | None) -> None:
    """Browse merged features in a web browser: lists, examples in context, search, labels. Ctrl-C ends it.

    Only this machine reaches it unless --host says otherwise. It reads the results database and needs no GPU.
    """
    with _extra_installed():
        from extraction_assets.browser.server import address_of, is_loopback, listen, serve
    from extraction_assets.database.errors import DatabaseError

    read, write = _databases(module)
    try:
        with read():
            pass
    except DatabaseError as error:  # it may be there soon
        echo(f"{error}; the pages say so until it answers", err=True)
    with contextlib.suppress(KeyboardInterrupt), live_text(module, live) as text:
        listening = listen(host, port)
        app = make_app(read, write, (*names, *_names(host, listening)), read_only, text)
        where = address_of(listening)
        open_to = "" if is_loopback(listening.getsockname()[0]) else "; whoever reaches this machine can read it"
        echo(f"{where}  (Ctrl-C ends it{open_to})")
        serve(app, listening)


def make_app(
    read: "OpenDatabase", write: "OpenDatabase", names: tuple[str, ...], read_only: bool, live: "LiveText | None"
) -> "Starlette":
    """The application for the results of a module."""
    from extraction_assets.browser.app import create_app
    from extraction_assets.browser.page import Options

    return create_app(read, Options(read_only, names, live), None if read_only else write)


def _databases(module: str) -> "tuple[OpenDatabase, OpenDatabase]":
    """What opens the results for reading and for writing. Dagster is loaded only for a module of the user's."""
    if module != DEFAULT_MODULE:
        from extraction_assets.cli.workspace import Workspace

        results = Workspace(module).results
        return results.read, results.open
    from extraction_assets.database.connect import opened_database
    from extraction_assets.database.read_only import read_database
    from extraction_assets.host.locations import database_url

    url = database_url()
    return functools.partial(read_database, url), functools.partial(opened_database, url)


def _names(host: str, listening: socket.socket) -> list[str]:
    """What else this server may be called: the name given, and the machine's if others reach it."""
    from extraction_assets.browser.server import is_loopback

    if is_loopback(listening.getsockname()[0]):
        return [host]
    return [host, socket.gethostname(), socket.getfqdn()]


@contextlib.contextmanager
def _extra_installed() -> Iterator[None]:
    """ClickException that names the extra if a package of it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        raise click.ClickException(f"{error.name} is not installed: pip install 'extraction-assets[ui]'") from error
