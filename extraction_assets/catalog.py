"""The one table of assets: what an extraction gives, where each asset lies, and which settings it depends on.

It stands below everything, beside ``host``: settings, stores, planning, execution, upkeep and the command line all read
it, imports go down only, and so it imports nothing and holds facts alone. It defines asset keys
(``execution.keys``), fingerprints (``planning.plan``), code versions (``execution.lineage``), folders and files
(``stores``), what ``keep``, ``status``, ``clean``, ``delete``, ``run`` and schedules iterate over, and the list of
assets in the documentation (``assets_table``). A new asset is one file below ``assets/`` and one row here.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

CORPUS = "corpus"
MODEL_ACTIVATIONS = "model_activations"
SAE_FEATURES = "sae_features"
TOP_K_TABLE = "top_k_table"
FEATURE_EXAMPLES = "feature_examples"
FEATURE_RELATIONS = "feature_relations"
FEATURE_DIRECTIONS = "feature_directions"
FEATURE_REPORT = "feature_report"
FEATURE_EXPORTS = "feature_exports"

MERGED_TABLES = "merged_tables"
"""Folder of an SAE beside those of its assets: tables of many chunks that the merge has made on its way, so that a
longer corpus does not read all chunks again (``planning.merge_order``). No asset: what is missing is made again."""

EXPORT_PREFIX = "export_"

FIRST_VERSION = 2
"""The version of every kind of content when versions per kind began."""

ChunkAsset = str
"""The name of an asset that is made chunk by chunk."""


class Depends(NamedTuple):
    """A settings field on which an asset's content depends."""

    field: str
    """Its dotted path in the extraction's settings; ``sae.`` begins a field of the SAE that the asset belongs to."""
    through: str | None = None
    """The part of the fingerprint that covers it (``planning.plan``), such as the bytes that it changes; None if its
    value stands in the asset's fingerprint under its own name."""
    when_set: bool = False
    """Whether only a value other than the default counts: a field that was added later leaves earlier results as they
    are."""
    only_with: str | None = None
    """Another field of the same group, without which this one changes nothing."""
    not_with: tuple[str, str] | None = None
    """Another field of the same group and its value with which this one changes nothing."""
    is_reference: bool = False
    """Whether it names something else, a checkpoint or a hook: the code version then holds what it names (``looks_at``)
    and not its value."""
    by_chunk: bool = True
    """False where chunks stay as they are when it changes: the corpus grows or shrinks at its end."""


class Asset(NamedTuple):
    """One row: an asset of every extraction, or of every SAE of one."""

    name: str
    """Last part of its key, and name of its folder."""
    scope: Literal["extraction", "sae"]
    """What it belongs to: its key is ``[extraction, name]`` or ``[extraction, sae, name]``."""
    partitioned: bool
    """Whether it is made chunk by chunk, one partition each; else once."""
    upstream: str | None
    """The asset that it is made from; None of the corpus, and of what follows from the checkpoints alone."""
    stored_as: str
    """What lies on disk or in the database, for people."""
    files: tuple[str, ...]
    """How the names of its chunks' files end: the form that is written first, then earlier ones that are read
    (``stores.chunk_names.FORMS``); or the name of its one file. Nothing if it is in no file."""
    dagster_kind: str
    """The badge that Dagster's UI shows."""
    description: str
    """One sentence, which Dagster's UI and the documentation show."""
    builder: str
    """``module:function`` below ``extraction_assets.assets`` that gives the Dagster definition; for a row of an SAE
    with a function of its own it is called once an SAE."""
    fingerprint_parts: tuple[str, ...] = ()
    """Parts of the fingerprint beside the values of ``depends``; ``planning.plan`` says what each is. Without any, the
    asset is as new as its upstream, whose fingerprint it takes."""
    looks_at: tuple[str, ...] = ()
    """Parts of the code version beside the values of ``depends`` and what is upstream; see ``execution.lineage``."""
    depends: tuple[Depends, ...] = ()
    """Settings fields of its own; those of its upstream come with it."""

    version: int = FIRST_VERSION
    """Version of the meaning of its content (``stores.fingerprints``). Raising it makes stored content stale, and what
    is made from it."""
    is_optional: bool = False
    """Whether ``keep`` may have its files removed once they are merged."""
    listed_in: str | None = None
    """A settings field that names variants, such as formats: each is an asset of its own (``export_asset``), and an
    empty list, the default, gives none. None for an asset that is always there."""


def _values(*fields: str) -> tuple[Depends, ...]:
    return tuple(Depends(field) for field in fields)


def _later(*fields: str, through: str | None = None) -> tuple[Depends, ...]:
    """Fields that were added after the first results."""
    return tuple(Depends(field, through, when_set=True) for field in fields)


def _covered_by(part: str, *fields: str) -> tuple[Depends, ...]:
    return tuple(Depends(field, part) for field in fields)


def _references(part: str, *fields: str) -> tuple[Depends, ...]:
    return tuple(Depends(field, part, is_reference=True) for field in fields)


_MODEL = ("language_model.path", "language_model.revision", "language_model.trust_remote_code")

