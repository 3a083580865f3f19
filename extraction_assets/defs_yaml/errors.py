"""What is wrong with a YAML file, a sentence for each mistake."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from extraction_assets.defs_yaml.yaml_lines import line_of, places, too_deep_at, unreadable
from extraction_assets.host.regular_files import IrregularFileError, read_text
from extraction_assets.settings import ExtractionSettings

_FILE_KEYS = ("type", "attributes", "requirements", "template_vars_module", "post_processing")
"""What may stand beside ``attributes`` in a component's file."""

LARGEST = 1 << 20
"""Bytes that a component's file may have; more would take a minute to read."""

_REMEDY = "an extraction has type: extraction_assets.FeatureExtraction"


class _Mistake(NamedTuple):
    path: tuple[str, ...]
    where: str
    """``FILE:LINE``, or empty."""
    kind: str
    message: str


def explain_yaml(error: BaseException, file: Path) -> str:
    """What is wrong with a component's YAML file, in one sentence that names the line where it is known."""
    cause = first_cause(error)
    if isinstance(cause, ValidationError):
        return "; ".join(sentences(cause))
    if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
        return f"no YAML at {file}:{cause.problem_mark.line + 1}: {cause.problem}"
    if type(cause).__name__ == "DagsterUnresolvableSymbolError":
        return f"type: {cause}".rstrip(".") + f"; {_REMEDY}"
    if isinstance(cause, UnicodeDecodeError):
        return f"it is not UTF-8: {cause.reason} at byte {cause.start}"
    irregular = _irregular(error)
    if irregular is not None:
        return f"{irregular}: put a YAML file there, or remove it".replace(f"{file} is", "it is", 1)
    if isinstance(cause, FileNotFoundError) and file.is_symlink():
        return "it is a symbolic link to a file that does not exist: put a YAML file there, or remove it"
    return _with_line(cause, file) or _as_it_is(cause)


def _irregular(error: BaseException | None) -> IrregularFileError | None:
    """The IrregularFileError among an error and its causes."""
    while error is not None and not isinstance(error, IrregularFileError):
        error = error.__cause__
    return error


def _with_line(cause: BaseException, file: Path) -> str:
    """What to say of an error that has no line of its own; empty if the file does not show it either."""
    try:
        text = read_text(file, LARGEST)
        if isinstance(cause, RecursionError):
            line = too_deep_at(text)
            return f"it is nested too deep at {file}:{line}: no field has so many levels" if line else ""
        if isinstance(cause, yaml.reader.ReaderError):
            character = chr(int(cause.character))
            what = f"the character U+{ord(character):04X}, which YAML does not allow"
            return f"no YAML at {file}:{line_of(text, character)}: it holds {what}: remove it"
        if isinstance(cause, ModuleNotFoundError):
            return _missing_module(cause, text, file)
        place = unreadable(text)
    except (OSError, ValueError, yaml.YAMLError):
        return ""  # it was replaced in between
    if place is None:
        return ""
    value = place.node.value
    what = f"{value!r} is" if len(value) <= 40 else f"a value of {len(value)} characters, {value[:20]!r}…, is"
    kind = place.node.tag.rpartition(":")[2]
    return f"{place.key} at {file}:{place.line}: {what} no {kind} that can be read: write another value"


def _missing_module(error: ModuleNotFoundError, text: str, file: Path) -> str:
    missing = error.name or ""
    for key, line, node in places(text):
        named = node.value.lstrip(".")
        names_it = f"{named}.".startswith(f"{missing}.") or missing.endswith(f".{named}")
        if key in ("type", "template_vars_module") and names_it:
            remedy = _REMEDY if key == "type" else "name a module that can be imported, or remove the line"
            return f"{key} at {file}:{line}: there is no module {missing!r}; {remedy}"
    return f"a module that it needs imports {missing!r}, which is not installed: install it"


def _as_it_is(cause: BaseException) -> str:
    said = " ".join(str(cause).split())
    if "No components found" in said:
        return "it is empty: `extraction-assets init` writes one"
    return said if isinstance(cause, (ValueError, LookupError, OSError)) else f"{type(cause).__name__}: {said}"


def first_cause(error: BaseException) -> BaseException:
    """The error that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def sentences(error: ValidationError) -> list[str]:
    """One sentence for each mistake that a validation found, with file and line where they are known."""
    mistakes = [_mistake(one) for one in error.errors()]
    # Every field may also be a template, which is text: an error that names this type too helps nobody.
    alternatives = [one for one in mistakes if one.kind == "string_type" and one.path[-1] == "str"]
    templates = {one.path[:-1] for one in alternatives if any(_is_beside(one, other) for other in mistakes)}
    kept = [one for one in mistakes if not (one in alternatives and one.path[:-1] in templates)]
    return _joined([one._replace(path=_without_alternatives(one.path, templates)) for one in kept])


def _joined(mistakes: Iterable[_Mistake]) -> list[str]:
    """A sentence for each mistake, one for all unknown keys of a place, which lists the known fields once."""
    places_of: dict[tuple[str, int], list[str]] = {}
    for number, mistake in enumerate(mistakes):
        unknown = mistake.kind == "extra_forbidden"
        said = (_unknown(mistake.path), -1) if unknown else (_what(mistake), number)
        name = ".".join(mistake.path)
        places_of.setdefault(said, []).append(" at ".join(filter(None, (name, mistake.where))))
    joined = ((", ".join(filter(None, found)), what) for (what, _), found in places_of.items())
    return [f"{found}: {what}" if found else what for found, what in joined]


def _mistake(error: Mapping[str, Any]) -> _Mistake:
    # Dagster joins the path with dots and adds the place, "attributes.corpus at FILE:LINE".
    path, _, where = ".".join(map(str, error["loc"])).partition(" at ")
    return _Mistake(tuple(path.split(".")), where, error["type"], error["msg"].removeprefix("Value error, "))


def _is_beside(alternative: _Mistake, other: _Mistake) -> bool:
    """Whether ``other`` rejects the same field for another of its types."""
    field = alternative.path[:-1]
    return other is not alternative and other.path[: len(field)] == field


def _without_alternatives(path: tuple[str, ...], templates: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Without the parts that only say which of several types was tried."""
    return tuple(part for index, part in enumerate(path) if path[:index] not in templates)


def _what(mistake: _Mistake) -> str:
    if mistake.path == ("",) and mistake.where:
        return f"{mistake.message}: the keys type and attributes, each on a line of its own"
    return f"{mistake.message}; {_REMEDY}" if mistake.path == ("type",) else mistake.message


def _unknown(path: tuple[str, ...]) -> str:
    """What to say of a key that is no field."""
    *above, key = path
    places = dict(_places())
    here = places.get(_place(above), ())
    belongs = [place for place, fields in places.items() if key in fields]
    if belongs:
        return f"no field here: it belongs under {' or '.join(f'{place}:' for place in belongs)}"
    near = get_close_matches(key, here, n=1)
    if near:
        return f"no such field: did you mean {near[0]}?"
    return f"no such field; there are {', '.join(here)}" if here else "no such field"


def _place(path: list[str]) -> str:
    return ".".join(["attributes", "saes", "NAME"] if path[:2] == ["attributes", "saes"] else path)


def _places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The groups of a file, as one writes them, with the fields of each."""
    yield "", _FILE_KEYS
    yield "attributes", tuple(ExtractionSettings.model_fields)
    for name, field in ExtractionSettings.model_fields.items():
        several = get_args(field.annotation)
        group = several[1] if len(several) == 2 else field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield f"attributes.{name}" + (".NAME" if several else ""), tuple(group.model_fields)
