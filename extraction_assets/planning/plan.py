"""What an extraction has to compute now: its corpus, and the fingerprint of every chunk of every asset."""

from functools import cached_property
from pathlib import Path

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.models.changed import forward_version
from extraction_assets.engine.models.checkpoint import checkpoint_files
from extraction_assets.engine.models.model_folder import has_own_code
from extraction_assets.engine.saes.checkpoint import encode_options, sae_files
from extraction_assets.engine.saes.resolved import resolve_extraction
from extraction_assets.engine.shapes import Samples
from extraction_assets.planning.tokenization import (
    load_tokenizer,
    tokenizer_findings,
    tokenizer_fingerprint,
    tokenizer_fingerprint_of_rules_1,
    tokens_stand,
)
from extraction_assets.settings import ExtractionSettings, ResolvedSae
from extraction_assets.stores.chunk_store import ChunkAsset, ChunkState, ChunkStore, CurrentCorpus
from extraction_assets.stores.fingerprints import files_fingerprint, fingerprint
from extraction_assets.stores.sealed import files_set_aside


class CorpusNotReady(CorpusError):
    """The corpus was never materialized, or was made from other settings."""


def corpus_recipe(settings: ExtractionSettings) -> str:
    """Fingerprint of the settings that decide what the corpus holds, its source text aside."""
    return _recipe(settings, tokenizer_fingerprint(settings))


def has_recipe(current: CurrentCorpus, settings: ExtractionSettings) -> bool:
    """Whether a corpus is what the settings ask for, its source text aside: it was made from them, or by an earlier
    version of this package whose tokens, masks and numbers would be the same now (``tokens_stand``)."""
    recipe = corpus_recipe(settings)
    if current.recipe == recipe:
        return True
    if current.recipe != _recipe(settings, tokenizer_fingerprint_of_rules_1(settings)):
        return False
    key = (current.recipe, recipe, current.corpus.manifest.fingerprint)
    if key not in _standing:
        _standing[key] = tokens_stand(settings, current.corpus.arrays)
    return _standing[key]


_standing: dict[tuple[str, str, str], bool] = {}
"""What was found of corpora of earlier versions, so that tokenizers are compared once in a process."""


def _recipe(settings: ExtractionSettings, tokenizer: str) -> str:
    """``tokenizer`` is the fingerprint of the tokenizer, the choice of its reading included."""
    corpus = settings.corpus
    choices = {name: value for name, value in corpus.token_choices().items() if name != "tokenizer"}
    return fingerprint(
        "corpus",
        tokenizer=tokenizer,
        source=corpus.source,
        max_length=corpus.max_length,
        prepend_bos=corpus.prepend_bos,
        start_sample=settings.start_sample,
        evaluation_samples=settings.evaluation_samples,
        **choices,
    )


def sae_fingerprint(sae: ResolvedSae) -> str:
    """Of what an SAE computes: its files, and the settings that change it where they are set."""
    files, options = files_fingerprint(sae_files(sae.checkpoint)), encode_options(sae)
    return fingerprint("sae", files=files, **options) if options else files


