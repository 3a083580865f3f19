"""A stored corpus as the results database takes it."""

import numpy as np

from extraction_assets.database.writing.samples import CorpusSamples
from extraction_assets.stores.corpus_files import StoredCorpus


def corpus_samples(corpus: StoredCorpus) -> CorpusSamples:
    """Its samples, without the ids of special tokens, which the tokenizer knows."""
    arrays, manifest = corpus.arrays, corpus.manifest
    return CorpusSamples(
        token_ids=np.asarray(arrays.token_ids),
        attention_mask=np.asarray(arrays.attention_mask),
        document_ids=arrays.document_ids,
        document_numbers=np.asarray(arrays.document_numbers),
        first_tokens=np.asarray(arrays.first_tokens),
        start_sample=manifest.start_sample,
        source=manifest.source,
        tokenizer=manifest.tokenizer,
        packing=manifest.packing,
        content_fingerprint=lambda count: corpus.content_fingerprint(slice(0, count)),
        messages=arrays.messages,
    )
