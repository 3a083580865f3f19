"""Values of the settings fields on which the catalog says that an asset depends."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from extraction_assets.catalog import Asset, Depends
from extraction_assets.settings import ExtractionSettings, SaeSettings


def values_in_fingerprint(
    row: Asset, settings: ExtractionSettings, sae: SaeSettings | None = None, *, part: str | None = None
) -> dict[str, Any]:
    """Field name -> value of what stands in an asset's fingerprint itself, or in its ``part`` where one is named."""
    return {_name(one): value for one, value in _counted(row, settings, sae) if one.through == part}


def values_in_code_version(
    row: Asset, settings: ExtractionSettings, sae: SaeSettings | None = None, *, by_chunk: bool = False
) -> dict[str, Any]:
    """Dotted field -> value of an asset's fields but references; with ``by_chunk``, of those that change chunks."""
    return {one.field: value for one, value in _counted(row, settings, sae) if one.by_chunk or not by_chunk}


def _counted(row: Asset, settings: ExtractionSettings, sae: SaeSettings | None) -> Iterator[tuple[Depends, Any]]:
    """The fields of an asset, without references, that count with these settings, and their values."""
    for one in row.depends:
        if one.is_reference:
            continue
        group = _group(one, settings, sae)
        name = _name(one)
        value = getattr(group, name)
        is_default = value == type(group).model_fields[name].get_default(call_default_factory=True)
        without = one.only_with is not None and getattr(group, one.only_with) is None
        without |= one.not_with is not None and getattr(group, one.not_with[0]) == one.not_with[1]
        if not (one.when_set and (is_default or without)):
            yield one, value


def _name(one: Depends) -> str:
    return one.field.rpartition(".")[2]


def _group(one: Depends, settings: ExtractionSettings, sae: SaeSettings | None) -> BaseModel:
    """The group of settings that holds a field."""
    prefix = one.field.rpartition(".")[0]
    if prefix != "sae":
        group: BaseModel = getattr(settings, prefix) if prefix else settings
        return group
    assert sae is not None, f"{one.field} is of an SAE"
    return sae
