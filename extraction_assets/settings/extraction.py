"""One extraction: a model, a corpus, SAEs, and how much of them."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from extraction_assets.catalog import TOP_K_TABLE, ChunkAsset, names
from extraction_assets.settings.chunk import Chunk
from extraction_assets.settings.corpus import CorpusSettings
from extraction_assets.settings.language_model import LanguageModelSettings
from extraction_assets.settings.paths_and_hub_ids import (
    STANDARD_LIBRARY,
    is_hub_id,
    is_url,
    locate_checkpoint,
    locate_source,
)
from extraction_assets.settings.sae import SaeSettings
from extraction_assets.settings.validation import Settings, at_least, at_most, check_name

_OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")  # as Dagster has it

MOST_CHUNKS = 100_000
"""Partitions that Dagster recommends for an asset at most; definitions hold all their keys."""
_MOST_SAMPLES = 10**12
"""Chunk keys have 12 digits."""


class KeepSettings(Settings):
    """Which files of the chunks stay once they are merged; `extraction-assets clean` removes the others.

    Not part of any fingerprint: changing it makes nothing stale.
    """

    model_activations: bool = True
    """Keep the model's activations, by far the largest; a new SAE on this model then needs no forward pass."""
    sae_features: bool = True
    """Keep the SAEs' features; a new `top_k_examples` or `min_activation` then needs no forward pass and no encode."""
    top_k_table: bool = True
    """Always true: a chunk counts as done if its table is there, and every later merge reads the tables."""

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
        """Whether the files of a chunk asset stay; those of an asset without a field here always do."""
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
    statistics: Literal["full", "basic"] = "full"
    """`full` also draws examples from the whole range of activations, and keeps all firings of a part of the samples,
    from which tokens and neighbours of features are counted; `basic` leaves both out."""
    interval_examples: int = 5
    """Examples drawn of every feature from each half octave of the sample's maximum."""
    random_examples: int = 10
    """Examples drawn of every feature from all samples in which it fires."""
    draw_seed: int = 0
    """Seed of what is drawn."""
    sample_one_in: int = 16
    """One sample in so many is drawn, and all its firings are kept with its chunk."""
    maximum_intervals: int = 0
    """Equal parts between 0 and a feature's maximum from which examples are drawn too, such as 10 for tenths; 0 for
    none. Only where all SAE features are stored, with `statistics: full`."""
    quantile_intervals: int = 0
    """Parts of equally many samples, by their maximum, from which examples are drawn too, such as 10 for deciles; 0 for
    none. Only where all SAE features are stored, with `statistics: full`."""
    partitions_per_run: int | None = None
    """Chunks of one run when chunks are backfilled; by default all, so that the model is loaded once."""
    owners: tuple[str, ...] = ()
    """Who to ask about the extraction, as Dagster shows beside its assets: `team:NAME` or an e-mail address each."""

    schedule: str | None = None
    """When to compute missing chunks by itself, in cron form (`0 2 * * *`); switched on in the UI."""

    exports: tuple[str, ...] = ()
    """Formats to write the merged features of every SAE in, each an asset `export_FORMAT` with a folder of its own:
    `extraction-assets export --help` lists them."""

    keep: KeepSettings = KeepSettings()
    """Which files of the chunks stay once they are merged; by default all."""

    _counts_are_positive = at_least(
        1, "evaluation_samples", "chunk_size", "top_k_examples", "top_positions", "partitions_per_run", "sample_one_in"
    )
    _no_negative_bound = at_least(
        0,
        "start_sample",
        "min_activation",
        "interval_examples",
        "random_examples",
        "draw_seed",
        "maximum_intervals",
        "quantile_intervals",
    )
    _few_intervals = at_most(100, "maximum_intervals", "quantile_intervals")
    _keys_have_12_digits = at_most(
        _MOST_SAMPLES, "evaluation_samples", "start_sample", "chunk_size", "partitions_per_run", "sample_one_in"
    )
    _examples_can_be_ordered = at_most(10**6, "top_k_examples", "top_positions", "interval_examples", "random_examples")
    _seed_has_32_bits = at_most(2**32 - 1, "draw_seed")

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

    @field_validator("exports")
    @classmethod
    def _each_export_once(cls, exports: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({name for name in exports if exports.count(name) > 1})
        if repeated:
            raise ValueError(f"exports names {repeated[0]} twice: each format is one asset")
        return exports

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
    def declared_hooks(self) -> list[str]:
        """Hooks that are set, each once, in the order of the SAEs, without those that checkpoints record."""
        return list(dict.fromkeys(hook for sae in self.saes.values() for hook in sae.declared_hooks))

    @property
    def chunks(self) -> list[Chunk]:
        """All chunks, in order."""
        return [self._chunk_at(row) for row in range(0, self.evaluation_samples, self.chunk_size)]

    @property
    def chunk_keys(self) -> list[str]:
        """Partition keys of all chunks, as Dagster wants them."""
        return [chunk.key for chunk in self.chunks]

    def chunk(self, key: str) -> Chunk:
        """The chunk of a partition. Raises ValueError if the extraction has none of that key."""
        row = int(key) - self.start_sample if key.isdecimal() else -1
        chunk = self._chunk_at(row) if row in range(0, self.evaluation_samples, self.chunk_size) else None
        if chunk is None or chunk.key != key:
            raise ValueError(f"{self.name} has no chunk {key!r}")
        return chunk

    def _chunk_at(self, row: int) -> Chunk:
        return Chunk(self.start_sample + row, row, min(self.chunk_size, self.evaluation_samples - row))

    def with_paths_from(self, folder: Path) -> "ExtractionSettings":
        """The same settings with the paths that exist relative to ``folder`` made absolute."""
        saes = {
            name: sae.model_copy(update={"path": sae.path and locate_checkpoint(sae.path, folder)})
            for name, sae in self.saes.items()
        }
        model = self.language_model
        source = self.corpus.source
        if source != STANDARD_LIBRARY and not is_url(source) and not is_hub_id(source, folder):
            source = locate_source(source, folder)
        return self.model_copy(
            update={
                "saes": saes,
                "language_model": model.model_copy(update={"path": locate_checkpoint(model.path, folder)}),
                "corpus": self.corpus.model_copy(update={"source": source}),
            }
        )

    def require_full_paths(self) -> None:
        """Raises ValueError for a path that depends on the working directory."""
        source, checkpoints = self.corpus.source, {"language_model.path": self.language_model.path}
        checkpoints |= {f"saes.{name}.path": sae.path for name, sae in self.saes.items() if sae.path is not None}
        relative = {field: path for field, path in checkpoints.items() if path.startswith(".")}
        named = source == STANDARD_LIBRARY or is_url(source) or is_hub_id(source)
        if not named and not Path(source).expanduser().is_absolute():
            relative["corpus.source"] = source
        for field, path in relative.items():
            raise ValueError(
                f"{field} is {path!r}, which is another one in every working directory: give its full path, or the "
                "folder that paths count from: build_definitions(settings, Path(__file__).parent)"
            )
