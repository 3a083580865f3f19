"""Data sets of the library ``datasets``: splits, streaming, commits. Only the network is not the real one."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from extraction_assets.engine.corpora import hub_datasets
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.engine.hub import HubError, HubUnavailable
from extraction_assets.planning.source_identity import source_identity
from extraction_assets.settings import CorpusSettings
from extraction_assets_tests.engine.corpora.build import ROWS, TEXTS, documents, save_dataset, write_parquet

datasets = pytest.importorskip("datasets")

HUB_ID = "someone/some-data"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Calls = list[dict[str, Any]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The hub: ``someone/some-data`` is a folder in a repository's form. Gives what was asked for."""
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    write_parquet(folder / "data" / "train-0.parquet", ROWS[:6])
    write_parquet(folder / "data" / "train-1.parquet", ROWS[6:])
    write_parquet(folder / "data" / "test-0.parquet", ROWS[:2])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # 5 s after each shuffled stream
    datasets.disable_progress_bars()
    calls: Calls = []

    def local(real: Callable[..., Any]) -> Callable[..., Any]:
        def load(path: str, *args: Any, revision: str | None = None, **options: Any) -> Any:
            assert path == HUB_ID
            calls.append({"function": real.__name__, "revision": revision, **options})
            found = real(str(folder), *args, **options)
            if real.__name__ == "load_dataset_builder":
                found.hash = COMMIT  # as the builder of a hub data set has it
            return found

        return load

    monkeypatch.setattr(hub_datasets, "_unanswered", lambda _repository: None)
    for name in ("load_dataset", "load_dataset_builder"):
        monkeypatch.setattr(datasets, name, local(getattr(datasets, name)))
    monkeypatch.chdir(tmp_path)
    return calls


# The hub


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_read_in_order(hub: Calls, streaming: bool) -> None:
    assert documents(HUB_ID, streaming=streaming) == [(str(number), text) for number, text in enumerate(TEXTS)]
    assert documents(HUB_ID, streaming=streaming, split="test", id_column="name") == [
        ("n0", TEXTS[0]),
        ("n1", TEXTS[1]),
    ]
    assert {call["streaming"] for call in hub if call["function"] == "load_dataset"} == {streaming}


def test_the_commit_that_was_found_is_the_one_that_is_read(hub: Calls) -> None:
    source = find_source(CorpusSettings(source=HUB_ID, revision="main"))
    identity = source_identity(source)
    next(source.documents())
    assert [(call["function"], call["revision"]) for call in hub] == [
        ("load_dataset_builder", "main"),
        ("load_dataset", COMMIT),
    ]
    assert identity == source_identity(find_source(CorpusSettings(source=HUB_ID)))


def test_a_full_commit_asks_nobody(hub: Calls) -> None:
    pinned = source_identity(find_source(CorpusSettings(source=HUB_ID, revision=COMMIT)))
    assert hub == []
    assert pinned == source_identity(find_source(CorpusSettings(source=HUB_ID)))
    assert pinned != source_identity(find_source(CorpusSettings(source=HUB_ID, revision=COMMIT[::-1])))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_seed_shuffles_it_in_one_way(hub: Calls, streaming: bool) -> None:
    one, again, other = (
        [text for _, text in documents(HUB_ID, streaming=streaming, shuffle_seed=seed)] for seed in (3, 3, 4)
    )
    assert one == again != other
    assert sorted(one) == sorted(TEXTS) != one


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_or_split_lists_those_there_are(hub: Calls, streaming: bool) -> None:
    with pytest.raises(CorpusError, match="has no column 'content'; it has 'text', 'name', 'label'"):
        documents(HUB_ID, streaming=streaming, text_column="content")
    with pytest.raises(CorpusError, match=r"cannot be loaded: .*train"):
        documents(HUB_ID, streaming=streaming, split="validation")


def test_a_hub_that_is_away_is_named_and_may_come_back(hub: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any, **_options: Any) -> Any:
        raise ConnectionError("Couldn't reach 'someone/some-data' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", away)
    with pytest.raises(HubUnavailable, match=r"'someone/some-data' is neither .* beside the YAML file"):
        source_identity(find_source(CorpusSettings(source=HUB_ID)))


