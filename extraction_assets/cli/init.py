"""``init``: writes the YAML block of a new extraction."""

import glob
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import yaml
from pydantic import ValidationError

from extraction_assets.cli.app import DEFAULT_MODULE, command_line, main
from extraction_assets.cli.declared import see_working_directory
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings, SaeSettings, check_name
from extraction_assets.terminal import echo

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_SET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIX = re.compile(r"\.(txt|md|py|json|jsonl|ndjson|parquet|arrow|csv|gz|bz2|zst)$")
_TEMPLATE = """\
# `{command} check {name}` looks for mistakes, `{command} run {name}` runs it.
# Every field and its default: the README, "Your own extraction".
type: extraction_assets.FeatureExtraction

attributes:
  language_model:
    path: {model} # a folder (relative to this file) or a hub id
    # revision: main # branch, tag or commit of a hub model
    # dtype: bfloat16 # by default the checkpoint's on a GPU, float32 on a CPU
  corpus:
    source: {corpus} # the text
    max_length: {max_length} # positions of a sample, BOS included: at most the context that model and SAE were made for
    # exclude_first_positions: 1 # first positions that do not count, where they drown all others
  saes: # any number; they share one forward pass
{saes}
  evaluation_samples: {samples} # samples to run; raise it later and only new chunks are computed
  # chunk_size: 5000 # samples of a chunk: what is computed, stored and done again at once
  # top_k_examples: 100 # strongest examples kept for every feature
  # keep: {{model_activations: false}} # the largest files by far: `clean` removes them once they are merged
"""
_SAE = """\
    {name}:
      path: {path} # a folder (relative to this file) or a hub id
{subfolder}{hook}
      # minimum_variance_explained: 0.5 # a run stops below it: set it just below what `check` shows"""


class _Sae(NamedTuple):
    name: str
    path: str
    subfolder: str | None
    hook: str | None
    """None where the checkpoint, which is on the hub, may say it."""
    recorded: bool
    """Whether the hook stands in the checkpoint."""


@main.command()
@click.argument("name")
@click.option("--model", required=True, help="Folder of a Hugging Face model, or its hub id.")
@click.option("--sae", "saes", required=True, multiple=True, help="Folder of an SAE, or its hub id; may be repeated.")
@click.option(
    "--hook",
    "hooks",
    multiple=True,
    help="What the SAEs read, such as model.layers.12 or blocks.12.hook_resid_post: once for all, or once for each "
    "--sae in the same order.  [default: what the checkpoint records]",
)
@click.option(
    "--subfolder", "subfolders", multiple=True, help="Folder of each SAE inside --sae, as --hook once or for each."
)
@click.option(
    "--sae-name", "names", multiple=True, help="Short name of each --sae.  [default: the last part of its path]"
)
@click.option(
    "--corpus", required=True, help="Texts: a file, folder or glob, the hub id of a data set, or standard-library."
)
@click.option("--max-length", default=128, show_default=True, type=click.IntRange(min=1), help="Tokens of a sample.")
@click.option("--samples", default=10_000, show_default=True, type=click.IntRange(min=1), help="Samples to run.")
@click.option(
    "--defs-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that holds a folder for each extraction.  [default: defs beside the module of --module]",
)
@click.pass_obj
def init(
    module: str,
    name: str,
    model: str,
    saes: tuple[str, ...],
    hooks: tuple[str, ...],
    subfolders: tuple[str, ...],
    names: tuple[str, ...],
    corpus: str,
    max_length: int,
    samples: int,
    defs_folder: Path | None,
) -> None:
    """Declare a new extraction NAME: writes its defs.yaml, which says what the fields mean that one changes most.

    Paths that exist are written relative to that file. Never overwrites a file.
    """
    check_name(name, "extraction name")
    folder = (defs_folder or _defs_folder(module)).absolute() / name
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(
            f"{folder} is there already and is left as it is: edit its defs.yaml, or choose another name"
        )
    declared = _declared_saes(saes, hooks, subfolders, names)
    _validate(name, model, declared, corpus, max_length, samples)
    text = _TEMPLATE.format(
        command=command_line(module),
        name=name,
        model=_scalar(_written(model, folder, "--model")),
        corpus=_scalar(_written_corpus(corpus, folder)),
        max_length=max_length,
        samples=samples,
        saes="\n".join(_sae_block(one, folder) for one in declared),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "defs.yaml").open("x", encoding="utf-8") as file:
        file.write(text)
    echo(f"wrote {folder / 'defs.yaml'}")
    echo(f"next  {command_line(module)} check {name}")
    echo(f"      {command_line(module)} run {name}")


def _defs_folder(module: str) -> Path:
    """``defs`` beside a module of definitions, which is not run for this."""
    see_working_directory()
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise click.ClickException(f"there is no module {module}: name the folder to write to with --defs-folder")
    folder = Path(spec.origin).parent
    if module == DEFAULT_MODULE and not (folder.parent / "workspace.yaml").is_file():
        raise click.ClickException(
            f"extraction_assets is installed in {folder}, which is no place for extractions of your own: name your "
            "project's module with --module, or a folder with --defs-folder"
        )
    return folder / "defs"


