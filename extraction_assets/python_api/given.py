"""What a program gives to ``extract``: models and SAEs by name or loaded, and texts."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from extraction_assets.engine.corpora.documents import CorpusError, Document
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.engine.models.tokenizers.tokenizer import TokenizerError, load_tokenizer
from extraction_assets.engine.saes.published import registry
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.settings import CheckpointReference

IN_MEMORY = "in memory"
"""In the place of a path, for what comes from no file."""


class GivenModel(NamedTuple):
    """A language model: by its path, or loaded."""

    path: str
    module: nn.Module | None = None
    checkpoint: LocalCheckpoint | None = None
    """Of a loaded model: a folder with its configuration and tokenizer, and no weights."""
    tokenizer: Any | None = None
    """None of a model by its path whose own tokenizer is used."""


class GivenSae(NamedTuple):
    """An SAE: by what names it, or loaded."""

    fields: dict[str, Any]
    """Of its settings."""
    loaded: SAE | None = None


def given_model(model: Any, tokenizer: Any | None, folder: Path) -> GivenModel:
    """``folder`` is where the configuration of a loaded model is written. Raises TokenizerError for a model that comes
    from nowhere and without a tokenizer; TypeError for what is no model."""
    if isinstance(model, str | Path):
        return GivenModel(str(model), tokenizer=tokenizer)
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise TypeError(f"model is a {type(model).__name__}: give a folder, a hub id or a model of transformers")
    config: Any = model.config
    config.save_pretrained(folder)
    path = str(getattr(config, "_name_or_path", "") or IN_MEMORY)
    tokenizer = tokenizer or _tokenizer_at(path)
    tokenizer.save_pretrained(folder)
    return GivenModel(path, model, LocalCheckpoint(folder), tokenizer)


def _tokenizer_at(path: str) -> Any:
    try:
        return load_tokenizer(resolve_checkpoint(CheckpointReference(path)))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"the loaded model's tokenizer is not known ({error}): give it, tokenizer=…") from error


def given_sae(sae: Any, folder: Path) -> GivenSae:
    """``folder`` is where an SAE of sae-lens is written. Raises TypeError for what is no SAE."""
    if isinstance(sae, SAE):
        recorded = {"hook": sae.record.hook, "hook_out": sae.record.hook_out}
        return GivenSae({"path": IN_MEMORY, **recorded}, sae)
    if isinstance(sae, tuple) and len(sae) == 2:
        return GivenSae({"release": sae[0], "sae_id": sae[1]})
    if isinstance(sae, str | Path):
        return GivenSae(_named(str(sae)))
    if callable(getattr(sae, "save_model", None)):
        folder.mkdir()
        sae.save_model(folder)
        return GivenSae({"path": str(folder)})
    raise TypeError(f"sae is a {type(sae).__name__}: give a folder, release/sae_id, or a loaded SAE")


def _named(text: str) -> dict[str, str]:
    """A folder that is there, else a release with an id, else a repository of the hub."""
    release, _, sae_id = text.partition("/")
    if sae_id and release in registry().releases and not Path(text).expanduser().exists():
        return {"release": release, "sae_id": sae_id}
    return {"path": text}


def documents_of(texts: Iterable[str] | Mapping[str, str]) -> list[Document]:
    """Texts with their ids, by default their numbers from 0. Raises TypeError and CorpusError for other things."""
    if isinstance(texts, str):
        raise TypeError("texts is one text: give a list of texts")
    pairs = texts.items() if isinstance(texts, Mapping) else ((str(number), text) for number, text in enumerate(texts))
    documents: list[Document] = []
    for name, text in pairs:
        if not isinstance(text, str):
            raise TypeError(f"text {name} is a {type(text).__name__}, not a str")
        try:
            f"{name}{text}".encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"text {name} is not Unicode: it holds half of a surrogate pair") from error
        documents.append((str(name), text))
    if not documents:
        raise CorpusError("there is no text: give at least one")
    return documents


@contextlib.contextmanager
def as_it_was(module: nn.Module | None) -> Iterator[None]:
    """A loaded model is after the block as it was before: its modes, its cache and its attention."""
    if module is None:
        yield
        return
    config: Any = module.config
    of_text = config.get_text_config()
    modes = {one: one.training for one in module.modules()}
    cache, attention = getattr(of_text, "use_cache", None), getattr(config, "_attn_implementation", None)
    try:
        yield
    finally:
        for one, training in modes.items():
            one.training = training
        of_text.use_cache = cache
        if getattr(config, "_attn_implementation", None) != attention:
            module.set_attn_implementation(attention)  # type: ignore[operator]
