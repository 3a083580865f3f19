"""The steps of an extraction in memory: tokenize, load, look at one batch, compute, merge, relate."""

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError

from extraction_assets.assets.directions.compute import compute_directions
from extraction_assets.assets.examples.corpus_samples import corpus_samples
from extraction_assets.assets.examples.expected import differences
from extraction_assets.assets.examples.merging import merge_tables
from extraction_assets.assets.relations.compute import CorpusCounts, compute_relations
from extraction_assets.assets.relations.source import Source as FiringsSource
from extraction_assets.catalog import SAE_FEATURES
from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.database.writing.feature_directions import DirectionsRow, Loaded, replace_directions
from extraction_assets.database.writing.feature_examples import ExtractionRow, replace_results
from extraction_assets.database.writing.feature_relations import RelationsRow, replace_relations
from extraction_assets.database.writing.samples import Display
from extraction_assets.database.writing.text_index import index_texts
from extraction_assets.defs_yaml.errors import sentences
from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.corpora.document_tokens import special_token_ids
from extraction_assets.engine.corpora.documents import CorpusError, Document
from extraction_assets.engine.corpora.tokenize import SampleStream, count_samples, packing_of
from extraction_assets.engine.findings import log_and_raise
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.engine.models.language_model import vocabulary_size
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.engine.preflight.compatibility import examine_vocabulary
from extraction_assets.engine.relations.parts import TokenPart, token_part
from extraction_assets.planning.draw_rules import draw_rules
from extraction_assets.planning.stored_result import StoredFeatures, fingerprint_of_merge
from extraction_assets.python_api.given import IN_MEMORY, GivenModel, GivenSae, as_it_was
from extraction_assets.python_api.passes import (
    ComputeDevice,
    Parts,
    computed_chunks,
    examine_first_batch,
    loaded_parts,
    machine_for,
)
from extraction_assets.python_api.source import Source
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets.stores.chunk_files import TableFile, write_features
from extraction_assets.stores.chunk_names import ChunkFile
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus
from extraction_assets.stores.corpus_files import StoredCorpus
from extraction_assets.stores.fingerprints import fingerprint

_MOST_SAMPLES = 10**12


class ExtractionRequest(NamedTuple):
    """What is to be extracted."""

    fields: Mapping[str, Any]
    """Of the settings, but the number of samples."""
    documents: Sequence[Document]
    device: str
    batch_size: int
    directions: bool


def run(wanted: ExtractionRequest, model: GivenModel, sae: GivenSae, folder: Path, logger: logging.Logger) -> Source:
    """Everything from texts to the rows of a database in ``folder``, which is then open to be read. Raises ValueError
    for directions where model or SAE are in no file."""
    if wanted.directions and not (model.module is None and sae.loaded is None):
        raise ValueError("directions are computed from the files of a model and an SAE: give both by their names")
    settings = _validated({"evaluation_samples": 1, **wanted.fields})
    checkpoint = model.checkpoint or resolve_checkpoint(settings.language_model.checkpoint)
    tokenizer = model.tokenizer or load_tokenizer(checkpoint, settings.corpus.tokenizer)
    store, url = ChunkStore(folder), f"sqlite:///{folder / 'results.sqlite'}"
    settings, corpus = _tokenized(wanted, settings, tokenizer, checkpoint, store, logger)
    with (
        as_it_was(model.module),
        machine_for(wanted.device, wanted.batch_size, model, logger) as machine,
        loaded_parts(settings, next(iter(settings.saes)), checkpoint, (model, sae), machine.device, logger) as parts,
    ):
        examine_first_batch(parts, corpus, logger)
        display = display_tokens(tokenizer)
        results = _Results(parts, corpus, store, display, tuple(special_token_ids(tokenizer)), logger)
        with opened_database(url) as engine:
            results.merge(engine, machine)
            results.relate(engine, machine)
            if wanted.directions:
                results.direct(engine, machine)
    return Source(url, store)


def _validated(values: Mapping[str, Any]) -> ExtractionSettings:
    """Raises ValueError with one sentence for each field that is wrong."""
    try:
        return ExtractionSettings.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(sentences(error))) from error


def _tokenized(
    wanted: ExtractionRequest,
    settings: ExtractionSettings,
    tokenizer: Any,
    checkpoint: LocalCheckpoint,
    store: ChunkStore,
    logger: logging.Logger,
) -> tuple[ExtractionSettings, StoredCorpus]:
    """All samples of the texts, stored, and the settings with their number."""
    rows, packing = vocabulary_size(checkpoint), packing_of(settings.corpus)
    log_and_raise(examine_vocabulary(tokenizer, rows, settings.language_model.path), logger)
    first = settings.start_sample
    last = first + settings.evaluation_samples if "evaluation_samples" in wanted.fields else _MOST_SAMPLES
    seen = count_samples(wanted.documents, tokenizer, packing, last, start_sample=first, vocabulary_size=rows).samples
    found = seen - first
    if found < 1:
        raise CorpusError(f"the texts give {seen} samples, and the first one to run has number {first}: give more text")
    settings = _validated({**wanted.fields, "evaluation_samples": found})
    samples = SampleStream(wanted.documents, tokenizer, packing, found, start_sample=first, vocabulary_size=rows)
    stored = store.write_corpus(
        samples,
        source=settings.corpus.source,
        tokenizer="in memory",
        packing=settings.corpus.packing,
        start_sample=settings.start_sample,
    )
    content = stored.manifest.fingerprint
    store.write_current_corpus(settings.name, CurrentCorpus(stored, content, content, content))
    return settings, stored


