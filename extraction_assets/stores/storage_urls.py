"""URLs of storage, such as ``s3://bucket/folder``, and what is said of one that cannot be used."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_INSTALL = {
    "s3": "pip install 'extraction-assets[s3]'",
    "s3a": "pip install 'extraction-assets[s3]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
    "abfss": "pip install adlfs",
}
"""What gives fsspec the implementation of a scheme; of others fsspec says it."""

_LOCAL = ("file", "local")
_NOT_FOLDERS = ("http", "https", "data")
_MISTYPED = re.compile(rf"(?:{'|'.join((*_INSTALL, *_LOCAL))}):/?(?!/)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|KEY|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_SHORTEST_SECRET = 8
_LONGEST_REASON = 300


class StorageError(ValueError):
    """Storage that cannot be used; one sentence without credentials that says what to do."""


class StorageUrl(NamedTuple):
    """A folder at a URL."""

    scheme: str
    path: str
    """All behind ``://``, without a slash at its end: bucket and prefix."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"


def is_url(text: str) -> bool:
    """Whether a text is a URL, and not the path of a folder."""
    scheme, found, _ = text.partition("://")
    return bool(found) and _SCHEME.fullmatch(scheme.rpartition("::")[2]) is not None


def parse_storage_url(text: str) -> StorageUrl:
    """A URL in its parts. Raises StorageError, without the URL where that may hold credentials."""
    scheme, _, path = text.partition("://")
    user, at, _ = path.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise StorageError(f"the {scheme}:// URL holds a password: give it by the environment, not in the URL")
    if "?" in path or "#" in path:
        raise StorageError(f"the {scheme}:// URL holds ? or #: give a folder alone, and credentials by the environment")
    if "::" in scheme:
        raise StorageError(f"{text} is a chain of URLs: give one URL")
    scheme, path = scheme.lower(), path.rstrip("/")
    if scheme in _NOT_FOLDERS:
        raise StorageError(f"{text} is no folder: give the URL of the storage itself, such as s3://bucket/folder")
    if not path:
        raise StorageError(f"{text} names nothing: give a bucket and a folder, such as {scheme}://bucket/folder")
    if any(part in ("", ".", "..") for part in path.lstrip("/").split("/")):
        raise StorageError(f"{text} has an empty part, or . or .. in it: give the folder without")
    return StorageUrl(scheme, path)


def local_path(text: str) -> str:
    """The path that a text means which is no URL, or a ``file://`` one. Raises StorageError for what is no path."""
    if not text.strip() or "\0" in text:
        raise StorageError(f"{text!r} is no folder: give the path of one, or a URL")
    if not is_url(text):
        if begun := _MISTYPED.match(text):
            scheme = begun[0].partition(":")[0]
            raise StorageError(f"{text} begins as a URL, but is not one: give {scheme}://…, or for a folder ./{text}")
        return text
    url = parse_storage_url(text)
    if url.scheme not in _LOCAL:
        raise StorageError(f"{text} is not a folder of this machine")
    if not url.path.startswith("/"):
        raise StorageError(f"{text} names another machine, {url.path.partition('/')[0]}: give {url.scheme}:///folder")
    return url.path


def is_remote(text: str) -> bool:
    """Whether a text is the URL of storage that is no folder of this machine."""
    return is_url(text) and text.partition("://")[0].lower() not in _LOCAL


def open_filesystem(url: StorageUrl) -> tuple[Any, str]:
    """fsspec's file system of a URL, which lists what is there now, and the folder in it. Raises StorageError."""
    from fsspec.core import url_to_fs

    logging.getLogger("asyncio").addFilter(_is_no_lost_connection)
    options = {"max_concurrency": 2} if url.scheme in ("s3", "s3a") else {}  # parts that are in memory
    try:
        opened: tuple[Any, str] = url_to_fs(str(url), use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        advice = _INSTALL.get(url.scheme) or str(error)
        raise StorageError(f"{url.scheme}:// needs a package that is not installed: {advice}") from error
    except Exception as error:  # each file system has its own
        if "Protocol not known" in str(error):
            raise StorageError(f"{url} is of a kind that is not known: s3://, gs:// and az:// are") from error
        raise StorageError(f"{url} cannot be opened: {plain_reason(error)}") from error
    return opened[0], opened[1].rstrip("/")


def _is_no_lost_connection(record: logging.LogRecord) -> bool:
    """Of each request that was being sent on a line that is cut, aiohttp has asyncio log a traceback, beside the error
    that the caller gets."""
    return not (record.exc_info and isinstance(record.exc_info[1], ConnectionError))


@contextlib.contextmanager
def plain_storage_errors(url: StorageUrl, what: str) -> Iterator[None]:
    """Raises StorageError for what a client of storage raises; ``what`` could not be done, such as "written". An error
    of a local file, which has an ``errno`` and the file's name, stays what it is."""
    try:
        yield
    except (StorageError, MemoryError):
        raise
    except FileNotFoundError as error:
        bucket = f"{url.scheme}://{url.path.partition('/')[0]}"
        raise StorageError(f"{url} cannot be {what}: {bucket} does not exist, or a file in it has gone") from error
    except PermissionError as error:
        raise StorageError(
            f"{url} cannot be {what}: access is refused ({plain_reason(error)}); check the credentials in the "
            "environment, and what they may do"
        ) from error
    except Exception as error:  # clients have error types of their own
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise
        raise StorageError(f"{url} cannot be {what}: {plain_reason(error)}") from error


def plain_reason(error: BaseException) -> str:
    """What an error says, on one line and without credentials."""
    said = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST_SECRET:
            said = said.replace(value, "***")
    said = re.sub(r"(\w://[^\s?\"']*)\?[^\s\"']*", r"\1?***", said)  # signatures are among the parameters
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 3] + "..."
