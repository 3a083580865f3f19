"""What an extraction is made of, validated. The docstrings under the fields are what the UI and the README show."""

import glob
import math
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from extraction_assets.catalog import TOP_K_TABLE, ChunkAsset, names

STANDARD_LIBRARY = "standard-library"

_NAME = re.compile(r"[A-Za-z0-9_]+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIX = re.compile(
    r"\.(txt|md|py|html|xml|jsonl?|ndjson|jsonlines|parquet|arrow|feather|csv|tsv|xlsx|pdf|docx|zip|tar|t?gz|bz2|zst|xz)$",
    re.IGNORECASE,
)
_OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")  # as Dagster has it


MOST_CHUNKS = 100_000
"""Partitions that Dagster recommends for an asset at most; definitions hold all their keys."""
_MOST_SAMPLES = 10**12
"""Chunk keys have 12 digits."""
_LONGEST_NAME = 200
"""Names of files and folders have 255 bytes, and ours are followed by suffixes such as ``_missing_chunks``."""


def check_name(name: str, what: str) -> str:
    """``name`` if it can be part of an asset key and of a path; ValueError otherwise."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{what} {name[:20]}… has {len(name)} characters, but may have {_LONGEST_NAME}: it is part of file names"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} may hold letters, digits and underscores only: it becomes part of asset keys"
        )
    return name


def is_hub_id(source: str, folder: Path | None = None) -> bool:
    """Whether a corpus source has the form of a hub id, and is not there as a path relative to ``folder``.

    Without a folder the form alone tells: what lies in the working directory never does.
    """
    if not _HUB_ID.fullmatch(source) or _FILE_SUFFIX.search(source):
        return False
    return folder is None or not (folder / source).exists()


class Settings(BaseModel):
    """A group of settings: unknown fields are refused, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _at_least(least: int, *fields: str) -> Any:
    """A validator of a lower bound. Bounds in the annotations would be lost on Dagster, which refuses them there."""

    def check(_cls: type, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{info.field_name} must be at least {least}, got {value}")
        return value

    return field_validator(*fields)(classmethod(check))


def _at_most(most: int, *fields: str) -> Any:
    """A validator of an upper bound, above which nothing can be meant."""

    def check(_cls: type, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > most:
            shown = value if value < 10**20 else f"a number of {len(str(value))} digits"
            raise ValueError(f"{info.field_name} must be at most {most}, got {shown}")
        return value

    return field_validator(*fields)(classmethod(check))


class LanguageModelSettings(Settings):
    """The language model whose activations are read."""

    path: str
    """Folder of a Hugging Face model (relative to the YAML file), or its id on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward pass; auto is the checkpoint's on a GPU and float32 on a CPU."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model, for one that transformers itself does not know. Read that code first:
    it runs with your rights, as a YAML file of somebody else may (README, "A YAML file is code")."""


class CorpusSettings(Settings):
    """The text that runs through the model, and how it is cut into samples."""

    source: str
    """`standard-library` (the running Python's own sources); a file, a folder or a glob (relative to the YAML file) of
    text files (one file is one document), of JSONL files (one document a line; `.jsonl`, `.ndjson`, also with `.gz`,
    `.bz2` or `.zst`) or of Parquet files (one document a row); a folder that `datasets` saved with `save_to_disk`; or
    the id of a data set on the Hugging Face hub, `owner/name`. The last two need the extra `datasets`. Text is UTF-8;
    one leading BOM is dropped, newlines stay as they are."""
    read_as: Literal["auto", "text", "jsonl", "parquet"] = "auto"
    """What the files of `source` are; `auto` goes by the ends of their names, in either case, and refuses data formats
    that are not read. `text` reads any of them, `.json` and `.csv` too, as one document each, syntax and all."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set. A full commit hash needs no network to tell that nothing has changed."""
    configuration: str | None = None
    """Configuration (subset) of a hub data set; by default its default one."""
    split: str | None = None
    """Split of a data set, by default `train`, or the only one there is."""
    streaming: bool = False
    """Read a hub data set over the network as far as it is needed, and store nothing of it but the samples."""
    text_column: str = "text"
    """Column (JSONL: key) that holds a document's text."""
    id_column: str | None = None
    """Column that holds a document's id; by default documents are numbered."""
    token_column: str | None = None
    """Column that holds token ids, such as `input_ids`, where documents are tokenized already; then no text is read,
    a BOS among them stays and none is added unless `prepend_bos` is set, and a model without a tokenizer will do."""
    attention_mask_column: str | None = None
    """Column that is 1 where `token_column` holds a token and 0 at its padding, on either side; by default all of a
    row is tokens, whatever their ids."""
    shuffle_seed: int | None = None
    """Shuffle the documents with this seed; by default they keep their order. The order stays the same for the same
    documents, but for a hub data set with `streaming`, which `datasets` shuffles in a buffer of 10,000 documents."""
    tokenizer: Literal["file", "transformers"] = "file"
    """`file`: tokens are those of the model's `tokenizer.json` as it stands; `transformers`: those of the class that
    transformers has for the model's type, which may rebuild the tokenizer with digits, prefixes or case of its own.
    `check` says what the other would change. Without a `tokenizer.json`, `file` too takes that class, and refuses one
    that reads plain text otherwise than the SentencePiece model beside it."""
    packing: Literal["documents", "concatenated"] = "documents"
    """`documents`: a sample never spans two documents; a longer one is cut into several samples, tails kept.
    `concatenated`: documents are joined, and every sample but the last is full."""
    sequence_separator_token: Literal["auto", "bos", "eos", "sep", "none"] = "auto"
    """Token of the tokenizer between two joined documents in a sample, with `packing: concatenated`; `auto` is its BOS
    token, as SAELens has it, or its EOS token where it has no BOS."""
    max_length: int = 128
    """Positions of a sample, the BOS token included."""
    prepend_bos: bool | None = None
    """Begin every sample with the tokenizer's BOS token; by default wherever it has one. A BOS at the start of a
    document is left out first, so that there are never two. With `token_column` and no `prepend_bos`, tokens stay."""
    drop_duplicates: bool = False
    """Drop samples whose tokens an earlier sample has; sample indices count those that are kept."""
    count_special_tokens: bool = False
    """Let special tokens (BOS and all others that the tokenizer's files mark so) count in examples and statistics."""
    exclude_first_positions: int = 0
    """Positions at the start of every sample that do not count; they stay in the model's input."""
    exclude_positions: list[int] = []
    """More positions, counted from 0, that do not count; they stay in the model's input."""
    exclude_outlier_norms: float | None = None
    """Tokens do not count where the norm of the activation that the SAE reads is above this multiple of the median of
    its sample (attention sinks; `max_activation_norm_multiple` of dictionary_learning, which suggests 10). With it,
    tables are made from activations and not from stored features."""

    _sample_has_a_position = _at_least(1, "max_length")
    _sample_fits_in_memory = _at_most(2**24, "max_length")
    _no_negative_count = _at_least(0, "exclude_first_positions", "shuffle_seed")
    _a_multiple_of_the_median = _at_least(1, "exclude_outlier_norms")

    @field_validator("source")
    @classmethod
    def _source_is_named(cls, source: str) -> str:
        if not source.strip() or "\0" in source:
            raise ValueError(f"source {source!r} names no file, folder, glob or data set")
        if any("\ud800" <= character <= "\udfff" for character in source):
            raise ValueError(f"source {source!r} is not UTF-8: give the file or folder another name")
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
        return self


class SaeSettings(Settings):
    """One sparse autoencoder and the place whose activations it reads."""

    path: str
    """Folder of the SAE checkpoint (relative to the YAML file), or the id of its repository on the hub."""
    subfolder: str | None = None
    """Folder of this SAE inside `path`, such as `blocks.8.hook_resid_pre` or `layer_12/width_16k/average_l0_82`; only
    its files are downloaded."""
    revision: str | None = None
    """Branch, tag or commit of a hub SAE."""
    hook: str | None = None
    """What the SAE reads: the dotted path of a module of the model, such as `model.layers.12`, for its output; with
    `.input`, for its input; or a TransformerLens name, such as `blocks.12.hook_resid_pre`. Of a module that runs more
    than once in a forward pass, one run by its number, `path[2]`. By default what the checkpoint records."""
    hook_out: str | None = None
    """Whose activations a transcoder gives, in the same form; it is scored against them. By default what the checkpoint
    records."""
    center_input: bool | None = None
    """Subtract from the input its mean over the model's width, as TransformerLens's `center_writing_weights` does. By
    default where the checkpoint records it for a hook of the residual stream, and for GPT-2 small's published SAEs."""
    norm_scaling_factor: float | None = None
    """What inputs are multiplied by, for a checkpoint with `normalize_activations: expected_average_only_in` that does
    not hold it: sqrt(d_in) over the mean norm of its training activations."""
    fold_decoder_norm: bool = False
    """Give decoder vectors norm 1 and features their norms, as sae-lens's `fold_W_dec_norm` does."""
    minimum_variance_explained: float = 0.5
    """A chunk fails where the SAE explains a smaller fraction of the variance of the activations: a wrong layer,
    hook or normalization. A run looks at one batch first, so that most such mistakes cost no chunk."""
    maximum_l0: float | None = None
    """A run stops before its first chunk where more features than this fire on a token of one batch, on average (mean
    L0), or none does; by default half of the features. Chunks that break it later are marked, but stored."""
    maximum_bos_share: float = 0.5
    """A run stops before its first chunk where a larger share of the features of one batch are strongest at a sample's
    first or at a special token, unless most counted positions are such; 1 lets all pass. Chunks that break it later are
    marked, but stored."""

    _limits_are_not_negative = _at_least(0, "maximum_l0", "maximum_bos_share")

    def l0_limit(self, latent_dim: int) -> float:
        """``maximum_l0``, or half of ``latent_dim`` features."""
        return latent_dim / 2 if self.maximum_l0 is None else self.maximum_l0

    @field_validator("norm_scaling_factor")
    @classmethod
    def _scale_is_positive(cls, scale: float | None) -> float | None:
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"norm_scaling_factor must be above 0, got {scale}")
        return scale

    @field_validator("subfolder")
    @classmethod
    def _subfolder_is_inside(cls, subfolder: str | None) -> str | None:
        if subfolder is not None and (subfolder.startswith("/") or ".." in Path(subfolder).parts):
            raise ValueError(f"subfolder {subfolder!r} must lie inside path")
        return subfolder

    @property
    def input_hook(self) -> str:
        """The hook that the SAE reads, once it is known (``with_recorded``)."""
        if self.hook is None:
            raise ValueError(f"the hook of SAE {self.path} is not known before its checkpoint is read")
        return self.hook

    @property
    def hooks(self) -> list[str]:
        """Hooks that are known: what the SAE reads, and what a transcoder gives."""
        return [hook for hook in (self.hook, self.hook_out) if hook is not None]


class KeepSettings(Settings):
    """Which files of the chunks stay once they are merged; `extraction-assets clean` removes the others.

    Has no part in any fingerprint: changing it makes nothing stale.
    """

    model_activations: bool = True
    """Keep the model's activations, by far the largest; a new SAE on this model then needs no forward pass."""
    sae_features: bool = True
    """Keep the SAEs' features; a new `top_k_examples` or `min_activation` then needs no forward pass and no encode."""
    top_k_table: bool = True
    """Always true: the tables are what tells that a chunk is done, and every later merge reads them."""

    @field_validator(TOP_K_TABLE)
    @classmethod
    def _tables_stay(cls, keep: bool) -> bool:
        if not keep:
            raise ValueError(
                f"keep.{TOP_K_TABLE} cannot be false: without its table a chunk counts as missing and the next run "
                "would compute it again, and a merge of more samples reads the tables of all chunks"
            )
        return keep

    def keeps(self, asset: ChunkAsset) -> bool:
        """Whether the files of a chunk asset stay; those of an asset without a field of its own always do."""
        return bool(getattr(self, asset, True))


class ExtractionSettings(Settings):
    """One named job: a model, a corpus, one or more SAEs, and the settings."""

    name: str = ""
    """Name of the extraction and of its asset group; by default the name of the folder that holds the YAML file."""
    language_model: LanguageModelSettings
    """The language model."""
    corpus: CorpusSettings
    """The corpus."""
    saes: dict[str, SaeSettings]
    """The SAEs by short name; all share one forward pass."""
    evaluation_samples: int = 10_000
    """Samples to run."""
    start_sample: int = 0
    """First sample of the corpus to run."""
    chunk_size: int = 5_000
    """Samples of a chunk: one partition, one set of files."""
    top_k_examples: int = 100
    """Examples kept for every feature (K)."""
    top_positions: int = 5
    """Positions of an example that previews name as its strongest (P); all firings are stored."""
    min_activation: float = 0.0
    """An example's maximum must be above this."""
    partitions_per_run: int | None = None
    """Chunks of one run when chunks are backfilled; by default all, so that the model is loaded once."""
    owners: tuple[str, ...] = ()
    """Who to ask about the extraction, as Dagster shows beside its assets: `team:NAME` or an e-mail address each."""

    schedule: str | None = None
    """When to compute missing chunks by itself, in cron form (`0 2 * * *`); switched on in the UI."""

    keep: KeepSettings = KeepSettings()
    """Which files of the chunks stay once they are merged; by default all."""

    _counts_are_positive = _at_least(
        1, "evaluation_samples", "chunk_size", "top_k_examples", "top_positions", "partitions_per_run"
    )
    _no_negative_bound = _at_least(0, "start_sample", "min_activation")
    _keys_have_12_digits = _at_most(
        _MOST_SAMPLES, "evaluation_samples", "start_sample", "chunk_size", "partitions_per_run"
    )
    _examples_can_be_ordered = _at_most(10**6, "top_k_examples", "top_positions")

    @model_validator(mode="after")
    def _chunks_can_be_partitions(self) -> Self:
        if self.start_sample + self.evaluation_samples > _MOST_SAMPLES:
            raise ValueError(f"start_sample + evaluation_samples must be at most {_MOST_SAMPLES}")
        chunks = -(-self.evaluation_samples // self.chunk_size)
        if chunks > MOST_CHUNKS:
            raise ValueError(
                f"evaluation_samples {self.evaluation_samples} in chunks of {self.chunk_size} make {chunks} "
                f"partitions, but Dagster is made for {MOST_CHUNKS} of an asset: raise chunk_size"
            )
        return self

    @field_validator("name")
    @classmethod
    def _name_fits_asset_keys(cls, name: str) -> str:
        if name in ("corpora", "dagster"):
            raise ValueError(f"an extraction cannot be called {name!r}: a folder beside the extractions has that name")
        return check_name(name, "extraction name") if name else name

    @field_validator("owners")
    @classmethod
    def _owners_are_teams_or_addresses(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not _OWNER.fullmatch(owner):
                raise ValueError(f"owner {owner!r} must be team:NAME or an e-mail address")
        return owners

    @field_validator("saes")
    @classmethod
    def _sae_names_fit_asset_keys(cls, saes: dict[str, SaeSettings]) -> dict[str, SaeSettings]:
        if not saes:
            raise ValueError("an extraction needs at least one SAE")
        reserved = set(names("extraction")) & set(saes)
        if reserved:
            raise ValueError(f"an SAE cannot be called {reserved.pop()!r}: that is an asset of every extraction")
        return {check_name(name, "SAE name"): sae for name, sae in saes.items()}

    @property
    def hooks(self) -> list[str]:
        """Hooks of all SAEs that are known, each once, in the order of the SAEs."""
        return list(dict.fromkeys(hook for sae in self.saes.values() for hook in sae.hooks))

    @property
    def chunk_keys(self) -> list[str]:
        """Partition keys: the first sample of each chunk in 12 digits, so that more samples rename nothing."""
        stop = self.start_sample + self.evaluation_samples
        return [f"{first:012d}" for first in range(self.start_sample, stop, self.chunk_size)]

    def chunk_rows(self, key: str) -> slice:
        """Rows of the corpus files (which begin at ``start_sample``) that chunk ``key`` holds."""
        first = int(key) - self.start_sample
        return slice(first, min(first + self.chunk_size, self.evaluation_samples))

    def with_paths_from(self, folder: Path) -> "ExtractionSettings":
        """The same settings with the paths that exist relative to ``folder`` made absolute."""
        saes = {name: sae.model_copy(update={"path": _locate(sae.path, folder)}) for name, sae in self.saes.items()}
        model = self.language_model
        source = self.corpus.source
        if source != STANDARD_LIBRARY and not is_hub_id(source, folder):
            source = _locate_source(source, folder)
        return self.model_copy(
            update={
                "saes": saes,
                "language_model": model.model_copy(update={"path": _locate(model.path, folder)}),
                "corpus": self.corpus.model_copy(update={"source": source}),
            }
        )

    def require_full_paths(self) -> None:
        """ValueError where a path would be another one in every working directory."""
        source, checkpoints = self.corpus.source, {"language_model.path": self.language_model.path}
        checkpoints |= {f"saes.{name}.path": sae.path for name, sae in self.saes.items()}
        relative = {field: path for field, path in checkpoints.items() if path.startswith(".")}
        if source != STANDARD_LIBRARY and not is_hub_id(source) and not Path(source).expanduser().is_absolute():
            relative["corpus.source"] = source
        for field, path in relative.items():
            raise ValueError(
                f"{field} is {path!r}, which is another one in every working directory: give its full path, or the "
                "folder that paths count from: build_definitions(settings, Path(__file__).parent)"
            )


def _locate_source(source: str, folder: Path) -> str:
    """A corpus source relative to ``folder`` made absolute; ``folder`` itself is no pattern where ``source`` is one."""
    path = Path(source).expanduser()
    if path.is_absolute() or (folder / path).exists() or not glob.has_magic(source):
        return str((folder / path).absolute())
    return str(Path(glob.escape(str(folder.absolute()))) / path)


def _locate(path: str, folder: Path) -> str:
    """A checkpoint path relative to ``folder`` made absolute; a hub id as it is."""
    candidate = folder / Path(path).expanduser()
    if path.startswith((".", "/", "~")) or candidate.exists():
        return str(candidate.resolve())
    return path
