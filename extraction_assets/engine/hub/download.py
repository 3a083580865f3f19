"""What a model or an SAE needs of a repository: asks for the commit, looks for the files, fetches them."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from extraction_assets.engine.hub.cache import MAIN, RepositoryCache
from extraction_assets.engine.hub.refusals import (
    HubError,
    HubSource,
    TransferError,
    cache_folder,
    is_transient,
    reason,
    refusal,
)
from extraction_assets.engine.hub.session import Arrived, current_session
from extraction_assets.engine.hub.transfer import RemoteFile, fetch, headers, with_retries

_COMMIT = re.compile(r"[0-9a-f]{40}")
_AT_ONCE = 4
"""Files that are fetched at the same time."""
_LOOKS_AT_ONCE = 8
_ATTEMPTS = 3
"""Of questions, before what is asked for is given up; one where the cache may do instead."""
_Result = TypeVar("_Result")


class Snapshot(NamedTuple):
    """The folder of a commit in the cache."""

    folder: Path
    commit: str
    refused: HubError | None = None
    """Why files may be missing: the hub was not asked, and the cache has what it has."""


def download_files(source: HubSource, names: Sequence[str]) -> Snapshot:
    """Those of the files ``names`` that the commit has; other files of the repository are neither listed nor fetched.

    The largest, which are the weights, come last: where they are in the cache, what says how to read them is too.
    Raises HubError if the hub refuses, or does not answer while the cache has none of them.
    """
    cache = RepositoryCache(source.repository)
    commit, refused = _commit(source, cache, names)
    unknown = [name for name in names if not cache.has(commit, name) and not cache.is_absent(commit, name)]
    found = list[RemoteFile]()
    if unknown and refused is None:
        some = len(unknown) < len(names)
        try:
            found = _look(source, commit, unknown, attempts=1 if some else _ATTEMPTS)
        except Exception as error:
            refused = refusal(error, source)
            if not any(cache.has(commit, name) for name in names):
                raise refused from error
            _say_from_cache(source, commit, error)
        else:
            for name in {*unknown} - {file.name for file in found}:
                cache.keep_absent(commit, name)
    found.sort(key=lambda file: file.size or 0)
    _fetch_all(source, cache, commit, found[:-1])
    _fetch_all(source, cache, commit, found[-1:])
    return Snapshot(cache.snapshot(commit), commit, refused)


def download_chosen(source: HubSource, choose: Callable[[Mapping[str, int]], Sequence[str]], last: str) -> Snapshot:
    """The files that ``choose`` takes of a repository's {path: bytes}. File ``last`` comes last, so that where it is in
    the cache the others are too.

    Raises HubError if the hub refuses, or does not answer while the cache has nothing of the commit.
    """
    cache = RepositoryCache(source.repository)
    known = _known_commit(source, cache)
    cached = known is not None and cache.has(known, last)
    try:
        info = _listing(source, attempts=1 if cached else _ATTEMPTS)
    except Exception as error:
        commit, refused = _cached_commit(source, cache, error), refusal(error, source)
        if not cache.snapshot(commit).is_dir():
            raise refused from error
        return Snapshot(cache.snapshot(commit), commit, refused)
    commit = _keep(source, cache, info.sha)
    wanted = list(choose({file.rfilename: file.size or 0 for file in info.siblings or []}))
    missing = [name for name in wanted if not cache.has(commit, name)]
    try:
        found = _look(source, commit, missing, attempts=_ATTEMPTS)
    except Exception as error:
        raise refusal(error, source) from error
    _fetch_all(source, cache, commit, [file for file in found if file.name != last])
    _fetch_all(source, cache, commit, [file for file in found if file.name == last])
    return Snapshot(cache.snapshot(commit), commit)


def _commit(source: HubSource, cache: RepositoryCache, names: Sequence[str]) -> tuple[str, HubError | None]:
    """The commit that is meant, and why it is only the one that the cache knows, if so."""
    pinned = _pinned(source)
    if pinned is not None:
        return pinned, None
    known = cache.commit_of(source.revision or MAIN)
    cached = known is not None and any(cache.has(known, name) for name in names)
    try:
        info = _ask(source, attempts=1 if cached else _ATTEMPTS, expand=["sha"])
    except Exception as error:
        return _cached_commit(source, cache, error), refusal(error, source)
    return _keep(source, cache, info.sha), None


def _ask(source: HubSource, *, attempts: int, **what: Any) -> Any:
    """What the hub says of a repository at the commit that is meant."""
    from huggingface_hub import HfApi, constants

    options = {"revision": _pinned(source) or source.revision, "timeout": constants.HF_HUB_ETAG_TIMEOUT, **what}
    return _answer(source, lambda: HfApi().model_info(source.repository, **options), attempts)


def _listing(source: HubSource, *, attempts: int) -> Any:
    """What the hub says of a repository's files; of a commit it is asked once in a session."""
    listings, pinned = current_session().listings, _pinned(source)
    if pinned is not None and (source.repository, pinned) in listings:
        return listings[source.repository, pinned]
    info = _ask(source, attempts=attempts, files_metadata=True)
    listings[source.repository, info.sha] = info
    return info


def _answer(source: HubSource, request: Callable[[], _Result], attempts: int) -> _Result:
    """The result of a request, which is not sent where the hub did not answer for this repository before."""
    unanswered = current_session().unanswered
    if source.repository in unanswered:
        raise unanswered[source.repository]
    try:
        return with_retries(request, attempts)
    except Exception as error:
        if is_transient(error):
            unanswered[source.repository] = error
        raise


