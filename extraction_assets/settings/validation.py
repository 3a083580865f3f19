"""What every group of settings shares: unknown fields are refused, and validators of names and bounds."""

import math
import re
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

_NAME = re.compile(r"[A-Za-z0-9_]+")
_LONGEST_NAME = 200
"""Names of files and folders have 255 bytes, and ours are followed by suffixes such as ``_missing_chunks``."""


def refuse_truth_for_number(cls: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """A validator, before all others, of any field: true and false (in YAML also yes and no) are no numbers, though
    Python counts them as 1 and 0."""
    if _is_truth_for_number(cls.model_fields[str(info.field_name)].annotation, value):
        raise ValueError(f"{info.field_name} takes numbers, got {str(value).lower()}")
    return value


def _is_truth_for_number(annotation: Any, value: Any) -> bool:
    kinds = get_args(annotation) or (annotation,)
    if isinstance(value, bool):
        return bool not in kinds and (int in kinds or float in kinds)
    lists = [kind for kind in (annotation, *kinds) if get_origin(kind) is list and isinstance(value, list)]
    return any(_is_truth_for_number(get_args(kind)[0], one) for kind in lists for one in value)


class Settings(BaseModel):
    """A group of settings: unknown fields are refused, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    _no_truth_for_number = field_validator("*", mode="before")(classmethod(refuse_truth_for_number))


def check_name(name: str, what: str) -> str:
    """``name`` if it can be part of an asset key and of a path; ValueError otherwise."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{what} {name[:20]}… has {len(name)} characters, but may have {_LONGEST_NAME}: it is part of file names"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} may hold letters, digits and underscores only: it becomes part of asset keys"
        )
    return name


def at_least(least: int, *fields: str) -> Any:
    """A validator of a lower bound. Bounds in the annotations would be lost on Dagster, which refuses them there."""

    def check(_cls: type, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{info.field_name} must be at least {least}, got {value}")
        return value

    return field_validator(*fields)(classmethod(check))


def at_most(most: int, *fields: str) -> Any:
    """A validator of an upper bound, above which a value must be a mistake."""

    def check(_cls: type, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > most:
            shown = value if value < 10**20 else f"a number of {len(str(value))} digits"
            raise ValueError(f"{info.field_name} must be at most {most}, got {shown}")
        return value

    return field_validator(*fields)(classmethod(check))
