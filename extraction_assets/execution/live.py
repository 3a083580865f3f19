"""Any text through the model and an SAE of an extraction, by the rules and numerics of its chunks.

A text becomes samples as a document of the corpus does, and these go through the pass of a chunk: the same hook, masks,
batch shapes and precision. So a text that is a sample of the corpus gives what is stored of it.
"""

import contextlib
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from extraction_assets.browser.live import (
    MAX_CHARACTERS,
    LiveBusyError,
    LiveError,
    LiveFiring,
    LiveResult,
    LiveToken,
)
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import numerics_record, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.sae_result import SaeResult
from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.corpora.documents import Document
from extraction_assets.engine.corpora.samples import samples_of
from extraction_assets.engine.corpora.tokenize import (
    Packing,
    TokenizedCorpus,
    count_samples,
    packing_of,
    tokenize_corpus,
)
from extraction_assets.engine.models.forward.kernels import kernel_versions
from extraction_assets.engine.models.language_model import vocabulary_size
from extraction_assets.engine.preflight.compatibility import refuse_unknown_tokens
from extraction_assets.engine.saes.resolved import ResolvedExtraction, resolve_extraction
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.execution.live_numerics import Numerics, choose_numerics, compared, stored_numerics
from extraction_assets.execution.live_result import strongest_by_token, strongest_features
from extraction_assets.execution.loaded_models import LoadedModels
from extraction_assets.planning.plan import CorpusNotReady, ExtractionPlan
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.resources import GpuResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import DamagedFileError

MAX_SAMPLES = 8
"""Samples of a text that are run; what comes after them is left out, and the result says so."""
TOKEN_FEATURES = 20
TEXT_FEATURES = 50
_MOST_WAITING = 3
"""Each keeps a thread of the server waiting, of which there are eight."""


