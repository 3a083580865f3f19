"""The corpus: documents -> tokenized samples, once for an extraction."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from extraction_assets.assets.corpus_check import compare_sources, source_check
from extraction_assets.assets.damage import warn
from extraction_assets.assets.document_share import DocumentShare, first_documents, stored_share
from extraction_assets.assets.early_checks import tell
from extraction_assets.assets.faults import told
from extraction_assets.assets.keys import SETTINGS_METADATA, corpus_key
from extraction_assets.assets.lineage import CodeVersions
from extraction_assets.assets.preview import escape
from extraction_assets.assets.progress import progress
from extraction_assets.assets.source_identity import file_times, source_identity
from extraction_assets.engine.corpora.documents import CorpusError, Document, Source
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.engine.corpus import Packing, tokenize_corpus
from extraction_assets.engine.language_model import resolve_checkpoint, vocabulary_size
from extraction_assets.engine.models.tokenizer_comparison import CHARACTERS, TEXTS
from extraction_assets.engine.preflight import check_combination, examine_vocabulary
from extraction_assets.plan import (
    corpus_recipe,
    has_recipe,
    load_tokenizer,
    resolve_settings,
    tokenizer_findings,
    tokenizer_fingerprint,
)
from extraction_assets.recovery import note_host
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import STANDARD_LIBRARY, CorpusSettings, ExtractionSettings, is_hub_id
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus, SourceIdentity
from extraction_assets.stores.corpus_files import StoredCorpus, write_corpus
from extraction_assets.stores.sealed import DamagedFileError, named, writing


class Materialized(NamedTuple):
    """A corpus that is current, and the source as it is now."""

    current: CurrentCorpus
    source: SourceIdentity
    reused: bool
    share: DocumentShare
    tokenizer_differences: tuple[str, ...] = ()
    """What another reading of the tokenizer's files would change; unknown where the corpus is reused."""


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
        with told(context.retry_number, context.log):
            if context.selected_asset_keys:
                check_settings(settings)
                made = materialize_corpus(settings, store, gpu.num_workers, context.log)
                yield _result(settings, made)
                current, now = made.current, made.source
            else:
                current = store.current_corpus(settings.name)
                now = source_identity(find_source(settings.corpus))
            if context.selected_asset_check_keys:
                yield compare_sources(settings, current, now)

    return corpus


def _result(settings: ExtractionSettings, made: Materialized) -> dg.MaterializeResult:
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
            "path": dg.MetadataValue.path(str(current.corpus.folder)),
            **(differences if made.tokenizer_differences else {}),
        },
        data_version=dg.DataVersion(current.version),
    )


def check_settings(settings: ExtractionSettings) -> None:
    """Everything about model, hooks and SAEs that can be known to be wrong before work starts."""
    model = settings.language_model
    trusted = model.trust_remote_code
    path = str(resolve_checkpoint(model.path, revision=model.revision, trust_remote_code=trusted))
    saes = resolve_settings(settings).saes
    check_combination(path, saes, settings.corpus.max_length, trust_remote_code=trusted)


def materialize_corpus(
    settings: ExtractionSettings, store: ChunkStore, num_workers: int, logger: logging.Logger
) -> Materialized:
    """Tokenizes the source, unless the current corpus was made from the same source and settings."""
    recipe, source = corpus_recipe(settings), find_source(settings.corpus)
    identity = source_identity(source, reads_text=settings.corpus.token_column is None)
    files = file_times(source)
    try:
        current = store.current_corpus(settings.name)
    except DamagedFileError as error:
        warn(logger, f"the corpus is tokenized again: {named(str(error), settings.name)}")
        current = None
    unchanged = current is not None and (current.source, current.reading) == (identity.fingerprint, identity.reading)
    if current is not None and unchanged and has_recipe(current, settings):
        # What an earlier version stored gets its checksums, and the recipe that was found to hold the same.
        current = CurrentCorpus(current.corpus, recipe, current.source, current.version, *identity[1:])
        store.keep_current_corpus(settings.name, current)
        return _materialized(settings, current, identity, source, logger)
    with writing(store.corpora):  # a corpus that no pointer names yet is not cleaned away
        stored, differences = _tokenize(settings, store, source, num_workers, logger)
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
    """A current corpus, with what is said of it."""
    share = stored_share(current.corpus, settings, source)
    tell(list(first_documents(settings, share)), logger)
    return Materialized(current, identity, True, share)


def _version(stored: StoredCorpus, earlier: CurrentCorpus | None) -> str:
    """The earlier corpus's version if one of the two begins with the other."""
    if earlier is not None:
        common = slice(0, min(len(stored), len(earlier.corpus)))
        if stored.content_fingerprint(common) == earlier.corpus.content_fingerprint(common):
            return earlier.version
    return stored.manifest.fingerprint


def packing_of(corpus: CorpusSettings) -> Packing:
    """How the tokens of a corpus become samples. Documents that are tokens already stay as they are by default."""
    as_they_are = corpus.prepend_bos is None and corpus.token_column is not None
    return Packing(
        corpus.max_length,
        corpus.packing,
        False if as_they_are else corpus.prepend_bos,
        corpus.sequence_separator_token,
        corpus.drop_duplicates,
        keep_leading_bos=as_they_are,
    )


def _tokenize(
    settings: ExtractionSettings, store: ChunkStore, source: Source, num_workers: int, logger: logging.Logger
) -> tuple[StoredCorpus, tuple[str, ...]]:
    # Read by the tokenizer's thread pool when it is first used.
    os.environ.setdefault("RAYON_NUM_THREADS", str(num_workers))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    model, tokenizer = settings.language_model, load_tokenizer(settings)
    trusted = model.trust_remote_code
    folder = str(resolve_checkpoint(model.path, revision=model.revision, trust_remote_code=trusted))
    rows = vocabulary_size(folder, trust_remote_code=trusted)
    if tokenizer is not None and settings.corpus.token_column is None:
        tell(examine_vocabulary(tokenizer, rows, model.path), logger)
        if not tokenizer.is_fast:
            logger.warning("%s is no fast tokenizer: it tokenizes on one core", type(tokenizer).__name__)
    texts: list[str] = []
    with progress("corpus", settings.evaluation_samples, "samples", logger) as update:
        tokenized = tokenize_corpus(
            noting_texts(source.documents(), texts),
            tokenizer,
            packing_of(settings.corpus),
            settings.evaluation_samples,
            start_sample=settings.start_sample,
            vocabulary_size=rows,
            on_samples=update,
        )
    differences = tokenizer_findings(settings, tokenizer, texts)
    tell(differences, logger)
    stored = write_corpus(
        store.corpora,
        tokenized,
        source=_portable(settings.corpus.source),
        tokenizer=tokenizer_fingerprint(settings),
        packing=settings.corpus.packing,
        start_sample=settings.start_sample,
    )
    return stored, tuple(finding.message for finding in differences)


def noting_texts(documents: Iterable[Document], texts: list[str]) -> Iterator[Document]:
    """The same documents; adds the texts of the first ones to ``texts``, as many and as much as are compared."""
    for name, text in documents:
        if len(texts) < TEXTS and isinstance(text, str):
            texts.append(text[:CHARACTERS])
        yield name, text


def _portable(source: str) -> str:
    """A source as results name it: a path's last part, so that the same text elsewhere is the same corpus."""
    return source if source == STANDARD_LIBRARY or is_hub_id(source) else Path(source).name
