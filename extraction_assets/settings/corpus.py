"""The text of an extraction, and how it is cut into samples."""

import re
from typing import Literal, Self

from pydantic import field_validator, model_validator

from extraction_assets.settings.validation import Settings, at_least, at_most


class CorpusSettings(Settings):
    """The text that runs through the model, and how it is cut into samples."""

    source: str
    """`standard-library` (the running Python's own sources); a file, a folder or a glob (relative to the YAML file) of
    text files (one file is one document), of JSONL files (one document a line; `.jsonl`, `.ndjson`, also with `.gz`,
    `.bz2` or `.zst`) or of Parquet files (one document a row); a folder that `datasets` saved with `save_to_disk`; or
    the id of a data set on the Hugging Face hub, `owner/name`. The last two need the extra `datasets`. Files may lie at
    a URL, `s3://bucket/texts/*.jsonl`: they are copied to this machine. Text is UTF-8; one leading BOM is dropped,
    newlines stay as they are."""
    read_as: Literal["auto", "text", "jsonl", "parquet"] = "auto"
    """What the files of `source` are; `auto` chooses by the suffixes of their names, in either case, and refuses data
    formats that are not supported. `text` reads every file, `.json` and `.csv` too, as one document with syntax."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set. With a full commit hash, no network is needed to see that nothing has
    changed."""
    configuration: str | None = None
    """Configuration (subset) of a hub data set; by default its default one."""
    split: str | None = None
    """Split of a data set, by default `train`, or the only one there is."""
    streaming: bool = False
    """Read a hub data set over the network as far as needed, and store only the samples."""
    text_column: str = "text"
    """Column (JSONL: key) that holds a document's text."""
    id_column: str | None = None
    """Column that holds a document's id; by default documents are numbered."""
    token_column: str | None = None
    """Column that holds token ids, such as `input_ids`, if documents are tokenized already. Then no text is read, a BOS
    among the tokens stays, none is added unless `prepend_bos` is set, and the model needs no tokenizer."""
    attention_mask_column: str | None = None
    """Column that is 1 at the tokens of `token_column` and 0 at its padding, on either side; by default a row has no
    padding, whatever its ids."""
    messages_column: str | None = None
    """Column that holds a chat, such as `messages`: a list of messages with `role` and `content` (text or a list of
    text parts), or with ShareGPT's `from` and `value`. The tokenizer's own chat template makes text of it, and results
    say who speaks where."""
    shuffle_seed: int | None = None
    """Shuffle the documents with this seed; by default they keep their order. The same documents get the
    same order, except those of a hub data set with `streaming`, which `datasets` shuffles in a buffer of 10,000."""
    tokenizer: Literal["file", "transformers"] = "file"
    """`file`: tokens are those of the model's `tokenizer.json` as written; `transformers`: those of the class that
    transformers has for the model's type, which may rebuild the tokenizer with digits, prefixes or case of its own.
    `check` says what the other choice would change. Without a `tokenizer.json`, `file` takes that class too, but
    refuses it if it reads plain text differently from the SentencePiece model beside it."""
    packing: Literal["documents", "concatenated"] = "documents"
    """`documents`: a sample never spans two documents; a longer one is cut into several samples, tails kept.
    `concatenated`: documents are joined, and every sample but the last is full."""
    sequence_separator_token: Literal["auto", "bos", "eos", "sep", "none"] = "auto"
    """Token of the tokenizer between two joined documents in a sample, with `packing: concatenated`; `auto` is its BOS
    token, as in SAELens, or its EOS token if it has no BOS."""
    max_length: int = 128
    """Positions of a sample, the BOS token included."""
    prepend_bos: bool | None = None
    """Begin every sample with the tokenizer's BOS token; by default if it has one. A BOS at the start of a
    document is left out first, so that there are never two. With `token_column` and no `prepend_bos`, tokens stay. With
    `messages_column`, the BOS that the chat template writes stays in any case, and no other is added beside it."""
    drop_duplicates: bool = False
    """Drop samples whose tokens an earlier sample has; sample indices count those that are kept."""
    count_special_tokens: bool = False
    """Let special tokens (BOS and all others that the tokenizer's files mark so) count in examples and statistics."""
    exclude_first_positions: int = 0
    """Positions at the start of every sample that do not count; they stay in the model's input."""
    exclude_positions: list[int] = []  # noqa: RUF012 (pydantic copies it; Dagster resolves lists alone)
    """More positions, counted from 0, that do not count; they stay in the model's input."""
    exclude_outlier_norms: float | None = None
    """Tokens do not count if the norm of the activation that the SAE reads is above this multiple of the median of
    their sample (attention sinks; `max_activation_norm_multiple` of dictionary_learning, which suggests 10). With it,
    tables are made from activations and not from stored features."""

    _sample_has_a_position = at_least(1, "max_length")
    _sample_fits_in_memory = at_most(2**24, "max_length")
    _no_negative_count = at_least(0, "exclude_first_positions", "shuffle_seed")
    _a_multiple_of_the_median = at_least(1, "exclude_outlier_norms")

    @field_validator("source")
    @classmethod
    def _source_is_named(cls, source: str) -> str:
        if not source.strip() or "\0" in source:
            raise ValueError(f"source {source!r} names no file, folder, glob or data set")
        if any("\ud800" <= character <= "\udfff" for character in source):
            raise ValueError(f"source {source!r} is not UTF-8: give the file or folder another name")
        scheme, is_url, path = source.partition("://")
        if is_url and (re.search(r"[?#]", path) or re.match(r"[^/]*:[^/]*@", path)):  # not shown: it may be a password
            raise ValueError(
                f"source is a {scheme}:// URL with a password, ? or #: give credentials by the environment, "
                "and files by * and [...]"
            )
        return source

    @model_validator(mode="after")
    def _some_position_counts(self) -> Self:
        if self.exclude_first_positions >= self.max_length:
            raise ValueError(
                f"exclude_first_positions {self.exclude_first_positions} leaves none of max_length {self.max_length}"
            )
        outside = [position for position in self.exclude_positions if not 0 <= position < self.max_length]
        if outside:
            raise ValueError(f"exclude_positions holds {outside[0]}, but positions are 0 to {self.max_length - 1}")
        later = {position for position in self.exclude_positions if position >= self.exclude_first_positions}
        if self.exclude_first_positions + len(later) >= self.max_length:
            raise ValueError(f"exclude_positions leaves none of max_length {self.max_length}")
        return self

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.sequence_separator_token != "auto" and self.packing != "concatenated":
            raise ValueError("sequence_separator_token stands between joined documents: set packing: concatenated")
        if self.attention_mask_column is not None and self.token_column is None:
            raise ValueError("attention_mask_column is that of tokenized documents: set token_column too")
        if self.token_column is not None and self.text_column != "text":
            raise ValueError("text_column and token_column are both set: documents are read from one of them")
        for field in ("text_column", "token_column"):
            if self.messages_column is not None and getattr(self, field) not in ("text", None):
                raise ValueError(f"{field} and messages_column are both set: documents are read from one of them")
        return self