class _Results:
    """The files and the rows of one SAE, made step by step."""

    def __init__(
        self,
        parts: Parts,
        corpus: StoredCorpus,
        store: ChunkStore,
        display: Display,
        special_ids: tuple[int, ...],
        logger: logging.Logger,
    ) -> None:
        self._parts, self._corpus, self._display, self._logger = parts, corpus, display, logger
        self._store = store
        self._special_ids, self._settings = special_ids, parts.extraction.declared
        self._files = [self._file(chunk) for chunk in self._settings.chunks]

    @property
    def _fingerprint(self) -> str:
        """Of the merge: it leads from the database to the files."""
        found = [file.fingerprint for file in self._files]
        return fingerprint_of_merge(self._settings, self._parts.name, self._corpus, found)

    def _file(self, chunk: Chunk) -> ChunkFile:
        name, sae = self._settings.name, self._parts.name
        tokens = self._corpus.tokens_fingerprint(chunk.rows)
        features = fingerprint(SAE_FEATURES, activations=tokens, sae=IN_MEMORY)  # of this folder alone
        path = self._store.chunk_paths(name, SAE_FEATURES, sae, chunk.key, features)[0]
        return ChunkFile(path, chunk.key, features, None)

    def merge(self, engine: sa.Engine, machine: ComputeDevice) -> None:
        """Computes all chunks, one after the other, and stores their features and the rows of all of them."""
        settings = self._settings
        tables, rules = self._tables(machine), draw_rules(settings)
        merged = merge_tables(tables, settings.top_k_examples, settings.min_activation, rules=rules)
        row = ExtractionRow(
            name=settings.name,
            sae=self._parts.name,
            model=settings.language_model.path,
            hook=self._parts.extraction.saes[self._parts.name].hook,
            latent_dim=self._parts.sae.latent_dim,
            max_length=settings.corpus.max_length,
            top_k_examples=settings.top_k_examples,
            settings=self._parts.extraction.dump(),
            fingerprint=self._fingerprint,
        )
        samples = corpus_samples(self._corpus)._replace(special_ids=self._special_ids)
        with write_transaction(engine) as connection:
            number = replace_results(
                connection, row, samples, merged.table, merged.statistics, self._display, merged.draws, merged.numerics
            )
            wrong = differences(connection, number, merged.expected)
        if wrong:
            raise RuntimeError(f"the loaded rows differ from the chunks' tables: {'; '.join(wrong[:10])}")
        self._whole = CorpusCounts(merged.statistics.token_count.numpy(), merged.statistics.tokens_seen)

    def _tables(self, machine: ComputeDevice) -> Iterator[TableFile]:
        """The table of each chunk, once its features are stored."""
        for file, computed in zip(
            self._files, computed_chunks(self._parts, self._corpus, machine, self._logger), strict=True
        ):
            result = computed.result
            assert result.feature_parts is not None, "features are kept"
            write_features(file.path, result.feature_parts, {"fingerprint": file.fingerprint})
            yield TableFile(result.table, result.statistics, {"numerics": computed.numerics}, result.draws)

    def relate(self, engine: sa.Engine, machine: ComputeDevice) -> None:
        """Top tokens, neighbours and flags over all samples, and the index of texts."""
        index_texts(engine)
        if self._settings.corpus.exclude_outlier_norms is not None:
            self._logger.warning("tokens and neighbours are not counted: stored features do not say what is an outlier")
            return
        chunks = self._settings.chunks
        stored = StoredFeatures(self._settings, self._corpus, self._files, self._store)

        def read() -> Iterator[TokenPart]:
            return (token_part(stored.read(chunk), stored.samples(chunk)) for chunk in chunks)

        found = compute_relations(FiringsSource("corpus", read), len(chunks), self._whole, machine, self._logger)
        row = RelationsRow(self._fingerprint, self._fingerprint, "corpus", 1)
        with write_transaction(engine) as connection:
            replace_relations(connection, self._settings.name, self._parts.name, row, found, self._display)

    def direct(self, engine: sa.Engine, machine: ComputeDevice) -> None:
        """Logit lens and nearest decoder rows, from the files of model and SAE."""
        found = compute_directions(self._parts.extraction, self._parts.name, machine.device, self._logger)
        now, name = dt.datetime.now(dt.UTC), self._settings.name
        row = DirectionsRow(name, self._parts.name, self._fingerprint, found.norm, found.undefined, now)
        loaded = Loaded(found.lens, found.nearest, list(self._parts.extraction.saes), found.latent_dim)
        with write_transaction(engine) as connection:
            replace_directions(connection, row, loaded, self._display)
