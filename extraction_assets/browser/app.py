"""The web application: routes of all pages, each with its JSON twin, and what every answer has in common."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from extraction_assets.browser.forms import parse_form
from extraction_assets.browser.json_twin import json_bytes
from extraction_assets.browser.links import Here, ServerLinks
from extraction_assets.browser.page import Action, ActionRequest, Download, Options, Page, PageRequest
from extraction_assets.browser.pages import ACTIONS, DOWNLOADS, PAGES
from extraction_assets.browser.parameters import BadRequestError, Parameters
from extraction_assets.browser.rendering import environment
from extraction_assets.browser.results import OpenDatabase, Results
from extraction_assets.browser.security import ForbiddenError, Guard, Token
from extraction_assets.browser.statements import collected
from extraction_assets.browser.static_files import StaticFiles
from extraction_assets.database.backends import backend_of
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.queries.extractions import UnknownResultError

THREADS = 8
"""Pages made at once; others wait for their turn. Fewer than the connections that SQLAlchemy's pool has, 15."""

LARGEST_FORM = 8 << 20
"""Bytes of a form: a file of labels is the largest."""

_STATUS: dict[type[Exception], int] = {
    BadRequestError: 400,
    ForbiddenError: 403,
    UnknownResultError: 404,
    DatabaseError: 503,
}
_log = logging.getLogger(__name__)


class _Number(IntegerConvertor):
    """``{neuron:number}`` in a path. ``int`` refuses thousands of digits with an error of its own."""

    regex = "[0-9]{1,40}"


register_url_convertor("number", _Number())


def create_app(read: OpenDatabase, options: Options | None = None, write: OpenDatabase | None = None) -> Starlette:
    """The application on a results database.

    ``read`` and ``write`` open it, as ``ResultsResource.read`` and ``ResultsResource.open`` do; without ``write`` the
    browser is read-only, whatever ``options`` say.
    """
    options = (options or Options())._replace(read_only=write is None or (options or Options()).read_only)
    return _Browser(Results(read, write), options).app


