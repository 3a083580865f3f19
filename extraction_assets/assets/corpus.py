"""The corpus: text -> tokenized samples, once for an extraction."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from extraction_assets.assets.corpus_check import compare_sources, source_check
from extraction_assets.assets.faults import told
from extraction_assets.assets.keys import SETTINGS_METADATA, corpus_key
from extraction_assets.assets.lineage import CodeVersions
from extraction_assets.assets.progress import progress
from extraction_assets.engine.corpus import (
    Document,
    standard_library_documents,
    text_documents,
    tokenize_corpus,
)
from extraction_assets.engine.language_model import load_tokenizer, resolve_checkpoint
from extraction_assets.engine.preflight import check_combination
from extraction_assets.plan import corpus_recipe, tokenizer_fingerprint
from extraction_assets.recovery import note_host
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus, SourceIdentity
from extraction_assets.stores.corpus_files import StoredCorpus, write_corpus
from extraction_assets.stores.fingerprints import fingerprint
from extraction_assets.stores.sealed import DamagedFileError, writing

PACKING = "documents"


class Materialized(NamedTuple):
    """A corpus that is current, and the source as it is now."""

    current: CurrentCorpus
    source: SourceIdentity
    reused: bool


def build_corpus(settings: ExtractionSettings) -> dg.AssetsDefinition:
    """The corpus asset of an extraction."""

    @dg.multi_asset(
        name=f"{settings.name}_corpus",
        specs=[
            dg.AssetSpec(
                corpus_key(settings),
                code_version=CodeVersions(settings).corpus,
                kinds={"numpy"},
                metadata={SETTINGS_METADATA: dg.MetadataValue.json(settings.model_dump(mode="json"))},
                description="Tokenized samples with masks and document ids, in memory-mappable files.",
            )
        ],
        check_specs=[source_check(settings)],
        group_name=settings.name,
        can_subset=True,  # so that the check can be evaluated alone
    )
    def corpus(
        context: dg.AssetExecutionContext, gpu: GpuResource, chunk_store: ChunkStoreResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        """Reads and tokenizes the source, or only compares it with what was tokenized."""
        store, current = chunk_store.open(), None
        note_host(context.instance, context.run.run_id)
        with told(context.retry_number):
            if context.selected_asset_keys:
                check_settings(settings)
                made = materialize_corpus(settings, store, gpu.num_workers, context.log)
                yield _result(settings, made)
                current, now = made.current, made.source
            else:
                current = store.current_corpus(settings.name)
                now = source_identity(read_documents(settings.corpus.source))
            if context.selected_asset_check_keys:
                yield compare_sources(settings, current, now)

    return corpus


def _result(settings: ExtractionSettings, made: Materialized) -> dg.MaterializeResult:
    current, arrays = made.current, made.current.corpus.arrays
    return dg.MaterializeResult(
        asset_key=corpus_key(settings),
        metadata={
            "samples": len(current.corpus),
            "tokens": int(arrays.attention_mask.sum()),
            "documents": len(set(arrays.document_numbers.tolist())),
            "max_length": settings.corpus.max_length,
            "reused": made.reused,
            "path": dg.MetadataValue.path(str(current.corpus.folder)),
        },
        data_version=dg.DataVersion(current.version),
    )


def check_settings(settings: ExtractionSettings) -> None:
    """Everything about model, hooks and SAEs that can be known to be wrong before work starts."""
    saes = {
        name: (resolve_checkpoint(sae.path, revision=sae.revision), sae.hook) for name, sae in settings.saes.items()
    }
    model = settings.language_model
    trusted = model.trust_remote_code
    path = str(resolve_checkpoint(model.path, revision=model.revision, trust_remote_code=trusted))
    check_combination(path, saes, settings.corpus.max_length, trust_remote_code=trusted)


def materialize_corpus(
    settings: ExtractionSettings, store: ChunkStore, num_workers: int, logger: logging.Logger
) -> Materialized:
    """Reads the source and tokenizes it, unless the current corpus was made from the same text and settings."""
    recipe, documents = corpus_recipe(settings), list(read_documents(settings.corpus.source))
    source = source_identity(documents)
    try:
        current = store.current_corpus(settings.name)
    except DamagedFileError as error:
        logger.warning("tokenizing again: %s", error)
        current = None
    if current is not None and (current.recipe, current.source) == (recipe, source.fingerprint):
        return Materialized(current, source, reused=True)
    with writing(store.corpora):  # a corpus that no pointer names yet is not cleaned away
        stored = _tokenize(settings, store, documents, num_workers, logger)
        new = CurrentCorpus(stored, recipe, source.fingerprint, _version(stored, current), *source[1:])
        store.write_current_corpus(settings.name, new)
    return Materialized(new, source, reused=False)


def _version(stored: StoredCorpus, earlier: CurrentCorpus | None) -> str:
    """The earlier corpus's version if one of the two begins with the other."""
    if earlier is not None:
        common = slice(0, min(len(stored), len(earlier.corpus)))
        if stored.content_fingerprint(common) == earlier.corpus.content_fingerprint(common):
            return earlier.version
    return stored.manifest.fingerprint


def source_identity(documents: Iterable[Document]) -> SourceIdentity:
    """What tells one source text from another, and how large it is."""
    found = list(documents)
    return SourceIdentity(fingerprint("documents", documents=found), len(found), sum(len(text) for _, text in found))


def read_documents(source: str) -> Iterable[Document]:
    """The documents of a corpus source."""
    return standard_library_documents() if source == STANDARD_LIBRARY else text_documents(source)


def _tokenize(
    settings: ExtractionSettings,
    store: ChunkStore,
    documents: list[Document],
    num_workers: int,
    logger: logging.Logger,
) -> StoredCorpus:
    # Read by the tokenizer's thread pool when it is first used.
    os.environ.setdefault("RAYON_NUM_THREADS", str(num_workers))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    model = settings.language_model
    tokenizer = load_tokenizer(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code)
    with progress("corpus", settings.evaluation_samples, "samples", logger) as update:
        tokenized = tokenize_corpus(
            documents,
            tokenizer,
            settings.corpus.max_length,
            settings.evaluation_samples,
            start_sample=settings.start_sample,
            prepend_bos=settings.corpus.prepend_bos,
            on_samples=update,
        )
    return write_corpus(
        store.corpora,
        tokenized,
        source=_portable(settings.corpus.source),
        tokenizer=tokenizer_fingerprint(settings),
        packing=PACKING,
        start_sample=settings.start_sample,
    )


def _portable(source: str) -> str:
    """A source as results name it: a path's last part, so that the same text elsewhere is the same corpus."""
    return source if source == STANDARD_LIBRARY else Path(source).name
