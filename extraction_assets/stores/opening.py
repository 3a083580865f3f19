"""Opens the chunk store at a path or a URL."""

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.storage_urls import (
    StorageUrl,
    is_remote,
    is_url,
    local_path,
    open_filesystem,
    parse_storage_url,
)

PATIENCE_SECONDS = 180.0
"""How long a run waits for storage that does not answer."""

FOLDER = ".stores"
_READ_BY_CLIENTS = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "S3_")
_KEPT_TO_READ = 16 << 30


def open_store(place: "str | Path", home: Path, patience_seconds: float = PATIENCE_SECONDS) -> ChunkStore:
    """The store in a folder, or at a URL with scratch under ``home``. Raises StorageError for an invalid URL, or
    of storage that cannot be opened; nothing is written before something is stored or read."""
    text = str(place)
    if isinstance(place, Path) or not is_remote(text):
        return ChunkStore(Path(local_path(text)) if is_url(text) else Path(text))
    url = parse_storage_url(text)
    return _at_url(url, home / FOLDER / _folder_name(url), patience_seconds)


def open_store_to_read(place: "str | Path") -> ChunkStore:
    """The store in a folder, or at a URL with copies of its files in a temporary folder, until ``close``."""
    text = str(place)
    if isinstance(place, Path) or not is_remote(text):
        return ChunkStore(Path(local_path(text)).expanduser().absolute())
    return read_at_url(parse_storage_url(text))


def read_at_url(url: StorageUrl, kept_bytes: int = _KEPT_TO_READ) -> ChunkStore:
    """As ``open_store_to_read``; the chunk files that were read last are kept, up to ``kept_bytes``."""
    from extraction_assets.stores.remote_files import RemoteFiles
    from extraction_assets.stores.remote_folder import RemoteFolder

    folder = RemoteFolder(url)
    root = Path(tempfile.mkdtemp(prefix="extraction-assets-"))
    return ChunkStore(RemoteFiles(folder, root, kept_bytes, temporary=True))


def _at_url(url: StorageUrl, root: Path, patience_seconds: float) -> ChunkStore:
    from extraction_assets.stores.remote_files import RemoteFiles
    from extraction_assets.stores.remote_folder import RemoteFolder
    from extraction_assets.stores.storage_patience import Patience

    opened = _opened(url, os.getpid(), tuple(sorted(_environment())))
    return ChunkStore(RemoteFiles(RemoteFolder(url, opened, Patience(patience_seconds)), root))


@functools.lru_cache(maxsize=4)
def _opened(url: StorageUrl, process: int, environment: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    """A client takes a second to open, and stays open for all stores of a process: each step of a run opens one."""
    return open_filesystem(url)


def _environment() -> Iterator[tuple[str, str]]:
    """What clients read of the environment."""
    return ((name, value) for name, value in os.environ.items() if name.startswith(_READ_BY_CLIENTS))


def _folder_name(url: StorageUrl) -> str:
    """Names the scratch of a URL: readable, and another for each."""
    readable = re.sub(r"[^\w.-]+", "-", str(url))[-40:].strip("-.")
    return f"{readable}-{hashlib.sha256(str(url).encode()).hexdigest()[:12]}"
