"""A forward pass over text alone, and what it does not reach: decoders, towers for images and sound, heads."""

import contextlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from extraction_assets.engine.models.hooks.sites import HookError, Site, first_tensor

_PREFIX_LM = {
    "paligemma": "it reads its prompt in both directions and needs an image, and token_type_ids that say where the "
    "prompt ends",
    "colpali": "it reads its prompt in both directions, behind an image",
    "pi0": "it reads a robot's state and images",
}
"""Model types whose pass over text alone is another computation than theirs, and why."""

_OF_EVERY_TOKEN = re.compile(r"bbox|boxes|xpath_\w+|input_(shape|pronunciation)_ids")
"""Inputs that say more of every token than its id, where it stands on a page or how it looks (LayoutLM, LiLT, BROS,
UDOP; MarkupLM; RoCBert). A model that is not given them takes zeros or a constant, as in no text that it was
trained on."""

_TEXT_INPUTS = ("input_ids", "inputs_embeds", "hidden_states", "attention_mask")
"""Main inputs of a module that a forward pass over text calls."""


def run_text(model: nn.Module, token_ids: Tensor, **options: Any) -> None:
    """Runs ``model`` on int64 [B, T] to its end; beside a decoder, the encoder alone, which reads the text."""
    text_reader(model)(input_ids=token_ids, **options)


def text_reader(model: nn.Module) -> nn.Module:
    """The part of ``model`` that a forward pass over text runs: all of it, or the encoder beside a decoder."""
    decoder = decoder_path(model)
    return model if decoder is None else model.get_submodule(_encoder_beside(decoder))


def decoder_path(model: nn.Module) -> str | None:
    """Path of the decoder that stands beside an encoder; None of another model."""
    names = {name for name, _ in model.named_modules()}
    decoders = (name for name in names if name.rpartition(".")[2] == "decoder")
    return next((name for name in decoders if _encoder_beside(name) in names), None)


def _encoder_beside(decoder: str) -> str:
    return f"{decoder.removesuffix('decoder')}encoder"


def refuse_other_inputs(model: nn.Module, hook: str, site: Site) -> None:
    """HookError for a hook that a forward pass over token ids alone does not compute, or computes otherwise than the
    model is meant to."""
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    name = type(model).__name__
    if model_type in _PREFIX_LM:
        raise HookError(
            f"hook {hook!r} of {name} cannot be read: {_PREFIX_LM[model_type]}, and a corpus gives token ids alone; "
            "take a model of text"
        )
    if missing := _missing_of_every_token(model, site.path):
        raise HookError(
            f"hook {hook!r} of {name} cannot be read: its forward pass needs {missing} beside every token, and a "
            "corpus gives token ids alone; take a model of text"
        )
    decoder = decoder_path(model)
    if decoder is not None and _is_within(site.path, decoder):
        raise HookError(
            f"hook {hook!r} is in the decoder of {name}, whose forward pass needs decoder_input_ids, and a corpus "
            "gives the encoder's input alone: take a hook of the encoder"
        )
    reader, wanted = _reader_of(model, site.path)
    if wanted not in _TEXT_INPUTS and (reader is not model or not _takes_token_ids(model)):
        inputs = wanted if isinstance(wanted, str) else " and ".join(wanted)
        raise HookError(
            f"hook {hook!r} is in {type(reader).__name__}, which reads {inputs}, and a corpus gives token ids alone: "
            "take a hook of a model of text"
        )


def explain_not_run(model: nn.Module, hook: str, site: Site) -> HookError:
    """Why a hook did not give anything in a whole forward pass over text."""
    module = model.get_submodule(site.path)
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        members = ", ".join(f"{site.path}.{name}" for name, _ in list(module.named_children())[:2])
        return HookError(
            f"hook {hook!r} is a container of modules, which is not itself run: take one of its members, such as "
            f"{members}"
        )
    return HookError(
        f"hook {hook!r} is part of the model but did not run in its forward pass over text: take a module that does"
    )


