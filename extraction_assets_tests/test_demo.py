"""The demo as it ships, on 240 of its samples: rows against a brute-force computation, identical files, its card.
All its samples go through the backfill of ``ui/test_ui.py``."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa
import torch

import extraction_assets.demo
from extraction_assets.database.connect import opened_database
from extraction_assets.database.queries.examples import examples_of
from extraction_assets.database.tables import features
from extraction_assets_tests.brute_force import StoredFeatures, feature_differences, top_examples
from extraction_assets_tests.exports.strongest import READERS
from extraction_assets_tests.object_storage import S3Server
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.processes import run_module
from extraction_assets_tests.rows import all_rows

DEMO = Path(extraction_assets.demo.__file__).parent

FEWER = {"evaluation_samples: 4000": "evaluation_samples: 240", "chunk_size: 500": "chunk_size: 60"}
"""What differs from the file that ships, beside its place. 674 features fire in more samples than a table holds."""

DEFINITIONS = """
from pathlib import Path

import dagster as dg
from extraction_assets import default_resources, load_defs_folder


@dg.definitions
def defs():
    shared = dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(load_defs_folder(Path(__file__).parent), shared)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which ``extraction-assets run demo`` has run, beside its project."""
    folder = tmp_path_factory.mktemp("demo")
    _make_project(folder / "project")
    done = _command(folder, "run", "demo")
    assert done.returncode == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def _make_project(folder: Path) -> None:
    text = (DEMO.parent / "defs" / "demo" / "defs.yaml").read_text()
    for theirs, ours in {"../../demo": str(DEMO), **FEWER}.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    declared = folder / "fewer" / "defs" / "demo"
    declared.mkdir(parents=True)
    (declared / "defs.yaml").write_text(text)
    (folder / "fewer" / "__init__.py").touch()
    (folder / "fewer" / "definitions.py").write_text(DEFINITIONS)
    (folder / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "fewer"\n')


def _command(home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "EXTRACTION_HOME": str(home), "DAGSTER_HOME": "", **variables}
    words = ["--module", "fewer.definitions", *arguments]
    folder = home / "project"
    return run_module("extraction_assets.cli", words, folder=folder, environment=environment, timeout=900)


def test_every_row_equals_a_brute_force_computation(demo_home: Path) -> None:
    (corpus,) = (demo_home / "corpora").iterdir()
    counted = np.load(corpus / "attention_mask.npy") & ~np.load(corpus / "special_tokens_mask.npy")
    stored_features = StoredFeatures(demo_home / "demo" / "layer1" / "sae_features", counted)
    with contextlib.closing(sqlite3.connect(demo_home / "results.sqlite")) as connection:
        rows = _stored_statistics(connection)
        assert len(rows) == stored_features.num_features
        for neuron in range(stored_features.num_features):
            stored = stored_features.rows(neuron)
            assert _stored_examples(connection, neuron) == top_examples(*stored, top_k=100)
            assert feature_differences(rows[neuron], stored[1], counted) == []


def _stored_examples(connection: sqlite3.Connection, neuron: int) -> list[tuple[float, int, list[int], list[float]]]:
    rows = connection.execute(
        "SELECT max_activation, sample_index, positions, activations FROM feature_activations "
        "WHERE extraction_id = 1 AND neuron_index = ? ORDER BY rank",
        (neuron,),
    )
    # Of a float32 the database has the digits, which are another double.
    return [(float(np.float32(m)), s, json.loads(p), np.float32(json.loads(a)).tolist()) for m, s, p, a in rows]


def _stored_statistics(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    cursor = connection.execute("SELECT * FROM features ORDER BY neuron_index")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_the_output_ends_with_five_features_and_where_things_are(demo_home: Path) -> None:
    output = (demo_home / "output.txt").read_text()
    assert output.count("\nfeature ") == 5
    assert "results.sqlite" in output
    assert "extraction-assets --module fewer.definitions ui" in output


@pytest.mark.parametrize("name", READERS)
def test_the_reader_of_each_format_reads_the_examples_of_the_database(
    demo_home: Path, tmp_path: Path, name: str
) -> None:
    with opened_database(f"sqlite:///{demo_home / 'results.sqlite'}") as engine, engine.connect() as connection:
        query = sa.select(features.c.neuron_index).order_by(features.c.token_count)
        chosen = connection.scalars(query).all()[::350]  # the first of them never fires
        expected = {index: _strongest(connection, index) for index in chosen}
    arguments = ["--out", str(tmp_path / "out"), "--features", ",".join(map(str, chosen))]
    if name == "neuronpedia-upload":
        arguments += ["--option", "examples=100"]
        expected = {index: examples for index, examples in expected.items() if examples}
    done = _command(demo_home, "export", "demo", "--sae", "layer1", "--format", name, *arguments)
    assert done.returncode == 0, done.stderr
    found = {index: listed[: len(expected[index])] for index, listed in READERS[name](tmp_path / "out").items()}
    assert found == expected
    assert sum(map(len, expected.values())) > 500


def _strongest(connection: sa.Connection, neuron: int) -> list[tuple[list[str], list[float]]]:
    """Tokens and values of a feature's examples."""
    found = []
    for one in examples_of(connection, 1, neuron, limit=100):
        firings = dict(zip(one.positions, np.float32(one.activations).tolist(), strict=True))
        found.append((one.tokens, [firings.get(at, 0.0) for at in range(len(one.tokens))]))
    return found


