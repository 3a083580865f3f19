"""Fingerprints: what belongs in them and what does not; states of chunks."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.planning import plan as plan_module
from extraction_assets.planning.plan import CorpusNotReady
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_language_model, make_sae, make_settings


@pytest.fixture
def project(tokenized: Project) -> Project:
    return tokenized


def _changed(project: Project, tiny_folder: Path, **changes: Any) -> Project:
    other = Project(make_settings(tiny_folder, **changes), project.home)
    other.corpus()
    return other


def test_more_samples_keep_whole_chunks_and_rename_nothing(project: Project, tiny_folder: Path) -> None:
    project.chunks()
    more = _changed(project, tiny_folder, evaluation_samples=30)
    assert more.settings.chunk_keys[:3] == project.settings.chunk_keys
    # the last chunk had 7 samples and now has 8
    assert more.plan.missing_chunks() == ["000000000016", "000000000024"]
    assert more.plan.chunk_state("top_k_table", more.settings.chunk("000000000016"), "relu") == "stale"
    assert more.plan.chunk_state("top_k_table", more.settings.chunk("000000000024"), "relu") == "missing"


def test_a_new_k_leaves_features_done(project: Project, tiny_folder: Path) -> None:
    project.chunks()
    other = _changed(project, tiny_folder, top_k_examples=3)
    assert other.plan.chunk_state("top_k_table", other.settings.chunk("000000000000"), "relu") == "stale"
    assert other.plan.chunk_state("sae_features", other.settings.chunk("000000000000"), "relu") == "done"


def test_exclusions_leave_features_done(project: Project, tiny_folder: Path) -> None:
    project.chunks()
    corpus = {"source": str(tiny_folder / "texts"), "max_length": 16, "exclude_first_positions": 3}
    other = _changed(project, tiny_folder, corpus=corpus)
    assert other.plan.chunk_state("top_k_table", other.settings.chunk("000000000000"), "relu") == "stale"
    assert other.plan.chunk_state("sae_features", other.settings.chunk("000000000000"), "relu") == "done"


def test_another_sae_leaves_activations_and_the_first_sae_done(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    project.chunks()
    values = project.settings.model_dump()["saes"]
    values["topk"]["path"] = str(make_sae(tmp_path / "new", "topk", seed=5))
    other = _changed(project, tiny_folder, saes=values)
    assert other.plan.chunk_state("model_activations", other.settings.chunk("000000000000")) == "done"
    assert other.plan.chunk_state("top_k_table", other.settings.chunk("000000000000"), "relu") == "done"
    assert other.plan.chunk_state("sae_features", other.settings.chunk("000000000000"), "topk") == "stale"


def test_other_model_weights_make_everything_stale(project: Project, tiny_folder: Path, tmp_path: Path) -> None:
    project.chunks()
    model = {"path": str(make_language_model(tmp_path / "model", seed=3))}
    other = _changed(project, tiny_folder, language_model=model)
    assert other.plan.chunk_state("model_activations", other.settings.chunk("000000000000")) == "stale"


def test_the_place_of_a_checkpoint_has_no_part_in_the_fingerprint(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    project.chunks()
    model = {"path": str(make_language_model(tmp_path / "copy"))}  # the same seed, so the same bytes
    other = _changed(project, tiny_folder, language_model=model)
    assert other.plan.chunk_state("model_activations", other.settings.chunk("000000000000")) == "done"


def test_the_same_corpus_is_stored_once(project: Project, tiny_folder: Path) -> None:
    other = make_settings(tiny_folder, name="other")
    Project(other, project.home).corpus()
    assert len(list((project.home / "corpora").iterdir())) == 1


def test_an_unchanged_corpus_is_reused_and_a_changed_text_is_not(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("some words to read. " * 100)
    settings = make_settings(
        tiny_folder, corpus={"source": str(texts), "max_length": 16}, evaluation_samples=8, chunk_size=4
    )
    project = Project(settings, home)
    assert _reused(project) is False
    assert _reused(project) is True
    (texts / "a.txt").write_text("some other words to read. " * 100)
    assert _reused(project) is False


def _reused(project: Project) -> bool:
    (event,) = project.corpus().get_asset_materialization_events()
    return bool(event.materialization.metadata["reused"].value)


def test_start_sample_keeps_absolute_sample_indices(project: Project, tiny_folder: Path, tmp_path: Path) -> None:
    later = Project(make_settings(tiny_folder, start_sample=8, evaluation_samples=15), tmp_path / "later")
    later.merged()
    project.merged()
    assert later.settings.chunk_keys == ["000000000008", "000000000016"]
    query = "SELECT sample_index, document_id, first_token, tokens FROM samples ORDER BY 1"
    ours = {row[0]: row[1:] for row in project.rows(query)}
    theirs = {row[0]: row[1:] for row in later.rows(query)}
    both = ours.keys() & theirs.keys()
    assert len(both) > 5
    assert min(theirs) >= 8
    assert all(ours[index] == theirs[index] for index in both)


def test_the_same_corpus_may_arrive_several_times_at_once(project: Project, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from extraction_assets.stores.corpus_files import write_corpus

    described = {"source": "s", "tokenizer": "t", "packing": "documents", "start_sample": 0}
    tokenized = project.plan.corpus.arrays
    for attempt in range(5):
        root = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(lambda root: write_corpus(root, tokenized, **described), [root] * 4))
        assert len({corpus.folder for corpus in stored}) == len(list(root.iterdir())) == 1


def test_a_plan_without_a_corpus_says_so(tiny_folder: Path, home: Path) -> None:
    with pytest.raises(CorpusNotReady, match="materialize tiny/corpus first"):
        _ = Project(make_settings(tiny_folder), home).plan


def test_options_of_encode_make_features_stale_and_their_defaults_do_not(project: Project, tiny_folder: Path) -> None:
    project.chunks()
    relu = project.settings.model_dump()["saes"]["relu"]
    for options, state in (
        ({"center_input": None, "fold_decoder_norm": False, "norm_scaling_factor": None}, "done"),
        ({"fold_decoder_norm": True}, "stale"),
        ({"center_input": True}, "stale"),
    ):
        other = _changed(project, tiny_folder, saes={"relu": {**relu, **options}})
        assert other.plan.chunk_state("sae_features", other.settings.chunk("000000000000"), "relu") == state


def test_a_recorded_hook_is_the_same_as_one_that_is_set(project: Project, tiny_folder: Path, tmp_path: Path) -> None:
    folder = make_sae(tmp_path / "sae", hook_name="layers.0")
    own = {"path": str(folder), "minimum_variance_explained": -1e9}
    recorded = _changed(project, tiny_folder, saes={"relu": own})
    chosen = _changed(project, tiny_folder, saes={"relu": {**own, "hook": "layers.0"}})
    assert recorded.plan.extraction.hooks == ["layers.0"]
    key = "000000000000"
    assert recorded.plan.table_fingerprint(recorded.settings.chunk(key), "relu") == chosen.plan.table_fingerprint(
        chosen.settings.chunk(key), "relu"
    )
    assert recorded.plan.activations_fingerprint(recorded.settings.chunk(key)) == chosen.plan.activations_fingerprint(
        chosen.settings.chunk(key)
    )


def test_the_hook_that_a_transcoder_gives_belongs_to_all_for_they_hold_its_score(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    own = {"path": str(make_sae(tmp_path / "sae", "transcoder")), "hook": "layers.0"}
    one, other = (
        _changed(project, tiny_folder, saes={"relu": {**own, "hook_out": h}}) for h in ("layers.1", "layers.2")
    )
    key = "000000000000"
    for asset in ("model_activations", "sae_features", "top_k_table"):
        ours, theirs = (p.plan.fingerprint_of(asset, p.settings.chunk(key), "relu") for p in (one, other))
        assert ours != theirs


def test_the_states_of_all_chunks_are_those_of_each(project: Project, tiny_folder: Path) -> None:
    project.chunks()
    more = _changed(project, tiny_folder, evaluation_samples=40)
    files = sorted((project.home / "tiny" / "relu" / "top_k_table").glob("*.parquet"))
    files[0].unlink()
    files[0].mkdir()
    files[1].unlink()
    for asset, sae in (("top_k_table", "relu"), ("sae_features", "topk"), ("model_activations", None)):
        each = {chunk.key: more.plan.chunk_state(asset, chunk, sae) for chunk in more.settings.chunks}
        assert more.plan.chunk_states(asset, sae) == each
    assert list(more.plan.chunk_states("top_k_table", "relu").values()) == ["missing"] * 2 + ["stale"] + ["missing"] * 2


def test_fingerprints_are_worked_out_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 SAEs of 10,000 chunks are asked for several times by ``status`` and by each tick of the schedule."""
    plan = project.plan
    first = [plan.table_fingerprint(chunk, "relu") for chunk in project.settings.chunks]
    monkeypatch.setattr(plan_module, "fingerprint", lambda *_, **__: pytest.fail("worked out again"))
    assert [plan.table_fingerprint(chunk, "relu") for chunk in project.settings.chunks] == first
