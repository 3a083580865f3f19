"""When the automation sensor has directions computed."""

from pathlib import Path

import dagster as dg

from extraction_assets import default_resources
from extraction_assets.catalog import FEATURE_DIRECTIONS
from extraction_assets.component import build_definitions
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


def define(settings: ExtractionSettings) -> dg.Definitions:
    return dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=default_resources()))


def test_they_are_requested_once_without_a_corpus_and_again_for_other_checkpoints(
    tiny_folder: Path, home: Path
) -> None:
    settings = make_settings(tiny_folder)
    project, defs, cursor = Project(settings, home), define(settings), None
    keys = [sae_key(settings, sae, FEATURE_DIRECTIONS) for sae in settings.saes]

    def requested(definitions: dg.Definitions) -> list[int]:
        nonlocal cursor
        selection = dg.AssetSelection.assets(*keys)
        found = dg.evaluate_automation_conditions(
            definitions, project.instance, asset_selection=selection, cursor=cursor
        )
        cursor = found.cursor
        return [found.get_num_requested(key) for key in keys]

    assert requested(defs) == [1, 1]
    assert requested(defs) == [0, 0]  # whether or not it worked
    project.execute(keys)
    assert requested(defs) == [0, 0]
    saes = {"relu": settings.saes["relu"], "topk": settings.saes["topk"].model_copy(update={"hook": "layers.2"})}
    assert requested(define(settings.model_copy(update={"saes": saes}))) == [0, 1]
    assert requested(define(settings.model_copy(update={"saes": saes}))) == [0, 0]


def test_those_that_are_there_already_are_not_requested(tiny_folder: Path, home: Path) -> None:
    settings = make_settings(tiny_folder)
    project, key = Project(settings, home), sae_key(settings, "relu", FEATURE_DIRECTIONS)
    project.execute([key])
    found = dg.evaluate_automation_conditions(
        define(settings), project.instance, asset_selection=dg.AssetSelection.assets(key)
    )
    assert found.total_requested == 0
