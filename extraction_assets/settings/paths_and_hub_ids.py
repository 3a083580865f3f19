"""Where a corpus or a checkpoint is: a path, counted from the folder of the YAML file, or a hub repository's id."""

import glob
import re
from pathlib import Path

STANDARD_LIBRARY = "standard-library"
"""The corpus source that is the running Python's own sources."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIX = re.compile(
    r"\.(txt|md|py|html|xml|jsonl?|ndjson|jsonlines|parquet|arrow|feather|csv|tsv|xlsx|pdf|docx|zip|tar|t?gz|bz2|zst|xz)$",
    re.IGNORECASE,
)


def is_url(source: str) -> bool:
    """Whether a corpus source is a URL of storage, such as ``s3://bucket/folder``."""
    return _URL.match(source) is not None


def is_hub_id(source: str, folder: Path | None = None) -> bool:
    """Whether a corpus source has the form of a hub id, and is not there as a path relative to ``folder``.

    Without a folder only the form counts; the working directory is not looked at.
    """
    if not _HUB_ID.fullmatch(source) or _FILE_SUFFIX.search(source):
        return False
    return folder is None or not (folder / source).exists()


def locate_source(source: str, folder: Path) -> str:
    """A corpus source relative to ``folder`` made absolute; the name of ``folder`` itself is no part of a pattern."""
    path = Path(source).expanduser()
    if path.is_absolute() or (folder / path).exists() or not glob.has_magic(source):
        return str((folder / path).absolute())
    return str(Path(glob.escape(str(folder.absolute()))) / path)


def locate_checkpoint(path: str, folder: Path) -> str:
    """A checkpoint path relative to ``folder`` made absolute; a hub id as it is."""
    candidate = folder / Path(path).expanduser()
    if path.startswith((".", "/", "~")) or candidate.exists():
        return str(candidate.resolve())
    return path
