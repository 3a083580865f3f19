"""Where stored files of a chunk suffice, so that nothing is computed again: one answer before the run and in it."""

import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.engine.saes.sae import SAE
from extraction_assets.execution.keys import Target, activations_key, chunk_targets, sae_key
from extraction_assets.execution.stored_inputs import activations_suffice, features_suffice
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import read_features, write_features
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

KEY = "000000000000"
LOGGER = logging.getLogger(__name__)


@pytest.fixture
def project(tokenized: Project) -> Project:
    """With the features of `relu` stored, of its first chunk."""
    tokenized.chunks(0, 0, [sae_key(tokenized.settings, "relu", "sae_features")])
    return tokenized


def _targets(plan: ExtractionPlan, *assets: str) -> list[Target]:
    return [one for one in chunk_targets(plan.settings) if one.sae in (None, "relu") and one.asset in assets]


def _suffice(project: Project, *assets: str) -> bool:
    plan = project.plan
    return features_suffice(plan, plan.settings.chunk(KEY), "relu", _targets(plan, *assets), LOGGER)


def _mark_not_finite(project: Project) -> None:
    """As if a token that does not count had held a NaN when the features were stored."""
    path = project.plan.chunk_path("sae_features", project.settings.chunk(KEY), "relu")
    features, record = read_features(path, project.plan.features_fingerprint(project.settings.chunk(KEY), "relu"))
    write_features(path, [features], {**record, "all_finite": False})


def _lines(project: Project, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in project.instance.all_logs(result.run_id)]


def test_features_suffice_for_a_table_alone(project: Project) -> None:
    assert _suffice(project, "top_k_table")
    assert not _suffice(project, "sae_features", "top_k_table")
    assert not _suffice(project)


def test_the_other_hooks_activations_change_nothing_for_features(project: Project) -> None:
    assert _suffice(project, "model_activations", "top_k_table")


def test_features_that_are_not_stored_do_not_suffice(project: Project) -> None:
    project.plan.chunk_path("sae_features", project.settings.chunk(KEY), "relu").unlink()
    assert not _suffice(project, "top_k_table")


def test_features_of_a_token_that_is_not_finite_do_not_suffice(project: Project) -> None:
    _mark_not_finite(project)
    assert not _suffice(project, "top_k_table")


def test_outlier_norms_are_those_of_activations(project: Project, tiny_folder: Path) -> None:
    corpus = {**make_settings(tiny_folder).corpus.model_dump(), "exclude_outlier_norms": 10.0}
    assert not _suffice(Project(make_settings(tiny_folder, corpus=corpus), project.home), "top_k_table")


def test_features_without_a_record_are_set_aside(project: Project) -> None:
    path = project.plan.chunk_path("sae_features", project.settings.chunk(KEY), "relu")
    path.write_bytes(path.read_bytes()[:20])
    assert not _suffice(project, "top_k_table")
    assert not path.exists()


def test_stored_activations_suffice_unless_they_are_asked_for(project: Project) -> None:
    plan = project.plan
    assert not activations_suffice(plan, plan.settings.chunk(KEY), _targets(plan, "top_k_table"))
    project.chunks(0, 0, [activations_key(project.settings)])
    assert activations_suffice(plan, plan.settings.chunk(KEY), _targets(plan, "top_k_table"))
    assert not activations_suffice(plan, plan.settings.chunk(KEY), _targets(plan, "model_activations"))


@pytest.mark.parametrize("finite", [True, False])
def test_a_run_examines_the_saes_that_it_encodes_with(
    project: Project, monkeypatch: pytest.MonkeyPatch, finite: bool
) -> None:
    """Features that do not suffice are encoded again; before, the first batch was not looked at in that case."""
    if not finite:
        _mark_not_finite(project)
    encoded: list[Any] = []
    encode = SAE.encode_sparse

    def note(self: SAE, *args: Any, **options: Any) -> Any:
        encoded.append(self)
        return encode(self, *args, **options)

    monkeypatch.setattr(SAE, "encode_sparse", note)
    lines = _lines(project, project.chunks(0, 0, [sae_key(project.settings, "relu", "top_k_table")]))
    examined = any(line.startswith("SAE relu at layers.0: explains") for line in lines)
    assert examined is bool(encoded) is not finite
