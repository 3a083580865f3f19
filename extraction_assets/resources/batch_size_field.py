"""The Launchpad type of a field that is ``auto`` or a number, which Dagster's public types cannot say."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import CoreSchema, core_schema

from extraction_assets.engine.batching import parse_batch_size

if TYPE_CHECKING:
    VectorizationBatchSize = Any
else:
    try:
        from dagster._config.config_type import ConfigType, ConfigTypeKind
        from dagster._config.errors import PostProcessingError
    except ImportError:
        # The private names have moved: a wrong value is then refused when the run starts, not at launch.
        VectorizationBatchSize = Annotated[Any, BeforeValidator(parse_batch_size)]
    else:

        class _BatchSizeType(ConfigType):
            """Refuses a wrong value while the configuration is validated, so that no run is made."""

            def __init__(self) -> None:
                super().__init__(key="VectorizationBatchSize", given_name="auto or a number", kind=ConfigTypeKind.ANY)

            def post_process(self, value: Any) -> Any:
                try:
                    return parse_batch_size(value)
                except ValueError as error:
                    raise PostProcessingError(str(error)) from error

            def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
                return core_schema.no_info_plain_validator_function(parse_batch_size)

        VectorizationBatchSize = _BatchSizeType()
