"""Activations from stored features, and the vectors of a feature."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from extraction_assets import open_results
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.planning.stored_result import NotStoredError
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.results import Results
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_activations
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets_tests import tiny
from extraction_assets_tests.project import Project


def _changed(project: Project, **changes: Any) -> Project:
    """The same extraction with other settings, all of it run."""
    settings = ExtractionSettings.model_validate({**project.settings.model_dump(), **changes})
    return Project(settings, project.home)


def test_activations_give_the_statistics_of_the_database(relu: ExtractionResults) -> None:
    features = relu.features()
    firing = features[features["activation_count"] > 0].index
    assert len(firing) > 10
    for index in firing:
        matrix, row = relu.activations(index), features.loc[index]
        assert matrix.shape == (23, 16)
        assert (matrix.nnz, matrix.data.max()) == (row["token_count"], row["max_activation"])
        assert len(np.unique(matrix.nonzero()[0])) == row["activation_count"]


def test_activations_are_the_values_of_the_examples(relu: ExtractionResults) -> None:
    dense = relu.activations(3).toarray()
    for example in relu.examples(3).itertuples():
        assert dense[example.sample_index, : len(example.values)].tolist() == example.values.tolist()


def test_a_chunk_is_a_part_of_the_corpus(relu: ExtractionResults) -> None:
    whole = relu.activations(3).toarray()
    assert relu.activations(3, chunk=1).toarray().tolist() == whole[8:16].tolist()
    assert relu.activations(3, chunk="000000000016").toarray().tolist() == whole[16:].tolist()


def test_all_features_of_a_chunk_are_columns(relu: ExtractionResults) -> None:
    matrix = relu.activations(chunk=1)
    assert matrix.shape == (8 * 16, 48)
    one = matrix.toarray()[:, 3].reshape(8, 16)
    assert one.tolist() == relu.activations(3, chunk=1).toarray().tolist()


def test_positions_that_do_not_count_are_left_out_unless_wanted(relu: ExtractionResults) -> None:
    counted, every = (relu.activations(chunk=0, counted=flag).toarray().reshape(8, 16, 48) for flag in (True, False))
    assert not counted[:, 0].any()  # BOS
    assert every[:, 0].any()
    assert (counted[:, 1:] == every[:, 1:]).all()


def test_a_sparse_tensor_holds_the_same(relu: ExtractionResults) -> None:
    for arguments in ({"neuron_index": 3}, {"chunk": 1}):
        tensor = relu.activations(**arguments, form="torch")  # type: ignore[call-overload]
        assert tensor.layout == torch.sparse_csr
        assert tensor.to_dense().tolist() == relu.activations(**arguments).toarray().tolist()  # type: ignore[call-overload]


def test_each_database_leads_to_the_files(merged_url: str, project: Project, relu: ExtractionResults) -> None:
    with open_results(merged_url, store=project.home) as found:
        assert (found["tiny/relu"].activations(3) != relu.activations(3)).nnz == 0


def test_the_files_are_those_of_the_plan(relu: ExtractionResults, project: Project) -> None:
    stored = relu._stored_features(None)
    plan = project.plan
    assert [file.path for file in stored.files] == [
        plan.chunk_path("sae_features", chunk, "relu") for chunk in plan.settings.chunks
    ]


def test_files_of_other_settings_are_left_aside(relu: ExtractionResults, project: Project) -> None:
    before = relu.activations(3).toarray()
    corpus = {**project.settings.corpus.model_dump(), "max_length": 12}
    other = _changed(project, corpus=corpus)
    other.corpus()
    other.chunks()
    project.corpus()  # back to what is merged
    assert relu.activations(3).toarray().tolist() == before.tolist()


def test_features_of_another_corpus_are_not_taken(relu: ExtractionResults, project: Project) -> None:
    other = _changed(project, corpus={**project.settings.corpus.model_dump(), "max_length": 12})
    other.corpus()
    other.chunks()
    with pytest.raises(NotStoredError, match="made from other inputs or settings than this result"):
        relu.activations(3)


def test_another_k_finds_the_same_features(project: Project, results: Results) -> None:
    other = _changed(project, top_k_examples=3)
    other.chunks()
    other.merge("relu")
    assert results["tiny/relu"].activations(3).shape == (23, 16)


def test_features_that_were_cleaned_away_are_named(relu: ExtractionResults, project: Project) -> None:
    shutil.rmtree(project.home / "tiny" / "relu" / "sae_features")
    with pytest.raises(NotStoredError, match=r"tiny/relu are not stored in .*: 3 of 3 chunks have no file"):
        relu.activations(3)


def test_another_store_has_no_features(merged_url: str, tmp_path: Any) -> None:
    with open_results(merged_url, store=tmp_path) as found, pytest.raises(NotStoredError, match="its corpus is not in"):
        found["tiny/relu"].activations(3)


def test_a_damaged_file_is_named(relu: ExtractionResults, project: Project) -> None:
    path = project.plan.chunk_path("sae_features", project.settings.chunks[1], "relu")
    stored = path.read_bytes()
    path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(DamagedFileError, match=path.name):
        relu.activations(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name a feature, or one chunk"),
        ({"chunk": 3}, "there is no chunk 3: there are numbers 0 to 2"),
        ({"neuron_index": 3, "form": "dense"}, "form is 'dense', not one of scipy, torch"),
    ],
)
def test_wrong_arguments_get_one_sentence(relu: ExtractionResults, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relu.activations(**arguments)


def test_outliers_are_not_known_of_stored_features(project: Project, results: Results) -> None:
    other = _changed(project, corpus={**project.settings.corpus.model_dump(), "exclude_outlier_norms": 10.0})
    other.chunks()
    other.merge("relu")
    found = results["tiny/relu"]
    with pytest.raises(NotComputedError, match="counted=False"):
        found.activations(3)
    assert found.activations(3, counted=False).shape == (23, 16)


def test_vectors_are_those_of_the_checkpoint(relu: ExtractionResults, project: Project) -> None:
    sae = load_sae(str(project.settings.saes["relu"].path))
    assert sae.decoder is not None
    assert relu.decoder(3).tolist() == sae.decoder[3].tolist()
    assert relu.encoder(3).tolist() == sae.encoder[:, 3].tolist()


def test_the_encoder_is_what_the_feature_reads(relu: ExtractionResults, project: Project) -> None:
    plan, chunk = project.plan, project.settings.chunks[0]
    outputs, _ = read_activations(plan.chunk_path("model_activations", chunk), plan.activations_fingerprint(chunk))
    stored = load_file(f"{project.settings.saes['relu'].path}/sae_weights.safetensors")
    read = (outputs["layers.0"] - stored["b_dec"]) @ torch.from_numpy(relu.encoder(3)) + stored["b_enc"][3]
    expected = torch.where(plan.samples(chunk).attention_mask, read.relu(), 0)
    found = relu.activations(3, chunk=0, counted=False).toarray()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def moved(project: Project, tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model and the SAEs that the merged result names, which a test may change."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    copied = tiny.make_settings(folder).model_copy(update={"corpus": project.settings.corpus})
    Project(copied, project.home).merge("relu")
    return folder


def test_vectors_of_another_checkpoint_are_refused(moved: Path, relu: ExtractionResults) -> None:
    relu.decoder(3)
    relu.close()
    shutil.rmtree(moved / "relu")
    tiny.make_sae(moved / "relu", seed=7)
    with pytest.raises(NotComputedError, match="other ones than those that it was merged from"):
        relu.decoder(3)


def test_vectors_come_with_a_warning_where_the_model_is_gone(moved: Path, relu: ExtractionResults) -> None:
    before = relu.decoder(3)
    relu.close()
    shutil.rmtree(moved / "model")
    with pytest.warns(UserWarning, match="may be another one than it was merged from: no checkpoint at"):
        assert relu.decoder(3).tolist() == before.tolist()


def test_weights_that_are_gone_are_named(moved: Path, relu: ExtractionResults) -> None:
    shutil.rmtree(moved / "relu")
    with pytest.raises(NotComputedError, match="the weights of tiny/relu cannot be read: no checkpoint at"):
        relu.decoder(3)


@pytest.mark.parametrize("chunk", [True, 1.0, b"1"])
def test_what_is_neither_number_nor_key_is_no_chunk(relu: ExtractionResults, chunk: Any) -> None:
    with pytest.raises(TypeError, match=r"chunk is .*: give a whole number"):
        relu.activations(chunk=chunk)
