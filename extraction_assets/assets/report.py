"""A report for people: one self-contained HTML page for each SAE."""

import datetime as dt
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import jinja2
import numpy as np
import pandas as pd
import sqlalchemy as sa

from extraction_assets.assets.keys import failure, sae_key
from extraction_assets.database.queries import (
    Example,
    UnknownResultError,
    examples_of,
    feature_table,
    find_extraction,
    find_feature,
    readable_features,
)
from extraction_assets.database_urls import DatabaseError
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.sealed import durable_path

REPORTED_FEATURES = 50
REPORTED_EXAMPLES = 5


class Bar(NamedTuple):
    """One bar of a histogram."""

    label: str
    features: int
    share_of_tallest: float


class Shaded(NamedTuple):
    """A token and how strongly the feature fires on it, from 0 to 1."""

    text: str
    strength: float


def build_feature_report(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The report of one SAE."""

    @dg.asset(
        key=sae_key(settings, sae, "feature_report"),
        group_name=settings.name,
        deps=[sae_key(settings, sae, "feature_examples")],
        kinds={"html"},
    )
    def feature_report(chunk_store: ChunkStoreResource, results: ResultsResource) -> dg.MaterializeResult:
        """An HTML page: how often features fire, and fifty of them with their strongest samples shaded."""
        path = chunk_store.open().asset_folder(settings.name, "feature_report", sae) / "report.html"
        try:
            with results.open() as engine, engine.connect() as connection:
                extraction = find_extraction(connection, settings.name, sae)
                page = render_report(connection, extraction)
        except (UnknownResultError, DatabaseError) as error:
            raise failure(error) from error
        with durable_path(path) as temporary:
            temporary.write_text(page, "utf-8")
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(path)), "url": dg.MetadataValue.url(path.as_uri())},
            data_version=dg.DataVersion(extraction.fingerprint),
        )

    return feature_report


def render_report(connection: sa.Connection, extraction: sa.Row[Any]) -> str:
    """The page of one merged (extraction, SAE)."""
    table = feature_table(connection, extraction.id)
    chosen = []
    for index in readable_features(connection, extraction.id, REPORTED_FEATURES):
        examples = examples_of(connection, extraction.id, index, REPORTED_EXAMPLES)
        chosen.append((index, find_feature(connection, extraction.id, index), [_shaded(e) for e in examples]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(
        extraction=extraction,
        finished=_utc(extraction.finished_at),
        dead=int((table["activation_count"] == 0).sum()),
        density=density_histogram(table["activation_frequency"]),
        features=chosen,
    )


def density_histogram(frequencies: "pd.Series[float]") -> list[Bar]:
    """Features by the share of samples on which they fire, one bar a power of ten; dead features apart."""
    living = frequencies[frequencies > 0]
    exponents = np.clip(np.floor(np.log10(living)), -6, -1).astype(int)
    counts = {"never": int((frequencies == 0).sum())}
    for exponent in range(-6, 0):
        counts[f"{10.0 ** (exponent + 2):g} %"] = int((exponents == exponent).sum())
    tallest = max(1, *counts.values())
    return [Bar(label, count, count / tallest) for label, count in counts.items()]


def _shaded(example: Example) -> tuple[Example, list[Shaded]]:
    strengths = dict(zip(example.positions, example.activations, strict=True))
    return example, [
        Shaded(token, strengths.get(position, 0.0) / example.max_activation)
        for position, token in enumerate(example.tokens)
    ]


def _utc(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
