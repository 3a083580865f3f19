"""``show`` and ``status``: what is there."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from extraction_assets.catalog import (
    FEATURE_DIRECTIONS,
    FEATURE_EXAMPLES,
    FEATURE_EXPORTS,
    FEATURE_RELATIONS,
    TOP_K_TABLE,
    chunk_assets,
    export_asset,
)
from extraction_assets.cli.app import command_line, count, few, main, numbered
from extraction_assets.cli.terminal import echo
from extraction_assets.cli.workspace import Workspace, open_workspace
from extraction_assets.engine.corpora.visible_text import SIGNS

if TYPE_CHECKING:
    import sqlalchemy as sa

    from extraction_assets.planning.plan import ExtractionPlan
    from extraction_assets.settings import ExtractionSettings


@main.command()
@click.argument("name")
@click.argument("feature", required=False, metavar="[FEATURE|TOKEN]")
@click.option("--sae", help="Short name of the SAE, where the extraction has several.")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(min=1), help="Examples of a feature.")
@click.option(
    "--features", default=5, show_default=True, type=click.IntRange(min=1), help="Features, where no number names one."
)
@click.option("--context", "width", default=12, show_default=True, type=click.IntRange(min=0), help="Tokens each side.")
@click.pass_obj
def show(module: str, name: str, feature: str | None, sae: str | None, limit: int, features: int, width: int) -> None:
    """Show examples of a feature in context: its strongest token in [], the other tokens on which it fires in ‹›.

    FEATURE is a number, 12 or #12. TOKEN is any other text: shown are the features that have it as the strongest token
    of one of their 20 strongest examples, best first; if there are none, those that fire on it most often. Upper and
    lower case differ, spaces around it do not count; in quotes of its own, "'12'" or "' import'", it is taken as it is.
    Without either: features that are easy to read.
    """
    workspace = open_workspace(module, name)
    known = set(workspace.extractions)
    if name not in known:  # merged before it was taken out of the module, or its file broken
        known |= {merged for merged, _ in workspace.merges()}
    if name not in known:
        raise workspace.no_extraction(name, f"there are: {', '.join(sorted(known)) or 'none'}")
    workspace.warn_of_not_loaded(*(one.name for one in workspace.not_loaded if one.name != name))
    with workspace.results.read() as engine:
        show_features(engine, name, parse_feature(feature), sae, limit, width, features)


class Token(NamedTuple):
    """The token to look for as the strongest of a feature."""

    text: str
    exact: bool
    """Whether spaces around it count."""


def parse_feature(text: str | None) -> int | Token | None:
    """A feature's number, or a token to look for: ``12`` and ``#12`` are numbers, ``'12'`` in quotes is a token."""
    if text is None:
        return None
    if re.fullmatch("#?[0-9]{1,4000}", text):
        return int(text.removeprefix("#"))
    quoted = re.fullmatch(r"(['\"])(.*)\1", text, re.DOTALL)
    token = quoted[2] if quoted else text
    for character, sign in SIGNS.items():  # as a token is shown
        token = token.replace(sign, character)
    return Token(token, exact=quoted is not None)


def show_features(
    engine: "sa.Engine",
    name: str,
    feature: int | Token | None,
    sae: str | None,
    limit: int,
    width: int,
    features: int = 5,
) -> None:
    """Print ``limit`` examples of a feature, of the first ``features`` that a token finds, or of as many that are easy
    to read."""
    from extraction_assets.cli.terminal import feature_lines
    from extraction_assets.database.queries.examples import examples_of, find_feature
    from extraction_assets.database.queries.extractions import find_extraction
    from extraction_assets.database.queries.words import readable_features

    with engine.connect() as connection:
        extraction = find_extraction(connection, name, sae)
        if isinstance(feature, Token):
            chosen = _features_of_token(connection, extraction.id, feature, features)
        elif feature is None:
            chosen = readable_features(connection, extraction.id, features)
        else:
            chosen = [feature]
        found_features = [find_feature(connection, extraction.id, index) for index in chosen]
        for statistics in found_features:
            examples = examples_of(connection, extraction.id, statistics.neuron_index, limit)
            echo(*feature_lines(statistics, examples, width), "")
        _echo_unknown(name, found_features)


def _features_of_token(connection: "sa.Connection", extraction_id: int, token: Token, shown: int) -> list[int]:
    """The first features that a token finds: in their strongest examples, else among the tokens on which they fire most
    often, which is said."""
    from extraction_assets.database.queries.extractions import UnknownResultError
    from extraction_assets.database.queries.words import features_firing_on, features_of_token

    by = f"with {token.text!r} as the strongest token of some of their strongest examples"
    try:
        found = features_of_token(connection, extraction_id, token.text, exact=token.exact)
    except UnknownResultError:
        found = features_firing_on(connection, extraction_id, token.text, exact=token.exact)
        if not found:
            raise
        by = f"with {token.text!r} among the tokens on which they fire most often, but not in their strongest examples"
    _echo_found(by, found, shown)
    return found[:shown]