@pytest.mark.parametrize(
    ("why", "error", "says"),
    [
        (
            ConnectionError("no route"),
            HubUnavailable,
            "no route.*try again later, or .*`hf download someone/away",
        ),
        (OfflineModeIsEnabled("offline"), HubError, "HF_HUB_OFFLINE is set, and .*: unset HF_HUB_OFFLINE, or on a"),
    ],
)
def test_a_hub_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception, error: type[Exception], says: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub_datasets, "_unanswered", lambda repository: asked.append(repository) or why)
    monkeypatch.setattr(HfApi, "hf_hub_download", lambda *_args, **_options: asked.append("again"))
    with pytest.raises(error, match=says):
        next(find_source(CorpusSettings(source="someone/away")).documents())
    assert (asked, datasets.config.HF_HUB_OFFLINE) == (["someone/away"], False)


def test_any_answer_is_the_library_s_to_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Mock(side_effect=[ConnectionError("refused"), TimeoutError(), KeyError("not there"), None])
    monkeypatch.setattr(HfApi, "dataset_info", answers)
    found = [hub_datasets._unanswered(HUB_ID) for _ in range(4)]
    assert [type(one) for one in found] == [ConnectionError, TimeoutError, type(None), type(None)]


def test_a_source_that_the_hub_does_not_have_is_named(hub: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> Any:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'data/txts' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", unknown)
    with pytest.raises(CorpusError, match=r"'data/txts' is neither a full path nor .*doesn't exist on the Hub"):
        source_identity(find_source(CorpusSettings(source="data/txts")))


def test_a_folder_of_that_name_in_the_working_directory_changes_nothing(hub: Calls, tmp_path: Path) -> None:
    (tmp_path / HUB_ID).mkdir(parents=True)
    (tmp_path / HUB_ID / "a.txt").write_text("here")
    assert [text for _, text in documents(HUB_ID)] == TEXTS
    assert documents(tmp_path / HUB_ID) == [("a.txt", "here")]


@pytest.mark.parametrize("kind", ["hub", "saved"])
def test_without_the_library_the_extra_is_named(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = HUB_ID if kind == "hub" else str(save_dataset(tmp_path / "saved", ROWS))
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "datasets":
            raise ImportError("No module named 'datasets'")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CorpusError, match=r"pip install 'extraction-assets\[datasets\]'"):
        find_source(CorpusSettings(source=source))


# On disk


def test_a_split_of_a_saved_data_set_is_chosen(tmp_path: Path) -> None:
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:2])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert len(documents(tmp_path / "saved")) == 10
    assert len(documents(tmp_path / "saved", split="test")) == 2
    with pytest.raises(CorpusError, match="has no split 'validation'; it has 'train', 'test'"):
        documents(tmp_path / "saved", split="validation")


def test_the_only_split_need_not_be_named(tmp_path: Path) -> None:
    datasets.DatasetDict({"only": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert len(documents(tmp_path / "saved")) == 10


def test_a_saved_data_set_has_no_splits_to_choose_from(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus.split is 'train', but .*saved holds one data set without splits"):
        documents(save_dataset(tmp_path / "saved", ROWS), split="train")


def test_rows_that_were_selected_before_it_was_saved_are_its_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).select([7, 2]).save_to_disk(str(tmp_path / "saved"))
    assert documents(tmp_path / "saved") == [("0", TEXTS[7]), ("1", TEXTS[2])]


def test_a_saved_data_set_is_known_by_its_rows_and_not_by_its_folder(tmp_path: Path) -> None:
    one, same, other = (
        source_identity(find_source(CorpusSettings(source=str(save_dataset(tmp_path / name, rows)))))
        for name, rows in (("one", ROWS), ("same", ROWS), ("other", ROWS[1:]))
    )
    assert one == same
    assert one.fingerprint != other.fingerprint


def test_a_file_of_it_that_is_gone_or_cut_is_named(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "saved", ROWS)
    (victim,) = folder.glob("*.arrow")
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(CorpusError, match="saved cannot be read"):
        documents(folder)
    victim.unlink()
    with pytest.raises(CorpusError, match=f"lacks .*{victim.name}"):
        documents(folder)


def test_many_documents_come_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_datasets, "_BATCH_ROWS", 3)
    folder = save_dataset(tmp_path / "saved", ROWS)
    assert [own for own, _ in documents(folder)] == [str(number) for number in range(10)]
    assert sorted(own for own, _ in documents(folder, shuffle_seed=1)) == [str(number) for number in range(10)]
