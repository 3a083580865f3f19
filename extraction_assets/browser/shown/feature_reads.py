"""The facts of one feature from the database, each part with the reason why it is not there."""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.shown.charts import even_histogram
from extraction_assets.browser.shown.feature_parts import (
    Directions,
    Flag,
    Label,
    Logit,
    LogitLens,
    Nearest,
    Neighbour,
    Provenance,
    Relations,
    TopToken,
    flag,
    scope_sentence,
    shuffled_after,
)
from extraction_assets.browser.shown.file_names import last_part
from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_RELATIONS
from extraction_assets.database.queries import directions as directions_queries
from extraction_assets.database.queries import one_feature
from extraction_assets.database.queries import relations as relations_queries
from extraction_assets.database.queries.labels import find_label

CHIPS = 2
"""Tokens that say what another feature fires on."""

_CANDIDATES = 32


class Around(NamedTuple):
    """Where to go from a feature."""

    previous: int | None
    next: int | None
    shuffled: int | None
    """A feature that fires, in an order that looks random and comes to every one."""


def around(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int) -> Around:
    """The features before and after one, and one somewhere else."""
    last = extraction.latent_dim - 1
    candidates = shuffled_after(neuron_index, extraction.latent_dim, _CANDIDATES)
    firing = set(connection.scalars(one_feature.firing_query(extraction.id, candidates)))
    return Around(
        neuron_index - 1 if neuron_index > 0 else None,
        neuron_index + 1 if neuron_index < last else None,
        next((one for one in candidates if one in firing and one != neuron_index), None),
    )


def label_of(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int) -> Label:
    """What people call a feature; empty if nobody has named it."""
    found = find_label(connection, extraction.name, extraction.sae, neuron_index)
    return Label(found.label or None, found.mark, found.note or None) if found else Label()


def flags_of(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int) -> tuple[Flag, ...]:
    """The flags of a feature, of the current result alone."""
    found = relations_queries.flags_of(connection, extraction.id, neuron_index)
    return tuple(flag(name, detail) for name, detail in found.items())


def missing_relations(connection: sa.Connection, extraction: sa.Row[Any]) -> tuple[sa.Row[Any] | None, str]:
    """What an extraction's relations were counted of, or None and why there are none of its current result."""
    row = relations_queries.find_relations(connection, extraction.id)
    if row is None:
        asset = f"{extraction.name}/{extraction.sae}/{FEATURE_RELATIONS}"
        return None, f"not computed for this result: materialize {asset}"
    return row, ""


def relations_of(
    connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int
) -> tuple[Relations | None, str | None]:
    """What the firings say of a feature, or None and why."""
    row, missing = missing_relations(connection, extraction)
    if row is None:
        return None, missing
    found = relations_queries.neighbours_of(connection, extraction.id, neuron_index)
    neighbours = found.neighbours if found else []
    chips = first_tokens(connection, extraction.id, [one.neuron_index for one in neighbours])
    return Relations(
        scope_sentence(row.scope, row.sample_one_in, row.sample_count, row.token_count),
        found.tokens if found else None,
        _top_tokens(connection, extraction, neuron_index, "firing"),
        _top_tokens(connection, extraction, neuron_index, "next"),
        tuple(
            Neighbour(one.neuron_index, one.tokens, one.jaccard, one.pmi, chips.get(one.neuron_index, ()))
            for one in neighbours
        ),
    ), None


def _top_tokens(
    connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int, place: str
) -> tuple[TopToken, ...]:
    rows = relations_queries.tokens_of(connection, extraction.id, neuron_index, place)
    return tuple(TopToken(token_id, token, count, mean, share) for _, token_id, token, count, mean, share in rows)


def first_tokens(
    connection: sa.Connection, extraction_id: int, neuron_indices: list[int]
) -> dict[int, tuple[str, ...]]:
    """What some features fire on most, by ``neuron_index``."""
    found: dict[int, tuple[str, ...]] = {}
    if neuron_indices:
        for index, token in connection.execute(one_feature.first_tokens_query(extraction_id, neuron_indices, CHIPS)):
            found[index] = (*found.get(index, ()), token)
    return found


def missing_directions(connection: sa.Connection, extraction: sa.Row[Any]) -> tuple[sa.Row[Any] | None, str]:
    """What the weights of an SAE gave, or None and why there is nothing."""
    row = directions_queries.find_directions(connection, extraction.name, extraction.sae)
    if row is None:
        return None, f"not computed: materialize {extraction.name}/{extraction.sae}/{FEATURE_DIRECTIONS}"
    return row, ""


def directions_of(
    connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int
) -> tuple[Directions | None, str | None]:
    """What the weights say of a feature, or None and why."""
    made, missing = missing_directions(connection, extraction)
    if made is None:
        return None, missing
    logits = directions_queries.logits_of(connection, made.id, neuron_index)
    undefined = None if logits else made.undefined or "its decoder row is zero, which is no direction"
    nearest = directions_queries.nearest_of(connection, made.id, neuron_index)
    lens = _logit_lens(made.norm, logits) if logits else None
    return Directions(lens, undefined, _with_tokens(connection, extraction, nearest)), None


def _logit_lens(norm: str, logits: directions_queries.Logits) -> LogitLens:
    return LogitLens(
        norm,
        tuple(Logit(*one) for one in logits.top),
        tuple(Logit(*one) for one in logits.bottom),
        logits.mean,
        logits.std,
        logits.minimum,
        logits.maximum,
        even_histogram(logits.histogram, logits.minimum, logits.maximum, "tokens"),
    )


def _with_tokens(
    connection: sa.Connection, extraction: sa.Row[Any], rows: list[directions_queries.Neighbour]
) -> tuple[Nearest, ...]:
    """With what each of the features fires on."""
    ids = {sae: one for sae, one, _ in connection.execute(one_feature.extraction_ids_query(extraction.name))}
    chips = {
        sae: first_tokens(connection, ids[sae], [one.neuron_index for one in rows if one.sae == sae])
        for sae in {one.sae for one in rows} & ids.keys()
    }
    return tuple(
        Nearest(one.sae, one.neuron_index, one.cosine, chips.get(one.sae, {}).get(one.neuron_index, ())) for one in rows
    )


def provenance_of(connection: sa.Connection, extraction: sa.Row[Any]) -> Provenance:
    """What the numbers of an extraction come from."""
    corpus = connection.execute(one_feature.corpus_query(extraction.corpus_id)).one()
    sae = (extraction.settings.get("saes") or {}).get(extraction.sae) or {}
    published = f"{sae['release']}/{sae['sae_id']}" if sae.get("release") else None
    return Provenance(
        model=last_part(extraction.model),
        hook=extraction.hook,
        sae=published or last_part(sae.get("path") or extraction.sae),
        latent_dim=extraction.latent_dim,
        corpus=last_part(corpus.source),
        corpus_fingerprint=corpus.fingerprint,
        packing=corpus.packing,
        sample_count=extraction.sample_count,
        token_count=extraction.token_count,
        max_length=extraction.max_length,
        fingerprint=extraction.fingerprint,
        finished_at=extraction.finished_at,
        numerics=None if extraction.numerics is None else tuple(extraction.numerics),
        settings=extraction.settings,
    )
