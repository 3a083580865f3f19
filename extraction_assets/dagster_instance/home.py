"""A Dagster home: its dagster.yaml, made or updated from a template, and the limit of its GPU pool."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from extraction_assets.dagster_instance.dagster_yaml import (
    FILE,
    STORAGES,
    DagsterHomeError,
    chosen_storage,
    differences_from,
    is_unedited,
    read_settings,
    storage_reads,
    template,
)
from extraction_assets.host.locations import dagster_home
from extraction_assets.host.nvml import DriverError, NoDriver, list_gpus
from extraction_assets.host.regular_files import IrregularFileError, open_regular

if TYPE_CHECKING:
    import dagster as dg
    import sqlalchemy as sa

GPU_POOL = "gpu"
"""The pool that bounds how many runs compute at once."""

POSTGRES_VARIABLE = "EXTRACTION_DAGSTER_POSTGRES_URL"
"""Environment variable with the URL of a PostgreSQL home's database."""


class _Change(NamedTuple):
    """What is to be done to a home's dagster.yaml."""

    storage: str | None
    """Storage of the template to write; None leaves the file as it is."""
    keep: bool
    """Whether the old file is kept beside the new one."""
    notes: list[str]


def make_dagster_home(home: Path) -> None:
    """Make a home if it does not exist yet. Raises DagsterHomeError or DatabaseError.

    Its storage is PostgreSQL where POSTGRES_VARIABLE is set, else SQLite.
    """
    if not (home / FILE).is_file():
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home):
            if not (home / FILE).is_file():
                _write(home, _first_storage(), None)


def check_storage(home: Path) -> None:
    """Make sure that a home with PostgreSQL storage can reach it, so that Dagster need not try for ten seconds.

    Gives the URL in the environment its driver, for this process and those it starts. Raises DatabaseError.
    """
    if storage_reads(home / FILE, read_settings(home / FILE), POSTGRES_VARIABLE):
        _connect_postgres()


def storage_of(home: Path) -> str:
    """The storage of a home that is there, a key of STORAGES or ``custom``. Raises DagsterHomeError."""
    path = home / FILE
    return chosen_storage(path, read_settings(path))


