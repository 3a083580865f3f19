"""What is wrong with a YAML file, a sentence for each mistake."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from extraction_assets.settings import ExtractionSettings

_FILE_KEYS = ("type", "attributes", "requirements", "template_vars_module", "post_processing")
"""What may stand beside ``attributes`` in a component's file."""


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
        return f"type: {cause}".rstrip(".") + "; an extraction has type: extraction_assets.FeatureExtraction"
    if isinstance(cause, UnicodeDecodeError):
        return f"it is not UTF-8: {cause.reason} at byte {cause.start}"
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
    # Every field may also be a template, which is text: that it is not one of these either helps nobody.
    alternatives = [one for one in mistakes if one.kind == "string_type" and one.path[-1] == "str"]
    templates = {one.path[:-1] for one in alternatives if any(_is_beside(one, other) for other in mistakes)}
    kept = [one for one in mistakes if not (one in alternatives and one.path[:-1] in templates)]
    return [_sentence(one._replace(path=_without_alternatives(one.path, templates))) for one in kept]


def _mistake(error: Mapping[str, Any]) -> _Mistake:
    # Dagster joins the path with dots and adds the place, "attributes.corpus at FILE:LINE".
    path, _, where = ".".join(map(str, error["loc"])).partition(" at ")
    return _Mistake(tuple(path.split(".")), where, error["type"], error["msg"].removeprefix("Value error, "))


def _is_beside(alternative: _Mistake, other: _Mistake) -> bool:
    """Whether ``other`` says of another type why the same field cannot be of it."""
    field = alternative.path[:-1]
    return other is not alternative and other.path[: len(field)] == field


def _without_alternatives(path: tuple[str, ...], templates: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Without the parts that only say which of several types was tried."""
    return tuple(part for index, part in enumerate(path) if path[:index] not in templates)


def _sentence(mistake: _Mistake) -> str:
    name = ".".join(mistake.path)
    what = _unknown(mistake.path) if mistake.kind == "extra_forbidden" else mistake.message
    place = f"{name} at {mistake.where}" if mistake.where else name
    return f"{place}: {what}" if place else what


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
