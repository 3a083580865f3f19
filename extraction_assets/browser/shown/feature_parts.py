"""What a feature's page shows, as named tuples: built from rows of the database, without HTML and without queries.

The page of the server and the report in one file show the same parts.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from extraction_assets.browser.shown.charts import Histogram
from extraction_assets.browser.shown.context import Context, context, special_positions
from extraction_assets.browser.shown.intervals import Interval
from extraction_assets.database.queries.examples import Draw, Example


class ShownExample(NamedTuple):
    """An example in context."""

    sample_index: int
    max_activation: float
    max_token: str
    document_id: str
    first_token: int
    """Where in the document the sample begins, in tokens."""
    context: Context
    stored: bool = True
    """Whether the sample is stored, so that it has a page, and its document is known."""


class Flag(NamedTuple):
    """What a reader wants to know of a feature before its examples."""

    name: str
    says: str
    """One sentence with the numbers that it is given for."""
    duplicate_of: int | None = None


class TopToken(NamedTuple):
    """A token on which a feature fires, or that follows one."""

    token_id: int
    token: str
    firings: int
    """With this token, or before it."""
    mean_activation: float
    share: float
    """Of the token's occurrences among the counted positions that were looked at."""


class Neighbour(NamedTuple):
    """A feature that fires on the same tokens."""

    neuron_index: int
    both: int
    """Tokens on which both fire."""
    jaccard: float
    pmi: float
    tokens: tuple[str, ...]
    """What it fires on most."""


class Relations(NamedTuple):
    """What the firings of the corpus, or of a part of it, say of a feature."""

    scope: str
    """One sentence on what was looked at."""
    tokens: int | None
    """Its own firings there."""
    firing: tuple[TopToken, ...]
    next: tuple[TopToken, ...]
    neighbours: tuple[Neighbour, ...]


class Logit(NamedTuple):
    """A token that a feature's direction raises or lowers."""

    token_id: int
    token: str
    logit: float


class LogitLens(NamedTuple):
    """What a feature's decoder row does to the logits of the next token."""

    norm: str
    """How the final norm entered."""
    top: tuple[Logit, ...]
    bottom: tuple[Logit, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    histogram: Histogram


class Nearest(NamedTuple):
    """A feature with a near decoder row."""

    sae: str
    neuron_index: int
    cosine: float
    tokens: tuple[str, ...]


class Directions(NamedTuple):
    """What follows from the weights alone."""

    logit_lens: LogitLens | None
    undefined: str | None
    """Why there is no logit lens."""
    nearest: tuple[Nearest, ...]


class FurtherRange(NamedTuple):
    """One of the intervals that ``maximum_intervals`` and ``quantile_intervals`` ask for."""

    kind: str
    """``maximum``: an equal part up to the feature's maximum; ``quantile``: a part of equally many samples."""
    low: float
    high: float
    samples: int
    share: float | None
    """Of the samples of all intervals of the kind."""
    examples: tuple[ShownExample, ...]


class Label(NamedTuple):
    """What people call a feature."""

    label: str | None = None
    mark: str | None = None
    note: str | None = None


class Statistics(NamedTuple):
    """Over the whole corpus; None is "not computed", or a feature that never fires."""

    activation_count: int
    activation_frequency: float
    token_count: int
    token_frequency: float
    max_activation: float | None
    mean_activation: float | None
    std_activation: float | None


class Provenance(NamedTuple):
    """What the numbers come from."""

    model: str
    hook: str
    sae: str
    """As it is published, or its folder."""
    latent_dim: int
    corpus: str
    corpus_fingerprint: str
    packing: str
    sample_count: int
    token_count: int
    max_length: int
    fingerprint: str
    finished_at: Any
    numerics: tuple[Mapping[str, Any], ...] | None
    """The different numerics records of the chunks; None for results of versions that did not keep them."""
    settings: Mapping[str, Any]


class Examples(NamedTuple):
    """The examples of a feature."""

    top: tuple[ShownExample, ...]
    stored: int
    """How many strongest ones are stored, of which ``top`` are the first."""
    intervals: tuple[Interval[ShownExample], ...]
    random: tuple[ShownExample, ...]
    missing: str | None = None
    """Why nothing was drawn from the intervals, if so though the feature fires."""
    random_missing: str | None = None
    """Why nothing was drawn from all samples."""
    further: tuple[FurtherRange, ...] = ()
    """Intervals of other kinds, the strongest first; none unless the settings ask for them."""


class FeatureView(NamedTuple):
    """A feature's page."""

    extraction: str
    sae: str
    neuron_index: int
    label: Label
    statistics: Statistics
    unknown: str | None
    """One sentence on the statistics that are not known."""
    flags: tuple[Flag, ...] | None
    """None: relations, which give them, are not computed."""
    histogram: Histogram
    examples: Examples
    relations: Relations | None
    relations_missing: str | None
    directions: Directions | None
    directions_missing: str | None
    provenance: Provenance


FLAGS = {
    "dead": "dead: it never fires",
    "dense": "dense: it fires on {share:.1%} of tokens",
    "duplicate": "duplicate of #{of}: Jaccard {jaccard:.2f} of the tokens on which they fire",
    "first_position": "first position: {share:.1%} of its firings are at the first counted position of a sample",
    "one_token": "one token: {share:.1%} of its firings are on one token",
}


def flag(name: str, detail: Mapping[str, Any] | None) -> Flag:
    """A flag in words; one that a later version of the project gives keeps its name."""
    try:
        says = FLAGS[name].format(**(detail or {}))
    except (KeyError, ValueError, TypeError):
        says = name.replace("_", " ")
    return Flag(name, says, (detail or {}).get("of"))


def scope_sentence(scope: str, one_in: int, samples: int, tokens: int) -> str:
    """What the relations were counted over."""
    where = "the whole corpus" if scope == "corpus" else f"1 in {one_in} samples, chosen by hash"
    return f"counted over {where}: {samples:,} samples, {tokens:,} tokens"


def shown_example(
    example: Example | Draw, *, width: int | None, scale: float, special_ids: Collection[int] | None
) -> ShownExample:
    """An example in a window of ``width`` tokens on each side, all if None; ``scale`` is the feature's maximum,
    ``special_ids`` those of the corpus."""
    return ShownExample(
        example.sample_index,
        example.max_activation,
        example.max_token,
        example.document_id,
        example.first_token,
        context(
            example.tokens,
            example.positions,
            example.activations,
            width=width,
            scale=scale,
            messages=example.messages,
            special=special_positions(example.tokens, example.token_ids, special_ids),
        ),
    )


_MULTIPLIER, _INCREMENT = 0x5DEECE66D, 0xB  # of java.util.Random; 1 mod 4 and odd: every number comes once


def shuffled_after(neuron_index: int, latent_dim: int, count: int) -> list[int]:
    """The next ``count`` features in an order that looks random, the same for everybody, and comes to each once.

    A linear congruential generator over the next power of two, numbers from ``latent_dim`` on left out.
    """
    size = 1 << max(0, latent_dim - 1).bit_length()
    found: list[int] = []
    at = neuron_index % size
    while len(found) < min(count, latent_dim):
        at = (at * _MULTIPLIER + _INCREMENT) % size
        if at < latent_dim:
            found.append(at)
    return found
