"""A report for people: one self-contained HTML page for each SAE."""

import datetime as dt
import math
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import markupsafe
import sqlalchemy as sa

from extraction_assets.assets.report.html_page import page_environment
from extraction_assets.catalog import FEATURE_REPORT
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.queries.examples import Example, examples_of, find_feature
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.frames import example_counts, feature_table
from extraction_assets.database.queries.words import readable_features
from extraction_assets.engine.corpora.message_spans import speakers
from extraction_assets.engine.selection.statistics.shown import shown_sizes, unknown_sizes
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.pictures import (
    DENSITY_TITLE,
    EXAMPLES_TITLE,
    Bar,
    bar_chart,
    density_histogram,
    examples_histogram,
    markdown_picture,
)
from extraction_assets.execution.preview import code, escape, preview
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.sealed import PLACEHOLDER, DamagedFileError, verify, write_sealed

_WRITTEN_AGAIN = "the report is written again"
REPORTED_FEATURES = 50
REPORTED_EXAMPLES = 5
FEATURES_AT_TOP = 20
SHADES = 20
"""How many shades of a token the style sheet has: the page's policy allows no style of a token's own."""


class Shaded(NamedTuple):
    """A token and how strongly the feature fires on it: 0 for not at all, ``SHADES`` for the sample's maximum."""

    text: str
    shade: int
    role: str = ""
    """Who speaks from here on, where a message of a chat begins."""


def run_report(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    chunk_store: ChunkStoreResource,
    results: ResultsResource,
) -> dg.MaterializeResult:
    """The step of the report: writes the page of an SAE."""
    path = chunk_store.open().asset_file(settings.name, FEATURE_REPORT, sae)
    note_host(context.instance, context.run.run_id)
    with as_dagster_failure(context.retry_number, context.log):
        with results.open() as engine, engine.connect() as connection:
            extraction = find_extraction(connection, settings.name, sae)
            page = render_report(connection, extraction)
            top = report_top(connection, extraction, settings.top_positions)
        write_report(path, page)
    return dg.MaterializeResult(
        # No link: browsers open no file:// address from a web page. The UI puts a copy button beside a path.
        metadata={"path": dg.MetadataValue.path(str(path)), "top_of_report": dg.MetadataValue.md(top)},
        data_version=dg.DataVersion(extraction.fingerprint),
    )


def write_report(path: Path, page: str) -> None:
    """A page as a file that carries its checksum, in a comment before all that comes from texts."""
    sealed = f"<!-- {PLACEHOLDER} -->\n{page}"
    write_sealed(path, lambda temporary: temporary.write_bytes(sealed.encode("utf-8")))


def report_damage(path: Path) -> str | None:
    """One sentence on why a report has to be written again; None if its file is unchanged."""
    try:
        verify(path, _WRITTEN_AGAIN)
    except FileNotFoundError:
        return f"{path} is not there; {_WRITTEN_AGAIN}"
    except DamagedFileError as error:
        return str(error)
    return None


def _published_name(extraction: sa.Row[Any]) -> str | None:
    """Release and id of the SAE, where its settings named it so."""
    sae = (extraction.settings.get("saes") or {}).get(extraction.sae) or {}
    return f"{sae['release']}/{sae['sae_id']}" if sae.get("release") else None


def render_report(connection: sa.Connection, extraction: sa.Row[Any]) -> str:
    """The page of one merged (extraction, SAE)."""
    density, examples = histograms(connection, extraction)
    chosen = []
    for index in readable_features(connection, extraction.id, REPORTED_FEATURES):
        chosen_examples = examples_of(connection, extraction.id, index, REPORTED_EXAMPLES)
        chosen.append((index, find_feature(connection, extraction.id, index), [_shaded(e) for e in chosen_examples]))
    return (
        page_environment(Path(__file__).parent)
        .get_template("report.html")
        .render(
            extraction=extraction,
            published=_published_name(extraction),
            finished=_utc(extraction.finished_at),
            dead=density[0].features,
            pictures=[
                (title, markupsafe.Markup(bar_chart(bars)))  # labels and numbers of our own, nothing to escape
                for title, bars in ((DENSITY_TITLE, density), (EXAMPLES_TITLE, examples))
            ],
            features=chosen,
            sizes=shown_sizes,
            unknown=unknown_sizes(feature for _, feature, _ in chosen),
            shades=SHADES,
        )
    )


def report_top(connection: sa.Connection, extraction: sa.Row[Any], top_positions: int) -> str:
    """The beginning of the report as Markdown, which the UI can show where it cannot open the page."""
    density, examples = histograms(connection, extraction)
    return "\n\n".join(
        [
            f"**{escape(extraction.name)} / {escape(extraction.sae)}**: {extraction.latent_dim} features at "
            f"{code(extraction.hook)}, "
            f"{extraction.sample_count} samples, {extraction.token_count} counted tokens, "
            f"{density[0].features} features never fire. Merged {_utc(extraction.finished_at)}.",
            markdown_picture(DENSITY_TITLE, density),
            markdown_picture(EXAMPLES_TITLE, examples),
            preview(connection, extraction.id, top_positions, FEATURES_AT_TOP),
        ]
    )


def histograms(connection: sa.Connection, extraction: sa.Row[Any]) -> tuple[list[Bar], list[Bar]]:
    """Features by the share of tokens on which they fire, and by the number of their examples."""
    table = feature_table(connection, extraction.id)
    counts = example_counts(connection, extraction.id).reindex(table.index, fill_value=0)
    density = density_histogram(table["token_frequency"].to_numpy())
    return density, examples_histogram(counts.to_numpy(), extraction.top_k_examples)


def _shaded(example: Example) -> tuple[Example, list[Shaded]]:
    strengths = dict(zip(example.positions, example.activations, strict=True))
    roles = speakers(example.messages, 0, len(example.tokens))
    tokens = []
    for position, token in enumerate(example.tokens):
        shade = math.ceil(SHADES * strengths.get(position, 0.0) / example.max_activation)
        # A line break has no width to shade, so one on which the feature fires gets a sign.
        text = token.replace("\n", "⏎\n") if shade else token
        tokens.append(Shaded(text, shade, roles.get(position, "")))
    return example, tokens


def _utc(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
