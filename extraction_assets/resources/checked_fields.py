"""Fields with checks in the Launchpad, before a run exists: Dagster's public types cannot express them."""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
from pydantic import BeforeValidator
from pydantic_core import CoreSchema, core_schema

from extraction_assets.dagster_instance.private_names import ConfigType, ConfigTypeKind, PostProcessingError
from extraction_assets.engine.chunk_pass.batch_size import parse_batch_size

NO_BOUND = "none"


def parse_count(value: Any) -> int:
    """A whole number of at least 1, as 4 or "4". Raises ValueError otherwise."""
    if not isinstance(value, bool) and re.fullmatch(r"0*[1-9]\d*", str(value).strip()):
        return int(value)
    raise ValueError(f"must be a whole number of at least 1, got {value!r}")


def parse_device(value: Any) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Raises ValueError otherwise."""
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        return value
    raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {value!r}")


def parse_gigabytes(value: Any) -> float | None:
    """A number above 0, or None for ``none``: no bound. Raises ValueError otherwise."""
    if value is None or value == NO_BOUND:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if 0 < number < math.inf:
        return number
    raise ValueError(f"must be {NO_BOUND!r} or a number of GiB above 0, got {value!r}")


def _or_variable(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``parse``, after letting through what Dagster resolves later and resolving ``{env: NAME}`` of a configuration."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dg.EnvVar) or type(value).__name__ == "IntEnvVar":
            return value
        if isinstance(value, Mapping) and list(value) == ["env"]:
            name = value["env"]
            if name not in os.environ:
                raise ValueError(f"the environment variable {name} is not set")
            value = os.environ[name]
        return parse(value)

    return resolved


if TYPE_CHECKING:
    Count = int
    Device = str
    Gigabytes = float | None
    VectorizationBatchSize = Any
elif ConfigType is None:  # a wrong value is then refused when the run starts, not at launch

    def _checked(_name: str, parse: Callable[[Any], Any]) -> Any:
        return Annotated[Any, BeforeValidator(_or_variable(parse))]

else:

    class _CheckedType(ConfigType):
        """Calls ``parse`` while a configuration is validated; its ValueError becomes the Launchpad's message."""

        def __init__(self, name: str, parse: Callable[[Any], Any]) -> None:
            super().__init__(key=name, given_name=name, kind=ConfigTypeKind.ANY)
            self._parse = _or_variable(parse)

        def post_process(self, value: Any) -> Any:
            try:
                return self._parse(value)
            except ValueError as error:
                raise PostProcessingError(str(error)) from None

        def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
            return core_schema.no_info_plain_validator_function(self._parse)

    _checked = _CheckedType

if not TYPE_CHECKING:
    Count = _checked("Count", parse_count)
    Device = _checked("Device", parse_device)
    Gigabytes = _checked("Gigabytes", parse_gigabytes)
    VectorizationBatchSize = _checked("VectorizationBatchSize", parse_batch_size)
