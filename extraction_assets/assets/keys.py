"""Asset keys, and what every asset of an extraction shares."""

import dagster as dg

from extraction_assets.settings import ExtractionSettings

REUSE_TAG = "extraction_assets/reuse"
"""Run tag: chunks whose files are all there are recorded, not computed again."""

SETTINGS_METADATA = "extraction_assets/settings"
"""Metadata key of the corpus asset under which an extraction's settings stand; the command line finds them there."""


def corpus_key(settings: ExtractionSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "corpus"])


def activations_key(settings: ExtractionSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "model_activations"])


def sae_key(settings: ExtractionSettings, sae: str, asset: str) -> dg.AssetKey:
    return dg.AssetKey([settings.name, sae, asset])


def chunk_partitions(settings: ExtractionSettings) -> dg.StaticPartitionsDefinition:
    """One partition a chunk, keyed by its first sample."""
    return dg.StaticPartitionsDefinition(settings.chunk_keys)
