"""How Neuronpedia names what is exported: a model, a set of sources, and a source, which is one SAE at one layer."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.option import Option
from extraction_assets.exports.source import ExportSource

NAMES: Mapping[str, Option] = {
    "model_id": Option("", "the model's id on Neuronpedia; by default its name, in lower case"),
    "source_set": Option("", "the set that the SAE belongs to; by default extraction and SAE, `demo-layer1`"),
    "layer": Option("", "the layer's number; by default the first number in the hook"),
}
_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")


class NeuronpediaNames(NamedTuple):
    """The three names, all in lower case."""

    model_id: str
    source_set: str
    layer: int

    @property
    def source_id(self) -> str:
        """Neuronpedia takes what is behind the first ``-`` for the set."""
        return f"{self.layer}-{self.source_set}"


def neuronpedia_names(source: ExportSource, options: Mapping[str, str]) -> NeuronpediaNames:
    """The names that the options give, or that follow from the extraction. Raises ExportError."""
    extraction = source.extraction
    model_id = options["model_id"] or _plain(extraction.model.rstrip("/").rpartition("/")[2])
    source_set = options["source_set"] or _plain(f"{extraction.name}-{extraction.sae}")
    for name, value in (("model_id", model_id), ("source_set", source_set)):
        if not _ID.fullmatch(value):
            raise ExportError(
                f"{name} {value!r} is not a name that Neuronpedia takes: give one of lower-case letters, digits and "
                f"-, --option {name}=…"
            )
    return NeuronpediaNames(model_id, source_set, layer_number(extraction.hook, options["layer"]))


def _plain(name: str) -> str:
    """A name with what Neuronpedia takes."""
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:128].strip("-.")


def layer_number(hook: str, given: str) -> int:
    """The layer that an option gives, or that a hook names. Raises ExportError."""
    if given:
        if not (given.isascii() and given.isdigit() and len(given) < 5):
            raise ExportError(f"layer {given!r} is not the number of a layer")
        return int(given)
    found = re.search(r"\d+", hook)
    if found is None:
        raise ExportError(f"the hook {hook} names no layer: give its number, --option layer=N")
    return int(found[0])
