"""The page of a whole result: what was run, whether it can be trusted, how features are spread, which to look at."""

import datetime as dt
import json
from typing import Any, NamedTuple

import markupsafe
import sqlalchemy as sa

from extraction_assets.assets.report.record import Recorded, Speed
from extraction_assets.browser.density_plot import DensityPlot, density_plot
from extraction_assets.browser.feature_parts import ShownExample, shown_example
from extraction_assets.browser.links import Links
from extraction_assets.browser.one_file import render_file
from extraction_assets.database.queries.examples import examples_of, find_feature
from extraction_assets.database.queries.labels import labels_of
from extraction_assets.database.queries.overview import (
    DENSE,
    NotedGroup,
    Shares,
    bins_select,
    shares,
    worth_a_look,
)
from extraction_assets.database.tables import corpora
from extraction_assets.engine.selection.statistics.shown import shown_sizes, unknown_sizes
from extraction_assets.execution.pictures import Bar, bar_chart

WINDOW = 10
"""Tokens on each side of an example's strongest one."""


class LookedAt(NamedTuple):
    """A feature that is worth a look."""

    neuron_index: int
    why: str
    label: str
    token_frequency: float
    max_activation: float | None
    sizes: str
    example: ShownExample | None
    """The strongest one."""


class Group(NamedTuple):
    """Features that are worth a look for one kind of reason."""

    title: str
    about: str
    features: list[LookedAt]


class ReportView(NamedTuple):
    """What the page shows."""

    name: str
    sae: str
    published: str | None
    model: str
    hook: str
    source: str
    packing: str
    sample_count: int
    token_count: int
    fingerprint: str
    finished_at: dt.datetime
    settings: str
    """As JSON in lines."""
    shares: Shares
    dense: float
    """Share of the tokens above which a feature is dense."""
    plot: DensityPlot
    pictures: list[tuple[str, markupsafe.Markup]]
    recorded: Recorded
    speed: Speed | None
    groups: list[Group]
    unknown: str | None
    """Which statistics are not known in this result."""


def render_report(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    pictures: list[tuple[str, list[Bar]]],
    recorded: Recorded,
    speed: Speed | None,
    links: Links,
) -> str:
    """The page of one merged (extraction, SAE), with pictures by their titles."""
    view = report_view(connection, extraction, pictures, recorded, speed)
    return render_file("extraction_report.html", view=view, links=links)


def report_view(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    pictures: list[tuple[str, list[Bar]]],
    recorded: Recorded,
    speed: Speed | None,
) -> ReportView:
    """What the page shows of one merged (extraction, SAE)."""
    corpus = connection.execute(sa.select(corpora).where(corpora.c.id == extraction.corpus_id)).one()
    groups = worth_a_look(connection, extraction.id)
    rows = {
        one.neuron_index: find_feature(connection, extraction.id, one.neuron_index)
        for group in groups
        for one in group.features
    }
    labels = {
        index: label.label or label.mark or ""
        for index, label in labels_of(connection, extraction.name, extraction.sae, list(rows)).items()
    }
    bins = [tuple(map(int, row)) for row in connection.execute(bins_select(extraction.id))]
    return ReportView(
        name=extraction.name,
        sae=extraction.sae,
        published=_published_name(extraction),
        model=extraction.model,
        hook=extraction.hook,
        source=corpus.source,
        packing=corpus.packing,
        sample_count=extraction.sample_count,
        token_count=extraction.token_count,
        fingerprint=extraction.fingerprint,
        finished_at=extraction.finished_at,
        settings=json.dumps(extraction.settings, indent=2, ensure_ascii=False),
        shares=shares(connection, extraction.id),
        dense=DENSE,
        plot=density_plot(bins),  # type: ignore[arg-type]
        # labels and numbers of our own, nothing to escape
        pictures=[(title, markupsafe.Markup(bar_chart(bars))) for title, bars in pictures],
        recorded=recorded,
        speed=speed,
        groups=[_group(connection, extraction, group, rows, labels) for group in groups],
        unknown=unknown_sizes(rows.values()) or None,
    )


def _group(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    group: NotedGroup,
    rows: dict[int, sa.Row[Any]],
    labels: dict[int, str],
) -> Group:
    found = []
    for index, why in group.features:
        row = rows[index]
        examples = examples_of(connection, extraction.id, index, 1)
        found.append(
            LookedAt(
                index,
                why,
                labels.get(index, ""),
                row.token_frequency,
                row.max_activation,
                shown_sizes(row),
                _shown(examples[0], row.max_activation) if examples else None,
            )
        )
    return Group(group.title, group.about, found)


def _shown(example: Any, scale: float) -> ShownExample:
    return shown_example(example, width=WINDOW, scale=scale, tokens=example.tokens, messages=example.messages)


def _published_name(extraction: sa.Row[Any]) -> str | None:
    """Release and id of the SAE, where its settings named it so."""
    sae = (extraction.settings.get("saes") or {}).get(extraction.sae) or {}
    return f"{sae['release']}/{sae['sae_id']}" if sae.get("release") else None
