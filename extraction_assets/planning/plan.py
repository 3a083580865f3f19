"""What an extraction has to compute now: its corpus, and the fingerprint of every chunk of every asset."""

from collections.abc import Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from extraction_assets.catalog import (
    CORPUS,
    FEATURE_EXAMPLES,
    MODEL_ACTIVATIONS,
    SAE_FEATURES,
    TOP_K_TABLE,
    ChunkAsset,
    asset_row,
    names,
)
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.engine.models.hooks.forward_version import forward_version
from extraction_assets.engine.saes.resolved import resolve_extraction
from extraction_assets.engine.shapes import Samples
from extraction_assets.planning.asset_fields import values_in_fingerprint
from extraction_assets.planning.tokenization import (
    tokenizer_fingerprint,
    tokenizer_fingerprint_of_rules_1,
    tokens_stand,
)
from extraction_assets.planning.weights_fingerprints import model_fingerprint, sae_fingerprint, weights_fingerprint
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkState, ChunkStore, CurrentCorpus
from extraction_assets.stores.fingerprints import fingerprint, fingerprint_if_more, raised_versions


class CorpusNotReady(CorpusError):
    """The corpus was never materialized, or was made from other settings."""


def corpus_recipe(settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> str:
    """Fingerprint of the settings that decide what the corpus holds, except its source text.

    ``checkpoint`` is the language model's, if the caller has found it already.
    """
    return _recipe(settings, tokenizer_fingerprint(settings, checkpoint))


def has_recipe(current: CurrentCorpus, settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> bool:
    """Whether a corpus matches the settings, except its source text: it was made from them, or by an earlier version of
    this package with the same tokens, masks and numbers as now (``tokens_stand``).

    ``checkpoint`` is the language model's, if the caller has found it already.
    """
    checkpoint = checkpoint or resolve_checkpoint(settings.language_model.checkpoint)
    recipe = corpus_recipe(settings, checkpoint)
    if current.recipe == recipe:
        return True
    if raised_versions("tokenizer"):
        return False  # ``tokens_stand`` compares with the first version
    if current.recipe != _recipe(settings, tokenizer_fingerprint_of_rules_1(settings, checkpoint)):
        return False
    key = (current.recipe, recipe, current.corpus.manifest.fingerprint)
    if key not in _standing:
        _standing[key] = tokens_stand(settings, current.corpus.arrays, checkpoint)
    return _standing[key]


_standing: dict[tuple[str, str, str], bool] = {}
"""Results for corpora of earlier versions, so that tokenizers are compared once in a process."""


def _recipe(settings: ExtractionSettings, tokenizer: str) -> str:
    """``tokenizer`` is the fingerprint of the tokenizer, the choice of its reading included."""
    row = asset_row(CORPUS)
    return fingerprint(row.name, tokenizer=tokenizer, **values_in_fingerprint(row, settings))


class ExtractionPlan:
    """An extraction over its materialized corpus, and which of its chunks are done.

    Its ``settings`` are as given; ``extraction`` says what the checkpoints record where nothing is set. Raises
    CorpusNotReady if the corpus has to be materialized first, CheckpointError if the hook of an SAE is not known.
    """

    def __init__(self, settings: ExtractionSettings, store: ChunkStore) -> None:
        self.settings, self.store = settings, store
        current = self._stored_corpus()  # before anything is requested from the hub
        checkpoint = resolve_checkpoint(settings.language_model.checkpoint)
        self._current = self._refuse_stale(current, checkpoint)
        self.extraction = resolve_extraction(settings, checkpoint)
        self.corpus = self._current.corpus
        self._known = dict[tuple[str, str | None], dict[Chunk, str]]()
        """Fingerprints of chunks by asset and SAE, and by hook, which are asked for again and again."""
        self._by_key = dict[tuple[str, str | None], dict[str, str]]()
        self._values = cache(partial(values_in_fingerprint, settings=settings))
        self._forward_version = cache(partial(forward_version, checkpoint.folder))

    def samples(self, chunk: Chunk) -> Samples:
        """The samples of a chunk."""
        return self.corpus.samples(chunk.rows, self.settings.corpus)

    @property
    def corpus_version(self) -> str:
        """Stays while the corpus only grows or shrinks at its end, so that its first chunks stay as they are."""
        return self._current.version

    def outputs_fingerprint(self, chunk: Chunk) -> str:
        """Fingerprint of what any module of the model puts out on a chunk."""
        return fingerprint("outputs", **self._outputs_parts(chunk))

    def activations_fingerprint(self, chunk: Chunk) -> str:
        """Fingerprint of a chunk's model activations at all hooks of the extraction."""
        return self.fingerprint_of(MODEL_ACTIVATIONS, chunk, None)

    def features_fingerprint(self, chunk: Chunk, sae: str) -> str:
        """Fingerprint of a chunk's SAE features; other hooks of the extraction have no part in it."""
        return self.fingerprint_of(SAE_FEATURES, chunk, sae)

    def table_fingerprint(self, chunk: Chunk, sae: str) -> str:
        """Fingerprint of a chunk's top-k table."""
        return self.fingerprint_of(TOP_K_TABLE, chunk, sae)

    def merge_fingerprint(self, sae: str) -> str:
        """Fingerprint of the merged examples of an SAE: that of all its tables."""
        return self.fingerprint_of(FEATURE_EXAMPLES, None, sae)

    def chunk_path(self, asset: ChunkAsset, chunk: Chunk, sae: str | None = None) -> Path:
        """Path of a chunk's file of its current fingerprint, to read it."""
        fingerprint = self.fingerprint_of(asset, chunk, sae)
        return self.store.chunk_path(self.settings.name, asset, sae, chunk.key, fingerprint)

    def path_to_write(self, asset: ChunkAsset, chunk: Chunk, sae: str | None = None) -> Path:
        """Path to write a chunk's file of its current fingerprint to."""
        return self._chunk_paths(asset, chunk, sae)[0]

    def _chunk_paths(self, asset: ChunkAsset, chunk: Chunk, sae: str | None) -> list[Path]:
        fingerprint = self.fingerprint_of(asset, chunk, sae)
        return self.store.chunk_paths(self.settings.name, asset, sae, chunk.key, fingerprint)

    def chunk_state(self, asset: ChunkAsset, chunk: Chunk, sae: str | None = None) -> ChunkState:
        fingerprint = self.fingerprint_of(asset, chunk, sae)
        return self.store.chunk_state(self.settings.name, asset, sae, chunk.key, fingerprint)

    def chunk_states(self, asset: ChunkAsset, sae: str | None = None) -> dict[str, ChunkState]:
        """``chunk_state`` of every chunk by its key, in order, from one look at the folder."""
        return self.store.chunk_states(self.settings.name, asset, sae, self.fingerprints(asset, sae))

    def missing_chunks(self) -> list[str]:
        """Keys of the chunks without a durable top-k table of the current fingerprint, for any SAE."""
        states = [self.chunk_states(TOP_K_TABLE, sae) for sae in self.settings.saes]
        return [key for key in self.settings.chunk_keys if any(one[key] != "done" for one in states)]

    def set_aside_chunks(self, asset: ChunkAsset, sae: str | None = None) -> list[str]:
        """Keys of the chunks with a damaged file of the current fingerprint that was set aside and not replaced yet."""
        aside = self.store.names_set_aside(self.settings.name, asset, sae)
        if not aside:
            return []
        return [
            chunk.key
            for chunk in self.settings.chunks
            if any(path.name in aside for path in self._chunk_paths(asset, chunk, sae))
            and self.chunk_state(asset, chunk, sae) != "done"
        ]

    @cached_property
    def model_fingerprint(self) -> str:
        return model_fingerprint(self.extraction.checkpoint)

    def fingerprints(self, asset: ChunkAsset, sae: str | None) -> Mapping[str, str]:
        """Fingerprint of every chunk of an asset by its key, in order."""
        if (asset, sae) not in self._by_key:
            self._by_key[asset, sae] = {
                chunk.key: self.fingerprint_of(asset, chunk, sae) for chunk in self.settings.chunks
            }
        return self._by_key[asset, sae]

    def fingerprint_of(self, name: str, chunk: Chunk | None, sae: str | None) -> str:
        """Fingerprint of any asset but the corpus, of a chunk where it is made chunk by chunk.

        It covers what the catalog says that the asset's bytes depend on, and nothing else.
        """
        if chunk is None:
            return self._fingerprint_of(name, chunk, sae)
        known = self._known.setdefault((name, sae), {})
        if chunk not in known:
            known[chunk] = self._fingerprint_of(name, chunk, sae)
        return known[chunk]

    def _fingerprint_of(self, name: str, chunk: Chunk | None, sae: str | None) -> str:
        row = asset_row(name)
        if row.upstream is None and sae is not None:
            return weights_fingerprint(row, self.settings, self.extraction, sae)
        if not row.fingerprint_parts and row.upstream is not None:
            return fingerprint_if_more(row.name, self.fingerprint_of(row.upstream, chunk, sae))
        parts = {part: self._part(part, chunk, sae) for part in row.fingerprint_parts}
        return fingerprint(
            row.name, **parts, **self._values(row, sae=None if sae is None else self.extraction.saes[sae])
        )

    def _part(self, part: str, chunk: Chunk | None, sae: str | None) -> Any:
        """What the catalog's name of a part of a fingerprint stands for: a word below, or another asset's name."""
        match part, chunk, sae:
            case "hooks", Chunk(), _:
                return {hook: self._hook_fingerprint(chunk, hook) for hook in self.extraction.hooks}
            case "activations", Chunk(), str():
                return self._hook_fingerprint(chunk, self.extraction.saes[sae].hook)
            case "sae", _, str():
                return self._sae_fingerprints[sae]
            case "features", Chunk(), str():
                return self.features_fingerprint(chunk, sae)
            case "first_sample", Chunk(), _:
                return chunk.first_sample
            case "counted", Chunk(), _:
                return self.corpus.counted_fingerprint(chunk.rows, self.settings.corpus)
            case "tables", _, str():
                return [self.table_fingerprint(one, sae) for one in self.settings.chunks]
            case name, None, _ if name in names() and asset_row(name).partitioned:
                return [self.fingerprint_of(name, one, sae) for one in self.settings.chunks]
            case name, _, _ if name in names():
                return self.fingerprint_of(name, chunk, sae)
        raise ValueError(f"the catalog names a part {part!r} of a fingerprint, which is not known here")

    @cached_property
    def _sae_fingerprints(self) -> dict[str, str]:
        return {name: sae_fingerprint(self.settings, sae) for name, sae in self.extraction.saes.items()}

    def _hook_fingerprint(self, chunk: Chunk, hook: str) -> str:
        """Fingerprint of one hook's output on a chunk, which all its SAEs have in theirs."""
        known = self._known.setdefault(("hook_output", hook), {})
        if chunk not in known:
            known[chunk] = self._hook_fingerprint_of(chunk, hook)
        return known[chunk]

    def _hook_fingerprint_of(self, chunk: Chunk, hook: str) -> str:
        version = self._forward_version(hook)
        later = {} if version == 1 else {"version": version}
        return fingerprint("hook_output", hook=hook, **self._outputs_parts(chunk), **later)

    def _outputs_parts(self, chunk: Chunk) -> dict[str, Any]:
        """What the outputs of the model on a chunk depend on, whatever the hook."""
        values = self._values(asset_row(MODEL_ACTIVATIONS), part="hook_output")
        return {"model": self.model_fingerprint, "samples": self._samples_fingerprint(chunk), **values}

    def _samples_fingerprint(self, chunk: Chunk) -> str:
        """Hash of a chunk's tokens and mask, independent of the corpus's length and of other chunks."""
        return self.corpus.tokens_fingerprint(chunk.rows)

    def _stored_corpus(self) -> CurrentCorpus:
        name = self.settings.name
        current = self.store.current_corpus(name)
        if current is None:
            raise CorpusNotReady(f"the corpus of {name} is not there yet: materialize {name}/corpus first")
        return current

    def _refuse_stale(self, current: CurrentCorpus, checkpoint: LocalCheckpoint) -> CurrentCorpus:
        name = self.settings.name
        # The recipe covers start_sample; the corpus says it of itself too, and numbers its samples by that.
        begins = current.corpus.manifest.start_sample == self.settings.start_sample
        if not (begins and has_recipe(current, self.settings, checkpoint)):
            raise CorpusNotReady(
                f"the corpus of {name} was made from other settings or by other rules (corpus, tokenizer, "
                "start_sample or evaluation_samples have changed, or how this version reads its tokenizer): "
                f"materialize {name}/corpus again"
            )
        return current
