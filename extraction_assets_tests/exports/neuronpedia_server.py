"""The tables of Neuronpedia that its importer fills, in a PostgreSQL of the tests, and the importer's one statement."""

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from extraction_assets_tests.exports.written import json_lines

_FLOATS, _INTEGERS, _TEXTS = "double precision[] DEFAULT '{}'", "integer[] DEFAULT '{}'", "text[] DEFAULT '{}'"
_NAMES = {"modelId": "text NOT NULL", "layer": "text NOT NULL", "index": "text NOT NULL"}
_HISTOGRAMS = [f"{kind}_hist_data_bar_{what}" for kind in ("freq", "logits") for what in ("heights", "values")]

TABLES: dict[str, dict[str, str]] = {
    "Neuron": {
        **_NAMES,
        "sourceSetName": "text",
        "creatorId": "text",
        "createdAt": "timestamp NOT NULL DEFAULT now()",
        "maxActApprox": "double precision DEFAULT 0",
        "hasVector": "boolean NOT NULL DEFAULT false",
        "vector": _FLOATS,
        "vectorLabel": "text",
        "vectorDefaultSteerStrength": "double precision DEFAULT 10",
        "hookName": "text",
        "topkCosSimIndices": _INTEGERS,
        "topkCosSimValues": _FLOATS,
        "correlated_neurons_indices": _INTEGERS,
        "correlated_neurons_pearson": _FLOATS,
        "correlated_neurons_l1": _FLOATS,
        "neg_str": _TEXTS,
        "neg_values": _FLOATS,
        "pos_str": _TEXTS,
        "pos_values": _FLOATS,
        "frac_nonzero": "double precision NOT NULL DEFAULT 0",
        **dict.fromkeys(_HISTOGRAMS, _FLOATS),
        "decoder_weights_dist": _FLOATS,
    },
    "Activation": {
        "id": "text PRIMARY KEY",
        "tokens": _TEXTS,
        "dataIndex": "text",
        **_NAMES,
        "dataSource": "text",
        "maxValue": "double precision NOT NULL",
        "maxValueTokenIndex": "integer NOT NULL",
        "minValue": "double precision NOT NULL",
        "values": _FLOATS,
        "creatorId": "text NOT NULL",
        "createdAt": "timestamp NOT NULL DEFAULT now()",
        "binMin": "double precision",
        "binMax": "double precision",
        "binContains": "double precision",
    },
    "Explanation": {
        "id": "text PRIMARY KEY",
        **_NAMES,
        "description": "text NOT NULL",
        "authorId": "text NOT NULL",
        "notes": "text",
        "scoreV1": "double precision NOT NULL DEFAULT 0",
        "createdAt": "timestamp NOT NULL DEFAULT now()",
    },
}
"""Columns by table, as apps/webapp/prisma/schema.prisma of hijohnnylin/neuronpedia has them."""

FILES = {"Neuron": "features", "Explanation": "explanations", "Activation": "activations"}
"""Table -> folder that it is filled from, in the importer's order."""


def make_tables(connection: sa.Connection) -> None:
    """The empty tables."""
    for table, columns in TABLES.items():
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        key = ', PRIMARY KEY ("modelId", layer, index)' if table == "Neuron" else ""
        connection.exec_driver_sql(f'CREATE TABLE "{table}" ({listed}{key})')


def import_folder(connection: sa.Connection, folder: Path) -> None:
    """All files of a source, by the columns of their first line."""
    for table, inside in FILES.items():
        for file in sorted((folder / inside).glob("*.jsonl.gz")):
            _import(connection, table, json_lines(file))


def _import(connection: sa.Connection, table: str, rows: list[Any]) -> None:
    columns = [name for name in rows[0] if name in TABLES[table]]
    assert len(columns) == len(rows[0]), "Neuronpedia has no such column"
    kinds = {name: TABLES[table][name].split(" NOT NULL")[0].split(" DEFAULT")[0] for name in columns}
    kinds = {name: kind.removesuffix(" PRIMARY KEY") for name, kind in kinds.items()}
    listed = ", ".join(f'"{name}"' for name in columns)
    typed = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
    statement = (
        f'INSERT INTO "{table}" ({listed}) SELECT {listed} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS t({typed}) '
        "ON CONFLICT DO NOTHING"
    )
    connection.execute(sa.text(statement), {"rows": json.dumps(rows)})
