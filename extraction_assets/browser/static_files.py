"""The browser's own files, style sheet and scripts, read once when it starts; an address names a file's content."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_GOOD = "public, max-age=31536000, immutable"


class StaticFiles:
    """The files in ``static/``; their versions are the beginning of a hash of their content."""

    def __init__(self) -> None:
        files = sorted(path for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES)
        self._contents = {path.name: path.read_bytes() for path in files}
        self.versions = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self._contents.items()}

    async def respond(self, request: Request) -> Response:
        """The answer to ``/static/{name}``."""
        name = request.path_params["name"]
        if name not in self._contents:
            return Response("there is no such file\n", 404, media_type="text/plain")
        current = request.query_params.get("v") == self.versions[name]
        headers = {"cache-control": _FOR_GOOD if current else "no-cache"}
        return Response(self._contents[name], media_type=_MEDIA_TYPES[Path(name).suffix], headers=headers)