def _pinned(source: HubSource) -> str | None:
    """The commit, where none has to be asked for: a full hash, or what this session has asked for."""
    revision = source.revision or MAIN
    if _COMMIT.fullmatch(revision):
        return revision
    return current_session().commits.get((source.repository, revision))


def _known_commit(source: HubSource, cache: RepositoryCache) -> str | None:
    return _pinned(source) or cache.commit_of(source.revision or MAIN)


def _keep(source: HubSource, cache: RepositoryCache, commit: str | None) -> str:
    """Notes the commit that the hub has named."""
    if commit is None or not re.fullmatch(r"\w+", commit):
        raise HubError(f"{source.what} what answers in place of the hub names no commit of {source.repository}")
    revision = source.revision or MAIN
    if revision != commit:
        current_session().commits[source.repository, revision] = commit
        cache.keep_commit(revision, commit)
    return commit


def _cached_commit(source: HubSource, cache: RepositoryCache, error: Exception) -> str:
    """The commit that the cache knows, where the hub gave no answer or let nobody in. Raises HubError where there is
    none, or where the hub says that there is no such revision."""
    from huggingface_hub.errors import HFValidationError, RevisionNotFoundError

    known = _known_commit(source, cache)
    if known is None or isinstance(error, (RevisionNotFoundError, HFValidationError, HubError)):
        raise refusal(error, source) from error
    if cache.snapshot(known).is_dir():
        _say_from_cache(source, known, error)
    current_session().commits[source.repository, source.revision or MAIN] = known
    return known


def _say_from_cache(source: HubSource, commit: str, error: Exception) -> None:
    """That the cache is used in place of the hub; not where the user wants that."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return
    said = "does not answer" if is_transient(error) else "refuses"
    current_session().warn(
        f"the Hugging Face hub {said} ({reason(error)}): {source.repository} is read from the cache in "
        f"{cache_folder()}, at commit {commit}"
    )


def _look(source: HubSource, commit: str, names: Sequence[str], *, attempts: int) -> list[RemoteFile]:
    """Those of the files that the commit has."""
    from huggingface_hub.errors import EntryNotFoundError

    def look(name: str) -> RemoteFile | None:
        with contextlib.suppress(EntryNotFoundError):
            return with_retries(partial(_described, source.repository, commit, name), attempts)
        return None

    def look_at_all() -> list[RemoteFile]:
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "hub-look") as pool:
            return [file for file in pool.map(look, names) if file is not None]

    return _answer(source, look_at_all, 1)


def _described(repository: str, commit: str, name: str) -> RemoteFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        raise TransferError(f"the repository holds {name!r}, which lies outside of it")
    url = hf_hub_url(repository, name, revision=commit)
    found = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, headers=headers())
    if found.etag is None or not re.fullmatch(r"[\w.-]*\w", found.etag):
        raise TransferError(f"what answers in place of the hub names no ETag of {name}")
    return RemoteFile(name, url, found.etag, found.size)


def _fetch_all(source: HubSource, cache: RepositoryCache, commit: str, files: Sequence[RemoteFile]) -> None:
    """Downloads files into the cache, several at once, with their progress. Raises HubError."""
    if not files:
        return
    failed: OSError | None = None
    total = sum(file.size or 0 for file in files)
    try:
        cache.blob("x").parent.mkdir(parents=True, exist_ok=True)
        _refuse_full_disk(source, cache, files)
        with current_session().show(source.repository, total) as show, _fetching(show) as (pool, arrived):
            list(pool.map(lambda file: _fetch(cache, commit, file, arrived), files))
    except HubError:
        raise
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise refusal(error, source) from error
        failed = error
    except Exception as error:
        raise refusal(error, source) from error
    if failed is not None:  # and not from it: a full disk is otherwise taken for that of EXTRACTION_HOME
        where = failed.filename or cache_folder()
        raise HubError(
            f"{source.what} {where} cannot be written ({failed.strerror}): make room there, or set HF_HOME to a "
            "folder on another disk; what has arrived is kept"
        )


def _fetch(cache: RepositoryCache, commit: str, file: RemoteFile, arrived: Arrived) -> None:
    from huggingface_hub.utils import WeakFileLock

    blob = cache.blob(file.etag)
    with WeakFileLock(cache.lock(file.etag)):
        if blob.is_file():  # of another commit, or another process was faster
            arrived(file.size or 0)
        else:
            fetch(file, blob, arrived)
        cache.link(file.etag, commit, file.name)


def _refuse_full_disk(source: HubSource, cache: RepositoryCache, files: Sequence[RemoteFile]) -> None:
    """Before the first byte: a transfer of an hour that fails at its end helps nobody."""
    needed = sum(file.size or 0 for file in files if not cache.blob(file.etag).exists())
    there = sum(path.stat().st_size for file in files for path in cache.root.glob(f"blobs/{file.etag}.resumable*"))
    free = shutil.disk_usage(cache.root).free
    if needed - there > free:
        raise HubError(
            f"{source.what} {(needed - there) / 1e9:.1f} GB are to be downloaded to {cache_folder()}, where "
            f"{free / 1e9:.1f} GB are free: make room there, or set HF_HOME to a folder on another disk"
        )


@contextlib.contextmanager
def _fetching(show: Arrived) -> Iterator[tuple[ThreadPoolExecutor, Arrived]]:
    """Threads that fetch, and what they call with the bytes that arrive. After an error, or an interrupt of this
    thread, those that work stop at their next chunk."""
    pool, lock, stop = ThreadPoolExecutor(_AT_ONCE, "hub-fetch"), threading.Lock(), threading.Event()

    def arrived(size: int) -> None:
        if stop.is_set():
            raise InterruptedError("another file failed")
        with lock:
            show(size)

    try:
        yield pool, arrived
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
