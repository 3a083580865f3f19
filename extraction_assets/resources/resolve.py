"""The resources of a module's definitions with their fields resolved, for everything that is no Dagster run."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import dagster as dg
from pydantic import ValidationError

from extraction_assets.resources.chunk_store import ChunkStoreResource
from extraction_assets.resources.gpu import GpuResource
from extraction_assets.resources.results import ResultsResource

Resource = TypeVar("Resource", ChunkStoreResource, GpuResource, ResultsResource)

_KEYS: dict[type, str] = {ChunkStoreResource: "chunk_store", GpuResource: "gpu", ResultsResource: "results"}


class ResourceError(ValueError):
    """A resource that cannot be used; the message says which, and what to do."""


def resolve_resource(bound: Mapping[str, Any] | None, kind: type[Resource]) -> Resource:
    """The resource of a kind among ``bound``, its environment variables (``dg.EnvVar``) replaced by what they hold now.

    Dagster does so when a run begins; commands, the doctor and the runner call this. Raises ResourceError.
    """
    key = _KEYS[kind]
    found = (bound or {}).get(key)
    if found is None:
        raise ResourceError(
            f"the definitions bind no resource {key!r}: add resources=extraction_assets.default_resources() to them"
        )
    at_launch = getattr(found, "resource_cls", None)  # of configure_at_launch(): what a run without configuration gets
    if isinstance(at_launch, type) and issubclass(at_launch, kind):
        return _resolved(at_launch, found.data, key)
    if not isinstance(found, kind):
        raise ResourceError(f"the definitions bind a {type(found).__name__} as {key!r}, not a {kind.__name__}")
    return _resolved(type(found), {name: getattr(found, name) for name in type(found).model_fields}, key)


def _resolved(kind: type[Resource], fields: Mapping[str, Any], key: str) -> Resource:
    variables = {name: variable for name, value in fields.items() if (variable := variable_of(value))}
    values = {name: _value_of(variables[name], f"{key}.{name}") for name in variables}
    try:
        return kind(**{**fields, **values})
    except ValueError as error:
        if not variables:
            raise
        found = error.errors() if isinstance(error, ValidationError) else [{"msg": str(error), "loc": ()}]
        reason = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in found)
        at_fault = {str(one["loc"][0]) for one in found if one["loc"]} or set(variables)
        named = ", ".join(f"{field} from {variable}" for field, variable in variables.items() if field in at_fault)
        raise ResourceError(f"the resource {key!r} ({named}) cannot be used: {reason}") from None


def variable_of(value: Any) -> str | None:
    """The environment variable that a field names (``dg.EnvVar``, ``dg.EnvVar.int``); None for any other value."""
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    return str(value.name) if type(value).__name__ == "IntEnvVar" else None


def _value_of(variable: str, field: str) -> str:
    if variable not in os.environ:
        raise ResourceError(f"the environment variable {variable} is not set, which the resource field {field} is from")
    return os.environ[variable]