class _Browser:
    """What the routes share."""

    def __init__(self, results: Results, options: Options) -> None:
        static_files = StaticFiles()
        self.results, self.options, self.token = results, options, Token()
        live = None if options.live is None else options.live.extraction
        self.links = ServerLinks(static_files.versions, live=live)
        self._limiter: anyio.CapacityLimiter | None = None
        routes: list[BaseRoute] = [Route("/static/{name}", static_files.respond)]
        routes += [Route(one.path, self._endpoint(partial(self._download, one))) for one in DOWNLOADS]
        for page in PAGES:  # the twin first: the last part of a path may match it too
            routes.append(Route(f"{page.path}.json", self._endpoint(partial(self._twin, page))))
            routes.append(Route(page.path, self._endpoint(partial(self._html, page))))
        routes += [Route(one.path, self._action(one), methods=["POST"]) for one in ACTIONS]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: self._http_error})
        self.app.add_middleware(Guard, allowed_hosts=options.allowed_hosts)

    def _endpoint(self, respond: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """A route whose work, queries and template, is done in a thread."""

        async def endpoint(request: Request) -> Response:
            return await self._in_thread(lambda: self._guarded(request, lambda: respond(request)))

        return endpoint

    async def _in_thread(self, work: Callable[[], Response]) -> Response:
        if self._limiter is None:  # belongs to the running event loop
            self._limiter = anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def _guarded(self, request: Request, work: Callable[[], Response]) -> Response:
        """The answer, or an error page with one sentence."""
        try:
            return work()
        except tuple(_STATUS) as error:
            status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
            return self._error(request, status, str(error))
        except Exception:
            _log.exception("the page %s failed", request.url.path)
            return self._error(request, 500, "this page failed; the server's terminal shows why")

    def _html(self, page: Page, request: Request) -> Response:
        parameters, here = self._parameters(request), self._here(request)
        with self.results.connection() as connection, collected(connection) as ran:
            view = page.view(self._page_request(connection, request, parameters, here))
            parameters.refuse_unknown()
            leads_to = getattr(view, "leads_to", None)
            if leads_to is not None:
                return RedirectResponse(leads_to, status_code=303)
            statements = ran.shown(backend_of(connection).written_dialect)
        html = self._render(page.template, view=view, here=here, statements=statements)
        return Response(html, media_type="text/html", headers={"cache-control": "no-cache"})

    def _twin(self, page: Page, request: Request) -> Response:
        parameters = self._parameters(request)
        with self.results.connection() as connection:
            view = page.view(self._page_request(connection, request, parameters, self._here(request)))
            parameters.refuse_unknown()
        return Response(json_bytes(view), media_type="application/json", headers={"cache-control": "no-cache"})

    def _download(self, download: Download, request: Request) -> Response:
        parameters = self._parameters(request)
        with self.results.connection() as connection:
            content = download.content(self._page_request(connection, request, parameters, self._here(request)))
            parameters.refuse_unknown()
        attached = {"content-disposition": f"attachment; filename*=UTF-8''{quote(download.file_name)}"}
        return Response(content, media_type=download.media_type, headers=attached)

    def _action(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await _body(request)
            return await self._in_thread(lambda: self._guarded(request, lambda: self._act(action, request, body)))

        return endpoint

    def _act(self, action: Action, request: Request, body: bytes | None) -> Response:
        if self.options.read_only:
            raise ForbiddenError("this browser is read-only: nothing can be changed here")
        if body is None:
            raise BadRequestError(f"a form has at most {LARGEST_FORM} bytes")
        form, files = parse_form(body, request.headers.get("content-type", ""))
        self.token.check(request.headers, form.text(Token.FIELD))
        with self.results.writing() as connection:
            address = action.act(ActionRequest(connection, _names(request), form, files, self.links))
        return RedirectResponse(address, status_code=303)

    def _page_request(self, connection: Any, request: Request, parameters: Parameters, here: Here) -> PageRequest:
        return PageRequest(connection, _names(request), parameters, self.links, here, self.options)

    def _parameters(self, request: Request) -> Parameters:
        return Parameters(_pairs(request.scope["query_string"]))

    def _here(self, request: Request) -> Here:
        path = quote(request.scope["path"].removesuffix(".json"))
        try:
            return Here(path, tuple(self._parameters(request).given))
        except BadRequestError:  # the error page is about it
            return Here(path)

    def _render(self, template: str, **values: Any) -> str:
        common = {"links": self.links, "options": self.options, "csrf": self.token.value}
        return environment().get_template(template).render(**common, **values)

    def _error(self, request: Request, status: int, sentence: str) -> Response:
        headers = {"cache-control": "no-store"} | ({"retry-after": "5"} if status == 503 else {})
        if request.url.path.endswith(".json"):
            return Response(json_bytes({"error": sentence}), status, headers, "application/json")
        html = self._render("error.html", sentence=sentence, status=status, here=self._here(request), statements=[])
        return Response(html, status, headers, "text/html")

    async def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {404: f"there is no page at {request.url.path}", 405: "this address takes no such request"}
        return self._error(request, error.status_code, sentences.get(error.status_code, error.detail))


def _names(request: Request) -> dict[str, Any]:
    """The variable parts of an address. Raises UnknownResultError for a text that PostgreSQL takes nowhere."""
    if any("\0" in str(part) for part in request.path_params.values()):
        raise UnknownResultError("no extraction and no SAE has such a name")
    return request.path_params


def _pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string. Raises BadRequestError if it is not UTF-8."""
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise BadRequestError("what follows ? in the address is not UTF-8 text of at most 100 parameters") from error


async def _body(request: Request) -> bytes | None:
    """What was sent; None if it is larger than ``LARGEST_FORM``."""
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > LARGEST_FORM:
            return None
    return bytes(read)
