"""Addresses of the pages, in one place. A page without a server, such as a report in one file, has no links."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlencode

Value = str | int | float | None


class Links(Protocol):
    """Where things are; None where there is no page to go to, so that a template prints plain text."""

    def extractions(self) -> str | None:
        """The list of all extractions."""

    def features(self, extraction: str, sae: str, **parameters: Value) -> str | None:
        """The list of the features of an SAE."""

    def feature(self, extraction: str, sae: str, neuron_index: int, **parameters: Value) -> str | None:
        """One feature."""

    def sample(self, extraction: str, sae: str, sample_index: int, **parameters: Value) -> str | None:
        """One sample with the features that fire in it."""

    def document(self, extraction: str, sae: str, document_id: str) -> str | None:
        """The samples of a document."""

    def compare(self, a: str, b: str) -> str | None:
        """Two features side by side, each as ``extraction/sae/12``."""

    def try_text(self, extraction: str, sae: str) -> str | None:
        """Any text of one's choice."""

    def labels(self, extraction: str) -> str | None:
        """What people have written about the features of an extraction."""

    def static(self, name: str) -> str | None:
        """A file of the browser itself."""


class ServerLinks:
    """Links on this server. See ``Links``."""

    def __init__(self, static_versions: Mapping[str, str], *, live: str | None = None) -> None:
        """``live`` is the extraction whose model is loaded."""
        self._static_versions, self._live = static_versions, live

    def extractions(self) -> str:
        return "/"

    def features(self, extraction: str, sae: str, **parameters: Value) -> str:
        return _address((extraction, sae, ""), parameters)

    def feature(self, extraction: str, sae: str, neuron_index: int, **parameters: Value) -> str:
        return _address((extraction, sae, str(neuron_index)), parameters)

    def sample(self, extraction: str, sae: str, sample_index: int, **parameters: Value) -> str:
        return _address((extraction, sae, "samples", str(sample_index)), parameters)

    def document(self, extraction: str, sae: str, document_id: str) -> str:
        return _address((extraction, sae, "documents"), {"id": document_id})

    def compare(self, a: str, b: str) -> str:
        return _address(("compare",), {"a": a, "b": b})

    def try_text(self, extraction: str, sae: str) -> str | None:
        return _address((extraction, sae, "try"), {}) if extraction == self._live else None

    def labels(self, extraction: str) -> str:
        return _address(("labels", extraction), {})

    def static(self, name: str) -> str:
        return _address(("static", name), {"v": self._static_versions[name]})


class NoLinks:
    """For a page without a server: everything is plain text. See ``Links``."""

    def extractions(self) -> str | None:
        return None

    def features(self, extraction: str, sae: str, **parameters: Value) -> str | None:
        return None

    def feature(self, extraction: str, sae: str, neuron_index: int, **parameters: Value) -> str | None:
        return None

    def sample(self, extraction: str, sae: str, sample_index: int, **parameters: Value) -> str | None:
        return None

    def document(self, extraction: str, sae: str, document_id: str) -> str | None:
        return None

    def compare(self, a: str, b: str) -> str | None:
        return None

    def try_text(self, extraction: str, sae: str) -> str | None:
        return None

    def labels(self, extraction: str) -> str | None:
        return None

    def static(self, name: str) -> str | None:
        return None


class OutsideLinks(NoLinks):
    """Links to the pages of a server from outside of it, ``base`` its address. See ``Links``."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")

    def extractions(self) -> str:
        return f"{self._base}/"

    def features(self, extraction: str, sae: str, **parameters: Value) -> str:
        return self._base + _address((extraction, sae, ""), parameters)

    def feature(self, extraction: str, sae: str, neuron_index: int, **parameters: Value) -> str:
        return self._base + _address((extraction, sae, str(neuron_index)), parameters)

    def sample(self, extraction: str, sae: str, sample_index: int, **parameters: Value) -> str:
        return self._base + _address((extraction, sae, "samples", str(sample_index)), parameters)


class Here(NamedTuple):
    """The address of the page itself: its path, percent-encoded, and its parameters in their order."""

    path: str
    parameters: tuple[tuple[str, str], ...] = ()

    def changed(self, **changes: Value) -> str:
        """The same page with other parameters; None leaves one out."""
        kept = [(name, value) for name, value in self.parameters if name not in changes]
        added = [(name, str(value)) for name, value in changes.items() if value is not None]
        return _with_query(self.path, [*kept, *added])

    def repeated(self, name: str, values: Iterable[str], *without: str) -> str:
        """The same page with a parameter once for each value, and without others."""
        kept = [(key, value) for key, value in self.parameters if key not in (name, *without)]
        return _with_query(self.path, [*kept, *((name, value) for value in values)])

    def json(self) -> str:
        """The JSON twin of this very view."""
        return _with_query(f"{self.path}.json", self.parameters)

    def fields(self, *without: str) -> list[tuple[str, str]]:
        """The parameters that a form carries along as hidden fields, without those that it has fields for."""
        return [(name, value) for name, value in self.parameters if name not in without]


def _address(segments: Iterable[str], parameters: Mapping[str, Value]) -> str:
    path = "".join(f"/{quote(segment, safe='')}" for segment in segments)
    return _with_query(path, [(name, str(value)) for name, value in parameters.items() if value is not None])


def _with_query(path: str, parameters: Iterable[tuple[str, str]]) -> str:
    query = urlencode(list(parameters))
    return f"{path}?{query}" if query else path
