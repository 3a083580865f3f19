"""Try a sentence: the strongest features of any text, by token and over all of it, with ``--live``."""

from typing import NamedTuple

from extraction_assets.browser.live import MAX_CHARACTERS, LiveError, LiveFeature, LiveResult, LiveText, LiveToken
from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.shown.context import Context, context, special_positions
from extraction_assets.database.queries.extractions import UnknownResultError, find_extraction
from extraction_assets.database.queries.one_feature import special_ids


class TryView(NamedTuple):
    """What the page shows."""

    extraction: str
    sae: str
    text: str
    max_characters: int
    problem: str | None
    """Why there is no result for a text."""
    chosen: LiveFeature | None
    """The feature whose activations shade the text; the strongest unless ``feature`` names another."""
    result: LiveResult | None
    special_ids: frozenset[int] | None = None
    """Ids of the special tokens; None if the database does not hold them."""

    def shaded(self) -> list[Context]:
        """The samples of the text, shaded by the chosen feature."""
        samples = [] if self.result is None else self.result.samples
        return [self._shaded(number, sample) for number, sample in enumerate(samples)]

    def _shaded(self, sample: int, tokens: list[LiveToken]) -> Context:
        places = [] if self.chosen is None else [one for one in self.chosen.places if one.sample == sample]
        positions, activations = [one.position for one in places], [one.activation for one in places]
        scale = 0.0 if self.chosen is None else self.chosen.max_activation
        texts = [token.text for token in tokens]
        special = special_positions(texts, [token.token_id for token in tokens], self.special_ids)
        return context(texts, positions, activations, width=None, scale=scale, special=special)


def try_view(request: PageRequest) -> TryView:
    """The form, and what the SAE makes of its text."""
    name, sae = request.path["extraction"], request.path["sae"]
    live = _live(request.options.live, name, sae)
    extraction = find_extraction(request.connection, name, sae)  # links lead to its features
    text = (request.parameters.text("text") or "").replace("\r\n", "\n")  # as a form sends line breaks
    wanted = request.parameters.integer("feature")
    if not text:
        return TryView(name, sae, "", MAX_CHARACTERS, None, None, None)
    try:
        result = live.submit(text, sae).result()
    except LiveError as error:
        return TryView(name, sae, text, MAX_CHARACTERS, str(error), None, None)
    special = special_ids(request.connection, extraction.corpus_id)
    return TryView(name, sae, text, MAX_CHARACTERS, None, _chosen(result, wanted), result, special)


def _live(live: LiveText | None, name: str, sae: str) -> LiveText:
    if live is None:
        raise UnknownResultError("no text can be tried here: this browser was started without --live")
    if live.extraction != name:
        raise UnknownResultError(f"texts can be tried with extraction {live.extraction!r} here, not with {name!r}")
    if sae not in live.saes:
        raise UnknownResultError(f"no SAE {sae!r} in {name}: there are {', '.join(live.saes)}")
    return live


def _chosen(result: LiveResult, wanted: int | None) -> LiveFeature | None:
    if wanted is None:
        return result.features[0] if result.features else None
    return next((one for one in result.features if one.neuron_index == wanted), None)


PAGE = Page("/{extraction}/{sae}/try", "try_text.html", try_view)
