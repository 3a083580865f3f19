"""Templates in an extraction's YAML file: few, and in few places.

Dagster renders every string at the top of ``attributes`` by Jinja without a sandbox, so that text such as
``{{ cycler.__init__.__globals__.os.system("…") }}`` runs a command. None of our fields needs that, so
templates are searched for before Dagster renders anything. Paths, ids and revisions may name an environment variable or
the project's folder, which this module inserts, not Jinja; anything else is refused.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ALLOWED = "{{ env.NAME }}, {{ env('NAME', 'default') }} and {{ context.project_root }}"
"""The templates there are, as messages name them."""

FIELDS = (
    "language_model.path",
    "language_model.revision",
    "corpus.source",
    "corpus.revision",
    "saes.*.release",
    "saes.*.sae_id",
    "saes.*.path",
    "saes.*.subfolder",
    "saes.*.revision",
)
"""Fields that may hold one: what differs between machines."""

_MARK = re.compile(r"\{\{|\{%|\{#")
_TEMPLATE = re.compile(
    r"\{\{\s*(?:env\.(?P<dotted>[A-Za-z]\w*)"
    r"|env\(\s*(?P<quote>['\"])(?P<called>[A-Za-z]\w*)(?P=quote)\s*(?:,\s*(?P<q>['\"])(?P<default>[^'\"{}]*)(?P=q)\s*)?\)"
    r"|(?P<root>context\.project_root))\s*\}\}"
)


class TemplateError(ValueError):
    """A template in a field that takes none, or of a form that is not allowed."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
        """Keys of the field below ``attributes``."""


def fill_in(attributes: BaseModel, project_root: Path | None) -> BaseModel:
    """The attributes of a YAML block with their templates replaced, validated again. Raises TemplateError, and
    ValidationError if what was put in is not valid."""
    changed: dict[str, Any] = {}
    for name in attributes.model_fields_set:
        value = getattr(attributes, name)
        if any(_MARK.search(text) for _, text in _texts(value, (name,))):
            changed[name] = _filled(value, (name,), project_root)
    return attributes.model_copy(update=changed)


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string in a value, with the keys that lead to it; keys of mappings too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, BaseModel):
        yield from _texts({name: getattr(value, name) for name in value.model_fields_set}, path)
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            yield (*path, str(key)), str(key)
            yield from _texts(inside, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, inside in enumerate(value):
            yield from _texts(inside, (*path, str(number)))


def _filled(value: Any, path: tuple[str, ...], root: Path | None) -> Any:
    for at, text in _texts(value, path):
        if _MARK.search(text) and not _may_hold_one(at):
            name = ".".join(at)
            raise TemplateError(
                at, f"{name} takes no template, got {text!r}: templates may stand in {', '.join(FIELDS)}"
            )
    if isinstance(value, BaseModel):
        given = {name: _filled(getattr(value, name), (*path, name), root) for name in value.model_fields_set}
        return type(value).model_validate(given)
    if isinstance(value, Mapping):
        return {key: _filled(inside, (*path, str(key)), root) for key, inside in value.items()}
    return _put_in(value, path, root) if isinstance(value, str) else value


def _may_hold_one(path: tuple[str, ...]) -> bool:
    general = (path[0], "*", *path[2:]) if path[0] == "saes" and len(path) == 3 else path
    return ".".join(general) in FIELDS


def _put_in(text: str, path: tuple[str, ...], root: Path | None) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match["root"]:
            if root is None:
                raise TemplateError(path, "context.project_root is not known here")
            return str(root)
        name = match["dotted"] or match["called"]
        found = os.environ.get(name, match["default"])
        if found is None:
            raise TemplateError(path, f"{'.'.join(path)}: the environment variable {name} is not set")
        return found

    left = _TEMPLATE.sub("", text)
    if _MARK.search(left):
        raise TemplateError(
            path, f"{'.'.join(path)} holds a template that is not allowed, {text!r}: there are {ALLOWED}"
        )
    return _TEMPLATE.sub(replacement, text)
