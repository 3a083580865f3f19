"""One explanation of a feature, and how the explanations of a feature become its label."""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from extraction_assets.database.label_lines import LabelLines, NumberedFault, NumberedLabel
from extraction_assets.database.queries.labels import LONGEST_LABEL, LONGEST_NOTE, Label
from extraction_assets.database.storable import storable


class ExplanationsError(ValueError):
    """Files that hold no explanations that can be read; the message is one sentence that names the file."""


class Explanation(NamedTuple):
    """What a program wrote of one feature."""

    neuron_index: int
    text: str
    origin: str
    """Who wrote it, for the note: ``Neuronpedia, oai_token-act-pair, gpt-4o-mini``."""
    moment: dt.datetime
    """When, with its zone."""
    file: str
    line: int
    """From 1; 0 where the file is one explanation."""


def as_labels(explanations: Iterable[Explanation | NumberedFault], name: str, sae: str) -> LabelLines:
    """One label for each explained feature, by ``neuron_index``. The newest explanation (of equals, the first) is the
    label; the note says who wrote it, and holds what is no label: a text of several lines or more than
    ``LONGEST_LABEL`` characters in full, and older explanations. Explanations without a text are left out.

    NUL and halves of surrogate pairs, which the database cannot hold, are written as escapes.
    """
    by_feature: dict[int, list[Explanation]] = {}
    faults = list[NumberedFault]()
    for one in explanations:
        if isinstance(one, NumberedFault):
            faults.append(one)
        elif one.text.strip():
            by_feature.setdefault(one.neuron_index, []).append(one._replace(text=storable(one.text.strip())))
    labels = [_label(sorted(found, key=_newest_first), name, sae) for _, found in sorted(by_feature.items())]
    return LabelLines(labels, faults)


def _newest_first(explanation: Explanation) -> float:
    return -explanation.moment.timestamp()


def _label(found: Sequence[Explanation], name: str, sae: str) -> NumberedLabel:
    """The label of one feature from its explanations, newest first."""
    first, *older = found
    line = " ".join(first.text.split())
    notes = [storable(first.origin)]
    if line != first.text or len(line) > LONGEST_LABEL:
        notes.append(first.text)
    notes += [f"{storable(one.origin)}: {one.text}" for one in older if one.text != first.text]
    note = shortened("\n".join(notes), LONGEST_NOTE)
    label = Label(name, sae, first.neuron_index, shortened(line, LONGEST_LABEL), None, note, first.moment)
    return NumberedLabel(first.line, label, first.file)


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters of a text; where some are left out, the last one is an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
