"""Does a corpus hold the requested number of samples?"""

import logging
from collections.abc import Iterator

from extraction_assets.early_checks.document_share import DocumentShare, cut_chats, first_documents, stored_share
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.tokenize import count_samples, packing_of, too_few_samples
from extraction_assets.engine.findings import Finding, refuse
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.language_model import vocabulary_size
from extraction_assets.engine.preflight.compatibility import examine_vocabulary
from extraction_assets.execution.progress import progress
from extraction_assets.planning.corpus_source import open_source
from extraction_assets.planning.plan import has_recipe
from extraction_assets.planning.source_identity import source_identity
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.corpus_files import StoredCorpus
from extraction_assets.stores.sealed import DamagedFileError

SECONDS = 60.0
"""Counting stops after about so long, whatever the size of the corpus."""

_COMPARED_BYTES = 1 << 30
"""Files up to this size in all are compared with what the stored corpus was made from."""


def count_corpus(
    settings: ExtractionSettings, checkpoint: LocalCheckpoint, logger: logging.Logger, seconds: float
) -> DocumentShare:
    """Tokenizes the source until there are as many samples as the settings request, and keeps none of them.

    Raises CorpusError if it cannot be read or holds a token that the model does not know, and what
    ``load_tokenizer`` raises.
    """
    source, tokenizer = open_source(settings.corpus), load_tokenizer(settings, checkpoint)
    rows = vocabulary_size(checkpoint)
    if tokenizer is not None and settings.corpus.token_column is None:
        # Before any document, which the error would name otherwise.
        refuse(examine_vocabulary(tokenizer, rows, settings.language_model.path))
    wanted = settings.start_sample + settings.evaluation_samples
    with progress("counting", wanted, "samples", logger) as update:
        count = count_samples(
            source.documents(),
            tokenizer,
            packing_of(settings.corpus),
            wanted,
            start_sample=settings.start_sample,
            vocabulary_size=rows,
            seconds=seconds,
            on_samples=update,
        )
    total = source.num_documents
    return DocumentShare(count, count.documents_read if total is None and count.ended else total)


def examine_samples(
    settings: ExtractionSettings, checkpoint: LocalCheckpoint, store: ChunkStore, logger: logging.Logger
) -> tuple[DocumentShare, list[Finding]]:
    """Whether the corpus holds the requested samples, and whether they come from all of it.

    Looks at the stored corpus if a run would not tokenize again; otherwise counts samples.
    """
    stored = _current_corpus(settings, checkpoint, store)
    if stored is None:
        share = count_corpus(settings, checkpoint, logger, SECONDS)
    else:
        share = stored_share(stored, settings, open_source(settings.corpus))
    return share, [*_too_few(settings, share), *first_documents(settings, share), *cut_chats(settings, share)]


def _too_few(settings: ExtractionSettings, share: DocumentShare) -> Iterator[Finding]:
    found, start, requested = share.counted.samples, settings.start_sample, settings.evaluation_samples
    if found >= start + requested:
        return
    if share.counted.ended:
        yield Finding("error", too_few_samples(found, packing_of(settings.corpus), start, requested), CorpusError)
        return
    yield Finding(
        "warning",
        f"{found} samples were counted in {SECONDS:g} s, of {start + requested} that are requested "
        f"(start_sample {start} + evaluation_samples {requested}): whether the corpus holds so many is not "
        "known before the run reads on",
    )


def _current_corpus(
    settings: ExtractionSettings, checkpoint: LocalCheckpoint, store: ChunkStore
) -> StoredCorpus | None:
    """The stored corpus, where a run would not tokenize again."""
    try:
        current = store.current_corpus(settings.name)
    except DamagedFileError:  # the run makes it again
        return None
    if current is None or not has_recipe(current, settings, checkpoint):
        return None
    source = open_source(settings.corpus)
    small = source.files and sum(path.stat().st_size for path in source.files) <= _COMPARED_BYTES
    return None if small and source_identity(source).fingerprint != current.source else current.corpus