@torch.inference_mode()
def readable_modules(model: nn.Module) -> dict[str, int]:
    """Modules whose output in a forward pass over text is [samples, positions, width], and how often each runs.

    From one pass over 2 samples of 3 tokens; where that fails, what had run until then.
    """
    runs, unfit, shapes = Counter[str](), set[str](), dict[str, set[int]]()

    def look(name: str) -> Any:
        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            runs[name] += 1
            if not isinstance(tensor, Tensor) or tensor.dim() != 3 or tensor.shape[0] != 2:
                unfit.add(name)
            else:
                shapes.setdefault(name, set()).add(tensor.shape[1])

        return after

    ids = torch.tensor([[1, 2, 1], [2, 1, 2]], device=next(model.parameters()).device)
    with _hooks_on_all(model, look), noting_positions(model, ids) as positions, contextlib.suppress(Exception):
        run_text(model, ids)
    unfit |= {name for name, found in shapes.items() if not found <= positions}
    return {name: count for name, count in runs.items() if name and name not in unfit}


@contextlib.contextmanager
def noting_positions(model: nn.Module, token_ids: Tensor) -> Iterator[set[int]]:
    """How many positions the samples of int64 [B, T] may have in a pass within the block: T and, after the pass, the
    number that the model embeds. That is larger in one that fills samples up to its attention window: Longformer embeds
    longer samples, LED embeds the rest by itself."""
    positions, runs = {token_ids.shape[1]}, list[int]()

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if isinstance(tensor, Tensor) and tensor.dim() == 3:
            runs.append(tensor.shape[1])
            positions.add(max(sum(runs), token_ids.shape[1]))

    embedding = _token_embedding(model)
    handle = None if embedding is None else embedding.register_forward_hook(note)
    try:
        yield positions
    finally:
        if handle is not None:
            handle.remove()


@contextlib.contextmanager
def _hooks_on_all(model: nn.Module, make: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(make(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reader_of(model: nn.Module, path: str) -> tuple[nn.Module, Any]:
    """The innermost model of transformers around a module, and the name of its main input."""
    around = [
        module
        for name, module in model.named_modules()
        if _is_within(path, name) and getattr(module, "main_input_name", None)
    ]
    return (around[-1], around[-1].main_input_name) if around else (model, "input_ids")


def _takes_token_ids(model: nn.Module) -> bool:
    return "input_ids" in inspect.signature(model.forward).parameters


def attention_window(config: Any) -> int | None:
    """The number to whose multiple a model fills samples up (Longformer, LED), by its configuration; None of others."""
    window = getattr(config, "attention_window", None)
    if isinstance(window, (list, tuple)):  # of each block
        window = max(window, default=None)
    return window if isinstance(window, int) and window > 0 else None


def _missing_of_every_token(model: nn.Module, path: str) -> str | None:
    """What a model around ``path`` is meant to be given of every token beside its id; None of a model of text.

    Kinds of a token that text has too, as BERT's token_type_ids, are not such: zeros are right for one segment.
    """
    around = [module for name, module in model.named_modules() if name and _is_within(path, name)]
    for reader in (model, *(module for module in around if getattr(module, "main_input_name", None))):
        parameters, config = inspect.signature(reader.forward).parameters, getattr(reader, "config", None)
        found = [name for name in parameters if _OF_EVERY_TOKEN.fullmatch(name)]
        kinds = getattr(config, "type_vocab_sizes", None)
        if "token_type_ids" in parameters and isinstance(kinds, (list, tuple)) and len(kinds) > 1:
            found.append(f"token_type_ids of {len(kinds)} kinds")  # TAPAS: the column and row of a table, ranks, …
        if "langs" in parameters and getattr(config, "use_lang_emb", False) and getattr(config, "n_langs", 1) > 1:
            found.append("langs")  # XLM of several languages
        if found:
            return " and ".join(found)
    return None


def _token_embedding(model: nn.Module) -> nn.Module | None:
    """The module that embeds token ids; None if the model does not name it."""
    try:
        found = text_reader(model).get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def _is_within(path: str, outer: str) -> bool:
    return outer == "" or path == outer or path.startswith(f"{outer}.")
