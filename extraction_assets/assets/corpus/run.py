"""The corpus: documents -> tokenized samples, once for an extraction."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from extraction_assets.assets.corpus.source_check import compare_sources
from extraction_assets.catalog import CORPUS
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.early_checks.document_share import DocumentShare, first_documents, stored_share
from extraction_assets.engine.corpora.documents import CorpusError, Source
from extraction_assets.engine.corpora.tokenize import SampleStream, packing_of
from extraction_assets.engine.findings import Finding, log_and_raise
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.engine.models.language_model import vocabulary_size
from extraction_assets.engine.models.tokenizers.comparison import noting_texts
from extraction_assets.engine.preflight.compatibility import check_combination, examine_vocabulary
from extraction_assets.engine.saes.resolved import resolve_extraction
from extraction_assets.execution.damage import warn
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.execution.keys import corpus_key
from extraction_assets.execution.preview import escape
from extraction_assets.execution.progress import progress
from extraction_assets.planning.corpus_source import open_source
from extraction_assets.planning.plan import corpus_recipe, has_recipe
from extraction_assets.planning.source_identity import file_times, source_identity
from extraction_assets.planning.tokenization import load_tokenizer, tokenizer_findings, tokenizer_fingerprint
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings, is_hub_id
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus, SourceIdentity
from extraction_assets.stores.corpus_files import StoredCorpus
from extraction_assets.stores.sealed import DamagedFileError, named


class Materialized(NamedTuple):
    """A corpus that is current, and the source as it is now."""

    current: CurrentCorpus
    source: SourceIdentity
    reused: bool
    share: DocumentShare
    tokenizer_differences: tuple[str, ...] = ()
    """What another reading of the tokenizer's files would change; unknown where the corpus is reused."""


