"""What "try a sentence" shows, and what it asks for: the types alone, so that pages load no torch.

The command line makes a ``LiveText`` (``execution.live``) where ``--live`` asks for one.
"""

from concurrent.futures import Future
from typing import NamedTuple, Protocol

MAX_CHARACTERS = 2_000
"""Longest text that is tried: what the address of a page holds."""


class LiveError(ValueError):
    """A text that cannot be tried, or a model that cannot be loaded; one sentence for the page."""


class LiveBusyError(LiveError):
    """Too many texts are waiting already."""


class LiveFiring(NamedTuple):
    """A feature on one token."""

    neuron_index: int
    activation: float


class LiveToken(NamedTuple):
    """A token of the text, as the extraction's tokenizer and rules make it."""

    token_id: int
    text: str
    """As it is displayed."""
    counted: bool
    """Whether the extraction counts what fires here; a BOS or an excluded position does not count."""
    firings: list[LiveFiring]
    """The strongest features here, strongest first; at most ``token_features`` of them."""
    num_firing: int
    """All features that fire here."""


class LivePlace(NamedTuple):
    """A token on which a feature fires."""

    sample: int
    """Which of the result's samples."""
    position: int
    activation: float


class LiveFeature(NamedTuple):
    """A feature over the whole text."""

    neuron_index: int
    max_activation: float
    places: list[LivePlace]
    """Every token on which it fires, strongest first, ties to the earlier one."""


class LiveResult(NamedTuple):
    """What an SAE makes of a text."""

    sae: str
    hook: str
    samples: list[list[LiveToken]]
    """The text as the samples that the extraction would make of it, padding left out."""
    features: list[LiveFeature]
    """The strongest of the whole text, strongest first, ties to the lower index."""
    num_features: int
    """Features that fire anywhere in the text."""
    truncated: bool
    """Whether the text was longer than the samples that are run."""
    device: str
    numerics: str
    """One sentence on how these numbers compare with the stored ones."""


class LiveText(Protocol):
    """The model and the SAEs of one extraction, ready for any text."""

    @property
    def extraction(self) -> str:
        """Its name."""

    @property
    def saes(self) -> tuple[str, ...]:
        """Names of its SAEs."""

    def submit(self, text: str, sae: str) -> "Future[LiveResult]":
        """Runs a text after those that were submitted before. Raises LiveBusyError at once; the future raises
        LiveError."""
