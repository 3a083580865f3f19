"""A file, a folder or a glob -> the files of a corpus, each once; never waits for a FIFO, never runs in circles."""

import errno
import glob
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import dropwhile
from pathlib import Path

from extraction_assets.engine.corpora.documents import CorpusError

_NO_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def matching_files(source: str) -> tuple[list[Path], Path]:
    """The files of a file, folder (recursively) or glob, sorted by path, and the folder that they are named from.

    Links are followed, except those to a folder around themselves; a file with several names is found once, by that
    without a link. Names that begin with a dot are left out, as by a shell's ``*``. Raises CorpusError for what cannot
    be read in a folder (links that lead nowhere, folders without permission, FIFOs, sockets, devices), and where no
    file is found.
    """
    if os.path.isdir(source):
        top, found = source, [path for _, paths in _walk(source) for path in paths]
    elif os.path.lexists(source):
        top, found = os.path.dirname(source), [source]
    else:
        top, found = _fixed_part(source), list(_expanded(source))
    files = [Path(path) for path in sorted(_each_once(found, top))]
    if not files:
        raise CorpusError(f"corpus source {source!r} matches no file")
    return files, Path(source) if os.path.isdir(source) else files[0].parent


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """(folder, what in it is no folder), each folder once: first those reached without a link, then the others."""
    around = os.path.realpath(top)
    pending, links, seen = [top], list[str](), set[tuple[int, int]]()
    while pending or links:
        if not pending:
            links.sort()
        folder = pending.pop() if pending else links.pop(0)
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        others = []
        for entry in _entries(folder):
            if not _is_folder(entry):
                others.append(entry.path)
            elif not entry.is_symlink():
                pending.append(entry.path)
            elif not Path(around).is_relative_to(os.path.realpath(entry.path)):
                links.append(entry.path)
        yield folder, others


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError as error:
        raise CorpusError(f"corpus folder {folder} cannot be read ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _expanded(pattern: str) -> Iterator[str]:
    """Paths that match a glob. ``**`` is walked by ``_walk``: Python's own runs in circles where links do."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    first = parts.index("**")
    rest = list(dropwhile(lambda part: part == "**", parts[first:]))
    for top in sorted(glob.glob(str(Path(*parts[:first])))) if first else ["."]:
        for folder, _ in _walk(top) if os.path.isdir(top) else ():
            yield from _expanded(str(Path(glob.escape(folder), *(rest or ["*"]))))


def _fixed_part(pattern: str) -> str:
    """The folder before the first wildcard."""
    parts = Path(pattern).parts
    wild = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(Path(*parts[:wild]))


def _each_once(paths: Iterable[str], top: str) -> Iterator[str]:
    """The paths of regular files, of several names of one file that without a link, else the first by its letters."""
    by_file = defaultdict(set)
    for path in paths:
        state = _state(path)
        if stat.S_ISDIR(state.st_mode):
            continue  # a glob finds folders too
        if not stat.S_ISREG(state.st_mode):
            what = _NO_FILES.get(stat.S_IFMT(state.st_mode), "no file")
            raise CorpusError(f"corpus source {path} is {what}, which cannot be read again and again: give files")
        by_file[state.st_dev, state.st_ino if state.st_ino else path].add(path)
    real_top = os.path.realpath(top or ".")
    for names in by_file.values():
        yield (
            names.pop()
            if len(names) == 1
            else min(names, key=lambda name: (_is_behind_link(name, top, real_top), name))
        )


def _is_behind_link(path: str, top: str, real_top: str) -> bool:
    return os.path.realpath(path) != os.path.normpath(os.path.join(real_top, os.path.relpath(path, top or ".")))


def _state(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        where = f", which leads to {os.readlink(path)}" if os.path.islink(path) else ""
        raise CorpusError(f"corpus file {path}{where} does not exist: remove the link, or correct it") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG):
            raise  # one that may go away by itself
        raise CorpusError(f"corpus file {path} cannot be read ({error.strerror})") from error