def run_corpus(
    context: dg.AssetExecutionContext, settings: ExtractionSettings, gpu: GpuResource, chunk_store: ChunkStoreResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """The step of the corpus: reads and tokenizes the source, or only compares it with what was tokenized."""
    store, current = chunk_store.open(), None
    note_host(context.instance, context.run.run_id)
    with as_dagster_failure(context.retry_number, context.log), hub_downloads(context.log):
        if context.selected_asset_keys:
            check_settings(settings)
            made = materialize_corpus(settings, store, gpu.num_workers, context.log)
            yield _result(settings, made, store)
            current, now = made.current, made.source
        else:
            current = store.current_corpus(settings.name)
            now = source_identity(open_source(settings.corpus))
        if context.selected_asset_check_keys:
            yield compare_sources(settings, current, now)


def _result(settings: ExtractionSettings, made: Materialized, store: ChunkStore) -> dg.MaterializeResult:
    current, arrays = made.current, made.current.corpus.arrays
    differences = {"tokenizer_differences": dg.MetadataValue.md("\n\n".join(map(escape, made.tokenizer_differences)))}
    return dg.MaterializeResult(
        asset_key=corpus_key(settings),
        metadata={
            "samples": len(current.corpus),
            "tokens": int(arrays.attention_mask.sum()),
            "documents": made.share.counted.documents,
            **({} if made.share.total is None else {"documents_in_source": made.share.total}),
            "max_length": settings.corpus.max_length,
            "reused": made.reused,
            "path": dg.MetadataValue.path(store.files.address(current.corpus.folder)),
            **(differences if made.tokenizer_differences else {}),
        },
        data_version=dg.DataVersion(current.version),
    )


def check_settings(settings: ExtractionSettings) -> None:
    """Everything about model, hooks and SAEs that can be found wrong before work starts."""
    extraction = resolve_extraction(settings)
    check_combination(extraction.checkpoint, extraction.saes, settings.corpus.max_length)


def materialize_corpus(
    settings: ExtractionSettings, store: ChunkStore, num_workers: int, logger: logging.Logger
) -> Materialized:
    """Tokenizes the source, unless the current corpus was made from the same source and settings."""
    checkpoint, source = resolve_checkpoint(settings.language_model.checkpoint), open_source(settings.corpus)
    recipe = corpus_recipe(settings, checkpoint)
    identity = source_identity(source, reads_text=settings.corpus.token_column is None)
    files = file_times(source)
    try:
        current = store.current_corpus(settings.name)
    except DamagedFileError as error:
        warn(logger, f"the corpus is tokenized again: {named(str(error), settings.name)}")
        current = None
    unchanged = current is not None and (current.source, current.reading) == (identity.fingerprint, identity.reading)
    if current is not None and unchanged and has_recipe(current, settings, checkpoint):
        # What an earlier version stored gets its checksums, and the recipe that was found to hold the same.
        current = CurrentCorpus(current.corpus, recipe, current.source, current.version, *identity[1:])
        store.keep_current_corpus(settings.name, current)
        return _materialized(settings, current, identity, source, logger)
    with store.files.writing(store.corpora):  # a corpus that no pointer names yet is not cleaned away
        stored, differences = _tokenize(settings, checkpoint, store, source, num_workers, logger)
        if file_times(source) != files:
            raise CorpusError(f"corpus source {settings.corpus.source!r} changed while it was read: try again")
        new = CurrentCorpus(stored, recipe, identity.fingerprint, _version(stored, current), *identity[1:])
        store.write_current_corpus(settings.name, new)
    made = _materialized(settings, new, identity, source, logger)
    return made._replace(reused=False, tokenizer_differences=differences)


def _materialized(
    settings: ExtractionSettings,
    current: CurrentCorpus,
    identity: SourceIdentity,
    source: Source,
    logger: logging.Logger,
) -> Materialized:
    """A current corpus with its metadata."""
    share = stored_share(current.corpus, settings, source)
    log_and_raise(list(first_documents(settings, share)), logger)
    return Materialized(current, identity, True, share)


def _version(stored: StoredCorpus, earlier: CurrentCorpus | None) -> str:
    """The earlier corpus's version if one of the two begins with the other."""
    if earlier is not None:
        common = slice(0, min(len(stored), len(earlier.corpus)))
        if stored.content_fingerprint(common) == earlier.corpus.content_fingerprint(common):
            return earlier.version
    return stored.manifest.fingerprint


def _tokenize(
    settings: ExtractionSettings,
    checkpoint: LocalCheckpoint,
    store: ChunkStore,
    source: Source,
    num_workers: int,
    logger: logging.Logger,
) -> tuple[StoredCorpus, tuple[str, ...]]:
    # Read by the tokenizer's thread pool when it is first used.
    os.environ.setdefault("RAYON_NUM_THREADS", str(num_workers))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokenizer, rows = load_tokenizer(settings, checkpoint), vocabulary_size(checkpoint)
    if tokenizer is not None and settings.corpus.token_column is None:
        log_and_raise(examine_vocabulary(tokenizer, rows, settings.language_model.path), logger)
        if not tokenizer.is_fast:
            logger.warning("%s is no fast tokenizer: it tokenizes on one core", type(tokenizer).__name__)
    texts: list[str] = []
    differences: list[Finding] = []

    def compare_readings() -> None:
        """Before a file has its name: what is refused is not stored."""
        differences.extend(tokenizer_findings(settings.corpus, checkpoint, tokenizer, texts))
        log_and_raise(differences, logger)

    with progress(CORPUS, settings.evaluation_samples, "samples", logger) as update:
        samples = SampleStream(
            noting_texts(source.documents(), texts),
            tokenizer,
            packing_of(settings.corpus),
            settings.evaluation_samples,
            start_sample=settings.start_sample,
            vocabulary_size=rows,
            on_samples=update,
            at_end=compare_readings,
        )
        stored = store.write_corpus(
            samples,
            source=_portable(settings.corpus.source),
            tokenizer=tokenizer_fingerprint(settings, checkpoint),
            packing=settings.corpus.packing,
            start_sample=settings.start_sample,
        )
    return stored, tuple(finding.message for finding in differences)


def _portable(source: str) -> str:
    """A source as results name it: a path's last part, so that the same text elsewhere is the same corpus."""
    return source if source == STANDARD_LIBRARY or is_hub_id(source) else Path(source).name
