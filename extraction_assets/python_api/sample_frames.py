"""A sample as a frame, which a notebook shows as a shaded text."""

from typing import Any

import pandas as pd
import sqlalchemy as sa

from extraction_assets.browser.fragments import sample_fragment
from extraction_assets.browser.pages.sample import sample_feature, shaded_text, token_notes, tokens_with_features
from extraction_assets.database.queries.one_feature import special_ids
from extraction_assets.database.queries.samples import features_of_sample, find_sample, firings_in_sample, maxima_query
from extraction_assets.python_api.frames import ShownFrame

_COLUMNS = ("position", "token_id", "token", "features", "activations")


def sample_frame(connection: sa.Connection, extraction: sa.Row[Any], sample_index: int) -> ShownFrame:
    """The tokens of a sample by ``position``, with all stored features that fire on each.

    ``attrs`` has the sample's ``sample_index``, ``document_id``, ``first_token`` and ``messages``.
    """
    sample = find_sample(connection, extraction, sample_index)
    named = dict(features_of_sample(connection, extraction.id, sample_index))
    firings = firings_in_sample(connection, extraction.id, sample_index, named)
    maxima = {row.neuron_index: row.max_activation for row in connection.execute(maxima_query(extraction.id, named))}
    features = [sample_feature(index, peak, maxima.get(index), firings.get(index)) for index, peak in named.items()]
    tokens = tokens_with_features(sample, features, maxima)
    text = shaded_text(sample, tokens, maxima, special_ids(connection, extraction.corpus_id))
    title = f"sample {sample.sample_index} of {extraction.name}/{extraction.sae}"
    rows = [
        (
            one.position,
            one.token_id,
            one.token,
            [firing.neuron_index for firing in one.firings],
            [firing.activation for firing in one.firings],
        )
        for one in tokens
    ]
    notes = token_notes(tokens)
    plain = pd.DataFrame(rows, columns=list(_COLUMNS)).set_index("position")
    frame = ShownFrame(plain, html=lambda: sample_fragment(text, title, notes))
    frame.attrs |= {name: getattr(sample, name) for name in ("sample_index", "document_id", "first_token")}
    frame.attrs["messages"] = [said._asdict() for said in sample.messages]
    return frame
