"""The tokenizer of an extraction, and what it is known by.

By rules 1, of earlier versions of this package, the class of transformers made the tokens, a document's own BOS stood
beside the sample's, and only tokens with a role were special. ``tokens_stand`` says of a corpus of that time whether
the rules of today would make the same of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.catalog import CORPUS, asset_row
from extraction_assets.engine.corpora.document_tokens import special_token_ids
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models import tokenizers
from extraction_assets.engine.models.checkpoint import LocalCheckpoint, code_files, resolve_checkpoint
from extraction_assets.engine.models.model_folder import CONFIG
from extraction_assets.engine.models.small_files import holds_tokenizer, small_files
from extraction_assets.engine.models.tokenizer_comparison import compare_readings, same_parts
from extraction_assets.engine.models.tokenizers import class_tokenizer, tokenizer_file
from extraction_assets.planning.asset_fields import values_in_fingerprint
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.fingerprints import files_fingerprint, fingerprint

RULES = 2
"""Raised whenever the same files and text give other tokens or masks."""

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


def tokenizer_fingerprint(settings: ExtractionSettings) -> str:
    """Of how text becomes tokens: all small files of the model's folder, the model's own code where that is trusted,
    its configuration where that chooses the tokenizer's class, and ``corpus.tokenizer``; ``none`` where there is no
    tokenizer and none is needed."""
    checkpoint, files = _tokenizer_files(settings)
    if not files:
        return "none"
    by_class = settings.corpus.tokenizer == "transformers" or tokenizer_file(checkpoint.folder) is None
    configuration = [path for path in [checkpoint.folder / CONFIG] if by_class and path.is_file()]
    return fingerprint(
        "tokenizer",
        files=files_fingerprint([*files, *configuration, *code_files(checkpoint)]),
        rules=RULES,
        **values_in_fingerprint(asset_row(CORPUS), settings, part="tokenizer"),
    )


def tokenizer_fingerprint_of_rules_1(settings: ExtractionSettings) -> str:
    """What ``tokenizer_fingerprint`` was before there were rules: of the files whose names were known."""
    checkpoint, files = _tokenizer_files(settings)
    if not files:
        return "none"
    known = [path for path in files if path.name in _FILES_OF_RULES_1]
    return files_fingerprint([*known, *code_files(checkpoint)])


def load_tokenizer(settings: ExtractionSettings) -> Any | None:
    """The language model's tokenizer; None where there is none and none is needed: the corpus is tokens already."""
    checkpoint, files = _tokenizer_files(settings)
    return tokenizers.load_tokenizer(checkpoint, settings.corpus.tokenizer) if files else None


def tokenizer_findings(settings: ExtractionSettings, tokenizer: Any | None, texts: Iterable[str]) -> list[Finding]:
    """What the other reading of the tokenizer's files would change, with examples from ``texts`` of the corpus; nothing
    where the corpus is tokens already."""
    if tokenizer is None or settings.corpus.token_column is not None:
        return []
    checkpoint = resolve_checkpoint(settings.language_model.checkpoint)
    return compare_readings(checkpoint, tokenizer, settings.corpus.tokenizer, texts)


def tokens_stand(settings: ExtractionSettings, corpus: TokenizedCorpus) -> bool:
    """Whether a corpus of rules 1 holds what it would hold now. False where that cannot be told without its text."""
    checkpoint, files = _tokenizer_files(settings)
    if not files:
        return True
    try:
        tokenizer = tokenizers.load_tokenizer(checkpoint, settings.corpus.tokenizer)
        before = class_tokenizer(checkpoint)
    except ValueError:
        return False  # what is wrong is said when the corpus is made again
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
    """Whether no document's own BOS stands where it would be left out now, or makes its tokens count from there."""
    chosen = settings.corpus
    as_they_are = chosen.prepend_bos is None and chosen.token_column is not None
    if bos is None or as_they_are:
        return True
    if chosen.packing == "concatenated":
        return False  # a document's own BOS cannot be told from a sample's
    first = corpus.token_ids[:, 0] == bos
    if chosen.prepend_bos is False:
        return not bool((first & (corpus.first_tokens == 0)).any())
    second = corpus.token_ids[:, 1:2] == bos
    return not bool(np.any(first[:, None] & second & corpus.attention_mask[:, 1:2]))


def _tokenizer_files(settings: ExtractionSettings) -> tuple[LocalCheckpoint, list[Path]]:
    """The model's checkpoint and its small files, none where none is a tokenizer's. FileNotFoundError where there is no
    tokenizer and the corpus is text."""
    checkpoint = resolve_checkpoint(settings.language_model.checkpoint)
    files = small_files(checkpoint.folder)
    if holds_tokenizer(path.name for path in files):
        return checkpoint, files
    if settings.corpus.token_column is None:
        raise FileNotFoundError(
            f"{checkpoint.folder} holds no tokenizer (none of {', '.join(_FILES_OF_RULES_1)}, or another kind's)"
        )
    return checkpoint, []
