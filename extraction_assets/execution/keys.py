"""Asset keys, and what every asset of an extraction shares."""

from typing import NamedTuple

import dagster as dg

from extraction_assets.catalog import CORPUS, MODEL_ACTIVATIONS, ChunkAsset, asset_row, chunk_assets
from extraction_assets.settings import ExtractionSettings

REUSE_TAG = "extraction_assets/reuse"
"""Run tag: chunks with all files are recorded, not recomputed."""

SETTINGS_METADATA = "extraction_assets/settings"
"""Metadata key of the corpus asset that holds an extraction's settings; the command line reads them there."""


def asset_key(settings: ExtractionSettings, asset: str, sae: str | None) -> dg.AssetKey:
    """Key of any asset of an extraction; ``sae`` counts for those alone that belong to one."""
    return dg.AssetKey([settings.name, *([str(sae)] if asset_row(asset).scope == "sae" else []), asset])


def corpus_key(settings: ExtractionSettings) -> dg.AssetKey:
    return asset_key(settings, CORPUS, None)


def activations_key(settings: ExtractionSettings) -> dg.AssetKey:
    return asset_key(settings, MODEL_ACTIVATIONS, None)


def sae_key(settings: ExtractionSettings, sae: str, asset: str) -> dg.AssetKey:
    return asset_key(settings, asset, sae)


def chunk_partitions(settings: ExtractionSettings) -> dg.StaticPartitionsDefinition:
    """One partition a chunk, keyed by its first sample."""
    return dg.StaticPartitionsDefinition(settings.chunk_keys)


class Target(NamedTuple):
    """One chunk asset that a run computes."""

    key: dg.AssetKey
    asset: ChunkAsset
    sae: str | None


def chunk_targets(settings: ExtractionSettings) -> list[Target]:
    """Every chunk asset of an extraction, upstream first."""
    return [Target(asset_key(settings, asset, sae), asset, sae) for asset, sae in chunk_assets(settings.saes)]