def _declared_saes(
    paths: Sequence[str], hooks: Sequence[str], subfolders: Sequence[str], names: Sequence[str]
) -> list[_Sae]:
    """The SAEs with a name and a hook each; one error where these do not go with one another."""
    given_hooks = _one_each("--hook", hooks, len(paths))
    given_folders = _one_each("--subfolder", subfolders, len(paths))
    if len(names) not in (0, len(paths)):
        raise click.ClickException(f"{len(names)} --sae-name for {len(paths)} --sae: give one for each, or none")
    whole = [path if folder is None else f"{path}/{folder}" for path, folder in zip(paths, given_folders, strict=True)]
    chosen = names or [_default_name(path) for path in whole]
    doubled = [name for name in chosen if list(chosen).count(name) > 1]
    if doubled:
        raise click.ClickException(f"two SAEs would be called {doubled[0]}: give a --sae-name for each --sae")
    return [
        _Sae(name, path, folder, hook or _recorded_hook(path, folder), not hook)
        for name, path, folder, hook in zip(chosen, paths, given_folders, given_hooks, strict=True)
    ]


def _one_each(option: str, values: Sequence[str], count: int) -> list[str | None]:
    """The values of an option that is given once for all SAEs, or once for each."""
    if len(values) not in (0, 1, count):
        raise click.ClickException(f"{len(values)} {option} for {count} --sae: give one for all, or one for each")
    if not values:
        return [None] * count
    return [*values] * count if len(values) == 1 else [*values]


def _default_name(path: str) -> str:
    """The last part of a path or hub id, as it may stand in asset keys."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", Path(path).expanduser().absolute().name).strip("_") or "sae"


def _recorded_hook(path: str, subfolder: str | None) -> str | None:
    """The hook that a local checkpoint records; None for one of the hub, which is not asked here."""
    from extraction_assets.engine.sae_checkpoint import read_sae_record

    folder = Path(path).expanduser()
    if not folder.is_dir():
        return None
    hook = read_sae_record(SaeSettings(path=str(folder), subfolder=subfolder)).hook
    if hook is None:
        raise click.ClickException(f"--hook is needed: the checkpoint in {folder} does not say what it reads")
    return hook


def _validate(name: str, model: str, saes: Sequence[_Sae], corpus: str, max_length: int, samples: int) -> None:
    """The settings' own rules, in one sentence."""
    values = {
        "name": name,
        "language_model": {"path": model},
        "corpus": {"source": corpus, "max_length": max_length},
        "saes": {sae.name: {"path": sae.path, "subfolder": sae.subfolder, "hook": sae.hook} for sae in saes},
        "evaluation_samples": samples,
    }
    try:
        ExtractionSettings.model_validate(values)
    except ValidationError as error:
        sentences = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        raise click.ClickException("; ".join(sentences)) from error


def _sae_block(sae: _Sae, folder: Path) -> str:
    subfolder = f"      subfolder: {_scalar(sae.subfolder)}\n" if sae.subfolder else ""
    if sae.hook is None:
        hook = "      # hook: model.layers.12 # what it reads; by default what the checkpoint records"
    else:
        source = ", by its checkpoint" if sae.recorded else ""
        hook = f"      hook: {_scalar(sae.hook)} # what it reads{source}"
    path = _scalar(_written(sae.path, folder, "--sae"))
    return _SAE.format(name=_scalar(sae.name), path=path, subfolder=subfolder, hook=hook)


def _written(path: str, folder: Path, option: str) -> str:
    """A checkpoint as the file names it: a folder relative to ``folder``, a hub id as it is."""
    local = Path(path).expanduser()
    if local.is_dir():
        return _relative(local, folder)
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise click.ClickException(f"{option} {path}: there is no such folder")
    return path


def _written_corpus(source: str, folder: Path) -> str:
    """A corpus source as the file names it: files relative to ``folder``, what can be no path as it is."""
    local = Path(source).expanduser()
    if source != STANDARD_LIBRARY and (local.exists() or glob.glob(str(local), recursive=True)):
        return _relative(local, folder)
    if source != STANDARD_LIBRARY and (_FILE_SUFFIX.search(source) or not _DATA_SET_ID.fullmatch(source)):
        raise click.ClickException(f"--corpus {source}: there is no such file or folder, and the glob matches none")
    return source


def _relative(path: Path, folder: Path) -> str:
    """A path from ``folder``, beginning with a dot so that nobody takes it for a hub id. The last parts are not
    resolved, as a glob has none."""
    relative = os.path.relpath(path.absolute(), folder.resolve())
    return relative if relative.startswith("..") else f"./{relative}"


def _scalar(value: str) -> str:
    """Text as YAML writes it: in quotes where it needs them."""
    return yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
