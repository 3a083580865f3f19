r"""Labels as JSON lines, one a feature: what ``labels export`` writes and ``labels import`` reads.

    {"name": "demo", "sae": "layer1", "neuron_index": 3445, "label": "pop() calls", "mark": "interesting",
     "note": "", "updated_at": "2026-11-27T00:12:00.250000+00:00"}

on one line. ``sae`` and ``neuron_index`` are needed, and one of ``label``, ``mark`` and ``note``. A line without
``updated_at`` is as old as its import; ``name`` may be left out, and must be the extraction's if it is there.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from extraction_assets.database.queries.labels import Label
from extraction_assets.engine.corpora.visible_text import visible
from extraction_assets.settings import check_name

_TEXTS = ("name", "sae", "label", "mark", "note", "updated_at")
_FIELDS = (*_TEXTS, "neuron_index")
_LARGEST_INDEX = 2**63


class NumberedLabel(NamedTuple):
    """A label and the line that it stands on, counted from 1."""

    line: int
    label: Label
    file: str = ""
    """Name of the file, where labels come from several."""

    def fault(self, reason: str) -> "NumberedFault":
        """That it cannot be stored."""
        return NumberedFault(self.line, reason, self.file)


class NumberedFault(NamedTuple):
    """Why a line cannot be imported, and the line, counted from 1."""

    line: int
    reason: str
    file: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong, after the place: ``line 3: it is not a JSON object``."""
        place = f"{self.file}, line {self.line}" if self.file else f"line {self.line}"
        return f"{place}: {self.reason}"


class LabelLines(NamedTuple):
    """What was read of a file, or of several."""

    labels: list[NumberedLabel]
    faults: list[NumberedFault]
    """Lines that are no labels. With any of them, nothing is imported."""


class BadLinesError(ValueError):
    """Lines that cannot be imported. ``sentences`` has one for each, which begins with the line's number."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


class BadLine(ValueError):
    """Why one line cannot be imported, without its number."""


def label_line(label: Label) -> str:
    """A label as one line of JSON, without the line break. A character that cannot be seen is written as an escape, so
    that the line is safe in a terminal."""
    values = {**label._asdict(), "updated_at": label.updated_at.astimezone(dt.UTC).isoformat()}
    text = json.dumps(values, ensure_ascii=False)
    return "".join(ch if ch.isprintable() and visible(ch) == ch else json.dumps(ch)[1:-1] for ch in text)


def read_label_lines(lines: Iterable[bytes], name: str, now: dt.datetime | None = None) -> LabelLines:
    """The labels of extraction ``name`` in the lines of a file. Empty lines are passed over. A fault is every line that
    is not a label, and every second one of a feature."""
    moment = now or dt.datetime.now(dt.UTC)
    found, faults, seen = list[NumberedLabel](), list[NumberedFault](), dict[tuple[str, int], int]()
    for number, line in numbered_lines(lines):
        try:
            label = _label(line, name, moment)
            first = seen.setdefault((label.sae, label.neuron_index), number)
            if first != number:
                raise BadLine(f"feature {label.neuron_index} of {label.sae} is on line {first} already")
            found.append(NumberedLabel(number, label))
        except BadLine as error:
            faults.append(NumberedFault(number, str(error)))
    return LabelLines(found, faults)


def numbered_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers from 1."""
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # the mark that Windows begins files with
        if text.strip():
            yield number, text


def _label(line: bytes, name: str, now: dt.datetime) -> Label:
    values = json_object(line)
    unknown = [key for key in values if key not in _FIELDS]
    if unknown:
        raise BadLine(f"unknown key {unknown[0]!r}; known are {', '.join(Label._fields)}")
    for key in _TEXTS:
        value = values.get(key)
        if value is not None and not isinstance(value, str):
            raise BadLine(f"{key} is not a text")
    if values.get("name", name) != name:
        raise BadLine(f"it is of extraction {values['name']!r}, not of {name!r}; leave out name to import it here")
    label = Label(
        name,
        _sae(values.get("sae")),
        _index(values.get("neuron_index")),
        values.get("label") or "",
        values.get("mark") or None,
        values.get("note") or "",
        _moment(values.get("updated_at"), now),
    )
    if not (label.label or label.mark or label.note):
        raise BadLine("it has no label, no mark and no note")
    return label


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line of a file. Raises BadLine."""
    try:
        values = json.loads(line.decode("utf-8"), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError as error:
        raise BadLine(f"byte {error.start + 1} is not UTF-8") from error
    except RecursionError as error:
        raise BadLine("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise BadLine(f"it is not JSON ({error.msg} at character {error.colno})") from error
    except ValueError as error:
        raise BadLine(str(error)) from error
    if not isinstance(values, dict):
        raise BadLine("it is not a JSON object")
    return values


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a key twice")
    return found


def _sae(name: str | None) -> str:
    if not name:
        raise BadLine("sae is not there: name the SAE")
    try:
        return check_name(name, "SAE name")
    except ValueError as error:
        raise BadLine(str(error)) from error


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST_INDEX:
        raise BadLine("neuron_index is not a whole number from 0 on")
    return value


def _moment(text: str | None, now: dt.datetime) -> dt.datetime:
    if text is None:
        return now
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise BadLine(f"updated_at is {text!r}, not a time with its zone such as 2026-11-27T00:12:00+00:00") from error