ASSETS: tuple[Asset, ...] = (
    Asset(
        CORPUS,
        scope="extraction",
        partitioned=False,
        upstream=None,
        stored_as="memory-mappable arrays",
        files=("corpus.json",),
        dagster_kind="numpy",
        description="Tokenized samples with masks and document ids, in memory-mappable files.",
        builder="corpus.asset:build_corpus",
        fingerprint_parts=("tokenizer",),
        looks_at=("model",),
        depends=(
            *_references("tokenizer", *_MODEL),
            *_values("corpus.source", "corpus.max_length", "corpus.prepend_bos"),
            *_later("corpus.read_as", "corpus.revision", "corpus.configuration", "corpus.split"),
            Depends("corpus.streaming", when_set=True, only_with="shuffle_seed"),  # only then it changes the order
            *_later("corpus.text_column", "corpus.id_column", "corpus.token_column", "corpus.attention_mask_column"),
            *_later("corpus.messages_column"),
            *_later("corpus.shuffle_seed", "corpus.packing", "corpus.sequence_separator_token"),
            *_later("corpus.drop_duplicates"),
            *_later("corpus.tokenizer", through="tokenizer"),
            *_values("start_sample"),
            Depends("evaluation_samples", by_chunk=False),
        ),
    ),
    Asset(
        MODEL_ACTIVATIONS,
        scope="extraction",
        partitioned=True,
        upstream=CORPUS,
        stored_as="safetensors",
        files=(".safetensors",),
        dagster_kind="torch",
        description="Outputs of every hook, [samples, positions, width] in the model's dtype.",
        builder="chunks.asset:build_chunk_assets",
        fingerprint_parts=("hooks",),
        looks_at=("hooks",),
        is_optional=True,
        depends=(
            *_references("model", *_MODEL),
            *_covered_by("hook_output", "language_model.dtype"),
            *_covered_by("samples", "chunk_size"),
            *_references("hooks", "sae.hook", "sae.hook_out"),
        ),
    ),
    Asset(
        SAE_FEATURES,
        scope="sae",
        partitioned=True,
        upstream=MODEL_ACTIVATIONS,
        stored_as="safetensors",
        files=(".safetensors",),
        dagster_kind="torch",
        description="Positive SAE activations at all non-padding positions, in compressed rows.",
        builder="chunks.asset:build_chunk_assets",
        fingerprint_parts=("activations", "sae"),
        looks_at=("hook", "sae"),
        is_optional=True,
        depends=(
            *_references("activations", "sae.hook"),
            *_references("sae", "sae.release", "sae.sae_id", "sae.path", "sae.subfolder", "sae.revision"),
            *_later("sae.center_input", "sae.norm_scaling_factor", "sae.fold_decoder_norm", through="sae"),
            *_later("sae.hook_out"),  # a transcoder's score, which the file's record holds, is against that hook
        ),
    ),
    Asset(
        TOP_K_TABLE,
        scope="sae",
        partitioned=True,
        upstream=SAE_FEATURES,
        stored_as="Parquet, statistics and a sample of firings as safetensors",
        files=(".parquet",),
        dagster_kind="parquet",
        description="The chunk's strongest and drawn examples of every feature, and statistics of all of them.",
        builder="chunks.asset:build_chunk_assets",
        fingerprint_parts=("features", "first_sample", "counted"),
        depends=(
            *_values("top_k_examples", "min_activation"),
            *_covered_by("counted", "corpus.count_special_tokens", "corpus.exclude_first_positions"),
            *_later("corpus.exclude_positions", through="counted"),
            *_later("corpus.exclude_outlier_norms"),
            *_later("statistics"),
            *(
                Depends(field, when_set=True, not_with=("statistics", "basic"))
                for field in ("interval_examples", "random_examples", "draw_seed", "sample_one_in")
            ),
        ),
    ),
    Asset(
        FEATURE_EXAMPLES,
        scope="sae",
        partitioned=False,
        upstream=TOP_K_TABLE,
        stored_as="rows of the results database",
        files=(),
        dagster_kind="sqlalchemy",
        description="The strongest examples of every feature over the whole corpus, with statistics, in the results "
        "database.",
        builder="examples.asset:build_feature_examples",
        fingerprint_parts=("tables",),
        looks_at=("table",),
        depends=_covered_by("tables", "evaluation_samples"),
    ),
    Asset(
        FEATURE_RELATIONS,
        scope="sae",
        partitioned=False,
        upstream=FEATURE_EXAMPLES,
        stored_as="rows of the results database",
        files=(),
        dagster_kind="sqlalchemy",
        description="Top tokens, co-firing neighbours and flags of every feature, exact over the sampled samples, or "
        "over the whole corpus where its SAE features are stored.",
        builder="relations.asset:build_feature_relations",
        fingerprint_parts=(FEATURE_EXAMPLES,),
        looks_at=(FEATURE_EXAMPLES,),
        depends=_later("maximum_intervals", "quantile_intervals"),
    ),
    Asset(
        FEATURE_DIRECTIONS,
        scope="sae",
        partitioned=False,
        upstream=None,
        stored_as="rows of the results database",
        files=(),
        dagster_kind="sqlalchemy",
        description="What each feature writes, by the weights alone: the tokens that its decoder row favours (logit "
        "lens), and the nearest decoder rows of all SAEs of the extraction.",
        builder="directions.asset:build_feature_directions",
        fingerprint_parts=("model", "sae", "written", "other_saes", "display"),
        looks_at=("model", "sae", "written", "other_saes"),
        depends=(
            *_references("model", *_MODEL),
            *_references("sae", "sae.release", "sae.sae_id", "sae.path", "sae.subfolder", "sae.revision"),
            *_later("sae.center_input", "sae.norm_scaling_factor", "sae.fold_decoder_norm", through="sae"),
            *_references("written", "sae.hook", "sae.hook_out"),
            *_later("corpus.tokenizer", through="display"),
        ),
    ),
    Asset(
        FEATURE_REPORT,
        scope="sae",
        partitioned=False,
        upstream=FEATURE_EXAMPLES,
        stored_as="HTML",
        files=("report.html",),
        dagster_kind="html",
        description="An HTML page of the whole result: settings, checks, speed, how features are spread, and which are "
        "worth a look.",
        builder="report.asset:build_feature_report",
    ),
    Asset(
        FEATURE_EXPORTS,
        scope="sae",
        partitioned=False,
        upstream=FEATURE_EXAMPLES,
        stored_as="a folder of the format's files",
        files=("export.json",),
        dagster_kind="file",
        description="The features in a format that other programs read; one asset for each format of `exports`.",
        builder="exports.asset:build_feature_export",
        listed_in="exports",
    ),
)
"""Every asset, upstream first."""