def _echo_unknown(name: str, features: "list[sa.Row[Any]]") -> None:
    """What is NULL of these features, because chunks of an earlier version did not count it."""
    from extraction_assets.engine.statistics.rows_and_sentences import unknown_sizes  # NumPy, not for --help

    unknown = unknown_sizes(features)
    if unknown:
        echo(f"{unknown}; `run {name}` computes them again", "")


def _echo_found(by: str, found: list[int], shown: int) -> None:
    """How many features a token finds, ``by`` what, and the numbers of those that are not shown."""
    rest = f"; the first {shown} are shown, then come {few(list(map(str, found[shown:])), 10)}"
    echo(f"{count(len(found), 'feature')} {by}" + (rest if len(found) > shown else ""), "")


@main.command()
@click.argument("name")
@click.pass_obj
def status(module: str, name: str) -> None:
    """Say which chunks of extraction NAME are done, stale (made from other settings) or missing, and what is merged."""
    from extraction_assets.planning.changes import changes_on_disk
    from extraction_assets.planning.plan import CorpusNotReady, ExtractionPlan
    from extraction_assets.stores.sealed import DamagedFileError, named

    workspace = open_workspace(module, name)
    settings, store = workspace.find(name), workspace.store
    changes, missing = changes_on_disk(settings, store), f"{command_line(module)} run {name} --missing"
    try:
        plan = ExtractionPlan(settings, store)
    except CorpusNotReady as error:
        every = len(settings.chunk_keys)
        nothing = f"all {every} chunks are missing" if every > 1 else "the only chunk is missing"
        echo(f"{error}, or `{missing}`", *(changes or [nothing]))
        _echo_merges(workspace, settings)
        return
    except DamagedFileError as error:
        echo(named(str(error), name), "which of the chunks on disk are current is known once the corpus is there")
        _echo_merges(workspace, settings)
        return
    echo(f"corpus: {len(plan.corpus)} samples, {store.files.address(plan.corpus.folder)}", *changes)
    longest = _longest(settings)
    echo(f"{'':{longest}} {'done':>6} {'stale':>6} {'missing':>8}")
    current = set(settings.chunk_keys)
    for asset, sae in chunk_assets(settings.saes):
        states_of = plan.chunk_states(asset, sae)
        if asset == TOP_K_TABLE:
            current -= {key for key, state in states_of.items() if state != "done"}
        states = list(states_of.values())
        counts = "{:6} {:6} {:8}".format(*(states.count(s) for s in ("done", "stale", "missing")))
        kept = "" if settings.keep.keeps(asset) else "   not kept: clean removes what is merged"
        echo(f"{(sae + '/' if sae else '') + asset:{longest}} {counts}{kept}")
    _echo_merge_states(workspace, plan)
    _echo_not_done(settings.chunk_keys, current)
    _echo_damaged(plan)
    _echo_unrecorded(plan, missing)


def _echo_not_done(every: list[str], current: set[str]) -> None:
    """Which chunks have no current table of some SAE, by their names and as ``run --chunks`` counts them."""
    keys = [key for key in every if key not in current]
    if keys and current:
        echo(f"without a current table: {numbered(keys, every)}")


def _echo_unrecorded(plan: "ExtractionPlan", missing: str) -> None:
    """Chunks on disk that Dagster does not know, or knows with other settings."""
    from extraction_assets.assets.chunks.pending import Pending
    from extraction_assets.host.locations import HistoryUnavailableError
    from extraction_assets.upkeep.runs import ask_history

    try:
        pending = ask_history(lambda instance: Pending(plan, instance))
    except HistoryUnavailableError as error:
        echo(f"which chunks are recorded is not known: {error}", err=True)
        return
    every, otherwise = plan.settings.chunk_keys, pending.recorded_otherwise
    known = set(otherwise)
    unrecorded = [key for key in pending.unrecorded if key not in known]
    of = f"of {count(len(every), 'chunk')} on disk but"
    if unrecorded:
        echo(f"{len(unrecorded)} {of} not recorded in Dagster: {numbered(unrecorded, every)}; `{missing}` records them")
    if otherwise:
        echo(
            f"{len(otherwise)} {of} last recorded in Dagster with other settings: {numbered(otherwise, every)}; "
            f"`{missing}` records them again"
        )


def _echo_damaged(plan: "ExtractionPlan", most: int = 5) -> None:
    """Files with a damaged header or footer. Changes in their middle are found when they are read."""
    from extraction_assets.execution.damage import find_damaged
    from extraction_assets.stores.sealed import named

    found = find_damaged(plan, whole=False)
    for one in found[:most]:
        echo(named(str(one.error), plan.settings.name))
    if len(found) > most:
        echo(f"and {count(len(found) - most, 'more damaged file')}")


