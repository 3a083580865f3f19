"""FeatureExtraction: a YAML block -> assets, checks, schedule and sensors."""

import dagster as dg

from extraction_assets.assets.chunks import build_chunk_assets
from extraction_assets.assets.corpus import build_corpus
from extraction_assets.assets.examples import build_feature_examples
from extraction_assets.assets.report import build_feature_report
from extraction_assets.automation import build_automation
from extraction_assets.settings import ExtractionSettings


class FeatureExtraction(ExtractionSettings, dg.Component, dg.Resolvable):
    """Extracts the strongest examples of every feature of one or more SAEs from a language model.

    Binds no resources: `extraction_assets.default_resources()` supplies them once for any number of extractions.
    """

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Assets of this extraction; relative paths count from the folder of the YAML file."""
        fields = {name: getattr(self, name) for name in ExtractionSettings.model_fields}
        settings = ExtractionSettings(**{**fields, "name": self.name or context.path.name})
        return build_definitions(settings.with_paths_from(context.path))


def build_definitions(settings: ExtractionSettings) -> dg.Definitions:
    """Assets of one extraction, whose settings carry a name and absolute paths."""
    merged = [build(settings, sae) for sae in settings.saes for build in (build_feature_examples, build_feature_report)]
    assets = [build_corpus(settings), build_chunk_assets(settings), *merged]
    owned = [own.map_asset_specs(lambda spec: spec.replace_attributes(owners=settings.owners)) for own in assets]
    return dg.Definitions.merge(dg.Definitions(assets=owned), build_automation(settings))