def test_delphi_is_refused_samples_that_are_not_full(demo_home: Path, tmp_path: Path) -> None:
    done = _command(demo_home, "export", "demo", "--format", "delphi", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "delphi reads full samples alone" in done.stderr
    assert "set packing: concatenated" in done.stderr
    assert "Traceback" not in done.stderr


class OnPostgres(NamedTuple):
    """The demo in another home, with results and Dagster's own storage both on PostgreSQL. Its chunks are those of the
    first home, all but the last, which was computed again at another batch size."""

    home: Path
    output: str
    results: str
    dagster: str


LAST_CHUNK = "demo/**/*000000000180-*"


@pytest.fixture(scope="session")
def on_postgres(demo_home: Path, postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> OnPostgres:
    home = tmp_path_factory.mktemp("demo-on-postgres") / "home"
    shutil.copytree(demo_home, home, ignore=shutil.ignore_patterns("dagster", "results.sqlite*", "output.txt"))
    for path in home.glob(LAST_CHUNK):
        path.unlink()
    results, dagster = postgres_server.new_database(), postgres_server.new_database()
    variables = {"EXTRACTION_DATABASE_URL": results, "EXTRACTION_DAGSTER_POSTGRES_URL": dagster}
    done = _command(home, "run", "demo", "--missing", "--vectorization-batch-size", "64", **variables)
    assert done.returncode == 0, done.stderr
    return OnPostgres(home, done.stdout + done.stderr, results, dagster)


def test_on_postgres_all_rows_equal_those_on_sqlite(
    demo_home: Path, on_postgres: OnPostgres, postgres_server: Server
) -> None:
    assert "1 chunk computed, 3 recorded, 1 merge" in on_postgres.output
    assert postgres_server.password not in on_postgres.output
    on_sqlite = all_rows(f"sqlite:///{demo_home / 'results.sqlite'}")
    assert len(on_sqlite["features"]) == 4096
    rows = all_rows(on_postgres.results)
    for table in on_sqlite:
        assert rows[table] == on_sqlite[table], table
    runs = postgres_server.execute("SELECT DISTINCT status FROM runs", on_postgres.dagster.rpartition("/")[2])
    assert runs == [("SUCCESS",)]
    assert not list(on_postgres.home.rglob("*.sqlite"))


def test_a_chunk_run_again_gives_identical_bytes(demo_home: Path, on_postgres: OnPostgres) -> None:
    first, again = (
        {path.relative_to(home): path.read_bytes() for path in home.glob(LAST_CHUNK)}
        for home in (demo_home, on_postgres.home)
    )
    assert len(first) == 6  # activations, features, and of the table: its rows, statistics, draws, sampled firings
    assert again == first


def test_a_chunk_in_object_storage_has_the_bytes_of_a_folder(demo_home: Path, s3: S3Server, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(demo_home / "project", home / "project")
    done = _command(home, "run", "demo", "--chunks", "3:4", EXTRACTION_STORE="s3://results/demo")
    assert done.returncode == 0, done.stderr
    client = s3.client()
    stored = {path.removeprefix("results/demo/"): client.cat_file(path) for path in client.find("results/demo")}
    names = [path.relative_to(demo_home).as_posix() for path in demo_home.glob(LAST_CHUNK)]
    assert len(names) == 6
    assert {name for name in stored if not name.startswith("corpora/")} == {*names, "demo/corpus.json"}
    assert {name: stored[name] for name in names} == {name: (demo_home / name).read_bytes() for name in names}
    (corpus,) = (demo_home / "corpora").iterdir()
    files = {f"corpora/{corpus.name}/{path.name}": path.read_bytes() for path in corpus.iterdir()}
    assert {name: content for name, content in stored.items() if name.startswith("corpora/")} == files


def test_the_demo_ships_small_and_unpickled() -> None:
    shipped = [path for folder in ("language_model", "sae") for path in (DEMO / folder).iterdir()]
    assert {path.suffix for path in shipped} <= {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in shipped) <= 12 * 2**20


def test_the_card_names_the_figures_that_were_asked_for() -> None:
    card = json.loads((DEMO / "card.json").read_text())
    model, sae = card["language_model"], card["sae"]
    assert model["bits_per_byte"] < 0.7 * model["bits_per_byte_bigram"] < model["bits_per_byte_unigram"]
    assert sae["variance_explained"] >= 0.87
    assert 8 <= sae["mean_l0"] <= 64
    assert sae["dead_fraction"] <= 0.15
    text = (DEMO / "CARD.md").read_text()
    for figure in (f"{model['bits_per_byte']:.3f}", f"{sae['variance_explained']:.3f}"):
        assert figure in text


def test_the_shipped_sae_reconstructs_the_shipped_models_activations(demo_home: Path) -> None:
    from extraction_assets.engine.models.language_model import load_language_model
    from extraction_assets.engine.saes.sae import load_sae, variance_explained
    from extraction_assets.engine.selection.sparse import dense_to_sparse
    from extraction_assets_tests.engine.checkpoints import local

    (corpus,) = (demo_home / "corpora").iterdir()
    rows = slice(0, 240, 5)
    ids = torch.from_numpy(np.load(corpus / "token_ids.npy")[rows].astype(np.int64))
    attention = torch.from_numpy(np.load(corpus / "attention_mask.npy")[rows])
    counted = attention & ~torch.from_numpy(np.load(corpus / "special_tokens_mask.npy")[rows])
    model, sae = load_language_model(local(DEMO / "language_model"), ["model.layers.1"]), load_sae(DEMO / "sae")
    activations = model.activations(ids, attention)["model.layers.1"]
    features = sae.encode(activations.reshape(-1, sae.d_in)).view(*ids.shape, sae.latent_dim)
    assert variance_explained(activations, sae.decode(dense_to_sparse(features)), counted) > 0.87
    assert 8 <= float((features > 0).sum(-1)[counted].float().mean()) <= 64
