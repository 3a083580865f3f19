"""A corpus source wherever it lies: files at a URL are copied to this machine, and read there as local ones are.

So their documents, ids and fingerprints are those of the same files in a local folder.
"""

import fnmatch
import glob
import hashlib
import json
import os
import re
from pathlib import Path

from extraction_assets.engine.corpora.documents import CorpusError, Source
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.host.locations import extraction_home
from extraction_assets.settings import CorpusSettings, is_url
from extraction_assets.stores.opening import FOLDER, PATIENCE_SECONDS
from extraction_assets.stores.remote_folder import Entry, RemoteFolder
from extraction_assets.stores.sealed import alone_in, durable_path
from extraction_assets.stores.storage_patience import Patience
from extraction_assets.stores.storage_urls import is_remote, local_path, parse_storage_url

_STAMPS = ".stamps.json"
"""What storage said of each file when it was copied."""


def open_source(corpus: CorpusSettings) -> Source:
    """``find_source``, where the source may be a URL: of a file, a folder, or files by a glob (``*``, ``**``, ``[…]``).

    Copies lie under ``EXTRACTION_HOME``; a file that has not changed is not copied again. Raises CorpusError, and
    StorageError if the storage cannot be read.
    """
    if not is_url(corpus.source):
        return find_source(corpus)
    local = _copied(corpus.source) if is_remote(corpus.source) else local_path(corpus.source)
    return find_source(corpus.model_copy(update={"source": local}))


def _copied(source: str) -> str:
    """The path, or the glob, of the copies of a source's files."""
    place, pattern = _fixed_part(source)
    folder = RemoteFolder(parse_storage_url(place), patience=Patience(PATIENCE_SECONDS))
    files = {name: entry for name, entry in folder.entries().items() if _is_plain(name) or not name}
    last = place.rstrip("/").rpartition("/")[2]
    if "" in files and not pattern:  # the URL is that of a file
        folder, files = RemoteFolder(parse_storage_url(place.rstrip("/").rpartition("/")[0])), {last: files[""]}
        pattern, inside = glob.escape(last), ""
    else:
        files.pop("", None)
        inside = last
    wanted = {name: entry for name, entry in files.items() if not pattern or _may_match(name, pattern)}
    if not wanted:
        raise CorpusError(f"corpus source {source!r} matches no file")
    root = extraction_home() / FOLDER / "sources" / _folder_name(source)
    top = root / inside if inside else root
    lock = root.with_name(f".{root.name}.lock")  # not the folder itself, which each file that is written marks
    for one in (top, lock):
        one.mkdir(parents=True, exist_ok=True)
    with alone_in(lock):
        _bring_up_to_date(folder, wanted, root, top)
    if not pattern:
        return str(top)
    return str(Path(glob.escape(str(top))) / pattern) if glob.has_magic(pattern) else str(top / pattern)


def _fixed_part(source: str) -> tuple[str, str]:
    """The URL before the first wildcard, and the pattern behind it, which is empty if there is none."""
    scheme, _, path = source.partition("://")
    parts = path.split("/")
    wild = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return f"{scheme}://{'/'.join(parts[:wild])}", "/".join(parts[wild:])


def _is_plain(name: str) -> bool:
    """Whether a name leads out of no folder, and has no part that begins with a dot: these are left out of any."""
    return all(part and not part.startswith(".") for part in name.split("/"))


def _may_match(name: str, pattern: str) -> bool:
    """Whether a glob may match a file, by the last part alone: the copies are matched by all of it."""
    last = pattern.rpartition("/")[2]
    return last == "**" or fnmatch.fnmatchcase(name.rpartition("/")[2], last)


def _bring_up_to_date(folder: RemoteFolder, wanted: dict[str, Entry], root: Path, top: Path) -> None:
    """Copies what is new or has changed, and removes copies of what is gone."""
    before, stamps = _read_stamps(root), {name: list(entry) for name, entry in wanted.items()}
    for path in [path for path in top.rglob("*") if path.is_file() and path != root / _STAMPS]:
        if path.relative_to(top).as_posix() not in wanted:
            path.unlink()
    (root / _STAMPS).unlink(missing_ok=True)  # until all are there: copies that a killed process leaves count as old
    for name, stamp in stamps.items():
        path = top / name
        if path.is_file() and before.get(name) == stamp and path.stat().st_size == wanted[name].size:
            continue
        with durable_path(path) as temporary:
            if not folder.fetch(name, temporary):
                raise CorpusError(f"corpus file {folder.url}/{name} has gone while the corpus was copied: try again")
    with durable_path(root / _STAMPS) as temporary:
        temporary.write_text(json.dumps(stamps))


def _read_stamps(root: Path) -> dict[str, object]:
    try:
        found = json.loads((root / _STAMPS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folder_name(source: str) -> str:
    readable = re.sub(r"[^\w.-]+", "-", source)[-40:].strip("-.")
    return f"{readable}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:12]}"
