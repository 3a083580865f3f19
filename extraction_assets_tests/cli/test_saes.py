"""``saes``: published SAEs in the terminal."""

import json
import subprocess
import sys

import pytest

from extraction_assets_tests.command import invoke, succeed

MODULE = "extraction_assets.definitions"


def saes(*arguments: str) -> list[str]:
    return succeed(MODULE, "saes", *arguments).splitlines()


def releases(*arguments: str) -> set[str]:
    found = json.loads(succeed(MODULE, "saes", "--json", *arguments))
    return {one["release"] for one in found}


def test_all_releases_are_listed_with_what_their_names_say() -> None:
    lines = saes()
    assert lines[0].split() == ["release", "model", "SAEs", "hooks", "widths", "L0", "format"]
    (row,) = (line for line in lines if line.startswith("gemma-scope-2-4b-pt-res "))
    assert row.split(maxsplit=3) == [
        "gemma-scope-2-4b-pt-res",
        "google/gemma-3-4b-pt",
        "52",
        "residual             16k, 65k, 262k, 1m  17-150  Gemma Scope 2",
    ]
    assert lines[-1] == "170 releases, 13,857 SAEs; `extraction-assets saes RELEASE` lists those of one"
    assert len(lines) < 190


def test_what_cannot_be_read_is_named_with_its_reason() -> None:
    lines = saes("temporal")
    assert lines[1].endswith("cannot be read")
    why = "its features depend on earlier positions, which one matrix product of a token cannot express"
    assert f"cannot be read  temporal-sae-gemma-2-2b, temporal-sae-llama-3.1-8b: {why}" in lines


@pytest.mark.parametrize(
    "spelled",
    ["meta-llama/Llama-3.1-8B", "llama-3.1-8b", "LLAMA3.1-8b", "/models/Llama-3.1-8B", "unsloth/Llama-3.1-8B"],
)
def test_a_model_is_found_in_every_spelling(spelled: str) -> None:
    assert {"llama_scope_lxr_8x", "temporal-sae-llama-3.1-8b"} <= releases(spelled)
    assert not [name for name in releases(spelled) if "gemma" in name or "qwen" in name]


def test_the_owner_of_a_model_may_be_named_where_the_registry_does_not() -> None:
    assert releases("google/gemma-2-2b") >= {"gemma-scope-2b-pt-res", "gemma-2-2b-res-matryoshka-dc"}
    assert releases("openai-community/gpt2") == releases("gpt2")


def test_all_words_have_to_match_case_aside() -> None:
    assert releases("GPT2", "attn") == {
        "gpt2-small-attn-out-v5-128k",
        "gpt2-small-attn-out-v5-32k",
        "gpt2-small-hook-z-kk",
    }


def test_the_saes_of_one_release_are_listed_by_its_name() -> None:
    lines = saes("gpt2-small-res-jb")
    assert lines[0].startswith("gpt2-small-res-jb  13 SAEs of gpt2-small, SAELens, https://huggingface.co/jbloom/")
    assert lines[1].split() == ["id", "hook", "width", "L0", "Neuronpedia"]
    assert lines[10].split() == ["blocks.8.hook_resid_pre", "blocks.8.hook_resid_pre", "-", "60", "gpt2-small/8-res-jb"]


def test_saes_are_in_natural_order() -> None:
    lines = saes("gemma-scope-9b-pt-att", "width_16k", "--all")
    layers = [int(line.split("/")[0].removeprefix("layer_")) for line in lines if line.startswith("layer_")]
    assert list(dict.fromkeys(layers)) == list(range(42))


def test_a_long_list_ends_with_how_many_more_there_are() -> None:
    lines = saes("gemma-scope-2b-pt-res", "--limit", "5")
    assert "… and 311 more: narrow the search, or --all" in lines
    assert len([line for line in lines if line.startswith(("layer_", "embedding"))]) == 5
    assert len(saes("gemma-scope-2b-pt-res", "--all")) > 316
    narrow = saes("gemma-scope-2b-pt-res", "layer_12/width_16k")
    assert narrow[0].startswith("gemma-scope-2b-pt-res  5 of 316 SAEs of gemma-2-2b")
    assert len([line for line in narrow if line.startswith("layer_12/width_16k/")]) == 5


def test_json_holds_everything_that_is_found() -> None:
    (found,) = json.loads(succeed(MODULE, "saes", "gpt2-small-hook-z-kk", "blocks.3", "--json"))
    assert (found["release"], found["model"], len(found["saes"])) == ("gpt2-small-hook-z-kk", "gpt2-small", 1)
    sae = found["saes"][0]
    assert (sae["sae_id"], sae["hook"], sae["kind"], sae["layer"], sae["width"]) == (
        "blocks.3.hook_z",
        "blocks.3.attn.hook_z",
        "attention",
        3,
        24_576,
    )


def test_a_number_is_a_word_of_the_models_name() -> None:
    for number, other in ("2", "gemma-3"), ("3", "gemma-2"):
        found = json.loads(succeed(MODULE, "saes", "--json", "gemma", number))
        assert len(found) > 20
        assert not [one["model"] for one in found if other in one["model"]]


def test_releases_of_a_family_are_in_the_order_of_the_models_sizes() -> None:
    models = [line.split()[1] for line in saes("gemma", "3")[1:-2]]
    sizes = [model.removeprefix("google/gemma-3-").partition("-")[0] for model in models]
    assert list(dict.fromkeys(sizes)) == ["270m", "1b", "4b", "12b", "27b"]


def test_words_in_quotes_are_words() -> None:
    found = saes("gemma-scope-2-270m-it-res", "16k medium")
    assert found == saes("gemma-scope-2-270m-it-res", "16k", "medium")


def test_the_sae_to_begin_with_is_no_large_one() -> None:
    assert (
        "--sae gemma-scope-2-270m-it-res/layer_12_width_16k_l0_medium --corpus" in saes("gemma-scope-2-270m-it-res")[-1]
    )


def test_nothing_found_names_what_is_near() -> None:
    result = invoke(MODULE, "saes", "gema-2-2b")
    assert result.exit_code == 1
    assert "matches gema-2-2b; near names: gemma-2-2b, " in result.output


def test_neither_yaml_nor_dagster_nor_numpy_is_imported_for_it() -> None:
    code = (
        "import sys\n"
        "from extraction_assets.engine.saes.published.search import search\n"
        "assert sum(len(one.saes) for one in search([])) == 13857\n"
        "print([name for name in ('yaml', 'dagster', 'numpy', 'torch', 'pydantic') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
