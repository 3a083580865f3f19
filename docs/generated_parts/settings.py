"""Fields of extractions and of resources, with their types and defaults."""

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generated_parts.markdown import table


def _settings(model: type[BaseModel], prefix: str = "", leave_out: tuple[str, ...] = ()) -> str:
    rows = [
        [f"`{prefix}{name}`", _type(field.annotation), _default(field), field.description or ""]
        for name, field in model.model_fields.items()
        if name not in leave_out
    ]
    return table(["field", "type", "default", "meaning"], rows)


_TYPES = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def _type(annotation: Any) -> str:
    """What may stand in the YAML file for a field of this type."""
    if annotation in _TYPES:
        return _TYPES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return ", ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    raise TypeError(f"no words for the type {annotation}: add them here")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], ()):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_extraction() -> str:
    """Fields of an extraction, without those of its groups."""
    from extraction_assets.settings import ExtractionSettings

    return _settings(ExtractionSettings, leave_out=("language_model", "corpus", "saes", "keep"))


def settings_language_model() -> str:
    """Fields of `language_model`."""
    from extraction_assets.settings import LanguageModelSettings

    return _settings(LanguageModelSettings, "language_model.")


def settings_corpus() -> str:
    """Fields of `corpus`."""
    from extraction_assets.settings import CorpusSettings

    return _settings(CorpusSettings, "corpus.")


def settings_saes() -> str:
    """Fields of one SAE."""
    from extraction_assets.settings import SaeSettings

    return _settings(SaeSettings, "saes.NAME.")


def settings_keep() -> str:
    """Fields of `keep`."""
    from extraction_assets.settings import KeepSettings

    return _settings(KeepSettings, "keep.")


def _resource(resource: type[BaseModel]) -> str:
    rows = []
    for name, field in resource.model_fields.items():
        meaning, _, default = (field.description or "").partition(" Default: ")
        values = f" One of {_type(field.annotation)}." if get_origin(field.annotation) is Literal else ""
        rows.append([f"`{name}`", default.rstrip("."), meaning + values])
    return table(["field", "default", "meaning"], rows)


def gpu_fields() -> str:
    """Fields of the resource `gpu`."""
    from extraction_assets.resources import GpuResource

    return _resource(GpuResource)


def store_fields() -> str:
    """Fields of the other resources."""
    from extraction_assets.resources import ChunkStoreResource, ResultsResource

    resources: dict[str, type[BaseModel]] = {"chunk_store": ChunkStoreResource, "results": ResultsResource}
    rows = [
        [f"`{key}.{name}`", field.description or ""]
        for key, resource in resources.items()
        for name, field in resource.model_fields.items()
    ]
    return table(["field", "meaning and default"], rows)
