"""The text of the YAML file that ``init`` writes."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import yaml

from extraction_assets.catalog import MODEL_ACTIVATIONS
from extraction_assets.engine.saes.published import published_sae
from extraction_assets.engine.saes.published.described import exact_hook
from extraction_assets.settings import STANDARD_LIBRARY, CorpusSettings, is_hub_id, is_url

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEMPLATE = """\
# `{command} check {name}` looks for mistakes, `{command} run {name}` runs it.
# Every field and its default: docs/settings.md in the repository of extraction-assets.
type: extraction_assets.FeatureExtraction

attributes:
  language_model:
    path: {model} # a folder (relative to this file) or a hub id
    # revision: main # branch, tag or commit of a hub model
    # dtype: bfloat16 # by default the checkpoint's on a GPU, float32 on a CPU
  corpus:
    source: {source} # the text
{options}
    max_length: {max_length} # positions of a sample, BOS included: at most the context that model and SAE were made for
    # exclude_first_positions: 1 # first positions that do not count, where they drown all others
  saes: # any number; they share one forward pass
{saes}
  evaluation_samples: {samples} # samples to run{of}; raise it later and only new chunks are computed
  # chunk_size: 5000 # samples of a chunk: what is computed, stored and done again at once
  # top_k_examples: 100 # strongest examples kept for every feature
  # keep: {{{largest}: false}} # the largest files by far: `clean` removes them once they are merged
"""
_SAE = """\
    {name}:
{place}
{hook}
      # minimum_variance_explained: 0.5 # a run stops below it: set it just below what `check` shows"""


class DeclaredSae(NamedTuple):
    """One ``--sae`` with what goes with it."""

    name: str
    path: str | None = None
    """As it was typed; None where release and id alone name it."""
    subfolder: str | None = None
    hook: str | None = None
    """None if the checkpoint, which is on the hub, may say it."""
    recorded: bool = False
    """Whether the hook stands in the checkpoint."""
    release: str | None = None
    sae_id: str | None = None

    @property
    def fields(self) -> dict[str, str | None]:
        """The settings that are declared."""
        names = ("release", "sae_id", "path", "subfolder", "hook")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def yaml_text(
    name: str,
    command: str,
    folder: Path,
    *,
    model: str,
    corpus: CorpusSettings,
    saes: Sequence[DeclaredSae],
    evaluation_samples: int,
    fewer_than_requested: bool,
) -> str:
    """The file's text; paths that exist are written relative to ``folder``, where it will lie.

    ``model``, ``corpus.source`` and the paths of ``saes`` are as they were typed. One error for what is not there.
    """
    return _TEMPLATE.format(
        largest=MODEL_ACTIVATIONS,
        command=command,
        name=name,
        model=_scalar(_written(model, folder, "--model")),
        source=_scalar(_written_corpus(corpus.source, folder)),
        options="\n".join(_options(corpus)),
        max_length=corpus.max_length,
        samples=evaluation_samples,
        of=", as many as were counted" if fewer_than_requested else "",
        saes="\n".join(_sae_block(one, folder) for one in saes),
    )


def check_paths(model: str, corpus: str, saes: Sequence[DeclaredSae], folder: Path) -> None:
    """One error for a folder, file or glob that is not there and can be no hub id."""
    _written(model, folder, "--model")
    for sae in saes:
        if sae.path is not None:
            _written(sae.path, folder, "--sae")
    _written_corpus(corpus, folder)


def _options(corpus: CorpusSettings) -> list[str]:
    """Lines of the corpus's options that are set."""
    lines = [
        f"    {field}: {_scalar(value)}"
        for field in ("read_as", "text_column", "token_column", "messages_column")
        if (value := getattr(corpus, field)) != CorpusSettings.model_fields[field].default
    ]
    if corpus.shuffle_seed is None:
        return [*lines, "    # shuffle_seed: 0 # takes documents in a random order that stays"]
    order = "documents in a random order that stays, so that samples come from all of them"
    return [*lines, f"    shuffle_seed: {corpus.shuffle_seed} # {order}"]


def _sae_block(sae: DeclaredSae, folder: Path) -> str:
    if sae.hook is None:
        hook = f"      # hook: {_example_hook(sae)} # what it reads; by default what the checkpoint records"
    else:
        source = ", by its checkpoint" if sae.recorded else ""
        hook = f"      hook: {_scalar(sae.hook)} # what it reads{source}"
    return _SAE.format(name=_scalar(sae.name), place="\n".join(_place(sae, folder)), hook=hook)


def _place(sae: DeclaredSae, folder: Path) -> Iterator[str]:
    """Lines that say which checkpoint it is."""
    if sae.release is not None:
        yield f"      release: {_scalar(sae.release)} # a name of SAELens: `extraction-assets saes` lists them"
        yield f"      sae_id: {_scalar(sae.sae_id or '')}"
    if sae.path is None:
        yield "      # path: DIR # a copy by `hf download REPOSITORY --local-dir DIR`; by default from the hub"
    else:
        path = _scalar(_written(sae.path, folder, "--sae"))
        what = "a folder (relative to this file) or a hub id" if sae.release is None else "a copy of it, or a part"
        yield f"      path: {path} # {what}"
    if sae.subfolder:
        yield f"      subfolder: {_scalar(sae.subfolder)}"


def _example_hook(sae: DeclaredSae) -> str:
    """The hook that the SAE's id names, or any."""
    named = published_sae(sae.release, sae.sae_id or "") if sae.release else None
    return (named and exact_hook(named)) or "model.layers.12"


def _written(path: str, folder: Path, option: str) -> str:
    """A checkpoint as the file names it: a folder relative to ``folder``, a hub id as it is."""
    local = Path(path).expanduser()
    if local.is_dir() or (option == "--sae" and local.is_file()):  # one file among those of other SAEs
        return _relative(local, folder)
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise click.ClickException(f"{option} {path}: there is no such folder")
    return path


def _written_corpus(source: str, folder: Path) -> str:
    """A corpus source as the file names it: files relative to ``folder``, what can be no path as it is."""
    local = Path(source).expanduser()
    if source == STANDARD_LIBRARY or is_url(source):
        return source
    if os.path.lexists(local) or glob.glob(str(local)) or "**" in local.parts:
        return _relative(local, folder)
    if not is_hub_id(source):
        raise click.ClickException(f"--corpus {source}: there is no such file or folder, and the glob matches none")
    return source


def _relative(path: Path, folder: Path) -> str:
    """A path from ``folder``, beginning with a dot so that it does not look like a hub id. The last parts are not
    resolved, because of a glob they do not exist."""
    relative = os.path.relpath(path.absolute(), folder.resolve())
    return relative if relative.startswith("..") else f"./{relative}"


def _scalar(value: str) -> str:
    """Text as YAML writes it: in quotes where it needs them."""
    return yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
