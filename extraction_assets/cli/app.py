"""The command group, and how errors are printed."""

import atexit
import gc
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from extraction_assets.cli.declared_extractions import see_working_directory
from extraction_assets.cli.terminal import echo
from extraction_assets.engine.corpora.visible_text import visible, visible_log
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.host.disk import FULL, ensure_temporary_folder, free_bytes, full_disk, is_read_only, says_no_room
from extraction_assets.host.project_home import use_project_of_module

DEFAULT_MODULE = "extraction_assets.definitions"
_PACKAGE = "extraction_assets."


def command_line(module: str) -> str:
    """How this command was called, for hints: with ``--module`` where one was given."""
    return "extraction-assets" + ("" if module == DEFAULT_MODULE else f" --module {module}")


def count(number: int, noun: str) -> str:
    """``1 chunk``, ``2 chunks``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def few(keys: Sequence[str], most: int = 3) -> str:
    """The first of some keys: ``000000000000, 000000000500, 000000001000, …``."""
    return ", ".join([*keys[:most], *(["…"] if len(keys) > most else [])])


def numbered(keys: Sequence[str], every: Sequence[str], most: int = 3) -> str:
    """The first of some chunks, in order, and their numbers as ``run --chunks`` takes them:
    ``000000000000, 000000000500 (--chunks 0:2)``."""
    bounds: list[list[int]] = []
    for number in map(list(every).index, keys):
        if bounds and bounds[-1][1] == number:
            bounds[-1][1] += 1
        else:
            bounds.append([number, number + 1])
    return f"{few(keys, most)} (--chunks {few([f'{first}:{end}' for first, end in bounds], most)})"


def explain(error: BaseException) -> str:
    """What went wrong, without the traceback: the outermost error of this package, which names the file, else the first
    cause; after a line with the YAML file where it lies in one.

    What a message quotes of a file is shown by ``visible``, so no more than these lines come of it.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    first = next((cause for cause in causes if type(cause).__module__.startswith(_PACKAGE)), causes[-1])
    if says_no_room(error) and not _names_its_file(first):
        return visible(_no_room(first))
    if isinstance(first, ValidationError):  # pydantic's own text has many lines
        from extraction_assets.defs_yaml.errors import sentences

        return visible("; ".join(sentences(first)))
    plain = isinstance(first, (ValueError, LookupError, FileNotFoundError))
    said = str(first).partition("\n[SQL:")[0].strip()  # SQLAlchemy adds the statement with all its values
    message = said if plain else f"{type(first).__name__}: {said}"
    component = [str(cause) for cause in causes if type(cause).__name__ == "ComponentTreeException"]
    where = visible(component[-1].splitlines()[0]) + "\n" if component else ""
    return where + visible(message)


def _names_its_file(error: BaseException) -> bool:
    """Whether an error says itself which file of the database is not writable."""
    from extraction_assets.database.errors import NotWritableError

    return isinstance(error, NotWritableError)


def _no_room(error: BaseException) -> str:
    """Which file cannot be written, and on which full disk; the home of the database if its error names no file."""
    from extraction_assets.host.locations import dagster_home, extraction_home

    name = getattr(error, "filename", None)
    if name is None:
        homes = [dagster_home(), extraction_home()]
        name = next((folder for folder in homes if free_bytes(folder) < FULL), homes[0])
    path = Path(os.fsdecode(name))
    remedy = (
        "Mount it writable, or set EXTRACTION_HOME and DAGSTER_HOME to folders on another disk"
        if is_read_only(path.parent)
        else "Make room there; `extraction-assets clean` needs none"
    )
    return f"{path} cannot be written: {full_disk(path)}. {remedy}"


class _Group(click.Group):
    """Prints errors that a user can fix as one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.__dict__["message"] = visible(error.message)  # its type calls it final
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # the reader has had enough (`| head`): click ends silently, as other tools do
        except Exception as error:
            if ctx.params.get("debug"):
                echo(*traceback.format_exc().split("\n"), err=True)
                ctx.exit(1)
            raise click.ClickException(explain(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--module",
    default=DEFAULT_MODULE,
    show_default=True,
    help="Python module with the Dagster definitions that hold the extractions.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and Dagster's own log.")
@click.version_option(package_name="extraction-assets")
@click.pass_context
def main(ctx: click.Context, module: str, debug: bool) -> None:
    """Find the text that makes each feature of a sparse autoencoder fire most.

    Files live under EXTRACTION_HOME, results in the database at EXTRACTION_DATABASE_URL, Dagster's history
    under DAGSTER_HOME.
    """
    if logging.lastResort is not None:  # what a library warns of, which Python prints where no handler is set
        logging.lastResort.addFilter(visible_log)
    atexit.register(gc.freeze)  # what is loaded stays to the end: to look for garbage in it then takes 0.4 s
    ctx.with_resource(hub_downloads(logging.getLogger(__name__)))
    ensure_temporary_folder()
    see_working_directory()
    use_project_of_module(module)
    ctx.obj = module
