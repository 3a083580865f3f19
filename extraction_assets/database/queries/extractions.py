"""What is merged."""

import datetime as dt
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.tables import extractions


class Merge(NamedTuple):
    """What the database has of one (extraction, SAE)."""

    finished_at: dt.datetime
    """In UTC."""
    hook: str
    """What the SAE read."""


class UnknownResultError(LookupError):
    """No such extraction, SAE or feature in the database; the message lists those that exist."""


def merges(connection: sa.Connection) -> dict[tuple[str, str], Merge]:
    """The last merge of each (extraction, SAE)."""
    query = sa.select(extractions.c.name, extractions.c.sae, extractions.c.finished_at, extractions.c.hook)
    return {(name, sae): Merge(finished, hook) for name, sae, finished, hook in connection.execute(query)}


def merge_fingerprints(connection: sa.Connection) -> dict[tuple[str, str], str]:
    """Fingerprint of what is merged of each (extraction, SAE)."""
    query = sa.select(extractions.c.name, extractions.c.sae, extractions.c.fingerprint)
    return {(name, sae): fingerprint for name, sae, fingerprint in connection.execute(query)}


def find_extraction(connection: sa.Connection, name: str, sae: str | None = None) -> sa.Row[Any]:
    """The row of an (extraction, SAE); ``sae`` may be left out where there is one. Raises UnknownResultError."""
    query = sa.select(extractions).where(extractions.c.name == name).execution_options(about="the extraction")
    rows = connection.execute(query).all()
    if not rows:
        raise UnknownResultError(f"no merged results of extraction {name!r}: run it first")
    chosen = [row for row in rows if sae in (None, row.sae)]
    if len(chosen) != 1:
        names = ", ".join(sorted(row.sae for row in rows))
        raise UnknownResultError(f"choose one SAE of extraction {name!r}: {names}" + (f" (not {sae!r})" if sae else ""))
    return chosen[0]
