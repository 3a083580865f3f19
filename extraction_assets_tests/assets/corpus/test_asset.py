"""The corpus asset over sources of every kind: what is tokenized, what is reused, what an error leaves."""

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from extraction_assets.assets.corpus import run as corpus_asset
from extraction_assets.engine.corpora.text_files import TextFiles
from extraction_assets.engine.hub import HubSource, Snapshot
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.planning import plan
from extraction_assets.planning.source_identity import source_identity
from extraction_assets.planning.tokenization import tokenizer_findings
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_table
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.fingerprints import fingerprint
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.corpora.build import write_jsonl, write_parquet
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import TEXTS, make_language_model, make_settings

ROWS: list[dict[str, Any]] = [{"text": text, "id": name} for name, text in TEXTS.items()]


def with_corpus(tiny_folder: Path, source: Path, samples: int = 23, **corpus: Any) -> ExtractionSettings:
    return make_settings(
        tiny_folder, corpus={"source": str(source), "max_length": 16, **corpus}, evaluation_samples=samples
    )


def materialized(project: Project) -> dict[str, Any]:
    """Metadata of the corpus, made or made again."""
    (event,) = project.corpus().asset_materializations_for_node("tiny_corpus")
    return {name: value.value for name, value in event.metadata.items()}


TOKENS_COUNTED = "SELECT token_count FROM extractions"


def table_keys(project: Project) -> list[dg.AssetKey]:
    return [dg.AssetKey(["tiny", sae, "top_k_table"]) for sae in project.settings.saes]


def refused(project: Project) -> str:
    with pytest.raises(dg.Failure) as caught:
        project.corpus()
    return str(caught.value.description)


# What a corpus is known by


