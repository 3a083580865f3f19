"""Asset keys, and what every asset of an extraction shares."""

from typing import NamedTuple

import dagster as dg

from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkAsset, chunk_assets

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


class Target(NamedTuple):
    """One chunk asset that a run was asked for."""

    key: dg.AssetKey
    asset: ChunkAsset
    sae: str | None


def chunk_targets(settings: ExtractionSettings) -> list[Target]:
    """Every chunk asset of an extraction, upstream first."""
    return [
        Target(sae_key(settings, sae, asset) if sae else activations_key(settings), asset, sae)
        for asset, sae in chunk_assets(settings.saes)
    ]
