"""What a run of chunks has on its device: the language model, the SAEs, and how many samples fit at once."""

import logging
from collections.abc import Collection
from functools import cached_property

import torch

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.findings import log_and_raise
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.preflight.compatibility import examine_combination
from extraction_assets.engine.saes.resolved import ResolvedExtraction, examine_recorded
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.resources import GpuResource


class LoadedModels:
    """The language model and the SAEs of a run, each loaded when it is first used, once a run.

    ``saes`` names the SAEs that the run computes. With ``every_hook`` the model runs to all hooks of the extraction,
    which storing activations needs; otherwise to those that these SAEs read.
    """

    def __init__(
        self,
        extraction: ResolvedExtraction,
        saes: Collection[str],
        gpu: GpuResource,
        device: torch.device,
        logger: logging.Logger,
        *,
        every_hook: bool,
    ) -> None:
        self.gpu, self.device, self.logger = gpu, device, logger
        self._extraction, self._settings, self._every_hook = extraction, extraction.declared, every_hook
        self._chosen = {name: sae for name, sae in extraction.saes.items() if name in saes}

    @cached_property
    def saes(self) -> dict[str, SAE]:
        """The SAEs on the device. Raises CheckpointError, HookError or CorpusError if they do not fit the model."""
        extraction = self._extraction
        length = self._settings.corpus.max_length
        found = examine_combination(extraction.checkpoint, self._chosen, length, self.device)
        log_and_raise(found.findings, self.logger)
        log_and_raise(examine_recorded(extraction, found.saes), self.logger)
        return found.saes

    @cached_property
    def model(self) -> LanguageModel:
        """The language model on the device. Raises ValueError if weights did not load."""
        settings = self._settings.language_model
        self.logger.info("loading %s on %s", settings.path, self.device)
        model = load_language_model(self._extraction.checkpoint, self.hooks, device=self.device, dtype=settings.dtype)
        log_and_raise(model.weight_findings(), self.logger)
        return model

    def compiled_model(self) -> LanguageModel:
        """The language model, its blocks compiled where the GPU resource says so: for the chunks themselves, because
        the early checks read more hooks."""
        if self.gpu.compile_model and not self.model.compiled:
            self.logger.info("the first forward pass compiles the model's blocks")
            self.model.compile_blocks()
        return self.model

    @property
    def hooks(self) -> list[str]:
        """Hooks that the model runs to."""
        if self._every_hook:
            return self._extraction.hooks
        return list(dict.fromkeys(hook for sae in self._chosen.values() for hook in sae.hooks))

    @cached_property
    def batch(self) -> AdaptiveBatch:
        """Samples to reduce at once; sized by the memory that is free when it is first used, after loading."""
        latent_dim = max((sae.latent_dim for sae in self.saes.values()), default=1)
        return self.gpu.vectorization_batch(self.device, latent_dim, self._settings.corpus.max_length, self.logger)

    @cached_property
    def forward_batch(self) -> AdaptiveBatch:
        """Samples of one forward pass."""
        return AdaptiveBatch(self.gpu.batch_size, self.logger)
