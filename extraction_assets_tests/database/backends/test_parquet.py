"""Results as Parquet files: the rows are SQLite's, and a reader sees the old ones or the new ones whatever happens."""

import errno
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.parquet import sessions
from extraction_assets.database.backends.parquet.folder import LocalFolder, StorageFolder
from extraction_assets.database.backends.parquet.rows import write_rows
from extraction_assets.database.connect import open_database, opened_database, write_transaction
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError
from extraction_assets.database.labels import label_transaction, save_label
from extraction_assets.database.queries.examples import examples_of
from extraction_assets.database.queries.labels import list_labels
from extraction_assets.database.read_only import read_database
from extraction_assets.database.tables import extractions, feature_example_lists, features, metadata, samples
from extraction_assets.database.writing.remove import delete_results
from extraction_assets.resources import ResultsResource
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageUrl
from extraction_assets_tests.database.stored_rows import store_rows
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.object_storage import S3Server
from extraction_assets_tests.processes import run_code
from extraction_assets_tests.project import Project

OF_A_RUN = {"created_at", "finished_at"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet:///{tmp_path / 'results'}"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    with opened_database(url) as opened:
        yield opened


def load(engine: sa.Engine, activation: float, num_features: int = 20, sae: str = "sae") -> int:
    made = make_results(str(activation), activation, num_features=num_features, top_k=5, sae=sae)
    with write_transaction(engine) as connection:
        return made.load(connection)


def activation_of(engine: sa.Engine) -> float:
    with engine.connect() as connection:
        return examples_of(connection, 1, 3, limit=1)[0].max_activation


def data_files(url: str) -> set[str]:
    root = Path(url.removeprefix("parquet:///"))
    return {str(path.relative_to(root)) for path in root.glob("*/*.parquet")}


def drafts(url: str) -> list[str]:
    """What writers have not given its name yet."""
    return [path.name for path in Path(url.removeprefix("parquet:///")).rglob("*.tmp")]


def rows_as_stored(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of every table by its key, JSON as its text."""
    found = {}
    with read_database(url) as engine, engine.connect() as connection:
        for table in metadata.sorted_tables:
            names = [f'"{column.name}"' for column in table.c if column.name not in OF_A_RUN]
            keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
            query = f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {keys}"
            found[table.name] = [tuple(row) for row in connection.exec_driver_sql(query)]
    return found


@pytest.mark.slow
def test_the_rows_are_those_of_sqlite_bit_for_bit(project: Project, url: str) -> None:
    project.relations_and_directions()
    other = Project(project.settings, project.home, results=ResultsResource(url=url))
    for sae in project.settings.saes:
        other.merge(sae)
    other.relations_and_directions()
    expected, found = rows_as_stored(project.url), rows_as_stored(url)
    assert {name for name, rows in expected.items() if rows} >= {"features", "feature_logits", "feature_neighbours"}
    for name, rows in expected.items():
        assert found[name] == rows, name


def test_a_reader_keeps_its_rows_while_others_are_put_in_their_place(engine: sa.Engine, url: str) -> None:
    load(engine, 1.0)
    query = sa.select(sa.func.max(features.c.max_activation))
    with read_database(url) as other, other.connect() as reading, other.connect() as second:
        assert reading.scalar(query) == 1.0
        load(engine, 2.0)
        assert second.scalar(query) == 2.0
        assert reading.scalar(query) == 1.0


_KILLED_AT = """
import os, signal, sys
from extraction_assets.database.backends.parquet import sessions
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageUrl
from extraction_assets_tests.database.stored_rows import store_rows
from extraction_assets_tests.database.synthetic import make_results

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

place, name = sys.argv[2].split(".")
setattr({"os": os, "Session": sessions.Session}[place], name, die)
with write_transaction(open_database(sys.argv[1])) as connection:
    make_results("new", 2.0, num_features=20, top_k=5).load(connection)
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["Session.append", "Session._published", "os.link"])
def test_a_writer_that_is_killed_leaves_the_old_rows(engine: sa.Engine, url: str, step: str) -> None:
    """At ``os.link`` a manifest is written and does not have its name yet."""
    load(engine, 1.0)
    before = data_files(url)
    killed = run_code(_KILLED_AT, url, step)
    assert killed.returncode == -signal.SIGKILL
    assert data_files(url) > before
    assert bool(drafts(url)) == (step == "os.link")
    assert activation_of(engine) == 1.0
    load(engine, 3.0, sae="other")
    assert drafts(url) == []
    assert activation_of(engine) == 1.0
    with open(Path(url.removeprefix("parquet:///")) / "manifests" / "000000000003.json") as file:
        said = json.load(file)
    named = {one["name"] for table in said["tables"].values() for one in table["files"]}
    assert data_files(url) == named | {one["name"] for one in said["retired"]}


def test_a_transaction_that_fails_leaves_no_file(engine: sa.Engine, url: str) -> None:
    load(engine, 1.0)
    before = data_files(url)
    with pytest.raises(ZeroDivisionError), write_transaction(engine) as connection:
        make_results("new", 2.0, num_features=20, top_k=5).load(connection)
        assert data_files(url) > before
        raise ZeroDivisionError
    assert data_files(url) == before
    assert activation_of(engine) == 1.0


def test_a_commit_that_is_interrupted_leaves_the_files_that_its_manifest_names(
    engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(engine, 1.0)
    create = LocalFolder.create

    def interrupted(folder: LocalFolder, name: str, content: bytes) -> bool:
        create(folder, name, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFolder, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(engine, 2.0)
    with opened_database(url) as other:
        assert activation_of(engine) == activation_of(other) == 2.0


def test_a_manifest_that_cannot_be_written_leaves_no_file(
    engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(engine, 1.0)
    before = data_files(url)

    def refuse(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFolder, "create", refuse)
    with pytest.raises(OSError, match="No space left"):
        load(engine, 2.0)
    assert data_files(url) == before


def test_files_of_others_in_the_folder_stay(tmp_path: Path, url: str) -> None:
    other = tmp_path / "results" / "corpus" / "part-0.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of somebody else")
    with opened_database(url) as engine:
        load(engine, 1.0)
        backend_of(engine).sweep(engine, remove=True)
    assert other.read_bytes() == b"of somebody else"


def test_what_a_store_of_chunks_writes_in_the_same_folder_stays(tmp_path: Path, engine: sa.Engine) -> None:
    """Nobody else is writing results, but somebody may be writing these at this moment."""
    others = [tmp_path / "results" / name for name in ("tiny/.corpus.json", "tiny/notes.parquet", "table.json")]
    written = [path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp") for path in others]
    for path in written:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    load(engine, 1.0)
    assert all(path.exists() for path in written)


def test_the_names_of_folders_are_no_columns(tmp_path: Path) -> None:
    url = f"parquet:///{tmp_path}/sae=7/model=other/results"
    with opened_database(url) as engine:
        load(engine, 1.0)
    with read_database(url) as engine, engine.connect() as connection:
        assert connection.execute(sa.select(extractions.c.sae, extractions.c.model)).all() == [("sae", "model")]


def test_two_threads_write_labels_one_after_the_other_on_object_storage(tmp_path: Path) -> None:
    url = f"parquet+memory://results/{tmp_path.name}"
    with opened_database(url) as engine:
        load(engine, 1.0)

        def write() -> None:
            with label_transaction(engine) as labelling:
                save_label(labelling, "made-up", "sae", 2, label="second")

        with ThreadPoolExecutor(1) as pool:
            with label_transaction(engine) as labelling:
                save_label(labelling, "made-up", "sae", 1, label="first")
                written = pool.submit(write)
                wait([written], timeout=0.1)
            written.result()
    with opened_database(url) as engine, engine.connect() as connection:
        assert {one.label for one in list_labels(connection, "made-up")} == {"first", "second"}


def test_a_merge_is_not_lost_where_its_number_was_taken_and_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_KEPT_MANIFESTS", 1)
    url = f"parquet+memory://results/{tmp_path.name}"
    with opened_database(url) as engine, opened_database(url) as other:
        load(engine, 1.0)
        with write_transaction(engine) as connection:
            make_results("new", 2.0, num_features=20, top_k=5).load(connection)
            for feature in range(2):
                with label_transaction(other) as labelling:
                    save_label(labelling, "made-up", "sae", feature, label="said meanwhile")
    with opened_database(url) as engine, engine.connect() as connection:
        assert len(list_labels(connection, "made-up")) == 2
        assert activation_of(engine) == 2.0


def test_replaced_files_stay_for_readers_and_then_go(
    engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(engine, 1.0)
    before = {name for name in data_files(url) if name.startswith("features/")}
    load(engine, 2.0)
    load(engine, 2.5, sae="other")
    assert before < data_files(url)
    monkeypatch.setattr(sessions, "RETIRED_SECONDS", 0)
    load(engine, 3.0)
    assert not before & data_files(url)


def test_deleting_some_samples_writes_the_others_in_their_order(engine: sa.Engine, url: str) -> None:
    load(engine, 1.0, num_features=20, sae="one")
    load(engine, 2.0, num_features=8, sae="two")
    with write_transaction(engine) as connection:
        delete_results(connection, "made-up", "one")
    with engine.connect() as connection:
        indices = connection.scalars(sa.select(samples.c.sample_index)).all()
    assert len(indices) == 40
    assert indices == sorted(indices)


def test_many_additions_become_one_file(engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MOST_FILES", 2)
    for number in range(4):
        load(engine, 1.0, num_features=10 * (number + 1), sae=str(number))
    with engine.connect() as connection:
        session = connection.connection.driver_connection
        assert len(session._tables["samples"].files) <= 2
        assert connection.scalar(sa.select(sa.func.count()).select_from(samples)) == 200


def test_a_feature_is_in_one_of_many_small_row_groups(tmp_path: Path) -> None:
    texts = pa.array(["x" * 20_000] * 1_000)
    rows = pa.table({"extraction_id": np.full(1_000, 1), "neuron_index": np.arange(1_000), "examples": texts})
    kinds = {"extraction_id": "BIGINT", "neuron_index": "BIGINT", "examples": "VARCHAR"}
    assert write_rows(tmp_path / "rows.parquet", kinds, [rows]) == 1_000
    groups = pq.ParquetFile(tmp_path / "rows.parquet").metadata
    firsts = [groups.row_group(at).column(1).statistics.min for at in range(groups.num_row_groups)]
    assert firsts == list(range(0, 1_000, firsts[1]))
    assert firsts[1] < 60


def test_small_parts_are_joined_to_a_row_group(tmp_path: Path) -> None:
    kinds = {"extraction_id": "BIGINT", "neuron_index": "BIGINT"}
    parts = [pa.table({"extraction_id": [1] * 10, "neuron_index": range(10 * at, 10 * at + 10)}) for at in range(50)]
    assert write_rows(tmp_path / "rows.parquet", kinds, parts) == 500
    assert pq.ParquetFile(tmp_path / "rows.parquet").metadata.num_row_groups == 1
    assert pq.read_table(tmp_path / "rows.parquet")["neuron_index"].to_pylist() == list(range(500))


def test_rows_are_written_a_part_at_a_time(engine: sa.Engine) -> None:
    """What is not asked for yet is not made: a load holds a part, however many there are."""
    made: list[int] = []
    sizes: list[int] = []

    def parts(folder: Path) -> Iterator[pa.Table]:
        for number in range(5):
            made.append(number)
            sizes.append(sum(path.stat().st_size for path in folder.glob("feature_example_lists/*.parquet")))
            texts = pa.array([f"[{'123,' * 400_000}{number}]"])
            yield pa.table({"extraction_id": [7], "neuron_index": [number], "examples": texts})

    with write_transaction(engine) as connection:
        root = Path(str(engine.url.database))
        backend_of(engine).replace_rows(connection, feature_example_lists, 7, parts(root))
    assert made == list(range(5))
    assert sizes[4] > sizes[1]  # those before lie in the file


def test_rows_of_two_extractions_at_once_are_refused(engine: sa.Engine) -> None:
    rows = pa.table({"extraction_id": [1, 2], "neuron_index": [0, 0], "examples": ["[]", "[]"]})
    with pytest.raises(ValueError, match="several extraction_id"), write_transaction(engine) as connection:
        backend_of(engine).insert(connection, feature_example_lists, [rows])


def test_a_change_outside_a_write_transaction_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match="write_transaction"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM corpora")


def test_a_writer_waits_no_longer_than_said(engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extraction_assets.database.backends.parquet.folder.WAIT_SECONDS", 0.05)
    refused = pytest.raises(DatabaseUnavailableError, match="another program has been writing")
    with write_transaction(engine), opened_database(url) as other, refused:
        load(other, 2.0)


def test_the_script_gives_a_persons_duckdb_the_tables(engine: sa.Engine, url: str) -> None:
    import duckdb

    load(engine, 1.5)
    shell = duckdb.connect()
    shell.execute((Path(url.removeprefix("parquet:///")) / "results.sql").read_text())
    query = "SELECT count(*), max(max_activation) FROM feature_activations WHERE extraction_id = 1"
    assert shell.execute(query).fetchall() == [(100, 1.5)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("parquet:///relative", "no full path"),
        ("parquet+s3://bucket", "no folder in a bucket"),
        ("parquet+s3://user:secret@bucket/folder", "a user, a port or options"),
    ],
)
def test_a_url_that_names_no_folder_is_said_without_its_password(given: str, said: str) -> None:
    with pytest.raises(DatabaseError, match=said) as raised:
        open_database(given)
    assert "secret" not in str(raised.value)


def test_without_duckdb_the_extra_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "extraction_assets.database.backends.parquet.sessions")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(DatabaseError, match=r"pip install 'extraction-assets\[parquet\]'"):
        open_database(url)


@pytest.mark.parametrize("text", ["{", '{"form": 99}', '{"form": 1}'])
def test_a_manifest_that_cannot_be_read_is_named(engine: sa.Engine, url: str, text: str) -> None:
    (Path(str(engine.url.database)) / "manifests" / "000000000009.json").write_text(text)
    with pytest.raises(DatabaseError, match=r"000000000009\.json of the results in .* cannot be read"):
        open_database(url)


@pytest.mark.slow
def test_on_object_storage_only_one_of_two_changes_of_the_same_is_made(s3: object) -> None:
    url = "parquet+s3://results/conflicts"
    with opened_database(url) as engine, opened_database(url) as other:
        load(engine, 1.0)
        with (
            pytest.raises(DatabaseUnavailableError, match="another host has changed"),
            write_transaction(engine) as one,
        ):
            make_results("mine", 2.0, num_features=20, top_k=5).load(one)
            load(other, 3.0)
        assert activation_of(engine) == activation_of(other) == 3.0


@pytest.mark.slow
def test_on_object_storage_what_a_killed_writer_was_uploading_goes_after_a_while(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3.client()
    names = [f"features/3-{uuid.uuid4().hex}.parquet", "notes.txt"]
    for name in names:
        client.call_s3("create_multipart_upload", Bucket="results", Key=f"killed-writer/{name}")
    draft = f"manifests/.000000000009.json.{uuid.uuid4().hex}.tmp"
    client.pipe_file(f"results/killed-writer/{draft}", b"half")

    def left() -> tuple[set[str], bool]:
        uploads = RemoteFolder(StorageUrl("s3", "results/killed-writer")).uploads()
        client.invalidate_cache()
        return {one.name for one in uploads}, bool(client.exists(f"results/killed-writer/{draft}"))

    monkeypatch.setattr(StorageFolder, "orphan_seconds", 1e10)  # moto says of each upload that it began in 2010
    with opened_database("parquet+s3://results/killed-writer") as engine:
        load(engine, 1.0)
        assert left() == (set(names), True)
        monkeypatch.setattr(StorageFolder, "orphan_seconds", 0.0)
        load(engine, 2.0)
        assert left() == ({"notes.txt"}, False)
        assert activation_of(engine) == 2.0


@pytest.mark.slow
def test_on_object_storage_a_label_goes_beside_a_merge(s3: object) -> None:
    url = "parquet+s3://results/labels"
    with opened_database(url) as engine, opened_database(url) as other:
        load(engine, 1.0)
        with write_transaction(engine) as connection:
            make_results("new", 2.0, num_features=20, top_k=5).load(connection)
            with label_transaction(other) as labelling:
                save_label(labelling, "made-up", "sae", 3, label="said meanwhile")
        time.sleep(1.1)  # for a second what was listed is believed
        with engine.connect() as connection:
            assert [label.label for label in list_labels(connection, "made-up")] == ["said meanwhile"]
        assert activation_of(engine) == 2.0


@pytest.mark.parametrize("text", ['x",y', '\\","', "over tokens", 'END",', "ünï", "a\nb", "100%", "_"])
def test_a_text_is_found_whatever_signs_are_in_it(engine: sa.Engine, text: str) -> None:
    tokens = {0: ['x",', "y"], 1: ["\\", '","'], 2: [" ov", "er to", "kens"], 3: ['end",'], 4: ["ÜN", "ï"], 5: ["a\nb"]}
    tokens |= {6: ["10", "0%"], 7: ["a_b"], 8: ["plain"]}
    rows = {"document_id": "d", "first_token": 0, "token_ids": []}
    with write_transaction(engine) as connection:
        store_rows(
            connection,
            samples,
            [{"corpus_id": 1, "sample_index": at, **rows, "tokens": one} for at, one in tokens.items()],
        )
    with engine.connect() as connection:
        condition = backend_of(connection).text_index.scanned(samples.c.tokens, text)
        found = connection.scalars(sa.select(samples.c.sample_index).where(condition)).all()
    assert found == [at for at, one in tokens.items() if text.casefold() in "".join(one).casefold()]
    assert found


def test_a_sweep_removes_what_was_replaced_long_ago(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load(engine, 1.0)
    load(engine, 2.0)
    assert backend_of(engine).sweep(engine, remove=True) == 0
    monkeypatch.setattr(sessions, "RETIRED_SECONDS", 0)
    found = backend_of(engine).sweep(engine, remove=False)
    assert found > 0
    assert backend_of(engine).sweep(engine, remove=True) == found
    assert backend_of(engine).sweep(engine, remove=True) == 0
    assert activation_of(engine) == 2.0
