"""The tokenizer of an extraction, and its fingerprint.

By rules 1, of earlier versions of this package, the class of transformers made the tokens, a document's BOS stood
beside the sample's, and only tokens with a role were special. ``tokens_stand`` says whether today's rules would make
the same tokens of such a corpus.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.catalog import CORPUS, asset_row
from extraction_assets.engine.corpora.document_tokens import special_token_ids
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, code_files, resolve_checkpoint
from extraction_assets.engine.models.files.model_folder import CONFIG
from extraction_assets.engine.models.files.small_files import holds_tokenizer, small_files
from extraction_assets.engine.models.tokenizers import tokenizer as tokenizers
from extraction_assets.engine.models.tokenizers.comparison import compare_readings, same_parts
from extraction_assets.engine.models.tokenizers.tokenizer import class_tokenizer, tokenizer_file
from extraction_assets.planning.asset_fields import values_in_fingerprint
from extraction_assets.settings import CorpusSettings, ExtractionSettings
from extraction_assets.stores.fingerprints import files_fingerprint, fingerprint

_FILES_OF_RULES_1 = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def tokenizer_fingerprint(settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> str:
    """Fingerprint of how text becomes tokens; ``none`` if the corpus is tokens already and there is no tokenizer.

    Covers all small files of the model's folder, trusted Python code, ``config.json`` if it chooses the tokenizer's
    class, and ``corpus.tokenizer``. ``checkpoint`` is the language model's, if the caller has found it already.
    """
    checkpoint, files = _tokenizer_files(settings, checkpoint)
    if not files:
        return "none"
    by_class = settings.corpus.tokenizer == "transformers" or tokenizer_file(checkpoint.folder) is None
    configuration = [path for path in [checkpoint.folder / CONFIG] if by_class and path.is_file()]
    return fingerprint(
        "tokenizer",
        files=files_fingerprint([*files, *configuration, *code_files(checkpoint)]),
        rules=2,  # for good: where the same files and text give other tokens or masks, raise VERSIONS["tokenizer"]
        **values_in_fingerprint(asset_row(CORPUS), settings, part="tokenizer"),
    )


def tokenizer_fingerprint_of_rules_1(settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> str:
    """What ``tokenizer_fingerprint`` was before there were rules: of the files whose names were known."""
    checkpoint, files = _tokenizer_files(settings, checkpoint)
    if not files:
        return "none"
    known = [path for path in files if path.name in _FILES_OF_RULES_1]
    return files_fingerprint([*known, *code_files(checkpoint)])


def load_tokenizer(settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> Any | None:
    """The language model's tokenizer; None if the corpus is tokens already and there is no tokenizer.

    ``checkpoint`` is the language model's, if the caller has found it already.
    """
    checkpoint, files = _tokenizer_files(settings, checkpoint)
    return tokenizers.load_tokenizer(checkpoint, settings.corpus.tokenizer) if files else None


def tokenizer_findings(
    corpus: CorpusSettings, checkpoint: LocalCheckpoint, tokenizer: Any | None, texts: Iterable[str]
) -> list[Finding]:
    """What the other reading of the tokenizer's files would change, with examples from ``texts`` of the corpus; nothing
    if the corpus is tokens already."""
    if tokenizer is None or corpus.token_column is not None:
        return []
    return compare_readings(checkpoint, tokenizer, corpus.tokenizer, texts)


def tokens_stand(settings: ExtractionSettings, corpus: TokenizedCorpus, checkpoint: LocalCheckpoint) -> bool:
    """Whether a corpus of rules 1 holds what it would hold now; False if only its text could say."""
    _, files = _tokenizer_files(settings, checkpoint)
    if not files:
        return True
    try:
        tokenizer = tokenizers.load_tokenizer(checkpoint, settings.corpus.tokenizer)
        before = class_tokenizer(checkpoint)
    except ValueError:
        return False  # errors are reported when the corpus is made again
    if sorted(set(before.all_special_ids)) != special_token_ids(tokenizer):
        return False
    if before.bos_token_id != tokenizer.bos_token_id or before.eos_token_id != tokenizer.eos_token_id:
        return False
    if settings.corpus.token_column is None:
        all_known = {path.name for path in files if path.suffix not in (".json", ".jinja")} <= {*_FILES_OF_RULES_1}
        if not all_known or not same_parts(before, tokenizer):
            return False
    return _bos_stands(settings, corpus, tokenizer.bos_token_id)


def _bos_stands(settings: ExtractionSettings, corpus: TokenizedCorpus, bos: int | None) -> bool:
    """Whether no document begins with a BOS that would be left out now, or that would make its tokens count from it."""
    chosen = settings.corpus
    as_they_are = chosen.prepend_bos is None and chosen.token_column is not None
    if bos is None or as_they_are:
        return True
    if chosen.packing == "concatenated":
        return False  # a document's BOS looks like a sample's
    first = corpus.token_ids[:, 0] == bos
    if chosen.prepend_bos is False:
        return not bool((first & (corpus.first_tokens == 0)).any())
    second = corpus.token_ids[:, 1:2] == bos
    return not bool(np.any(first[:, None] & second & corpus.attention_mask[:, 1:2]))


def _tokenizer_files(
    settings: ExtractionSettings, checkpoint: LocalCheckpoint | None
) -> tuple[LocalCheckpoint, list[Path]]:
    """The model's checkpoint, and its small files if some of them are a tokenizer's. Raises FileNotFoundError if there
    is no tokenizer and the corpus is text."""
    checkpoint = checkpoint or resolve_checkpoint(settings.language_model.checkpoint)
    files = small_files(checkpoint.folder)
    if holds_tokenizer(path.name for path in files):
        return checkpoint, files
    if settings.corpus.token_column is None:
        raise FileNotFoundError(
            f"{checkpoint.folder} holds no tokenizer (none of {', '.join(_FILES_OF_RULES_1)}, or another kind's)"
        )
    return checkpoint, []
