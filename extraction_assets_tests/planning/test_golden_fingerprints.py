"""Fingerprints and code versions of an unchanged setup stay: a changed one costs every user a recompute."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.execution.lineage import CodeVersions, data_version
from extraction_assets.planning.plan import ExtractionPlan, corpus_recipe
from extraction_assets.stores.fingerprints import fingerprint
from extraction_assets_tests.planning.golden import LAST_CHUNK, golden_plan

EVERYTHING_SET: dict[str, Any] = {
    "model_type": "paligemma",  # whose outputs once had another meaning
    "language_model": {"dtype": "float16", "trust_remote_code": True},
    "top_k_examples": 7,
    "min_activation": 0.25,
    "corpus": {
        "source": "texts",
        "max_length": 4,
        "count_special_tokens": True,
        "exclude_first_positions": 1,
        "exclude_positions": [2],
        "exclude_outlier_norms": 10,
        "prepend_bos": False,
        "tokenizer": "transformers",
    },
}


OF_DEFAULTS = {
    "recipe": "593062ec7eeb5cc6e5d1dfa6",
    "corpus": "115109e76ca03e8e6e90012e",
    "corpus content": "84d386aca73793a790097bab",
    "model": "5979b49823daf35cbefc10d3",
    "outputs": "f6f9179147bb491b5027c11f",
    "model_activations": "76d64154250ec117337c3fb8",
    "model_activations data": "f6f9179147bb491b5027c11f",
    "corpus code": "6e4f52406c1c236fc767583d",
    "model_activations code": "ec612609a3197060493c94a3",
    "plain sae_features": "a8cfa118ac5326339558b636",
    "plain top_k_table": "bbd5ceb2be9eb180e969ae5c",
    "plain merge": "582ab32565dba10adf643f88",
    "plain sae_features code": "93012e3779be0db798e0708e",
    "plain top_k_table code": "96a5391a591f9a767a295d4f",
    "plain merge code": "27b79e24e1a4abb7eed83fa8",
    "chosen sae_features": "5c684406d7d40703ea17a83a",
    "chosen top_k_table": "24c8e37078eac019e93f923b",
    "chosen merge": "d1ab120b4f60bea296e7ca6d",
    "chosen sae_features code": "66b60e41b3046e830778b7ac",
    "chosen top_k_table code": "9df2bf8048e88272116ee2bf",
    "chosen merge code": "4821318f9cd737be1d6a4477",
}

OF_EVERYTHING_SET = {
    "recipe": "2fd7c9075b26263cd8b70582",
    "corpus": "115109e76ca03e8e6e90012e",
    "corpus content": "84d386aca73793a790097bab",
    "model": "0465239ed2b9884668ea42f8",
    "outputs": "ba9cc028d894fcbed884d36a",
    "model_activations": "a533c64563d2e1bb4b7003e9",
    "model_activations data": "ba9cc028d894fcbed884d36a",
    "corpus code": "086afb42b1bb76fb6a3f8224",
    "model_activations code": "e36f3e20d39e5096161439d1",
    "plain sae_features": "b95c426fa490cb38eb908120",
    "plain top_k_table": "2f72b61825dd9ff146cc3a53",
    "plain merge": "89ff5091208f94a1fcbb0988",
    "plain sae_features code": "9e4fe31e00680bdf18c21236",
    "plain top_k_table code": "18ee42ad3b93d737720144db",
    "plain merge code": "538dcbf8db5d39953acdb2ab",
    "chosen sae_features": "3d1e1866def345137628d6bc",
    "chosen top_k_table": "ecdffa0e47f1c2b9ec67465f",
    "chosen merge": "6680e2608cd3375c999b6d56",
    "chosen sae_features code": "e28f0f1f84ee8fe97d5f8c84",
    "chosen top_k_table code": "f4fb5d45b280079915908fb6",
    "chosen merge code": "3802e27fb076b47fe3d47cf7",
}


def found(plan: ExtractionPlan) -> dict[str, str]:
    """Every fingerprint and code version of an extraction's last chunk and of its merges."""
    versions, settings = CodeVersions(plan.settings), plan.settings
    values = {
        "recipe": corpus_recipe(settings),
        "corpus": plan.corpus.manifest.fingerprint,
        "corpus content": plan.corpus.content_fingerprint(slice(0, 3)),
        "model": plan.model_fingerprint,
        "outputs": plan.outputs_fingerprint(plan.settings.chunk(LAST_CHUNK)),
        "model_activations": plan.activations_fingerprint(plan.settings.chunk(LAST_CHUNK)),
        "model_activations data": data_version(plan, "model_activations", None, plan.settings.chunk(LAST_CHUNK)),
        "corpus code": versions.of("corpus"),
        "model_activations code": versions.of("model_activations"),
    }
    for sae in settings.saes:
        values |= {
            f"{sae} sae_features": plan.features_fingerprint(plan.settings.chunk(LAST_CHUNK), sae),
            f"{sae} top_k_table": plan.table_fingerprint(plan.settings.chunk(LAST_CHUNK), sae),
            f"{sae} merge": plan.merge_fingerprint(sae),
            f"{sae} sae_features code": versions.of("sae_features", sae),
            f"{sae} top_k_table code": versions.of("top_k_table", sae),
            f"{sae} merge code": versions.of("feature_examples", sae),
        }
    return values


def test_an_extraction_with_defaults_keeps_its_fingerprints(tmp_path: Path) -> None:
    assert found(golden_plan(tmp_path)) == OF_DEFAULTS


def test_an_extraction_with_everything_set_keeps_its_fingerprints(tmp_path: Path) -> None:
    assert found(golden_plan(tmp_path, **EVERYTHING_SET)) == OF_EVERYTHING_SET


@pytest.mark.parametrize(
    ("kind", "parts", "expected"),
    [
        ("feature_report", {}, "db2c44cb9ad89fab8f9c777f"),
        ("hub_dataset", {"commit": "abc"}, "a5fa18afa226dc0e4e3dec44"),
        ("source_files", {"names": ["a.jsonl"], "contents": "abc"}, "918ded21c9c2c7ef085e10ab"),
        ("documents", {"documents": [["a.txt", "text"]]}, "2ee97ca9afd9d262501a3501"),
    ],
)
def test_what_else_is_known_by_a_fingerprint_keeps_it(kind: str, parts: dict[str, Any], expected: str) -> None:
    assert fingerprint(kind, **parts) == expected
