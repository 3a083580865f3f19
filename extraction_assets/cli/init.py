"""``init``: writes the YAML block of a new extraction."""

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from pydantic import ValidationError

from extraction_assets.cli.app import DEFAULT_MODULE, command_line, main
from extraction_assets.cli.declared_extractions import see_working_directory
from extraction_assets.cli.init_examination import (
    one_sentence_of,
    refuse_unknown_hooks,
    samples_there_are,
    shuffled,
    usual_length,
    with_chat_column,
)
from extraction_assets.cli.init_file import DeclaredSae, check_paths, yaml_text
from extraction_assets.cli.init_saes import declared_saes, sentences_on
from extraction_assets.cli.terminal import echo
from extraction_assets.settings import ExtractionSettings, check_name


@main.command()
@click.argument("name")
@click.option("--model", required=True, help="Folder of a Hugging Face model, or its hub id.")
@click.option(
    "--sae",
    "saes",
    required=True,
    multiple=True,
    help="Folder of an SAE, its name RELEASE/ID as in SAELens (`saes` lists them), or its hub id; may be repeated.",
)
@click.option(
    "--hook",
    "hooks",
    multiple=True,
    help="What the SAEs read, such as model.layers.12 or blocks.12.hook_resid_post: once for all, or once for each "
    "--sae in the same order.  [default: what the checkpoint records]",
)
@click.option(
    "--subfolder",
    "subfolders",
    multiple=True,
    help="Folder of each SAE inside --sae of a path, as --hook once or for each.",
)
@click.option(
    "--sae-name",
    "names",
    multiple=True,
    help="Short name of each --sae.  [default: its id, or the last part of its path]",
)
@click.option(
    "--corpus", required=True, help="Texts: a file, folder or glob, the hub id of a data set, or standard-library."
)
@click.option(
    "--read-as",
    type=click.Choice(["text", "jsonl", "parquet"]),
    help="What --corpus's files are.  [default: by their names]",
)
@click.option("--text-column", help="Column (JSONL: key) of a document's text.  [default: text]")
@click.option("--token-column", help="Column of token ids, where documents are tokenized already.")
@click.option("--messages-column", help="Column of a chat's messages.  [default: found where there is no text]")
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Tokens of a sample.  [default: 128, of chats 1024, or what a local model was made for where that is less]",
)
@click.option(
    "--samples",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Samples to run; as many as there are where a local corpus holds fewer.",
)
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
    max_length: int | None,
    samples: int,
    defs_folder: Path | None,
    **columns: str | None,
) -> None:
    """Declare a new extraction NAME: writes its defs.yaml, which says what the fields mean that one changes most.

    Refuses a hook that a local model does not have, and counts the samples of a local corpus, so that the file asks for
    no more than there are. Paths that exist are written relative to that file. Never overwrites a file.
    """
    check_name(name, "extraction name")
    folder = (defs_folder or _defs_folder(module)).absolute() / name
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(
            f"{folder} is there already and is left as it is: edit its defs.yaml, or choose another name"
        )
    declared = declared_saes(saes, hooks, subfolders, names)
    options = {field: value for field, value in columns.items() if value is not None}
    declare = partial(_settings, name, model, declared, samples)
    # What the settings themselves refuse comes first.
    typed = declare({"source": corpus, **options}, max_length or 1)
    check_paths(model, corpus, declared, folder)
    chats = _chat_column(typed, corpus)
    read = typed.corpus.model_copy(update=chats)
    usual = usual_length(model, read)
    settings = declare({"source": corpus, **options, **chats}, usual if max_length is None else max_length)
    found, sentences = _examined(settings, corpus)
    sentences = [*(f"corpus  holds chats, in its column {column}" for column in chats.values()), *sentences]
    text = yaml_text(
        name,
        command_line(module),
        folder,
        model=model,
        corpus=found.corpus.model_copy(update={"source": corpus}),
        saes=declared,
        evaluation_samples=found.evaluation_samples,
        fewer_than_requested=found.evaluation_samples < samples,
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "defs.yaml").open("xb") as file:
        file.write(text)
    echo(f"wrote {folder / 'defs.yaml'}")
    for sentence in (*sentences, *sentences_on(declared, model, settings.corpus.max_length)):
        echo(sentence)
    echo(f"next  {command_line(module)} check {name}")
    echo(f"      {command_line(module)} run {name}")


def _chat_column(settings: ExtractionSettings, corpus: str) -> dict[str, str]:
    """The field that says where the chats of a local corpus are, if none is typed and the corpus holds no text."""
    typed = settings.with_paths_from(Path.cwd()).corpus
    with one_sentence_of(f"--corpus {corpus}"):
        found = with_chat_column(typed).messages_column
    return {} if found is None or typed.messages_column else {"messages_column": found}


def _examined(settings: ExtractionSettings, corpus: str) -> tuple[ExtractionSettings, list[str]]:
    """The settings with the number of samples found, and a note on it; one error for invalid values."""
    here = settings.with_paths_from(Path.cwd())
    sentences = [f"hooks  {sentence}" for sentence in refuse_unknown_hooks(here)]
    column = here.corpus.messages_column
    with one_sentence_of(f"--corpus {corpus}" + (f", chats in its column {column}" if column else "")):
        here = here.model_copy(update={"corpus": shuffled(here.corpus)})
        samples, sentence = samples_there_are(here)
    return here.model_copy(update={"evaluation_samples": samples}), [*sentences, f"corpus  {sentence}"]


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


def _settings(
    name: str, model: str, saes: Sequence[DeclaredSae], samples: int, corpus: dict[str, str], max_length: int
) -> ExtractionSettings:
    """What is declared, validated as settings are; a refusal is one sentence."""
    values = {
        "name": name,
        "language_model": {"path": model},
        "corpus": {**corpus, "max_length": max_length},
        "saes": {sae.name: sae.fields for sae in saes},
        "evaluation_samples": samples,
    }
    try:
        return ExtractionSettings.model_validate(values)
    except ValidationError as error:
        sentences = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        raise click.ClickException("; ".join(sentences)) from error