def asset_row(name: str) -> Asset:
    """The row of an asset, or of an export by the name of its asset. KeyError for a name that no asset has."""
    rows = {row.name: row for row in ASSETS}
    return rows[FEATURE_EXPORTS] if name.startswith(EXPORT_PREFIX) else rows[name]


def export_asset(export_format: str) -> str:
    """Last part of the key of an export: of the format ``a-b`` it is ``export_a_b``."""
    return EXPORT_PREFIX + export_format.replace("-", "_")


def is_asset_of_sae(name: str) -> bool:
    """Whether an asset's key of an SAE can end with this name."""
    return name.startswith(EXPORT_PREFIX) or any(
        row.name == name and row.scope == "sae" and row.listed_in is None for row in ASSETS
    )


def names(scope: Literal["extraction", "sae"] | None = None) -> list[str]:
    """Names of the assets of an extraction, of each SAE, or of both."""
    return [row.name for row in ASSETS if scope in (None, row.scope)]


def chunk_assets(saes: Iterable[str]) -> Iterator[tuple[ChunkAsset, str | None]]:
    """(asset, SAE) of everything that is made chunk by chunk, upstream first; the SAE is None for what belongs to
    none."""
    chunked = [row for row in ASSETS if row.partitioned]
    yield from ((row.name, None) for row in chunked if row.scope == "extraction")
    for sae in saes:
        yield from ((row.name, sae) for row in chunked if row.scope == "sae")


def assets_after_chunks() -> list[str]:
    """Names of what is made once for each SAE when all its chunks are there, upstream first."""
    made_once = [row for row in ASSETS if row.scope == "sae" and not row.partitioned and row.listed_in is None]
    return [row.name for row in made_once if row.upstream is not None]


def assets_of_weights() -> list[str]:
    """Names of what is made once for each SAE from the checkpoints alone, whatever chunks there are."""
    return [row.name for row in ASSETS if row.scope == "sae" and not row.partitioned and row.upstream is None]


def folders(scope: Literal["extraction", "sae"]) -> list[str]:
    """Names of the folders in the chunk store: of the assets that have one of their own, and of an SAE
    ``MERGED_TABLES``. The corpus is shared by extractions."""
    of_assets = [row.name for row in ASSETS if row.scope == scope and row.files and row.name != CORPUS]
    return [*of_assets, MERGED_TABLES] if scope == "sae" else of_assets


def builders() -> dict[str, Asset]:
    """``module:function`` of each definition, and the first row that names it: it says whether the function is called
    once, for every SAE, or for every SAE and variant (``listed_in``)."""
    found: dict[str, Asset] = {}
    for row in ASSETS:
        found.setdefault(row.builder, row)
    return found


def assets_table() -> str:
    """The list of assets as a Markdown table, for the documentation."""
    lines = ["| asset | key | made | stored as | what it is |", "| --- | --- | --- | --- | --- |"]
    for row in ASSETS:
        name = row.name if row.listed_in is None else f"{EXPORT_PREFIX}FORMAT"
        key = f"extraction, {'sae, ' if row.scope == 'sae' else ''}{name}"
        made = "per chunk" if row.partitioned else "once"
        lines.append(f"| `{row.name}` | `[{key}]` | {made} | {row.stored_as} | {row.description} |")
    return "\n".join(lines)
