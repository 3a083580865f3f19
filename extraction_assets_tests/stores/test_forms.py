"""Files in earlier and later forms: what still means the same is read, the rest counts as stale, and none raises."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from extraction_assets.catalog import ChunkAsset, chunk_assets
from extraction_assets.stores import chunk_store
from extraction_assets.stores.chunk_names import FORMS
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.recognised_files import unnamed_corpora
from extraction_assets.upkeep.clean import SUPERSEDED, find_garbage
from extraction_assets_tests.project import Project

KEYS = ["000000000000", "000000000008", "000000000016"]
NEXT: dict[ChunkAsset, str] = {
    "model_activations": ".v3.safetensors",
    "sae_features": ".v3.safetensors",
    "top_k_table": ".v3.parquet",
}


@pytest.fixture
def project(tokenized: Project) -> Project:
    return tokenized


def write_next(monkeypatch: pytest.MonkeyPatch, *, read_earlier: bool) -> None:
    """As in a later version, which writes every file in another form."""
    for asset, form in NEXT.items():
        monkeypatch.setitem(FORMS, asset, (form, *(FORMS[asset] if read_earlier else ())))


def in_an_earlier_form(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks whose form this version does not read any more."""
    project.chunks()
    write_next(monkeypatch, read_earlier=False)


def in_a_later_form(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks in a form that this version does not know."""
    with monkeypatch.context() as later:
        write_next(later, read_earlier=True)
        project.chunks()
    for path in project.home.glob("tiny/**/*.v3.*"):
        path.write_bytes(b"a form that nobody here reads")


def states(project: Project) -> Counter[str]:
    """How many chunk files are done, stale and missing."""
    plan = project.plan
    return Counter(
        plan.chunk_state(asset, plan.settings.chunk(key), sae)
        for asset, sae in chunk_assets(project.settings.saes)
        for key in KEYS
    )


def test_files_of_an_earlier_form_that_is_read_are_done(recorded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write_next(monkeypatch, read_earlier=True)
    assert states(recorded) == {"done": 15}


def test_chunks_in_two_forms_merge_to_the_same_rows(
    project: Project, merged_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT * FROM feature_activations ORDER BY 1, 2, 3"
    expected = Project(project.settings, merged_once).rows(query)
    project.chunks(0, 1)
    write_next(monkeypatch, read_earlier=True)
    project.chunks(2, 2)
    project.merge("relu")
    project.merge("topk")
    assert sorted(path.name.split(".", 1)[1] for path in project.home.glob("tiny/relu/top_k_table/*.parquet")) == [
        "parquet",
        "parquet",
        "v3.parquet",
    ]
    assert project.rows(query) == expected


def test_a_chunk_that_is_computed_again_is_read_in_its_newest_form(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_next(monkeypatch, read_earlier=True)
    recorded.chunks(0, 0)
    assert recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(KEYS[0]), "relu").name.endswith(
        ".v3.parquet"
    )
    assert recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(KEYS[1]), "relu").name.count(".") == 1


def test_an_earlier_form_of_what_is_there_in_a_newer_one_is_superseded(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_next(monkeypatch, read_earlier=True)
    recorded.chunks(0, 0)
    found = find_garbage({"tiny": recorded.settings}, [], ChunkStore(recorded.home), {}).items
    superseded = {one.path for one in found if one.kind == SUPERSEDED}
    assert {path.name.split("-")[0] for path in superseded} == {KEYS[0]}
    assert len(superseded) == 5


@pytest.mark.parametrize("write", [in_an_earlier_form, in_a_later_form])
def test_files_of_a_form_that_is_not_read_are_stale_and_made_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, write: Callable[[Project, pytest.MonkeyPatch], None]
) -> None:
    write(project, monkeypatch)
    assert states(project) == {"stale": 15}
    project.merged()
    assert states(project) == {"done": 15}


def test_files_of_a_later_form_are_left_by_clean(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_later_form(project, monkeypatch)
    found = find_garbage({"tiny": project.settings}, [], ChunkStore(project.home), {}).items
    assert not [one for one in found if ".v3." in one.path.name]


def write_corpus_of_later_version(store: ChunkStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a current corpus in a form that this version does not know."""
    current = store.current_corpus("tiny")
    assert current is not None
    with monkeypatch.context() as later:
        later.setattr(chunk_store, "CORPUS_FORM", 3)
        store.write_current_corpus("tiny", current)
        assert store.current_corpus("tiny") is not None
    return current.corpus.folder


def test_a_corpus_in_the_form_of_a_later_version_is_made_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChunkStore(project.home)
    folder = write_corpus_of_later_version(store, monkeypatch)
    (folder / "manifest.json").write_bytes(b"a form that nobody here reads")
    assert store.current_corpus("tiny") is None
    project.corpus()
    assert store.current_corpus("tiny") is not None


def test_a_corpus_that_a_later_version_uses_is_left_by_clean(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ChunkStore(project.home)
    write_corpus_of_later_version(store, monkeypatch)
    assert unnamed_corpora(store) == []
