"""Python, its packages, and the port of the UI."""

import http.client
import importlib.metadata
import json
import platform
import socket
import sys
import urllib.request
from collections.abc import Iterator

from packaging.requirements import Requirement

from extraction_assets.engine.findings import Finding

LEAST_PYTHON = (3, 11)
PORT = 3000
_PACKAGES = ("dagster", "torch", "transformers", "safetensors", "sqlalchemy", "alembic", "pyarrow", "numpy", "pydantic")


def check_python() -> Iterator[Finding]:
    version, where = platform.python_version(), sys.executable
    if sys.version_info < LEAST_PYTHON:
        yield Finding("error", f"{version} at {where}", check="python", advice="install Python 3.11 or newer")
    else:
        yield Finding("ok", f"{version} at {where}", check="python")


def check_packages() -> Iterator[Finding]:
    """Versions of the main packages, compared with the requirements of this package."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    wrong = [text for requirement in _requirements() if (text := _unmet(requirement))]
    if wrong:
        yield Finding(
            "error", "; ".join(wrong), check="packages", advice="pip install -U extraction-assets, in this environment"
        )
    yield Finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items()), check="packages")
    server, core = _version("dagster-webserver"), _version("dagster")
    if server is None:
        yield Finding(
            "warning",
            "dagster-webserver is not installed, so there is no UI",
            check="packages",
            advice="pip install 'extraction-assets[ui]'",
        )
    elif server != core:
        advice = f"pip install dagster-webserver=={core}"
        yield Finding("warning", f"dagster-webserver is {server} and dagster {core}", check="packages", advice=advice)


def check_port() -> Iterator[Finding]:
    """Whether the UI can listen, or does already."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", PORT))
        except OSError as error:
            reason = error.strerror
        else:
            yield Finding("ok", f"{PORT} is free for the UI", check="port")
            return
    if _is_dagster(PORT):
        yield Finding("ok", f"{PORT}: Dagster's UI answers there", check="port")
    else:
        advice = f"extraction-assets ui --port {PORT + 1}"
        yield Finding("warning", f"{PORT} cannot be used by the UI: {reason}", check="port", advice=advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> list[Requirement]:
    try:
        requirements = importlib.metadata.requires("extraction-assets") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # run from a checkout that was not installed
    return [one for one in map(Requirement, requirements) if one.marker is None or one.marker.evaluate({"extra": ""})]


def _unmet(requirement: Requirement) -> str | None:
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, {requirement.specifier} is needed"
    return None


def _is_dagster(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=3) as answer:
            reply = json.loads(answer.read(1 << 20))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return False  # whatever listens there may answer anything
    return isinstance(reply, dict) and "dagster_webserver_version" in reply
