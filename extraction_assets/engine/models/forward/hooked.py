"""A loaded model with hooks: token ids in, hook outputs out."""

import contextlib
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.forward.capture import Capture
from extraction_assets.engine.models.forward.cudnn_attention import without_cudnn_attention
from extraction_assets.engine.models.forward.packed_check import PackedCheck
from extraction_assets.engine.models.forward.replay import Replay
from extraction_assets.engine.models.hooks.hook import HookError, Site, resolve_hook, text_configuration
from extraction_assets.engine.models.hooks.sites import text_model
from extraction_assets.engine.models.hooks.text_pass import attention_window, noting_positions, refuse_other_inputs
from extraction_assets.engine.models.weights.loaded_weights import LoadedWeights
from extraction_assets.engine.models.weights.parameters_in_use import InUse, parameters_in_use

_WATCHED_SAMPLES = 8
"""Samples that are run to the model's end to find what it writes into: at most those of one early batch."""

_FEW_TOKENS = (1, 16, 128)
"""Tokens that are tried to see what a pass uses."""


class LanguageModel:
    """A model on one device with hooks on some of its tensors.

    ``hooks`` are what ``resolve_hook`` takes. Two spellings of one tensor are captured once. Raises HookError.
    """

    def __init__(self, module: nn.Module, hooks: Sequence[str]) -> None:
        self.module = module.eval()
        self._compiled: dict[nn.Module, Any] = {}
        """The compiled forward of each block."""
        self.compiled = False
        """Whether ``compile_blocks`` was called, which can change last bits."""
        self.eager_blocks: list[int] = []
        """Numbers of the blocks that were left as they are for hooks inside: part of what last bits depend on."""
        self._capture = Capture(self.module, self._resolved(hooks))
        self._replay, self._packed_check = Replay(self._activations), PackedCheck()
        self.weights: LoadedWeights | None = None
        """Whether the weights of a model that was loaded from files are as the files say."""

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(self._capture.sites)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.inference_mode()
    def activations(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """What every hook reads, for one padded batch.

        ``token_ids`` int64 [B, T] and ``attention_mask`` bool [B, T], padded on the right (so a token's
        position is its index) -> {hook: [B, T, D]} in the model's dtype. The pass stops at the deepest hook.

        The first call with a hook also runs a part of the batch twice to the model's end, to find which tensors the
        model writes into after the hook (Falcon adds the attention's output to the MLP's, in place): these are copied
        when they are captured, so that what a hook gives depends on no other hook. Nothing else is copied.
        That is what this one batch shows: a write behind a branch that depends on the numbers (in a model's own code)
        and is first taken in a later batch is not noticed.
        Raises HookError if a hook never fires, runs more than once, needs other inputs than text, or does not give
        [B, T, D].
        """
        self._replay.forget(except_for=self._replay_key(token_ids))
        return self._activations(token_ids, attention_mask)

    def _activations(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        if not self._capture.is_watched:
            self._watch(token_ids, attention_mask)
        with self._packed_check.known_answers():
            captured = self._capture.run(token_ids, self._mask_option(attention_mask))
        return self._shaped(captured, token_ids)

    @torch.inference_mode()
    def repeated_activations(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """As ``activations``, bit for bit, for many batches of one shape: on a GPU, after a few of them, the host
        starts the kernels of a pass all at once (``Replay``). Compiled blocks are left as they are."""
        if self.device.type != "cuda" or self.compiled:
            return self.activations(token_ids, attention_mask)
        return self._replay(self._replay_key(token_ids), token_ids, attention_mask)

    def _replay_key(self, token_ids: Tensor) -> Hashable:
        return token_ids.shape, self.hooks

    @torch.inference_mode()
    def activations_alone(self, token_ids: Tensor) -> dict[str, Tensor]:
        """What every hook reads of one sample without padding, as a user of transformers calls the model: int64 [n] and
        a mask of ones -> {hook: [1, at least n, D]}. Uncompiled; for comparisons, since last bits differ from those of
        a batch."""
        ids = token_ids[None]
        self._replay.forget()
        with self._uncompiled(), without_cudnn_attention():
            captured = self._capture.run(ids, {"attention_mask": torch.ones_like(ids)})
        return self._shaped(captured, ids, or_longer=True)

    @torch.inference_mode()
    def hook_widths(self) -> dict[str, int]:
        """D of every hook, from a whole forward pass over a few tokens. Raises HookError as ``activations``."""
        self._replay.forget()
        few = torch.zeros(2, 3, dtype=torch.int64, device=self.device)  # two sizes, or a transposed output would do
        # Without a mask, for nothing is padding: a model given one looks at its numbers, which a meta device has not.
        with self._uncompiled(), without_cudnn_attention(), noting_positions(self.module, few) as positions:
            captured = self._capture.run_whole(few, {})
        return {hook: output.shape[-1] for hook, output in self._shaped(captured, few, positions).items()}

    @cached_property
    def is_causal(self) -> bool:
        """Whether all attention to text only looks back. Attention that does not say so counts as looking ahead."""
        config = text_configuration(self.module)
        if getattr(config, "is_causal", True) is False:  # a decoder made an encoder, whose modules do not know of it
            return False
        model_type = getattr(config, "model_type", None)
        of_text = [
            module.is_causal
            for module in self.module.modules()
            if isinstance(getattr(module, "is_causal", None), bool)
            and getattr(getattr(module, "config", None), "model_type", model_type) == model_type
        ]
        return bool(of_text) and all(of_text)

    def num_runs(self, hook: str) -> int | None:
        """How often the module of a hook runs in a forward pass; None before the first one."""
        return self._capture.num_runs(resolve_hook(self.module, hook).path)

    @torch.inference_mode()
    def weights_in_use(self) -> InUse:
        """What a forward pass up to the hooks uses of the module, from one over a few tokens."""
        self._replay.forget()
        with self._uncompiled(), without_cudnn_attention():
            return parameters_in_use(self.module, self._run_few_tokens)

    def weight_findings(self) -> list[Finding]:
        """Warnings about the files that the model was loaded from."""
        return self.weights.findings() if self.weights is not None else []

    def _run_few_tokens(self) -> None:
        """A pass up to the hooks without a look at their outputs. Raises what the model raises for any few tokens."""
        for length in _FEW_TOKENS:
            ids = torch.zeros(1, length, dtype=torch.int64, device=self.device)
            try:
                with contextlib.suppress(HookError):  # for the first batch to raise
                    self._capture.run(ids, self._mask_option(torch.ones_like(ids)))
                return
            except Exception:  # of any library and any kind; attention in windows may need more tokens
                if length == _FEW_TOKENS[-1]:
                    raise

    def find_readable(self, hooks: Sequence[str]) -> list[str]:
        """Those of ``hooks`` that exist and can be read."""
        with contextlib.suppress(HookError), self.also_reading(hooks):
            self.hook_widths()
            return list(hooks)
        found = []
        for hook in hooks:
            with contextlib.suppress(HookError), self.also_reading([hook]):
                self.hook_widths()
                found.append(hook)
        return found

    @contextlib.contextmanager
    def also_reading(self, hooks: Sequence[str]) -> Iterator[None]:
        """Inside the block ``activations`` gives the outputs of ``hooks`` too; HookError for an unknown one."""
        before = self._capture.sites
        self._capture.read({**before, **self._resolved(hooks)})
        try:
            yield
        finally:
            self._capture.read(before)

    def remove_hooks(self) -> None:
        """Takes the hooks from the module, which somebody else goes on to use; nothing can be read afterwards."""
        self._replay.forget()
        self._capture.read({})

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles the repeated blocks by ``torch.compile``, for the one shape of a forward batch.

        The first forward pass waits for it: once for all blocks of a kind. A block with a hook inside stays as it is.
        """
        hooked = {self.module.get_submodule(site.path) for site in self._capture.sites.values()}
        for number, block in enumerate(repeated_blocks(self.module)):
            if hooked & (set(block.modules()) - {block}):
                self.eager_blocks.append(number)
            else:
                self._compiled[block] = torch.compile(block.forward, dynamic=False, backend=backend)
                block.forward = self._compiled[block]
        self.compiled = True

    def _resolved(self, hooks: Sequence[str]) -> dict[str, Site]:
        sites = {hook: resolve_hook(self.module, hook) for hook in hooks}
        for hook, site in sites.items():
            refuse_other_inputs(self.module, hook, site)
        return sites

    def _watch(self, token_ids: Tensor, attention_mask: Tensor) -> None:
        """Of a large batch the first samples do, and the last one, which may be padding alone."""
        rows = torch.tensor([*range(min(_WATCHED_SAMPLES, len(token_ids)) - 1), len(token_ids) - 1])
        rows = rows.to(token_ids.device)
        with self._uncompiled():
            self._capture.watch(token_ids[rows], self._mask_option(attention_mask[rows]))

    @contextlib.contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """Runs the blocks as they were before ``compile_blocks``."""
        for block in self._compiled:
            del block.forward
        try:
            yield
        finally:
            for block, compiled in self._compiled.items():
                block.forward = compiled

    def _mask_option(self, attention_mask: Tensor) -> dict[str, Any]:
        """Causal attention never sees padding on the right, so it gets no mask. With one, transformers asks whether
        it is all ones (a synchronisation) and chooses another attention kernel if it is, so that a sample's last
        bits would depend on its neighbours in the batch."""
        return {} if self.is_causal else {"attention_mask": attention_mask.long()}

    def _shaped(
        self,
        captured: Mapping[Site, Tensor],
        token_ids: Tensor,
        filled_up: Collection[int] = (),
        *,
        or_longer: bool = False,
    ) -> dict[str, Tensor]:
        """{hook: [B, T, D]} of a pass over [B, T]; also with as many positions as ``filled_up`` names, or with any
        more, where a model may fill samples up."""
        samples, positions = token_ids.shape
        for hook, site in self._capture.sites.items():
            if site not in captured:
                raise HookError(f"hook {hook!r} is part of the model but did not run in its forward pass")
            output = captured[site]
            fits = output.dim() == 3 and output.shape[0] == samples
            longer = fits and (output.shape[1] in filled_up or (or_longer and output.shape[1] > positions))
            if not fits or not (output.shape[1] == positions or longer):
                raise HookError(
                    f"hook {hook!r} gives a tensor of shape {tuple(output.shape)}, "
                    f"expected [samples, positions, width] = [{samples}, {positions}, …]"
                    f"{self._filling_up() if fits else ''}"
                )
        return {hook: captured[site] for hook, site in self._capture.sites.items()}

    def _filling_up(self) -> str:
        window = attention_window(text_configuration(self.module))
        return f"; the model fills samples up: take a max_length that is a multiple of {window}" if window else ""


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model of text is a stack of: the modules of the longest list of it, not of a tower of images
    beside it, which may have more."""
    text = model.get_submodule(text_model(model).rstrip("."))
    lists = [list(module) for module in text.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])