def set_up_dagster_home(home: Path, storage: str | None, gpus: int | None, *, force: bool = False) -> list[str]:
    """Make a home, or bring it up to date; returns what was done, in lines.

    ``storage`` is a key of STORAGES, None for what the home has. ``gpus`` is the limit of the GPU pool, None for what
    is set (for a new one the number of GPUs, at least 1). A dagster.yaml that a user edited is kept, and a home's
    storage too once it holds something, unless ``force``: then the old file stays beside the new one. Raises
    DagsterHomeError or DatabaseError, with dagster.yaml as it was.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        change = _change(home, storage, force)
        pool = _write(home, change.storage, gpus, change.keep) if change.storage else _set_pool(home, FILE, gpus)
    return [*change.notes, pool]


def _change(home: Path, storage: str | None, force: bool) -> _Change:
    path = home / FILE
    if not path.is_file():
        new = storage or _first_storage()
        return _Change(new, False, [f"made {path}, storage {new}"])
    text = read_settings(path)
    current = chosen_storage(path, text)
    wanted = storage or current
    if wanted != current and not force:
        if is_unedited(text) and _is_unused(home):
            return _Change(
                wanted, False, [f"updated {path}, storage {wanted} instead of {current}: it held no run yet"]
            )
        raise DagsterHomeError(
            f"{home} keeps its history in {current}, and a history does not move by itself: set DAGSTER_HOME to "
            f"another folder, or begin with an empty history in {wanted} by --force (the old one stays where it is)"
        )
    if wanted not in STORAGES:
        return _Change(None, False, [f"kept {path}: its storage was chosen by hand"])
    differences = differences_from(text, template(wanted))
    if not differences:
        return _Change(None, False, [f"{path} is up to date, storage {current}"])
    if not is_unedited(text) and not force:
        return _Change(None, False, [f"kept {path}, which was edited (--force replaces it):", *differences])
    keep = force or not is_unedited(text)
    kept = [f"the old file is kept beside it, as {FILE}.<time>"] if keep else []
    return _Change(wanted, keep, [f"updated {path}, storage {wanted}; what changed:", *differences, *kept])


def _write(home: Path, storage: str, gpus: int | None, keep: bool = False) -> str:
    """Write dagster.yaml once its instance has the pool's limit, so that no home is ever without."""
    path, draft = home / FILE, home / f".{FILE}.new"
    if path.is_dir():
        raise DagsterHomeError(f"{path} is a folder: remove it")
    draft.write_text(template(storage), "utf-8")
    try:
        pool = _set_pool(home, draft.name, gpus)
        if keep:
            path.rename(home / f"{FILE}.{time.strftime('%Y%m%d-%H%M%S')}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return pool


def _set_pool(home: Path, file: str, gpus: int | None) -> str:
    """Set the GPU pool's limit on the instance, without ``gpus`` only where none is set; says what it is."""
    with _instance(home, file) as instance:
        storage = instance.event_log_storage
        known = [pool.limit for pool in storage.get_pool_limits() if pool.name == GPU_POOL and not pool.from_default]
        if known and gpus in (None, known[0]):
            return f"pool {GPU_POOL}: at most {known[0]} run(s) at once, as before"
        limit = gpus or max(1, count_gpus())
        storage.set_concurrency_slots(GPU_POOL, limit)
    return f"pool {GPU_POOL}: at most {limit} run(s) at once" + (f", not {known[0]} any more" if known else "")


def _is_unused(home: Path) -> bool:
    """Whether nothing was ever run or switched on in a home: a command has only made it."""
    with _instance(home, FILE) as instance:
        used = (
            instance.get_runs(limit=1),
            instance.get_backfills(limit=1),
            instance.all_asset_keys(),
            instance.all_instigator_state(),
        )
        return not any(used)


def _instance(home: Path, file: str) -> "dg.DagsterInstance":
    import dagster as dg

    if storage_reads(home / file, read_settings(home / file), POSTGRES_VARIABLE):
        _connect_postgres()
    try:
        return dg.DagsterInstance.from_config(str(home), file)
    except dg.DagsterInvalidConfigError as error:
        reasons = "; ".join(reason.message.split(" Expected: ")[0] for reason in error.errors)
        raise DagsterHomeError(f"Dagster refuses {home / file}: {reasons}") from None


def count_gpus() -> int:
    """GPUs that torch sees on this host. Asks the driver, which is fast; asks torch if some GPUs are hidden from this
    process, or if they are AMD's."""
    if "CUDA_VISIBLE_DEVICES" not in os.environ and not Path("/dev/kfd").exists():
        try:
            return len(list_gpus())
        except NoDriver:
            return 0
        except DriverError:
            pass  # torch can also count without NVML
    import torch

    return torch.cuda.device_count()


def _connect_postgres() -> None:
    # Imported here, so that a command on SQLite need not wait for it.
    import sqlalchemy as sa

    from extraction_assets.database.backends import backend_of_url
    from extraction_assets.database.errors import DatabaseError
    from extraction_assets.database.url_text import error_sentence

    url = _postgres_url()
    engine = backend_of_url(url).connect(url)
    try:
        engine.connect().close()
    except sa.exc.DBAPIError as error:
        raise DatabaseError(error_sentence("Dagster's database", url, str(error.orig))) from None
    finally:
        engine.dispose()
    os.environ[POSTGRES_VARIABLE] = url.render_as_string(hide_password=False)


def _postgres_url() -> "sa.URL":
    """The URL in the environment, with its driver, once everything that Dagster needs for it is installed."""
    from extraction_assets.database.backends import parse_url
    from extraction_assets.database.backends.postgresql import missing_package
    from extraction_assets.database.errors import DatabaseError

    text = os.environ.get(POSTGRES_VARIABLE)
    if not text:
        raise DatabaseError(
            f"Dagster's storage is PostgreSQL: set {POSTGRES_VARIABLE} to postgresql+psycopg2://user:password@host/name"
        )
    url = parse_url(text, POSTGRES_VARIABLE)
    if url.get_backend_name() != "postgresql":
        raise DatabaseError(f"{POSTGRES_VARIABLE} must name a PostgreSQL database")
    try:
        import dagster_postgres  # noqa: F401 - Dagster imports it by the name in dagster.yaml
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    return url


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Two commands at once make a home one after the other."""
    path = home / ".setup.lock"
    try:
        handle = open_regular(path, os.O_RDWR | os.O_CREAT)
    except IrregularFileError as error:
        raise DagsterHomeError(f"{error}: remove it") from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _first_storage() -> str:
    return "postgres" if os.environ.get(POSTGRES_VARIABLE) else "sqlite"


def prepare_dagster_home() -> Path:
    """The Dagster home, made if it is not there, and named to Dagster by ``DAGSTER_HOME``.

    Raises DatabaseError if it keeps its history in a PostgreSQL database that cannot be reached.
    """
    home = dagster_home()
    make_dagster_home(home)
    check_storage(home)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
