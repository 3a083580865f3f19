"""A server on this machine that speaks the file protocol of the Hugging Face hub, and fails on request.

Large files (by their suffix) are redirected to a second server of another origin, as the hub does with its CDN.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = (".safetensors", ".npz", ".pt")
_PAGE = 3
"""Entries of one page of a tree."""


class Request(NamedTuple):
    """One request as the server saw it."""

    method: str
    path: str
    token: str | None
    range: str | None
    cdn: bool


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose method and path hold these texts."""

    path: str
    method: str = ""
    status: int = 0
    """The answer instead of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes of the body after which the connection is closed."""
    stall: threading.Event | None = None
    """What the connection then waits for before it is closed."""
    corrupt: bool = False
    """One bit of the body is another one."""
    ignores_range: bool = False
    times: int = 1


@dataclass
class Repository:
    """Commits {hash: {path: content}}, and what branches and tags point at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit at the end of a branch; its hash."""
        content = repr(sorted(files.items())).encode() + str(len(self.commits)).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha], self.branches[branch] = dict(files), sha
        return sha


class HubServer:
    """Repositories by id, the requests that came, and what is to go wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tokens = {"hf_good"}
        self.is_down = False
        self.before: Callable[[Request], None] = lambda _request: None
        """Called before each answer."""
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, cdn)) for cdn in (False, True)]
        ports = [one.server_address[1] for one in self._servers]
        self.endpoint, self.cdn = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def add(self, repository: str, *folders: Path, **files: bytes) -> Repository:
        """A repository with one commit: the content of folders under their own names, or of one folder at its top."""
        content = dict(files)
        for folder in folders:
            content |= files_of(folder, prefix=f"{folder.name}/" if len(folders) > 1 else "")
        made = self.repositories[repository] = Repository()
        made.commit(content)
        return made

    @property
    def fetched(self) -> list[str]:
        """Paths in a repository of the files that were requested by GET, sorted."""
        paths = [one.path for one in self.requests if one.method == "GET" and "/resolve/" in one.path]
        return sorted({path.partition("/resolve/")[2].partition("/")[2] for path in paths})

    def ranges(self, name: str) -> list[str | None]:
        """The Range of each request for the content of a file, in their order."""
        return [one.range for one in self.requests if one.method == "GET" and one.path.endswith(name) and one.cdn]

    def take_fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.path in request.path and fault.method in request.method:
                fault.times -= 1
                return fault
        return None

    @contextlib.contextmanager
    def running(self) -> Iterator[HubServer]:
        threads = [threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True) for one in self._servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """From now on connections are refused, and those that are open are closed."""
        if self.is_down:
            return
        self.is_down = True
        for one in self._servers:
            one.shutdown()
            one.server_close()


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """The content of a folder {path: bytes}."""
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def use_hub(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets huggingface_hub of this process and of its children ask the server, with an empty cache under ``home``."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):  # which do not lead to this machine
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()


def _handler(server: HubServer, cdn: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(_Answers):
        hub, is_cdn = server, cdn

    return Handler


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    is_cdn: bool

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.hub.is_down:
            self.close_connection = True
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(self.command, unquote(self.path), token, self.headers.get("Range"), self.is_cdn)
        self.hub.requests.append(request)
        self.hub.before(request)
        fault = self.hub.take_fault(request)
        if fault is not None and fault.status:
            self._send(fault.status, b"", fault.headers)
        elif self.is_cdn:
            self._content(self._blob(), {}, fault)
        else:
            self._of_the_hub(request, fault)

    def _of_the_hub(self, request: Request, fault: Fault | None) -> None:
        url = urlsplit(request.path)
        api = url.path.startswith("/api/models/")
        parts = url.path.removeprefix("/api/models").strip("/").split("/")
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if request.token is not None and request.token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and request.token is None):
            self._refuse(*((401, "") if request.token is None else (404, "RepoNotFound")), "Repository not found")
        elif repository.gated and request.token is None and not api:
            self._refuse(401, "GatedRepo", "Access to model is restricted")
        else:
            revision = parts[3] if len(parts) > 3 else "main"
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            elif api and len(parts) > 2 and parts[2] == "tree":
                self._tree(repository.commits[commit], parse_qs(url.query), url.path)
            elif api:
                self._info("/".join(parts[:2]), commit, repository.commits[commit])
            else:
                self._file(repository.commits[commit], commit, "/".join(parts[4:]), fault)

    def _info(self, repository: str, commit: str, files: dict[str, bytes]) -> None:
        siblings = [{"rfilename": name, **_listed(name, content)} for name, content in files.items()]
        self._json({"id": repository, "sha": commit, **({} if "expand" in self.path else {"siblings": siblings})})

    def _tree(self, files: dict[str, bytes], query: dict[str, list[str]], path: str) -> None:
        first = int(query.get("cursor", ["0"])[0])
        entries = [
            {"type": "file", "path": name, "oid": _git_id(content), **_listed(name, content)}
            for name, content in files.items()
        ]
        more = first + _PAGE < len(entries)
        link = f'<{self.hub.endpoint}{path}?recursive=true&cursor={first + _PAGE}>; rel="next"'
        self._json(entries[first : first + _PAGE], {"Link": link} if more else {})

    def _file(self, files: dict[str, bytes], commit: str, name: str, fault: Fault | None) -> None:
        if name not in files:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        content, described = files[name], {"X-Repo-Commit": commit}
        if name.endswith(LARGE):
            sha = hashlib.sha256(content).hexdigest()
            described |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha}"', "ETag": f'"{sha}"'}
            self._send(302, b"", {**described, "Location": f"{self.hub.cdn}/{commit}/{name}?signature=secret"})
        else:
            self._content(content, {**described, "ETag": f'"{_git_id(content)}"'}, fault)

    def _blob(self) -> bytes:
        commit, _, name = unquote(urlsplit(self.path).path).strip("/").partition("/")
        return next(one.commits[commit] for one in self.hub.repositories.values() if commit in one.commits)[name]

    def _content(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        asked = None if fault is not None and fault.ignores_range else self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if fault is not None and fault.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if asked and first >= len(content):
            self._send(416, b"", {})
            return
        partial = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if asked else {}
        cut = None if fault is None else fault.cut
        self._send(206 if asked else 200, content[first:], {**headers, **partial, "Accept-Ranges": "bytes"}, cut)
        if fault is not None and fault.stall is not None:
            fault.stall.wait(60)

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._send(status, b"", said)

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _listed(name: str, content: bytes) -> dict[str, object]:
    large = {"sha256": hashlib.sha256(content).hexdigest(), "oid": hashlib.sha256(content).hexdigest()}
    listed: dict[str, object] = {"size": len(content), "blobId": _git_id(content), "oid": _git_id(content)}
    return {**listed, "lfs": {**large, "size": len(content), "pointerSize": 134}} if name.endswith(LARGE) else listed


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
