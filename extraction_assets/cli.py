"""``extraction-assets``: run, show, list and watch extractions from a terminal."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.home import prepare_dagster_home

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import dagster as dg
    import sqlalchemy as sa

    from extraction_assets.plan import ExtractionPlan
    from extraction_assets.settings import ExtractionSettings

_CHUNK_ASSETS = ("model_activations", "sae_features", "top_k_table")


def _sentence(error: BaseException) -> str:
    """What went wrong, without the traceback: the first cause, and the YAML file where it lies in one."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    first = causes[-1]
    plain = isinstance(first, (ValueError, LookupError, FileNotFoundError))
    message = str(first).strip() if plain else f"{type(first).__name__}: {str(first).strip()}"
    component = [str(cause) for cause in causes if type(cause).__name__ == "ComponentTreeException"]
    where = component[-1].splitlines()[0] + "\n" if component else ""
    return f"{where}{message}"


def _batch_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    from extraction_assets.engine.batching import parse_batch_size

    try:
        return None if value is None else parse_batch_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


class _Group(click.Group):
    """Errors that a user can mend are one sentence, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(_sentence(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--module",
    default="extraction_assets.definitions",
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
    ctx.obj = module


@main.command("list")
@click.pass_obj
def list_command(module: str) -> None:
    """List the declared extractions, their SAEs and how much is done."""
    for settings in _extractions(_definitions(module)).values():
        click.echo(click.style(settings.name, bold=True) + f"  {settings.language_model.path}")
        for name, sae in settings.saes.items():
            click.echo(f"  {name:12} {sae.hook:20} {sae.path}")
        click.echo(
            f"  {settings.evaluation_samples} samples of {settings.corpus.max_length} tokens in "
            f"{len(settings.chunk_keys)} chunks, the {settings.top_k_examples} strongest examples of every feature"
        )


@main.command()
@click.argument("name")
@click.option(
    "--chunks",
    metavar="A:B",
    help="Only chunks A to B-1, counted from 0, as in a Python slice. Merges only once no other chunk is missing.",
)
@click.option("--missing", is_flag=True, help="Only chunks without a durable top-k table of the current settings.")
@click.option("--device", help="auto, cpu, cuda:0, …; as in the GPU resource, like the options below.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of one forward pass.")
@click.option("--vectorization-batch-size", metavar="auto|N", callback=_batch_size, help="Samples reduced at once.")
@click.option("--vectorized/--legacy", default=None, help="The fast engine, or the sequential loop it replaces.")
@click.pass_context
def run(ctx: click.Context, name: str, chunks: str | None, missing: bool, **options: Any) -> None:
    """Run extraction NAME: its corpus, then its chunks, then the merge of each SAE.

    Every part is a run of its own on the persistent Dagster instance, so that the UI shows it afterwards.
    """
    from extraction_assets.runner import Runner

    definitions = _definitions(ctx.obj)
    settings = _find(definitions, name)
    chosen = _chosen_chunks(settings, chunks)
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    started = time.perf_counter()
    with Runner(definitions, settings, options, verbose=ctx.parent.params["debug"] if ctx.parent else False) as runner:
        click.echo(f"corpus of {name}", err=True)
        runner.materialize_corpus()
        keys = [key for key in runner.missing_chunks() if key in chosen] if missing else chosen
        for first, last in runner.ranges(keys):
            click.echo(f"chunks {first} to {last}", err=True)
            runner.materialize_chunks(first, last, only_missing=missing)
        left = runner.missing_chunks()
        if left:
            click.echo(f"{len(left)} of {len(settings.chunk_keys)} chunks are missing: nothing merged yet")
            return
        for sae in settings.saes:
            click.echo(f"merge of {sae}", err=True)
            runner.merge(sae)
    seconds = time.perf_counter() - started
    _say_what_is_there(definitions, settings, runner.store_root)
    click.echo(f"\n{len(keys)} chunks, {len(settings.saes)} merge(s): {seconds:.1f} s")


def _say_what_is_there(definitions: "dg.Definitions", settings: "ExtractionSettings", store: Path) -> None:
    """The end of a complete run: five features, and where things are."""
    first = next(iter(settings.saes))
    click.echo(f"\nFive features of {settings.name}/{first}, [strongest token] in context:\n")
    with _database(definitions) as engine:
        _show_features(engine, settings.name, None, first, limit=3, width=8)
        click.echo(f"database   {engine.url.render_as_string(hide_password=True)}")
    click.echo(f"files      {store}")
    click.echo(f"more       extraction-assets show {settings.name} FEATURE --sae {first}")
    click.echo("UI         extraction-assets ui")


@main.command()
@click.argument("name")
@click.argument("feature", type=int, required=False)
@click.option("--sae", help="Short name of the SAE, where the extraction has several.")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(min=1), help="Examples of a feature.")
@click.option("--context", "width", default=12, show_default=True, type=click.IntRange(min=0), help="Tokens each side.")
@click.pass_obj
def show(module: str, name: str, feature: int | None, sae: str | None, limit: int, width: int) -> None:
    """Show examples of FEATURE in context; without FEATURE, of five features that are easy to read."""
    with _database(_definitions(module)) as engine:
        _show_features(engine, name, feature, sae, limit, width)


def _show_features(
    engine: "sa.Engine", name: str, feature: int | None, sae: str | None, limit: int, width: int
) -> None:
    from extraction_assets.database import queries
    from extraction_assets.terminal import feature_lines

    with engine.connect() as connection:
        extraction = queries.find_extraction(connection, name, sae)
        chosen = [feature] if feature is not None else queries.readable_features(connection, extraction.id)
        for index in chosen:
            statistics = queries.find_feature(connection, extraction.id, index)
            examples = queries.examples_of(connection, extraction.id, index, limit)
            click.echo("\n".join(feature_lines(statistics, examples, width)) + "\n")


@main.command()
@click.argument("name")
@click.pass_obj
def status(module: str, name: str) -> None:
    """Say which chunks of extraction NAME are done, stale (made from other settings) or missing, and what is merged."""
    from extraction_assets.plan import CorpusNotReady, ExtractionPlan

    definitions = _definitions(module)
    settings = _find(definitions, name)
    store = definitions.resources["chunk_store"].open()  # type: ignore[index]
    try:
        plan = ExtractionPlan(settings, store)
    except CorpusNotReady as error:
        click.echo(f"{error}\nall {len(settings.chunk_keys)} chunks are missing")
        return
    click.echo(f"corpus: {len(plan.corpus)} samples, {plan.corpus.folder}")
    click.echo(f"{'':28} {'done':>6} {'stale':>6} {'missing':>8}")
    for asset in _CHUNK_ASSETS:
        for sae in [None] if asset == "model_activations" else settings.saes:
            states = [plan.chunk_state(asset, key, sae) for key in settings.chunk_keys]  # type: ignore[arg-type]
            counts = "{:6} {:6} {:8}".format(*(states.count(s) for s in ("done", "stale", "missing")))
            click.echo(f"{(sae + '/' if sae else '') + asset:28} {counts}")
    with _database(definitions) as engine:
        for sae in settings.saes:
            click.echo(f"{sae + '/feature_examples':28} {_merge_state(engine, plan, sae)}")


@main.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workspace", type=click.Path(exists=True, dir_okay=False), help="workspace.yaml to serve.")
@click.pass_obj
def ui(module: str, port: int, workspace: str | None) -> None:
    """Serve Dagster's UI on 127.0.0.1 together with its daemon, until Ctrl-C."""
    home = prepare_dagster_home()
    programs = Path(sys.executable).parent
    if not (programs / "dagster-webserver").is_file():
        raise click.ClickException("dagster-webserver is not installed: pip install 'extraction-assets[ui]'")
    target = ["-w", workspace] if workspace else ["-m", module]
    commands = [
        [str(programs / "dagster-daemon"), "run", *target],
        [str(programs / "dagster-webserver"), *target, "-h", "127.0.0.1", "-p", str(port)],
    ]
    click.echo(f"http://127.0.0.1:{port}  (Dagster home {home}; Ctrl-C ends it)")
    _run_together(commands)


