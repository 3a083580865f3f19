"""A report for people: one self-contained HTML page about the whole result of each SAE."""

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from extraction_assets.assets.report.page import Pictures, render_report
from extraction_assets.assets.report.record import recorded, recorded_speed
from extraction_assets.catalog import FEATURE_REPORT
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.frames import example_counts, feature_table
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.links import browser_metadata, links_to_browser
from extraction_assets.execution.pictures import (
    DENSITY_TITLE,
    EXAMPLES_TITLE,
    density_histogram,
    examples_histogram,
    markdown_picture,
)
from extraction_assets.execution.preview import code, escape, preview
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import PLACEHOLDER, DamagedFileError, verify, write_sealed

_WRITTEN_AGAIN = "the report is written again"
FEATURES_AT_TOP = 20


def run_report(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    chunk_store: ChunkStoreResource,
    results: ResultsResource,
) -> dg.MaterializeResult:
    """The step of the report: writes the page of an SAE."""
    store = chunk_store.open()
    path = store.asset_file(settings.name, FEATURE_REPORT, sae)
    links = links_to_browser(context.log)
    note_host(context.instance, context.run.run_id)
    with as_dagster_failure(context.retry_number, context.log):
        plan, why_no_plan = _plan(settings, store)
        with results.open() as engine, engine.connect() as connection:
            extraction = find_extraction(connection, settings.name, sae)
            pictures = histograms(connection, extraction)
            said = recorded(plan, sae, extraction.fingerprint, why_no_plan)
            speed = recorded_speed(context.instance, settings, sae, extraction.fingerprint)
            page = render_report(connection, extraction, pictures, said, speed, links)
            top = report_top(connection, extraction, pictures, settings.top_positions)
        write_report(store, path, page)
    return dg.MaterializeResult(
        # No link to the file, for browsers open no file:// address from a web page: the UI puts a copy button there.
        metadata={
            **browser_metadata(links, settings.name, sae),
            "path": dg.MetadataValue.path(store.files.address(path)),
            "top_of_report": dg.MetadataValue.md(top),
        },
        data_version=dg.DataVersion(extraction.fingerprint),
    )


def _plan(settings: ExtractionSettings, store: ChunkStore) -> tuple[ExtractionPlan | None, str]:
    """The plan of an extraction, or why it fails: the report is of what was merged, whatever is on disk now."""
    try:
        return ExtractionPlan(settings, store), ""
    except (ValueError, LookupError, OSError) as error:  # no corpus, no checkpoint, no hub
        return None, str(error)


def write_report(store: ChunkStore, path: Path, page: str) -> None:
    """A page as a file that carries its checksum, in a comment before all that comes from texts."""
    sealed = f"<!-- {PLACEHOLDER} -->\n{page}"
    with store.files.storing(path) as draft:
        write_sealed(draft, lambda temporary: temporary.write_bytes(sealed.encode("utf-8")))


def report_damage(store: ChunkStore, path: Path) -> str | None:
    """One sentence on why a report has to be written again; None if its file is unchanged."""
    try:
        with store.files.reading(path) as copy:
            verify(copy, _WRITTEN_AGAIN)
    except FileNotFoundError:
        return f"{store.files.address(path)} is not there; {_WRITTEN_AGAIN}"
    except DamagedFileError as error:
        return str(error)
    return None


def report_top(connection: sa.Connection, extraction: sa.Row[Any], pictures: Pictures, top_positions: int) -> str:
    """The beginning of the report as Markdown, which the UI can show where it cannot open the page."""
    dead = pictures[0][1][0].features
    return "\n\n".join(
        [
            f"**{escape(extraction.name)} / {escape(extraction.sae)}**: {extraction.latent_dim} features at "
            f"{code(extraction.hook)}, "
            f"{extraction.sample_count} samples, {extraction.token_count} counted tokens, "
            f"{dead} features never fire. Merged {_utc(extraction.finished_at)}.",
            *(markdown_picture(title, bars) for title, bars in pictures),
            preview(connection, extraction.id, top_positions, FEATURES_AT_TOP),
        ]
    )


def histograms(connection: sa.Connection, extraction: sa.Row[Any]) -> Pictures:
    """Features by the share of tokens on which they fire, and by the number of their examples."""
    table = feature_table(connection, extraction.id)
    counts = example_counts(connection, extraction.id).reindex(table.index, fill_value=0)
    density = density_histogram(table["token_frequency"].to_numpy())
    examples = examples_histogram(counts.to_numpy(), extraction.top_k_examples)
    return [(DENSITY_TITLE, density), (EXAMPLES_TITLE, examples)]


def _utc(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
