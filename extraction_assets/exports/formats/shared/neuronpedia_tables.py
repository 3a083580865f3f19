"""What Neuronpedia stores of a release, a model, a set of sources and a source: one row each."""

from collections.abc import Mapping
from typing import Any

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.exports.checkpoints_and_files import Declared
from extraction_assets.exports.formats.shared.neuronpedia_names import NeuronpediaNames
from extraction_assets.exports.source import ExportSource

Row = dict[str, Any]


def metadata_rows(source: ExportSource, names: NeuronpediaNames, options: Mapping[str, str]) -> dict[str, Row]:
    """Name of the file -> its one row, by the columns of Neuronpedia's database (apps/webapp/prisma/schema.prisma)."""
    extraction = source.extraction
    release = options["release"] or extraction.name
    creator = {"creatorId": options["creator_id"], "visibility": "PUBLIC"}
    by = options["creator_name"]
    sae = (extraction.settings.get("saes") or {}).get(extraction.sae) or {}
    title = f"{extraction.sae} of {extraction.name}"
    return {
        "release": {
            "name": release,
            "description": f"Extraction {extraction.name}",
            "descriptionShort": extraction.name,
            "urls": [],
            "creatorName": by,
            "creatorNameShort": by,
            **creator,
        },
        "model": {
            "id": names.model_id,
            "displayName": names.model_id,
            "displayNameShort": names.model_id,
            "layers": _layers(source.declared, names.layer),
            "neuronsPerLayer": 0,
            "owner": by,
            **creator,
        },
        "sourceset": {
            "modelId": names.model_id,
            "name": names.source_set,
            "description": title,
            "type": "",
            "creatorName": by,
            "urls": [],
            "releaseName": release,
            "hasDashboards": True,
            **creator,
        },
        "source": {
            "id": names.source_id,
            "modelId": names.model_id,
            "setName": names.source_set,
            "hasDashboards": True,
            "num_prompts": extraction.sample_count,
            "num_tokens_in_prompt": extraction.max_length,
            "dataset": shown_source(source.corpus.source),
            "saelensRelease": sae.get("release"),
            "saelensSaeId": sae.get("sae_id"),
            "notes": f"{extraction.latent_dim} features at {extraction.hook}",
            **creator,
        },
    }


def shown_source(corpus: str) -> str:
    """Where a corpus is from: of a path on this machine its last part."""
    return corpus.rstrip("/").rpartition("/")[2] if corpus.startswith("/") else corpus


def _layers(declared: Declared | None, layer: int) -> int:
    """Blocks of the model; as far as is known without its checkpoint, those up to the SAE's."""
    if declared is None:
        return layer + 1
    from extraction_assets.engine.models.files.local_checkpoint import resolve_checkpoint
    from extraction_assets.engine.models.files.model_folder import block_count

    try:
        found = block_count(resolve_checkpoint(declared.settings.language_model.checkpoint).folder)
    except (CheckpointError, OSError, ValueError):  # removed since
        found = None
    return layer + 1 if found is None else found
