"""How errors of an asset end its run: at once if only a user can fix them, after retries if they are transient."""

import contextlib
import logging
from collections.abc import Iterator

import dagster as dg

from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError
from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.engine.chunk_pass.context import NonFiniteError
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.visible_text import visible, visible_log
from extraction_assets.engine.hub import HubUnavailable
from extraction_assets.engine.models.files.local_checkpoint import UntrustedCodeError
from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.preflight.sanity import SanityError
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.execution.damage import terminal
from extraction_assets.host.gpu_lease import DeviceError
from extraction_assets.planning.disk_estimate import NotEnoughDiskError
from extraction_assets.stores.content_hashes import ChangedFileError
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.storage_urls import StorageError

USER_ERRORS = (
    ChangedFileError,
    CheckpointError,
    CorpusError,
    DamagedFileError,
    DatabaseError,
    DeviceError,
    FileNotFoundError,
    HookError,
    MemoryError,
    NonFiniteError,
    NotEnoughDiskError,
    PermissionError,
    SanityError,
    StorageError,
    UnknownResultError,
    UntrustedCodeError,
)
"""Errors of settings, data and files that no retry fixes."""

TRANSIENT_ERRORS = (DatabaseUnavailableError, HubUnavailable, OSError)
"""A full or missing disk, a network file system that fails for a moment, a database that restarts or is locked, a hub
that does not answer."""

MAX_RETRIES = 3
FIRST_WAIT_SECONDS = 5.0


@contextlib.contextmanager
def as_dagster_failure(retry_number: int, logger: logging.Logger | None = None) -> Iterator[None]:
    """Turns what a block raises into one clear failure, or into a request to try the step again, each time later.

    What the block logs to ``logger``, and the failure, may quote files: it is shown as ``visible`` shows it.
    """
    if logger is not None:
        logger.addFilter(visible_log)
    try:
        yield
    except (*USER_ERRORS, *TRANSIENT_ERRORS) as error:
        passing = isinstance(error, (DatabaseUnavailableError, HubUnavailable)) or not isinstance(error, USER_ERRORS)
        if not passing or retry_number >= MAX_RETRIES:
            raise failure(error) from error
        wait = FIRST_WAIT_SECONDS * 2**retry_number
        _announce(error, retry_number, wait, logger)
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait) from error


def _announce(error: Exception, retry_number: int, wait: float, logger: logging.Logger | None) -> None:
    """Says, before the wait, why nothing happens in it: to the run's log and to the terminal of `run NAME`."""
    # The hub's sentence is long, and the last attempt says it.
    why = "the Hugging Face hub does not answer" if isinstance(error, HubUnavailable) else visible(str(error))
    sentence = f"{why}: tried again in {wait:g} s (attempt {retry_number + 2} of {MAX_RETRIES + 1})"
    for log in (logger, terminal):
        if log is not None:
            log.warning("%s", sentence)


def failure(error: Exception) -> dg.Failure:
    """An error as a run failure without retries."""
    return dg.Failure(description=visible(str(error)), allow_retries=False)