def _run_together(commands: list[list[str]]) -> None:
    """Run commands until one of them ends, or this process is asked to, then end them all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes = [subprocess.Popen(command) for command in commands]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        click.echo("ending")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def _definitions(module: str) -> "dg.Definitions":
    """The definitions of a module, on a prepared Dagster home."""
    prepare_dagster_home()
    _quieten()
    import dagster as dg

    loaded = import_module(module)
    for value in vars(loaded).values():
        # @dg.definitions gives an object of a private type that is called for its definitions
        made = value() if type(value).__name__ == "LazyDefinitions" else value
        if isinstance(made, dg.Definitions):
            return made
    raise click.ClickException(f"module {module} holds no Dagster definitions")


def _extractions(definitions: "dg.Definitions") -> "dict[str, ExtractionSettings]":
    """The extractions among the definitions, by name: their settings stand in the corpus assets' metadata."""
    from extraction_assets.assets.keys import SETTINGS_METADATA
    from extraction_assets.settings import ExtractionSettings

    found = {}
    for spec in definitions.resolve_all_asset_specs():
        value = spec.metadata.get(SETTINGS_METADATA)
        if value is not None:
            settings = ExtractionSettings.model_validate(getattr(value, "data", value))
            found[settings.name] = settings
    return dict(sorted(found.items()))


def _find(definitions: "dg.Definitions", name: str) -> "ExtractionSettings":
    extractions = _extractions(definitions)
    if name not in extractions:
        raise click.ClickException(f"no extraction {name!r}; declared are: {', '.join(extractions) or 'none'}")
    return extractions[name]


def _chosen_chunks(settings: "ExtractionSettings", chunks: str | None) -> list[str]:
    """The keys that a slice of all chunks holds."""
    if chunks is None:
        return settings.chunk_keys
    match = re.fullmatch(r"(\d*):(\d*)", chunks)
    if not match:
        raise click.ClickException(f"--chunks takes A:B with whole numbers, such as 0:4, got {chunks!r}")
    start, stop = (int(text) if text else None for text in match.groups())
    inside = settings.chunk_keys[slice(start, stop)]
    if not inside:
        raise click.ClickException(f"--chunks {chunks} holds none of the {len(settings.chunk_keys)} chunks")
    return inside


def _merge_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str) -> str:
    """Whether the database holds the merge of the current chunks."""
    import sqlalchemy as sa

    from extraction_assets.database.tables import extractions

    own = (extractions.c.name == plan.settings.name) & (extractions.c.sae == sae)
    with engine.connect() as connection:
        row = connection.execute(sa.select(extractions).where(own)).one_or_none()
    if row is None:
        return "not merged yet"
    current = row.fingerprint == plan.merge_fingerprint(sae)
    return f"merged {row.finished_at:%Y-%m-%d %H:%M} UTC" + ("" if current else ", stale: made from other settings")


def _database(definitions: "dg.Definitions") -> "AbstractContextManager[sa.Engine]":
    """The results database that the definitions' own resource names."""
    opened: AbstractContextManager[sa.Engine] = (definitions.resources or {})["results"].open()
    return opened


def _quieten() -> None:
    """Keep what Dagster and transformers print out of a terminal that shows a progress bar."""
    logging.getLogger("dagster").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    main()