def _echo_merge_states(workspace: Workspace, plan: "ExtractionPlan") -> None:
    from extraction_assets.database.errors import DatabaseError

    try:
        with workspace.results.read() as engine:
            for sae in plan.settings.saes:
                width = _longest(plan.settings)
                echo(f"{sae + '/' + FEATURE_EXAMPLES:{width}} {_merge_state(engine, plan, sae)}")
                echo(f"{sae + '/' + FEATURE_RELATIONS:{width}} {_relations_state(engine, plan, sae)}")
                echo(f"{sae + '/' + FEATURE_DIRECTIONS:{width}} {_directions_state(engine, plan, sae)}")
                for one in plan.settings.exports:
                    echo(f"{sae + '/' + export_asset(one):{width}} {_export_state(engine, plan, sae, one)}")
            _echo_labels(engine, plan.settings)
    except DatabaseError as error:
        echo(f"what is merged is not known: {error}", err=True)


def _echo_labels(engine: "sa.Engine", settings: "ExtractionSettings") -> None:
    """How many features people have labelled, where they have."""
    from extraction_assets.database.queries.labels import label_counts

    with engine.connect() as connection:
        for sae in settings.saes:
            labelled = label_counts(connection, settings.name, sae).labelled
            if labelled:
                echo(f"{sae + '/labels':{_longest(settings)}} {labelled:6} features; merges, delete leave them alone")


def _echo_merges(workspace: Workspace, settings: "ExtractionSettings") -> None:
    """The merges of an extraction if its corpus is not current."""
    merged = workspace.merges()
    for sae in settings.saes:
        merge = merged.get((settings.name, sae))
        if merge:
            name = f"{sae}/{FEATURE_EXAMPLES}".ljust(_longest(settings))
            echo(f"{name} merged {merge.finished_at:%Y-%m-%d %H:%M} UTC, from an earlier corpus")


def _longest(settings: "ExtractionSettings") -> int:
    """Characters of the longest name that ``status`` prints, at least 28."""
    names = [asset if sae is None else f"{sae}/{asset}" for asset, sae in chunk_assets(settings.saes)]
    once = [FEATURE_DIRECTIONS, *map(export_asset, settings.exports)]
    return max(28, *map(len, names), *(len(f"{sae}/{asset}") for sae in settings.saes for asset in once))


def _merge_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str) -> str:
    """Whether the database holds the merge of the current chunks."""
    from extraction_assets.planning.stored_merge import stored_merge

    with engine.connect() as connection:
        found = stored_merge(connection, plan, sae)
    if found is None:
        return "not merged yet"
    return f"merged {found.finished_at:%Y-%m-%d %H:%M} UTC" + (f", stale: {found.stale}" if found.stale else "")


def _relations_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str) -> str:
    """Of what the database holds relations, and whether they are those of the current merge."""
    from extraction_assets.planning.stored_relations import scope_text, stored_relations

    with engine.connect() as connection:
        found = stored_relations(connection, plan, sae)
    if found is None:
        return "not computed yet"
    stale = f", stale: {found.stale}" if found.stale else ""
    return f"counted {found.finished_at:%Y-%m-%d %H:%M} UTC {scope_text(found)}{stale}"


def _directions_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str) -> str:
    """Whether the database holds the directions of the current checkpoints."""
    from extraction_assets.database.queries.directions import find_directions

    with engine.connect() as connection:
        found = find_directions(connection, plan.settings.name, sae)
    if found is None:
        return "not computed yet"
    is_current = found.fingerprint == plan.fingerprint_of(FEATURE_DIRECTIONS, None, sae)
    stale = "" if is_current else ", stale: made from other settings"
    return f"computed {found.finished_at:%Y-%m-%d %H:%M} UTC{stale}"


def _export_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str, export_format: str) -> str:
    """Whether the asset of an export is whole, and of the merge that is in the database."""
    from extraction_assets.database.queries.extractions import UnknownResultError, find_extraction
    from extraction_assets.exports.folders import stored_folder
    from extraction_assets.exports.output import export_state

    path = plan.store.asset_folder(plan.settings.name, FEATURE_EXPORTS, sae) / export_format
    found = export_state(stored_folder(plan.store, path))
    if found is None:
        return "not exported yet"
    if found.finished_at is None:
        return "exported in part"
    try:
        with engine.connect() as connection:
            is_current = find_extraction(connection, plan.settings.name, sae).fingerprint == found.merge
    except UnknownResultError:
        is_current = False
    return f"exported {found.finished_at:%Y-%m-%d %H:%M} UTC" + ("" if is_current else ", stale: of another merge")