class ExtractionPlan:
    """An extraction over its materialized corpus, and what of it is done.

    Its ``settings`` are as given; ``extraction`` says what the checkpoints record where nothing is set. Raises
    CorpusNotReady where the corpus has to be materialized first, CheckpointError where the hook of an SAE is not known.
    """

    def __init__(self, settings: ExtractionSettings, store: ChunkStore) -> None:
        self.settings, self.store = settings, store
        self._current = self._current_corpus()
        self.extraction = resolve_extraction(settings)
        self.corpus = self._current.corpus

    def samples(self, key: str) -> Samples:
        """The samples of chunk ``key``."""
        return self.corpus.samples(self.settings.chunk_rows(key), self.settings.corpus)

    @property
    def corpus_version(self) -> str:
        """Stays while the corpus only grows or shrinks at its end, so that its first chunks stay as they are."""
        return self._current.version

    def outputs_fingerprint(self, key: str) -> str:
        """Fingerprint of what any module of the model puts out on a chunk."""
        dtype = self.settings.language_model.dtype
        samples = self._samples_fingerprint(key)
        return fingerprint("outputs", model=self.model_fingerprint, dtype=dtype, samples=samples)

    def activations_fingerprint(self, key: str) -> str:
        """Fingerprint of a chunk's model activations at all hooks of the extraction."""
        by_hook = {hook: self._hook_fingerprint(key, hook) for hook in self.extraction.hooks}
        return fingerprint("model_activations", hooks=by_hook)

    def features_fingerprint(self, key: str, sae: str) -> str:
        """Fingerprint of a chunk's SAE features; other hooks of the extraction have no part in it."""
        chosen = self.extraction.saes[sae]
        hook = self._hook_fingerprint(key, chosen.hook)
        # A transcoder's score, which the file's record holds, is that against its output hook.
        scored = chosen.model_dump(include={"hook_out"}, exclude_none=True)
        return fingerprint("sae_features", activations=hook, sae=self._sae_fingerprints[sae], **scored)

    def table_fingerprint(self, key: str, sae: str) -> str:
        """Fingerprint of a chunk's top-k table."""
        return fingerprint(
            "top_k_table",
            features=self.features_fingerprint(key, sae),
            first_sample=int(key),
            counted=self.corpus.counted_fingerprint(self.settings.chunk_rows(key), self.settings.corpus),
            top_k_examples=self.settings.top_k_examples,
            min_activation=self.settings.min_activation,
            **self.settings.corpus.model_dump(include={"exclude_outlier_norms"}, exclude_defaults=True),
        )

    def chunk_fingerprint(self, asset: ChunkAsset, key: str, sae: str | None) -> str:
        """Fingerprint of any chunk asset."""
        if asset == "model_activations":
            return self.activations_fingerprint(key)
        assert sae is not None, f"{asset} belongs to an SAE"
        return self.features_fingerprint(key, sae) if asset == "sae_features" else self.table_fingerprint(key, sae)

    def chunk_path(self, asset: ChunkAsset, key: str, sae: str | None = None) -> Path:
        """Where a chunk's file of its current fingerprint lies, to read it."""
        fingerprint = self.chunk_fingerprint(asset, key, sae)
        return self.store.chunk_path(self.settings.name, asset, sae, key, fingerprint)

    def path_to_write(self, asset: ChunkAsset, key: str, sae: str | None = None) -> Path:
        """Where a chunk's file of its current fingerprint is written."""
        return self._chunk_paths(asset, key, sae)[0]

    def _chunk_paths(self, asset: ChunkAsset, key: str, sae: str | None) -> list[Path]:
        fingerprint = self.chunk_fingerprint(asset, key, sae)
        return self.store.chunk_paths(self.settings.name, asset, sae, key, fingerprint)

    def chunk_state(self, asset: ChunkAsset, key: str, sae: str | None = None) -> ChunkState:
        fingerprint = self.chunk_fingerprint(asset, key, sae)
        return self.store.chunk_state(self.settings.name, asset, sae, key, fingerprint)

    def missing_chunks(self) -> list[str]:
        """Keys of the chunks that lack a durable top-k table of the current fingerprint, of any SAE."""
        return [
            key
            for key in self.settings.chunk_keys
            if any(self.chunk_state("top_k_table", key, sae) != "done" for sae in self.settings.saes)
        ]

    def set_aside_chunks(self, asset: ChunkAsset, sae: str | None = None) -> list[str]:
        """Keys of the chunks whose file of the current fingerprint was damaged and set aside, and is not there."""
        aside = files_set_aside(self.store.asset_folder(self.settings.name, asset, sae))
        if not aside:
            return []
        names = {key: {path.name for path in self._chunk_paths(asset, key, sae)} for key in self.settings.chunk_keys}
        return [key for key in names if names[key] & aside and self.chunk_state(asset, key, sae) != "done"]

    def merge_fingerprint(self, sae: str) -> str:
        """Fingerprint of the merged examples of an SAE: that of all its tables."""
        tables = [self.table_fingerprint(key, sae) for key in self.settings.chunk_keys]
        return fingerprint("feature_examples", tables=tables)

    @cached_property
    def model_fingerprint(self) -> str:
        checkpoint = self.extraction.checkpoint
        whole = files_fingerprint(checkpoint_files(checkpoint))
        if checkpoint.trust_remote_code and has_own_code(checkpoint.folder):  # its buffers were once left unfilled
            return fingerprint("model", files=whole, computed_buffers="filled")
        return whole

    @cached_property
    def _sae_fingerprints(self) -> dict[str, str]:
        return {name: sae_fingerprint(sae) for name, sae in self.extraction.saes.items()}

    def _hook_fingerprint(self, key: str, hook: str) -> str:
        """Fingerprint of one hook's output on a chunk."""
        version = forward_version(self.extraction.checkpoint.folder, hook)
        return fingerprint(
            "hook_output",
            model=self.model_fingerprint,
            dtype=self.settings.language_model.dtype,
            hook=hook,
            samples=self._samples_fingerprint(key),
            **({} if version == 1 else {"version": version}),
        )

    def _samples_fingerprint(self, key: str) -> str:
        """Hash of a chunk's own tokens and mask: neither the corpus's length nor other chunks have a part in it."""
        return self.corpus.tokens_fingerprint(self.settings.chunk_rows(key))

    def _current_corpus(self) -> CurrentCorpus:
        name = self.settings.name
        current = self.store.current_corpus(name)
        if current is None:
            raise CorpusNotReady(f"the corpus of {name} is not there yet: materialize {name}/corpus first")
        # The recipe covers start_sample; the corpus says it of itself too, and numbers its samples by that.
        begins = current.corpus.manifest.start_sample == self.settings.start_sample
        if not (begins and has_recipe(current, self.settings)):
            raise CorpusNotReady(
                f"the corpus of {name} was made from other settings or by other rules (corpus, tokenizer, "
                "start_sample or evaluation_samples have changed, or how this version reads its tokenizer): "
                f"materialize {name}/corpus again"
            )
        return current


__all__ = [
    "CorpusNotReady",
    "ExtractionPlan",
    "corpus_recipe",
    "has_recipe",
    "load_tokenizer",
    "sae_fingerprint",
    "tokenizer_findings",
    "tokenizer_fingerprint",
]
