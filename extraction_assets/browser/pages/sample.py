"""A sample: which stored features fire where in it. Read from examples and draws, without a model."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.parameters import BadRequestError
from extraction_assets.browser.shown.context import Context, context, special_positions
from extraction_assets.browser.shown.numbers import three_digits
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.one_feature import special_ids
from extraction_assets.database.queries.samples import (
    Sample,
    SampleFiring,
    features_of_sample,
    find_sample,
    firings_in_sample,
    maxima_query,
)
from extraction_assets.engine.corpora.visible_text import visible

FEATURES_SHOWN = 25
"""A sample may be named by very many features, and each keeps its firings in all its examples in one row."""

_NOTED = 4
"""Features that hovering over a token names."""


class TokenFiring(NamedTuple):
    """A feature on one token."""

    neuron_index: int
    activation: float


class SampleToken(NamedTuple):
    """A token with the shown features that fire on it, strongest first, each measured by its own maximum."""

    position: int
    token_id: int
    token: str
    firings: tuple[TokenFiring, ...]


class SampleFeature(NamedTuple):
    """A feature that has an example or a draw of the sample."""

    neuron_index: int
    max_activation: float
    share: float | None
    """Its maximum here as a fraction of its maximum over the corpus."""
    positions: tuple[int, ...]
    """Where it fires, strongest first."""
    activations: tuple[float, ...]


class SampleView(NamedTuple):
    """A sample's page."""

    extraction: str
    sae: str
    sample_index: int
    document_id: str
    first_token: int
    tokens: tuple[SampleToken, ...]
    chosen: int | None
    """The one feature that the text is shaded by."""
    context: Context
    feature_count: int
    """Stored features of the sample, of which ``features`` are a part."""
    first: int
    """Place of the first of ``features`` among them."""
    features: tuple[SampleFeature, ...]
    marks: bool

    @property
    def notes(self) -> dict[int, str]:
        """What hovering over a token says: position -> features with their activations."""
        return token_notes(self.tokens)

    @property
    def previous_first(self) -> int | None:
        """Where the part before begins."""
        return max(0, self.first - FEATURES_SHOWN) if self.first else None

    @property
    def next_first(self) -> int | None:
        """Where the next part begins."""
        stop = self.first + FEATURES_SHOWN
        return stop if stop < self.feature_count else None


def sample_view(request: PageRequest) -> SampleView:
    """A sample with the features that are stored for it."""
    connection, parameters = request.connection, request.parameters
    extraction = find_extraction(connection, request.path["extraction"], request.path["sae"])
    chosen, first = parameters.integer("feature"), parameters.integer("from") or 0
    sample = find_sample(connection, extraction, request.path["sample"])
    named = features_of_sample(connection, extraction.id, sample.sample_index)
    maxima_here = dict(named)
    if chosen is not None and chosen not in maxima_here:
        raise BadRequestError(f"feature {chosen} has no stored example or draw of sample {sample.sample_index}")
    part = [index for index, _ in named[first : first + FEATURES_SHOWN]]
    read = part if chosen is None else [chosen, *(index for index in part if index != chosen)]
    firings = firings_in_sample(connection, extraction.id, sample.sample_index, read)
    maxima = {row.neuron_index: row.max_activation for row in connection.execute(maxima_query(extraction.id, read))}
    features = tuple(sample_feature(index, maxima_here[index], maxima.get(index), firings.get(index)) for index in read)
    shaded = features if chosen is None else features[:1]
    tokens = tokens_with_features(sample, shaded, maxima)
    return SampleView(
        extraction=extraction.name,
        sae=extraction.sae,
        sample_index=sample.sample_index,
        document_id=sample.document_id,
        first_token=sample.first_token,
        tokens=tokens,
        chosen=chosen,
        context=shaded_text(sample, tokens, maxima, special_ids(connection, extraction.corpus_id)),
        feature_count=len(named),
        first=first,
        features=features,
        marks=parameters.flag("marks"),
    )


def sample_feature(index: int, maximum: float, of_corpus: float | None, firing: SampleFiring | None) -> SampleFeature:
    """A feature of a sample, of its maximum there and that over the corpus."""
    share = maximum / of_corpus if of_corpus else None
    positions, activations = (firing.positions, firing.activations) if firing else ((), ())
    return SampleFeature(index, maximum, share, tuple(positions), tuple(activations))


def tokens_with_features(
    sample: Sample, features: Sequence[SampleFeature], maxima: Mapping[int, float]
) -> tuple[SampleToken, ...]:
    """Every token of a sample with the given features that fire on it: the one that is nearest to its own maximum
    first."""
    firings: dict[int, list[TokenFiring]] = {}
    for feature in features:
        for position, activation in zip(feature.positions, feature.activations, strict=True):
            firings.setdefault(position, []).append(TokenFiring(feature.neuron_index, activation))
    for found in firings.values():
        found.sort(key=lambda one: (-_share(one, maxima), one.neuron_index))
    return tuple(
        SampleToken(at, token_id, token, tuple(firings.get(at, ())))
        for at, (token_id, token) in enumerate(zip(sample.token_ids, sample.tokens, strict=True))
    )


def token_notes(tokens: Sequence[SampleToken]) -> dict[int, str]:
    """What hovering over a token says: position -> features with their activations."""
    return {one.position: _note(one) for one in tokens if one.firings}


def shaded_text(
    sample: Sample, tokens: Sequence[SampleToken], maxima: Mapping[int, float], special_ids: Collection[int] | None
) -> Context:
    """The whole sample, every token as dark as its first feature is near to that feature's maximum."""
    shares = {one.position: _share(one.firings[0], maxima) for one in tokens if one.firings}
    order = sorted(shares, key=lambda position: (-shares[position], position))
    return context(
        sample.tokens,
        order,
        [shares[at] for at in order],
        width=None,
        scale=1.0,
        messages=sample.messages,
        special=special_positions(sample.tokens, sample.token_ids, special_ids),
    )


def _share(firing: TokenFiring, maxima: Mapping[int, float]) -> float:
    return firing.activation / (maxima.get(firing.neuron_index) or firing.activation)


def _note(token: SampleToken) -> str:
    named = ", ".join(f"#{one.neuron_index} {three_digits(one.activation)}" for one in token.firings[:_NOTED])
    more = f" and {len(token.firings) - _NOTED} more" if len(token.firings) > _NOTED else ""
    return f"{visible(token.token)} · {named}{more} · position {token.position}"


PAGE = Page("/{extraction}/{sae}/samples/{sample:number}", "sample.html", sample_view)
