"""What goes stale when the version of a kind is raised. The table below is the statement: a kind that is not in it
fails, and so does a row whose kind is gone.
"""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.planning import plan as planning
from extraction_assets.planning.plan import CorpusNotReady, ExtractionPlan, corpus_recipe
from extraction_assets.stores.fingerprints import IDENTITIES, VERSIONS, fingerprint
from extraction_assets_tests.planning.golden import LAST_CHUNK, golden_plan
from extraction_assets_tests.planning.test_golden_fingerprints import EVERYTHING_SET

REPORT = {"feature_report"}
EXPORTS = {"feature_exports"}
RELATIONS = {"feature_relations"}
MERGE = {"feature_examples"} | RELATIONS | REPORT | EXPORTS
TABLE = {"top_k_table"} | MERGE
FEATURES = {"sae_features"} | TABLE
ACTIVATIONS = {"model_activations"} | FEATURES

DIRECTIONS = {"feature_directions"}

STALE: dict[str, set[str]] = {
    # Chunks are known by their tokens: where the corpus that is made again has the same ones, they stay.
    "corpus": {"corpus"},
    "tokenizer": {"corpus"} | DIRECTIONS,
    "model": ACTIVATIONS | DIRECTIONS,
    "hook_output": ACTIVATIONS,
    "model_activations": {"model_activations"},  # a file of all hooks; features are made from the hook's output
    "sae": FEATURES | DIRECTIONS,
    "sae_features": FEATURES,
    "top_k_table": TABLE,
    "feature_examples": MERGE,
    "feature_relations": RELATIONS,
    "feature_directions": DIRECTIONS,
    "feature_report": REPORT,
    "feature_exports": EXPORTS,
}
"""Kind -> assets that are stale once its version is raised, of every SAE."""


def shown_by_dagster(kind: str) -> set[str]:
    """Assets with another code version; Dagster marks a report and exports when their merge was made again."""
    after_merge = REPORT | EXPORTS
    return STALE[kind] if kind in after_merge else STALE[kind] - after_merge


def _fingerprints(plan: ExtractionPlan) -> dict[tuple[str, str | None], str]:
    chunk = plan.settings.chunk(LAST_CHUNK)
    found: dict[tuple[str, str | None], str] = {
        ("corpus", None): corpus_recipe(plan.settings),
        ("model_activations", None): plan.activations_fingerprint(chunk),
    }
    for sae in plan.settings.saes:
        found |= {(name, sae): plan.fingerprint_of(name, chunk, sae) for name in ("sae_features", "top_k_table")}
        found |= {(name, sae): plan.fingerprint_of(name, None, sae) for name in sorted(MERGE | DIRECTIONS)}
    return found


def _code_versions(plan: ExtractionPlan) -> dict[tuple[str, str | None], str]:
    return {(name, sae): CodeVersions(plan.settings).of(name, sae) for name, sae in _fingerprints(plan)}


def _differ(before: dict[Any, str], after: dict[Any, str], names: set[str]) -> bool:
    """Whether exactly the assets of these names have other versions, those of every SAE."""
    return {key for key in before if before[key] != after[key]} == {key for key in before if key[0] in names}


def test_every_kind_has_a_row() -> None:
    assert set(STALE) == set(VERSIONS)


@pytest.mark.parametrize("changes", [{}, EVERYTHING_SET], ids=["defaults", "everything set"])
@pytest.mark.parametrize("kind", VERSIONS)
def test_a_raised_version_makes_exactly_these_assets_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    plan = golden_plan(tmp_path, **changes)
    before, code = _fingerprints(plan), _code_versions(plan)
    monkeypatch.setitem(VERSIONS, kind, VERSIONS[kind] + 1)
    after = golden_plan(tmp_path, **changes)
    assert _differ(before, _fingerprints(after), STALE[kind])
    assert _differ(code, _code_versions(after), shown_by_dagster(kind))


@pytest.mark.parametrize("kind", [kind for kind, stale in STALE.items() if "corpus" in stale])
def test_a_corpus_of_an_earlier_version_has_to_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    plan = golden_plan(tmp_path)
    monkeypatch.setitem(VERSIONS, kind, 3)
    with pytest.raises(CorpusNotReady, match="materialize golden/corpus again"):
        ExtractionPlan(plan.settings, plan.store)


def test_a_corpus_of_rules_1_does_not_stand_once_the_tokenizer_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = golden_plan(tmp_path)
    recipe = planning._recipe(plan.settings, planning.tokenizer_fingerprint_of_rules_1(plan.settings))
    current = plan._current._replace(recipe=recipe)
    monkeypatch.setattr(planning, "tokens_stand", lambda *_: True)
    assert planning.has_recipe(current, plan.settings)
    monkeypatch.setitem(VERSIONS, "tokenizer", 3)
    assert not planning.has_recipe(current, plan.settings)


def test_a_kind_that_nobody_listed_is_refused() -> None:
    assert not IDENTITIES & set(VERSIONS)
    with pytest.raises(KeyError):
        fingerprint("saes")
