"""Writing labels, marks and notes: the one thing that people write, in a table of its own that no merge touches."""

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.connect import plain_errors
from extraction_assets.database.explanations.explanation import shortened
from extraction_assets.database.label_lines import BadLinesError, LabelLines, NumberedLabel
from extraction_assets.database.queries.labels import LONGEST_LABEL, LONGEST_NOTE, MARKS, Label, list_labels
from extraction_assets.database.tables import extractions, feature_labels


class LabelError(ValueError):
    """A label that cannot be stored; the message is one sentence that says why."""


class Imported(NamedTuple):
    """What an import did, in labels."""

    added: int
    replaced: int
    """Those that were older in the database."""
    kept: int
    """Those that are newer in the database than in the file."""
    unchanged: int
    unmerged: dict[str, int]
    """Of all, those of each SAE of which nothing is merged, so that no page shows them yet."""


@contextlib.contextmanager
def label_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes labels. It never holds up a merge for longer than itself; a merge that is loading rows
    into SQLite it waits for, and on PostgreSQL it does not.

    Raises DatabaseError, as ``connect.write_transaction``.
    """
    options = backend_of(engine).write_options
    with plain_errors(engine), engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def save_label(
    connection: sa.Connection,
    name: str,
    sae: str,
    neuron_index: int,
    *,
    label: str = "",
    mark: str | None = None,
    note: str = "",
    now: dt.datetime | None = None,
) -> Label | None:
    """Store what is said of a feature in place of what was; nothing at all removes it, and gives None.

    Raises LabelError if a text is too long or cannot be stored, or there is no such feature.
    """
    moment = now or dt.datetime.now(dt.UTC)
    written = Label(name, sae, neuron_index, label, mark or None, note, moment)
    reason = refusal(written) or _no_feature(written, _latent_dims(connection, name), must_be_merged=True)
    if reason is not None:
        raise LabelError(reason)
    if not (label or mark or note):
        connection.execute(sa.delete(feature_labels).where(*_is(written)))
        return None
    _store(connection, [written])
    return written


def import_labels(connection: sa.Connection, name: str, lines: LabelLines) -> Imported:
    """Store the labels of a file. Where a feature has one already, the newer of the two stays (``updated_at``); of two
    from the same moment, that of the file.

    Raises BadLinesError, which names every line that could not be read or cannot be stored; then nothing was.
    """
    numbered, sizes = lines.labels, _latent_dims(connection, name)
    reasons = ((one, refusal(one.label) or _no_feature(one.label, sizes)) for one in numbered)
    faults = [*lines.faults, *(one.fault(reason) for one, reason in reasons if reason is not None)]
    if faults:
        raise BadLinesError([one.sentence for one in sorted(faults, key=lambda one: (one.file, one.line))])
    present = {(one.sae, one.neuron_index): one for one in list_labels(connection, name)}
    newer, counts = list[Label](), dict.fromkeys(("added", "replaced", "kept", "unchanged"), 0)
    for one in (line.label for line in numbered):
        known = present.get((one.sae, one.neuron_index))
        what = _what_to_do(one, known)
        counts[what] += 1
        if what in ("added", "replaced"):
            newer.append(one)
    _store(connection, newer)
    return Imported(**counts, unmerged=dict(Counter(one.label.sae for one in numbered if one.label.sae not in sizes)))


def import_explanations(connection: sa.Connection, name: str, lines: LabelLines, *, replace: bool = False) -> Imported:
    """Store labels that programs wrote. A feature that has a label keeps it, whichever is newer, unless ``replace``;
    marks stay in any case, and so does the note of a feature with a note alone, before the new one.

    Raises BadLinesError, as ``import_labels``.
    """
    present = {(one.sae, one.neuron_index): one for one in list_labels(connection, name)}
    given, kept, unchanged = list[NumberedLabel](), 0, 0
    for one in lines.labels:
        known = present.get((one.label.sae, one.label.neuron_index))
        if known is not None and known.label == one.label.label:
            unchanged += 1
        elif known is not None and known.label and not replace:
            kept += 1
        else:
            given.append(one if known is None else one._replace(label=_over(known, one.label)))
    done = import_labels(connection, name, lines._replace(labels=given))
    return done._replace(kept=done.kept + kept, unchanged=done.unchanged + unchanged)


def _over(known: Label, new: Label) -> Label:
    """An explanation in place of the label that a feature has, or beside its mark and note."""
    note = new.note if known.label or not known.note else shortened(f"{known.note}\n{new.note}", LONGEST_NOTE)
    return new._replace(mark=known.mark, note=note, updated_at=max(known.updated_at, new.updated_at))


def refusal(label: Label) -> str | None:
    """Why a label cannot be stored, wherever it comes from; None if it can."""
    if label.mark is not None and label.mark not in MARKS:
        return f"mark is {label.mark!r}, not one of {', '.join(MARKS)}"
    for what, text, most in (("label", label.label, LONGEST_LABEL), ("note", label.note, LONGEST_NOTE)):
        if len(text) > most:
            return f"the {what} has {len(text):,} characters, and at most {most:,} are stored"
        if "\0" in text or any("\ud800" <= ch <= "\udfff" for ch in text):
            return f"the {what} holds a character that no text in the database holds (NUL, or half a surrogate pair)"
    if "\n" in label.label or "\r" in label.label:
        return "the label has more than one line: write the rest as its note"
    return None


def _no_feature(label: Label, sizes: dict[str, int], *, must_be_merged: bool = False) -> str | None:
    size = sizes.get(label.sae)
    if size is None:
        return f"there are no results of {label.name}/{label.sae}" if must_be_merged else None
    if 0 <= label.neuron_index < size:
        return None
    return f"no feature {label.neuron_index} in {label.name}/{label.sae}: features are numbered from 0 to {size - 1}"


def _what_to_do(label: Label, known: Label | None) -> str:
    if known is None:
        return "added"
    if known == label:
        return "unchanged"
    return "kept" if known.updated_at > label.updated_at else "replaced"


def _latent_dims(connection: sa.Connection, name: str) -> dict[str, int]:
    """Features of each merged SAE of an extraction."""
    query = sa.select(extractions.c.sae, extractions.c.latent_dim).where(extractions.c.name == name)
    return {sae: int(size) for sae, size in connection.execute(query)}


def _is(label: Label) -> tuple[sa.ColumnElement[bool], ...]:
    c = feature_labels.c
    return c.name == label.name, c.sae == label.sae, c.neuron_index == label.neuron_index


def _store(connection: sa.Connection, labels: list[Label]) -> None:
    if not labels:
        return
    insert = backend_of(connection).upsert(feature_labels, ("name", "sae", "neuron_index"))
    rows = [label._asdict() | {"label": label.label or None, "note": label.note or None} for label in labels]
    connection.execute(insert, rows)
