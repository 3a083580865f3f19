"""The text of a home's dagster.yaml: its templates, what it says, and whether a user edited it."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from extraction_assets.host.regular_files import IrregularFileError, read_text

FILE = "dagster.yaml"

STORAGES = {"sqlite": "local", "postgres": "postgres"}
"""Storage -> folder of its template."""

_SINGLE_STORAGES = ("run_storage", "event_log_storage", "schedule_storage")
_LONGEST_REASON = 300
_DEPLOY = Path(__file__).parent / "deploy"
_MADE_BY = "# Made by `extraction-assets setup`, which brings it up to date unless you edit it. "
_MADE_BEFORE = {"bf2f74f18f56dfd84ed24db5ce88883f1f6cd11d0814fc92e85078a19e4f2af4"}  # made without the line above


class DagsterHomeError(ValueError):
    """A home that cannot be made or used as requested."""


def template(storage: str) -> str:
    """The whole text of a home's file for a storage of ``STORAGES``."""
    body = (_DEPLOY / STORAGES[storage] / FILE).read_text("utf-8")
    return f"{_MADE_BY}{_digest(body)}\n{body}"


def is_unedited(text: str) -> bool:
    """Whether a dagster.yaml is as it was made, by this version or an earlier one."""
    first, _, body = text.partition("\n")
    return first == f"{_MADE_BY}{_digest(body)}" or _digest(text) in _MADE_BEFORE


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def chosen_storage(path: Path, text: str) -> str:
    """The storage that a dagster.yaml chooses."""
    settings = _load(path, text)
    if any(name in settings for name in _SINGLE_STORAGES):
        return "custom"
    return next(iter(settings.get("storage") or {"sqlite": None}))


def storage_reads(path: Path, text: str, variable: str) -> bool:
    """Whether a dagster.yaml has its storage read an environment variable, which other sections may name too."""
    settings = _load(path, text)
    sections = {name: settings[name] for name in ("storage", *_SINGLE_STORAGES) if name in settings}
    return any(value == variable for value in _flat(sections).values())


def read_settings(path: Path) -> str:
    """The text of a dagster.yaml. Raises DagsterHomeError if it is not text, FileNotFoundError if it does not exist."""
    try:
        return read_text(path)
    except IrregularFileError as error:
        raise DagsterHomeError(f"{error}: put it back from a back-up, or remove it and run `setup`") from None


def _load(path: Path, text: str) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text) or {}
        _flat(settings)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise DagsterHomeError(f"{path} is not YAML: {reason}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("storage") or {}, dict):
        raise DagsterHomeError(f"{path} holds no settings of Dagster")
    return settings


def differences_from(text: str, template: str) -> list[str]:
    """Differences between a dagster.yaml and the template, one line each; comments are ignored."""
    current, new = (_flat(yaml.safe_load(source) or {}) for source in (text, template))
    changed = (name for name in sorted(current.keys() | new.keys()) if current.get(name) != new.get(name))
    return [f"  {name}: {_difference(current, new, name)}" for name in changed]


def _difference(current: dict[str, Any], new: dict[str, Any], name: str) -> str:
    if name not in new:
        return "only here"  # without its value, which may be a password
    return f"{current.get(name, 'nothing')} here, {new[name]} in the template"


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    parts = [_flat(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in settings.items()]
    return {name: value for part in parts for name, value in part.items()}
