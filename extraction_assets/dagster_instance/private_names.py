"""Every name that Dagster does not promise to keep and this package uses; no other module imports ``dagster._…``.

Tried with Dagster 1.13.12 to 1.13.27. Where a release lacks the names of a group marked optional, what is built on them
falls back to public ones: a wrong value of a resource is then refused when the run starts, not in the Launchpad; and a
YAML file that does not load hides the extractions beside it (so it is with 1.13.0 to 1.13.5). Without any of the other
names the package does not import, which is why a new release is tried before ``constraints.txt`` names it.
"""

from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionsFilter, BulkActionStatus
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._utils.pydantic_yaml import enrich_validation_errors_with_source_position
from dagster._utils.schedules import is_valid_cron_schedule

try:  # optional: a type of the Launchpad of one's own, which the resources' fields have
    from dagster._config.config_type import ConfigType, ConfigTypeKind
    from dagster._config.errors import PostProcessingError
except ImportError:
    ConfigType = ConfigTypeKind = PostProcessingError = None  # type: ignore[assignment,misc]

try:  # optional: the tree of a defs folder, of which one file that does not load is replaced
    from dagster._utils.warnings import suppress_dagster_warnings
    from dagster.components.core.component_tree import ComponentTree
    from dagster.components.core.decl import (
        ComponentDecl,
        ComponentLoaderDecl,
        DefsFolderDecl,
        YamlFileDecl,
        build_component_decl_from_yaml_file,
        build_filesystem_component_decl_from_context,
    )
    from dagster.components.core.defs_module import ComponentPath
except ImportError:
    ComponentTree = ComponentPath = suppress_dagster_warnings = None  # type: ignore[assignment,misc]
    ComponentDecl = ComponentLoaderDecl = DefsFolderDecl = YamlFileDecl = None  # type: ignore[assignment,misc]
    build_component_decl_from_yaml_file = None  # type: ignore[assignment]
    build_filesystem_component_decl_from_context = None  # type: ignore[assignment]

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecordStatus",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckRunHealthResult",
    "ComponentDecl",
    "ComponentLoaderDecl",
    "ComponentPath",
    "ComponentTree",
    "ConfigType",
    "ConfigTypeKind",
    "DefsFolderDecl",
    "LaunchRunContext",
    "PostProcessingError",
    "UnresolvedAssetJobDefinition",
    "WorkerStatus",
    "YamlFileDecl",
    "build_component_decl_from_yaml_file",
    "build_filesystem_component_decl_from_context",
    "enrich_validation_errors_with_source_position",
    "is_valid_cron_schedule",
    "suppress_dagster_warnings",
]
