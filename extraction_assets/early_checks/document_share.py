"""How many documents of a corpus its samples come from."""

from collections.abc import Iterator
from typing import NamedTuple

from extraction_assets.engine.corpora.documents import Source
from extraction_assets.engine.corpora.tokenize import SampleCount, documents_behind, documents_cut
from extraction_assets.engine.findings import Finding
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings
from extraction_assets.stores.corpus_files import StoredCorpus


class DocumentShare(NamedTuple):
    """Samples, up to the requested number, and their documents."""

    counted: SampleCount
    total: int | None
    """Documents of the source; None if that is not known without reading on."""

    @property
    def sentence(self) -> str:
        """``23 samples, from 3 of 3 documents``."""
        count, total = self.counted, self.total
        known = f"{count.documents:,} documents" if total is None else f"{count.documents:,} of {total:,} documents"
        return f"{count.samples:,} samples, from {known}"


def stored_share(corpus: StoredCorpus, settings: ExtractionSettings, source: Source) -> DocumentShare:
    """Of a corpus that is tokenized already."""
    arrays, read = corpus.arrays, len(corpus.arrays.document_ids)
    documents = documents_behind(arrays.document_numbers, read, settings.corpus.packing)
    cut = documents_cut(arrays.document_numbers, settings.corpus.packing)
    samples = settings.start_sample + len(corpus)
    return DocumentShare(SampleCount(samples, documents, read, False, cut), source.num_documents)


def cut_chats(settings: ExtractionSettings, share: DocumentShare) -> Iterator[Finding]:
    """A warning if chats are longer than a sample: in its later samples the model sees a chat without its beginning.

    Texts are cut too, but most of them read on from any place.
    """
    cut, corpus = share.counted.documents_cut, settings.corpus
    if cut and corpus.messages_column is not None:
        yield Finding(
            "warning",
            f"{cut:,} of {share.counted.documents:,} chats are longer than max_length ({corpus.max_length} tokens) and "
            "are cut, so that their later samples begin in the middle of a message: raise corpus.max_length as far as "
            "model and SAE were made for",
        )


def first_documents(settings: ExtractionSettings, share: DocumentShare) -> Iterator[Finding]:
    """A warning if all samples come from the first documents and the others are never read.

    The standard library's order mixes its modules already.
    """
    corpus, read, total = settings.corpus, share.counted.documents_read, share.total
    mixed = corpus.shuffle_seed is not None or corpus.source == STANDARD_LIBRARY
    if total is not None and read < total and not mixed:
        yield Finding(
            "warning",
            f"no sample comes from a document after the first {read} of {total}: set corpus.shuffle_seed (0, say) to "
            "draw samples from the whole corpus",
        )
