"""What a page is: an address, a pure function from the database to a typed view, and a template that prints the view.

The view is a NamedTuple of plain values. It is also the page's JSON twin, at the same address with ``.json``, and the
SELECTs that it ran are what "view SQL" shows. To add a page, write a module in ``pages/`` and name it in ``PAGES``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.links import Here, Links
from extraction_assets.browser.live import LiveText
from extraction_assets.browser.parameters import Parameters


class Options(NamedTuple):
    """How the browser was started."""

    read_only: bool = False
    """Whether labels and notes cannot be changed here."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this server besides localhost and addresses in digits."""
    live: LiveText | None = None
    """What reads a text with the loaded model and SAEs; None without ``--live``."""


class PageRequest(NamedTuple):
    """What a view function is given."""

    connection: sa.Connection
    """One transaction: everything that a page reads is of the same moment."""
    path: Mapping[str, Any]
    """The variable parts of the address, by name."""
    parameters: Parameters
    links: Links
    here: Here
    options: Options


class Page(NamedTuple):
    """A page for people and its JSON twin."""

    path: str
    """As Starlette writes it, ``/{extraction}/{sae}/``. Its twin is at the same path with ``.json``."""
    template: str
    """File in ``templates/``; it has ``view``, ``links``, ``here``, ``statements``, ``csrf`` and ``options``."""
    view: Callable[[PageRequest], NamedTuple]
    """Raises UnknownResultError (404), BadRequestError (400) or DatabaseError (503). A view with a field ``leads_to``
    that is an address is answered with a redirection to it; its twin stays where it is."""


class ActionRequest(NamedTuple):
    """What an action is given: a form that was sent, its token checked."""

    connection: sa.Connection
    """An open write transaction, committed if the action raises nothing."""
    path: Mapping[str, Any]
    form: Parameters
    files: Mapping[str, bytes]
    """Contents of the files that were sent, by field."""
    links: Links


class Action(NamedTuple):
    """Something that writes: a POST with the token of ``security``, which ``--read-only`` refuses."""

    path: str
    act: Callable[[ActionRequest], str]
    """Gives the address to show next."""


class Download(NamedTuple):
    """A file made from the database."""

    path: str
    media_type: str
    file_name: str
    content: Callable[[PageRequest], str]
