"""FeatureExtraction: a YAML block -> assets, checks, schedule and sensors."""

import functools
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import dagster as dg
import yaml
from pydantic import BaseModel, create_model, field_validator

from extraction_assets.automation import build_automation
from extraction_assets.catalog import Asset, builders
from extraction_assets.dagster_instance.private_names import (
    enrich_validation_errors_with_source_position,
    is_valid_cron_schedule,
)
from extraction_assets.defs_yaml.templates import TemplateError, fill_in
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.named import named_sae
from extraction_assets.engine.saes.published import UnknownSae
from extraction_assets.execution.lineage import each_checkpoint_once
from extraction_assets.execution.links import published_links
from extraction_assets.exports.formats import require_formats
from extraction_assets.host.project_home import use_project_of
from extraction_assets.settings import ExtractionSettings
from extraction_assets.settings.validation import refuse_truth_for_number


class FeatureExtraction(ExtractionSettings, dg.Component, dg.Resolvable):
    """Extracts the strongest examples of every feature of one or more SAEs from a language model.

    Binds no resources: `extraction_assets.default_resources()` supplies them once for any number of extractions.
    """

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, schedule: str | None) -> str | None:
        if schedule is not None and not is_valid_cron_schedule(schedule):
            raise ValueError(
                f"schedule {schedule!r} is not in cron form: minute, hour, day of month, month and day of week, such "
                "as '0 2 * * *' for every night at two"
            )
        return schedule

    @field_validator("exports")
    @classmethod
    def _exports_are_formats(cls, exports: tuple[str, ...]) -> tuple[str, ...]:
        require_formats(exports)
        return exports

    @classmethod
    def model(cls) -> type[BaseModel]:
        """What Dagster reads a YAML block into, before it becomes settings. Dagster makes it of the annotations alone,
        so that it would take true for 1."""
        return _strict_about_numbers(super().model())

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """The component of a YAML block. Errors in its values name file and line, as syntax errors do."""
        tree = context.source_position_tree
        if tree is None or "attributes" not in tree.children:
            return super().resolve_from_model(context, fill_in(model, None))
        for repeated in _repeated_keys(Path(tree.position.filename)):
            raise ValueError(repeated)
        with enrich_validation_errors_with_source_position(tree.children["attributes"], ["attributes"]):
            try:
                filled = fill_in(model, _project_root(context))
            except TemplateError as error:
                raise ValueError(f"{_place(tree.children['attributes'], error.path)}: {error}") from None
            return super().resolve_from_model(context, filled)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Assets of this extraction; relative paths count from the folder of the YAML file."""
        use_project_of(context.path)
        fields = {name: getattr(self, name) for name in ExtractionSettings.model_fields}
        settings = ExtractionSettings(**{**fields, "name": self.name or context.path.name})
        return build_definitions(settings, context.path)


@functools.cache
def _strict_about_numbers(model: type[BaseModel]) -> type[BaseModel]:
    refuse: Any = field_validator("*", mode="before")(classmethod(refuse_truth_for_number))
    return create_model(model.__name__, __base__=model, __validators__={"no_truth_for_number": refuse})


def build_definitions(settings: ExtractionSettings, folder: Path | None = None) -> dg.Definitions:
    """Assets of one extraction, whose settings carry a name; relative paths count from ``folder``.

    Without a folder all paths must be full: ValueError names one that is another in every working directory.
    """
    if folder is not None:
        settings = settings.with_paths_from(folder)
    settings.require_full_paths()
    _require_known_saes(settings)
    require_formats(settings.exports)
    links = {name: published_links(sae) for name, sae in settings.saes.items()}

    def completed(spec: dg.AssetSpec) -> dg.AssetSpec:
        of_sae = links[spec.key.path[1]] if len(spec.key.path) == 3 else {}
        return spec.replace_attributes(owners=settings.owners, metadata={**spec.metadata, **of_sae})

    with each_checkpoint_once():
        assets = [one.map_asset_specs(completed) for one in build_assets(settings)]
    return dg.Definitions.merge(dg.Definitions(assets=assets), build_automation(settings))


def _require_known_saes(settings: ExtractionSettings) -> None:
    """Asks no hub. Raises UnknownSae for a name that SAELens does not have, and CheckpointError for an SAE of a kind
    that cannot be read."""
    for name, sae in settings.saes.items():
        try:
            named_sae(sae.checkpoint)
        except (UnknownSae, CheckpointError) as error:
            raise type(error)(f"saes.{name}: {error}") from None


def build_assets(settings: ExtractionSettings) -> Iterator[dg.AssetsDefinition]:
    """Every asset that the catalog names, upstream first."""
    for place, row in builders().items():
        module, _, function = place.partition(":")
        build = getattr(import_module(f"extraction_assets.assets.{module}"), function)
        for arguments in _arguments(row, settings):
            yield build(settings, *arguments)


def _arguments(row: Asset, settings: ExtractionSettings) -> list[tuple[str, ...]]:
    """What a builder is called with after the settings, once for each."""
    if row.scope == "extraction":
        return [()]
    if row.listed_in is None:
        return [(sae,) for sae in settings.saes]
    return [(sae, variant) for sae in settings.saes for variant in getattr(settings, row.listed_in)]


def _project_root(context: dg.ResolutionContext) -> Path | None:
    scope = context.scope.get("context")
    return None if scope is None else Path(scope.project_root)


def _place(tree: Any, path: Sequence[str]) -> str:
    """``FILE:LINE`` of a field below ``attributes``."""
    for key in path:
        tree = tree.children.get(key, tree)
    return f"{tree.position.filename}:{tree.position.start.line}"


def _repeated_keys(file: Path) -> Iterator[str]:
    """What to say of keys that stand twice in one block, of which YAML would silently take the last."""
    if not file.is_file():  # text that was given as such
        return
    nodes = list(yaml.compose_all(file.read_text("utf-8"), Loader=yaml.SafeLoader))
    while nodes:
        node = nodes.pop()
        lines: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if isinstance(key.value, str) and lines.setdefault(key.value, line) != line:
                yield f"{key.value} at {file}:{line} stands already in line {lines[key.value]}: remove one of the two"
            nodes.append(value)