class LiveExtraction:
    """The model and the SAEs of an extraction, loaded when the first text comes; a context manager.

    Everything runs in one thread, one text after the other. A GPU that is leased is held from the first text until the
    end of the block. Nothing of it waits for a GPU: where all are in use, the text is refused.
    """

    def __init__(
        self, settings: ExtractionSettings, store: ChunkStore, gpu: GpuResource, logger: logging.Logger
    ) -> None:
        self._settings, self._store, self._gpu, self._logger = settings, store, gpu, logger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live")
        self._held = contextlib.ExitStack()
        self._models: _Models | None = None
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    @property
    def extraction(self) -> str:
        return self._settings.name

    @property
    def saes(self) -> tuple[str, ...]:
        return tuple(self._settings.saes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.submit(self._held.close)
        self._thread.shutdown(wait=True)

    def submit(self, text: str, sae: str) -> "Future[LiveResult]":
        """See ``LiveText.submit``."""
        if not self._waiting.acquire(blocking=False):
            raise LiveBusyError(f"{_MOST_WAITING} texts are computed or wait already: try again in a moment")
        future = self._thread.submit(self._run, text, sae)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def __call__(self, text: str, sae: str) -> LiveResult:
        """Runs a text and waits for it. Raises LiveError."""
        return self.submit(text, sae).result()

    def _run(self, text: str, sae: str) -> LiveResult:
        if sae not in self._settings.saes:
            raise LiveError(f"no SAE {sae!r} in {self.extraction}: there are {', '.join(self.saes)}")
        _refuse_unfit(text)
        try:
            if self._models is None:
                self._models = self._load()
            return self._models.run(text, sae)
        except LiveError:
            raise
        except (ValueError, LookupError, OSError, MemoryError) as error:  # what the package raises for people to read
            raise LiveError(f"{self.extraction}/{sae}: {error}") from error

    def _load(self) -> "_Models":
        with contextlib.ExitStack() as held, hub_downloads(self._logger):
            device = held.enter_context(self._gpu.use_idle_device(self._logger))
            if self._gpu.device == "auto" and device.type == "cpu" and torch.cuda.device_count():
                raise LiveError("all GPUs of this host are in use: try again later, or set device: cpu")
            models = _Models(self._settings, self._store, self._gpu, device, self._logger)
            self._held = held.pop_all()
        return models


class _Models:
    """What stays loaded between texts."""

    def __init__(
        self,
        settings: ExtractionSettings,
        store: ChunkStore,
        gpu: GpuResource,
        device: torch.device,
        logger: logging.Logger,
    ) -> None:
        self._settings, self._gpu, self._device, self._logger = settings, gpu, device, logger
        self._extraction, self._plan = _resolved(settings, store, logger)
        checkpoint = self._extraction.checkpoint
        self._tokenizer = load_tokenizer(settings, checkpoint)
        if self._tokenizer is None:
            raise LiveError(
                f"the corpus of {settings.name} is tokens and its model has no tokenizer, so no text can be tried"
            )
        self._display = display_tokens(self._tokenizer)
        self._vocabulary_size = vocabulary_size(checkpoint)
        self._packing = _packing(settings, self._plan, self._tokenizer.bos_token_id)
        self._of_model = LoadedModels(self._extraction, (), gpu, device, logger, every_hook=True)
        self._saes: dict[str, tuple[SAE, Numerics]] = {}

    def run(self, text: str, sae: str) -> LiveResult:
        """The features of an SAE on a text."""
        arrays, truncated = self._tokenized(text)
        samples = samples_of(arrays, slice(0, len(arrays.token_ids)), 0, self._settings.corpus)
        result, numerics = self._computed(samples, sae)
        by_token = strongest_by_token(result.table, samples.token_ids.shape[1])
        features = strongest_features(result.table)
        return LiveResult(
            sae=sae,
            hook=self._extraction.saes[sae].hook,
            samples=self._tokens(samples, by_token),
            features=features[:TEXT_FEATURES],
            num_features=len(features),
            truncated=truncated,
            device=str(numerics["device"]),
            numerics=compared(numerics, self._saes[sae][1].stored),
        )

    def _tokenized(self, text: str) -> tuple[TokenizedCorpus, bool]:
        """The samples of a text, and whether it has more than are run."""
        documents: list[Document] = [("text", text)]
        tokenizer, packing, size = self._tokenizer, self._packing, self._vocabulary_size
        found = count_samples(documents, tokenizer, packing, MAX_SAMPLES + 1, vocabulary_size=size).samples
        if not found:
            raise LiveError("the text gives no token: write a few words")
        kept = min(found, MAX_SAMPLES)
        return tokenize_corpus(documents, tokenizer, packing, kept, vocabulary_size=size), found > kept

    def _computed(self, samples: Samples, name: str) -> tuple[SaeResult, dict[str, Any]]:
        """The pass over the samples of a text, and its numerics record."""
        sae, chosen = self._loaded(name)
        model, place = self._of_model.model, self._extraction.saes[name]
        if chosen.compiled and not model.compiled:
            model.compile_blocks()
        refuse_unknown_tokens(samples, model)
        count = len(samples.token_ids)
        settings = PassSettings(
            batch_size=chosen.batch_size,
            top_k=count,  # every sample of the text is an example
            matmul_precision=chosen.matmul_precision,
            exclude_outlier_norms=self._settings.corpus.exclude_outlier_norms,
        )
        hooks = forward_pass(model, samples, chosen.forward_batch)
        task = SaeTask(name, place.hook, sae)
        found = run_chunk(samples, hooks, [task], settings, AdaptiveBatch(count, self._logger), self._device).saes[name]
        record = numerics_record(
            self._device,
            str(model.dtype),
            settings._replace(batch_size=chosen.forward_batch),
            compiled=model.compiled,
            eager_blocks=model.eager_blocks if model.compiled else [],
            kernels=kernel_versions(model.module),
        )
        return found, {**record, "encode_tile_tokens": found.encode_tile_tokens}

    def _loaded(self, name: str) -> tuple[SAE, Numerics]:
        if name not in self._saes:
            loaded = LoadedModels(self._extraction, (name,), self._gpu, self._device, self._logger, every_hook=False)
            sae = loaded.saes[name]
            stored = None if self._plan is None else stored_numerics(self._plan, name)
            self._saes[name] = sae, choose_numerics(self._gpu, self._device, stored)
        return self._saes[name]

    def _tokens(self, samples: Samples, by_token: "dict[int, list[LiveFiring]]") -> list[list[LiveToken]]:
        length = samples.token_ids.shape[1]
        found = []
        for row, (ids, mask, counted) in enumerate(zip(*samples[:3], strict=True)):
            known = ids[mask].tolist()
            texts = self._display(known)
            found.append(
                [
                    LiveToken(
                        token_id,
                        text,
                        bool(counted[position]),
                        by_token.get(row * length + position, [])[:TOKEN_FEATURES],
                        len(by_token.get(row * length + position, [])),
                    )
                    for position, (token_id, text) in enumerate(zip(known, texts, strict=True))
                ]
            )
        return found


def _refuse_unfit(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise LiveError(f"the text has {len(text):,} characters, and {MAX_CHARACTERS:,} are tried at once: shorten it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LiveError(f"the text is not Unicode: character {error.start} is half of a surrogate pair") from error


def _resolved(
    settings: ExtractionSettings, store: ChunkStore, logger: logging.Logger
) -> tuple[ResolvedExtraction, ExtractionPlan | None]:
    """The extraction with its checkpoints; its plan too where its corpus is current."""
    try:
        plan = ExtractionPlan(settings, store)
    except (CorpusNotReady, DamagedFileError) as error:
        logger.info("a text's numbers cannot be compared with stored ones: %s", error)
        return resolve_extraction(settings), None
    return plan.extraction, plan


def _packing(settings: ExtractionSettings, plan: ExtractionPlan | None, bos: int | None) -> Packing:
    """How a text becomes samples: as the corpus, but none is dropped. Where documents are tokens already, a text begins
    with BOS if all stored samples do."""
    packing = packing_of(settings.corpus)._replace(drop_duplicates=False)
    if settings.corpus.token_column is None or not packing.keep_leading_bos or plan is None or bos is None:
        return packing
    begins = bool((np.asarray(plan.corpus.arrays.token_ids)[:, 0] == bos).all())
    return packing._replace(prepend_bos=begins, keep_leading_bos=False)