def test_settings_at_their_defaults_make_no_earlier_corpus_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints that were computed before there were other sources than text files."""
    monkeypatch.setattr(plan, "tokenizer_fingerprint", lambda *_: "0" * 24)
    settings = ExtractionSettings.model_validate(
        {
            "name": "tiny",
            "language_model": {"path": "/nowhere/model"},
            "corpus": {"source": "/nowhere/texts", "max_length": 16},
            "saes": {"a": {"path": "/nowhere/sae", "hook": "layers.0"}},
            "evaluation_samples": 23,
        }
    )
    assert plan.corpus_recipe(settings) == "a7f261dde14014b507036a4a"
    versions = CodeVersions(settings)
    assert (versions.of("corpus"), versions.of("top_k_table", "a")) == (
        "0778678073a55d88c298bbe2",
        "166215fda4b09798b4a08455",
    )


def test_text_files_are_known_as_they_ever_were(tmp_path: Path) -> None:
    documents = [["a.txt", 'naïve\n"text" \N{GRINNING FACE}'], ["b/c.txt", ""]]
    (tmp_path / "b").mkdir()
    for name, text in documents:
        (tmp_path / name).write_text(text, "utf-8")
    source = TextFiles(["a.txt", "b/c.txt"], [tmp_path / "a.txt", tmp_path / "b/c.txt"])
    found = source_identity(source)
    assert found.fingerprint == fingerprint("documents", documents=documents) == "ea98d5702f694a7b94f7d60f"
    assert (found.documents, found.characters) == (2, 14)


def test_text_files_that_an_earlier_version_read_otherwise_are_known_as_others(tmp_path: Path) -> None:
    """CRLF was read as LF, and a BOM was kept: those fingerprints are of other documents."""
    for raw, before in (("one\r\ntwo", "one\ntwo"), ("\ufefftext", "\ufefftext")):
        (tmp_path / "a.txt").write_bytes(raw.encode())
        found = source_identity(TextFiles(["a.txt"], [tmp_path / "a.txt"]))
        assert found.fingerprint != fingerprint("documents", documents=[["a.txt", before]])


@pytest.mark.slow
def test_columns_of_text_that_an_earlier_version_read_are_read_again_once(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ROWS)
    project = Project(with_corpus(tiny_folder, source), home).merged()
    pointer = home / "tiny" / "corpus.json"
    before = json.loads(pointer.read_text())
    assert before["reading"] == 2
    pointer.write_text(json.dumps({name: value for name, value in before.items() if name != "reading"}))
    assert not materialized(project)["reused"]
    assert materialized(project)["reused"]
    assert project.plan.missing_chunks() == [], "the samples are the same"
    assert json.loads(pointer.read_text()) == before


@pytest.mark.parametrize(
    "change",
    [
        {"packing": "concatenated"},
        {"packing": "concatenated", "sequence_separator_token": "eos"},
        {"drop_duplicates": True},
        {"shuffle_seed": 1},
        {"shuffle_seed": 1, "streaming": True},
        {"id_column": "id"},
        {"token_column": "input_ids"},
        {"split": "test"},
        {"revision": "main"},
        {"read_as": "text"},
    ],
    ids=str,
)
def test_whatever_decides_the_tokens_is_part_of_the_recipe(tiny_folder: Path, change: dict[str, Any]) -> None:
    plain, other = (with_corpus(tiny_folder, Path("/x"), **own) for own in ({}, change))
    fewer = with_corpus(tiny_folder, Path("/x"), **dict(list(change.items())[:-1]))
    assert plan.corpus_recipe(other) not in (plan.corpus_recipe(plain), plan.corpus_recipe(fewer))
    assert CodeVersions(other).of("corpus") not in (CodeVersions(plain).of("corpus"), CodeVersions(fewer).of("corpus"))


@pytest.mark.parametrize(
    "change", [{"streaming": True}, {"exclude_positions": [3]}, {"exclude_outlier_norms": 10}], ids=str
)
def test_what_does_not_decide_them_is_not(tiny_folder: Path, change: dict[str, Any]) -> None:
    one, other = (with_corpus(tiny_folder, Path("/x"), **own) for own in ({}, change))
    assert plan.corpus_recipe(one) == plan.corpus_recipe(other)
    assert CodeVersions(one).of("corpus") == CodeVersions(other).of("corpus")


# Sources


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", write_jsonl), ("a.parquet", write_parquet)])
def test_columns_give_the_samples_that_text_files_give(
    tiny_folder: Path, home: Path, tmp_path: Path, name: str, write: Any
) -> None:
    source = write(tmp_path / name, sorted(ROWS, key=lambda row: str(row["id"])))
    texts, columns = (
        Project(make_settings(tiny_folder), home),
        Project(with_corpus(tiny_folder, source, id_column="id"), tmp_path / "other"),
    )
    texts.corpus()
    columns.corpus()
    for own, other in zip(columns.plan.corpus.arrays, texts.plan.corpus.arrays, strict=True):
        assert np.array_equal(own, other)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("a.jsonl", write_jsonl), ("a.parquet", write_parquet)])
def test_an_unchanged_file_is_not_read_again_and_a_grown_one_keeps_its_version(
    tiny_folder: Path, home: Path, tmp_path: Path, name: str, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / name, ROWS)
    project = Project(with_corpus(tiny_folder, source), home)
    assert not materialized(project)["reused"]
    version = project.plan.corpus_version
    with monkeypatch.context() as patched:
        patched.setattr(corpus_asset, "SampleStream", None)
        assert materialized(project)["reused"]
    write(source, [*ROWS, {"text": "more and more " * 30, "id": "more"}])
    assert not materialized(project)["reused"]
    assert project.plan.corpus_version == version
    write(source, ROWS[::-1])
    materialized(project)
    assert project.plan.corpus_version != version


def test_a_grown_file_is_reported_with_both_sizes(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ROWS)
    project = Project(with_corpus(tiny_folder, source), home)
    project.corpus()
    before = source.stat().st_size
    write_jsonl(source, [*ROWS, *ROWS])
    key = dg.AssetCheckKey(dg.AssetKey(["tiny", "corpus"]), "source_has_not_changed")
    (found,) = project.checks_alone([key]).get_asset_check_evaluations()
    assert not found.passed
    assert f"has grown from 1 files of {before} bytes to 1 of {2 * before}" in str(found.description)


def test_a_source_that_changes_while_it_is_read_is_refused(
    tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ROWS)

    def slow(*args: Any) -> Any:
        write_jsonl(source, [*ROWS, ROWS[0]])
        return tokenizer_findings(*args)

    monkeypatch.setattr(corpus_asset, "tokenizer_findings", slow)
    project = Project(with_corpus(tiny_folder, source), home)
    assert "changed while it was read: try again" in refused(project)
    monkeypatch.undo()
    monkeypatch.setenv("EXTRACTION_HOME", str(home))
    assert not materialized(project)["reused"]


# How many documents samples come from


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "corpus", "documents", "warned"),
    [
        (3, {}, 1, True),
        (3, {"shuffle_seed": 0}, 1, False),
        (30, {}, 3, False),
        (3, {"packing": "concatenated"}, 1, True),
    ],
    ids=str,
)
def test_the_metadata_say_how_many_documents_of_how_many(
    tiny_folder: Path, home: Path, samples: int, corpus: dict[str, Any], documents: int, warned: bool
) -> None:
    project = Project(with_corpus(tiny_folder, tiny_folder / "texts", samples, **corpus), home)
    for _ in range(2):  # tokenized, and then reused
        found = materialized(project)
        assert (found["documents"], found["documents_in_source"]) == (documents, 3)
    events = project.instance.all_logs(project.corpus().run_id)
    assert (
        any("no sample comes from a document after the first 1 of 3" in str(event.message) for event in events)
        == warned
    )


def test_rows_of_parquet_are_counted_and_lines_of_jsonl_are_not_read_on_for(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    for write, name, total in ((write_parquet, "a.parquet", 3), (write_jsonl, "a.jsonl", None)):
        project = Project(with_corpus(tiny_folder, write(tmp_path / name, ROWS), 3), home / name)
        assert materialized(project).get("documents_in_source") == total


# Tokens


def token_rows(count: int = 24, vocabulary: int = 250) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        own = generator.integers(0, vocabulary, 4 + number % 9).tolist()
        padding = [0] * (16 - len(own))
        rows.append({"input_ids": own + padding, "attention_mask": [1] * len(own) + [0] * len(padding)})
    return rows


@pytest.mark.slow
def test_tokenized_rows_run_from_end_to_end_without_a_tokenizer(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    model = make_language_model(tmp_path / "model")
    for path in model.glob("*token*"):
        path.unlink()
    rows = token_rows()
    source = write_parquet(tmp_path / "a.parquet", rows)
    columns = {"token_column": "input_ids", "attention_mask_column": "attention_mask"}
    settings = with_corpus(tiny_folder, source, 24, **columns).model_copy(
        update={"language_model": make_settings(tiny_folder).language_model.model_copy(update={"path": str(model)})}
    )
    project = Project(settings, home).merged()
    arrays = project.plan.corpus.arrays
    assert arrays.token_ids.tolist() == [row["input_ids"] for row in rows]
    assert arrays.attention_mask.tolist() == [[bool(bit) for bit in row["attention_mask"]] for row in rows]
    shown = project.rows("SELECT token_ids, tokens, document_id FROM samples WHERE sample_index = 3")
    ids, tokens = json.loads(shown[0][0]), json.loads(shown[0][1])
    assert tokens == [f"<id {token}>" for token in ids]
    assert shown[0][2] == "a.parquet:3"


def test_text_without_a_tokenizer_says_so(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    model = make_language_model(tmp_path / "model")
    for path in model.glob("*token*"):
        path.unlink()
    project = Project(make_settings(tiny_folder, language_model={"path": str(model)}), home)
    assert "holds no tokenizer" in refused(project)


def test_tokens_of_another_vocabulary_are_refused_and_the_earlier_corpus_stays(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", token_rows())
    project = Project(with_corpus(tiny_folder, source, token_column="input_ids"), home)
    project.corpus()
    before = project.plan.corpus.manifest.fingerprint
    write_jsonl(source, token_rows(vocabulary=50_000))
    size = json.loads((tiny_folder / "model" / "config.json").read_text())["vocab_size"]
    message = refused(project)
    assert "document 'a.jsonl:1' holds token" in message
    assert f"the model's vocabulary is 0 to {size - 1}" in message
    assert project.plan.corpus.manifest.fingerprint == before


def test_the_packing_is_kept_with_the_corpus(tiny_folder: Path, home: Path) -> None:
    project = Project(with_corpus(tiny_folder, tiny_folder / "texts", packing="concatenated"), home)
    project.corpus()
    assert project.plan.corpus.manifest.packing == "concatenated"
    assert project.plan.corpus.arrays.attention_mask.all()


# What counts


def test_excluded_positions_do_not_count(tiny_folder: Path, home: Path) -> None:
    plain, other = (
        Project(with_corpus(tiny_folder, tiny_folder / "texts", **own), home)
        for own in ({}, {"exclude_positions": [2, 5]})
    )
    plain.corpus()
    key = plain.settings.chunk_keys[0]
    counted = plain.plan.samples(plain.settings.chunk(key)).counted.clone()
    assert counted[:, [2, 5]].any()
    counted[:, [2, 5]] = False
    assert other.plan.samples(other.settings.chunk(key)).counted.equal(counted)
    assert other.plan.features_fingerprint(other.settings.chunk(key), "relu") == plain.plan.features_fingerprint(
        plain.settings.chunk(key), "relu"
    )
    assert other.plan.table_fingerprint(other.settings.chunk(key), "relu") != plain.plan.table_fingerprint(
        plain.settings.chunk(key), "relu"
    )


@pytest.mark.slow
def test_outlier_norms_make_tables_anew_but_not_features(tiny_folder: Path, home: Path) -> None:
    texts = tiny_folder / "texts"
    plain, other = (
        Project(with_corpus(tiny_folder, texts, **own), home) for own in ({}, {"exclude_outlier_norms": 1.2})
    )
    (before, *_) = plain.merged().rows(TOKENS_COUNTED)
    key = plain.settings.chunk_keys[0]
    assert other.plan.chunk_state("sae_features", other.settings.chunk(key), "relu") == "done"
    assert other.plan.chunk_state("top_k_table", other.settings.chunk(key), "relu") == "stale"
    other.chunks(assets=table_keys(other))  # from stored activations: stored features do not tell
    other.merge("relu")
    (after,) = other.rows(f"{TOKENS_COUNTED} WHERE sae = 'relu'")
    assert before[0] > after[0] > 0


@pytest.mark.slow
def test_tables_of_outlier_norms_are_the_same_with_and_without_stored_features(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    settings = with_corpus(tiny_folder, tiny_folder / "texts", exclude_outlier_norms=1.2)
    stored, alone = Project(settings, home), Project(settings, tmp_path / "alone")
    for project in (stored, alone):
        project.corpus()
    alone.chunks(assets=table_keys(alone))
    stored.chunks(assets=[dg.AssetKey(["tiny", "model_activations"])])
    stored.chunks(assets=[dg.AssetKey(["tiny", sae, "sae_features"]) for sae in settings.saes])
    stored.chunks(assets=table_keys(stored))
    assert stored.files("**/*.parquet").keys() == alone.files("**/*.parquet").keys()
    for key, sae in itertools.product(settings.chunk_keys, settings.saes):
        one, two = (
            read_table(
                own.plan.chunk_path("top_k_table", own.settings.chunk(key), sae),
                own.plan.table_fingerprint(own.settings.chunk(key), sae),
            )
            for own in (stored, alone)
        )
        for columns, others in ((one[0], two[0]), (one[1], two[1])):
            assert_same(columns, others)


@pytest.mark.parametrize("times", [1, 2])
def test_a_corpus_and_its_plan_ask_the_hub_once_each(
    times: int, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(source: HubSource, *_: Any, **__: Any) -> Snapshot:
        asked.append(source.repository)
        return Snapshot(tiny_folder / "model", "commit")

    monkeypatch.setattr("extraction_assets.engine.hub.download_chosen", download)
    settings, store = make_settings(tiny_folder, language_model={"path": "someone/model"}), ChunkStore(home)
    for _ in range(times):  # made, then found to be current
        corpus_asset.materialize_corpus(settings, store, 1, logging.getLogger(__name__))
    plan.ExtractionPlan(settings, store)
    assert asked == ["someone/model"] * (times + 1)
