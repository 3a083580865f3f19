"""Whether a hook can be what a published SAE reads."""

from pathlib import Path

import pytest

from extraction_assets.engine.saes.formats import SaePlace, gemma_scope_2
from extraction_assets.engine.saes.published import all_saes, published_sae
from extraction_assets.engine.saes.published.hook_in_name import contradicts

GEMMA = ("gemma-scope-2-270m-it-res", "layer_12_width_65k_l0_medium")
MLP = ("gemma-scope-2-270m-it-mlp", "layer_12_width_16k_l0_medium")
JBLOOM = ("gpt2-small-res-jb", "blocks.8.hook_resid_pre")


@pytest.mark.parametrize(
    ("names", "hook"),
    [
        (GEMMA, "model.layers.12.output"),
        (GEMMA, "model.layers.12"),
        (GEMMA, "blocks.13.hook_resid_pre"),
        (GEMMA, "model.layers.13.input"),
        (MLP, "model.layers.12.post_feedforward_layernorm.output"),
        (JBLOOM, "transformer.h.7"),
        (JBLOOM, "ln_f.input"),
    ],
)
def test_a_hook_that_names_allow(names: tuple[str, str], hook: str) -> None:
    assert not contradicts(published_sae(*names), hook)


@pytest.mark.parametrize(
    ("names", "hook"),
    [
        (GEMMA, "model.layers.9.output"),
        (GEMMA, "model.layers.13"),
        (GEMMA, "hook_embed"),
        (GEMMA, "blocks.12.hook_resid_mid"),
        (GEMMA, "model.layers.12.self_attn.o_proj.input"),
        (MLP, "model.layers.12"),
        (JBLOOM, "transformer.h.8"),
    ],
)
def test_a_hook_that_names_contradict(names: tuple[str, str], hook: str) -> None:
    assert contradicts(published_sae(*names), hook)


def test_no_hook_of_gemma_scope_2_contradicts_its_sae() -> None:
    saes = [one for one in all_saes() if one.loader == "gemma_3"]
    places = [SaePlace(Path("x"), repository=one.repository, inside=one.path, published=one) for one in saes]
    hooks = [gemma_scope_2.record(place).hook or "" for place in places]
    assert len(saes) > 8000
    assert not [one for one, hook in zip(saes, hooks, strict=True) if contradicts(one, hook)]
