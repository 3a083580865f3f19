"""What names of SAEs say, and what they do not."""

import pytest

from extraction_assets.engine.saes.published import all_saes, published_sae
from extraction_assets.engine.saes.published.described import KINDS, hook, hook_kind, layer, mean_l0, short_width, width

CASES = [
    ("gemma-scope-2-4b-pt-res", "layer_17_width_1m_l0_big", "layer 17, residual", 1_048_576),
    ("gemma-scope-2-4b-it-transcoders", "transcoder/layer_17_width_16k_l0_big", "layer 17, transcoder", 16_384),
    ("gemma-scope-2-270m-pt-att-all", "layer_0_width_262k_l0_small", "layer 0, attention", 262_144),
    ("gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6", "embedding", 4_096),
    ("gemma-scope-9b-pt-mlp", "layer_9/width_131k/average_l0_269", "layer 9, MLP", 131_072),
    ("gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_768", "blocks.8.hook_resid_pre", 768),
    ("gpt2-small-hook-z-kk", "blocks.0.hook_z", "blocks.0.attn.hook_z", 24_576),
    ("gpt2-small-attn-out-v5-128k", "blocks.0.hook_attn_out", "blocks.0.hook_attn_out", 131_072),
    ("llama_scope_lxm_8x", "l31m_8x", "layer 31, MLP", 32_768),
    ("llama_scope_r1_distill", "l0r_800m_openr1_math", "layer 0, residual", 32_768),
    (
        "sae_bench_gemma-2-2b_topk_width-2pow14_date-1109",
        "blocks.5.hook_resid_post__trainer_5_step_46322",
        None,
        16_384,
    ),
    ("qwen-scope-3.5-27b-w80k-l50", "layer63", "layer 63, residual", 81_920),
    ("mwhanna-qwen3-4b-transcoders", "layer_0", "layer 0, transcoder", None),
    ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0", "layer 0, transcoder", None),
    ("goodfire-llama-3.3-70b-instruct", "layer_50", "layer 50, residual", None),
    ("gpt2-small-res-jb", "blocks.8.hook_resid_pre", "blocks.8.hook_resid_pre", None),
]


@pytest.mark.parametrize(("release", "sae_id", "hook_name", "features"), CASES)
def test_hook_and_width_are_what_the_names_say(
    release: str, sae_id: str, hook_name: str | None, features: int | None
) -> None:
    sae = published_sae(release, sae_id)
    assert hook(sae) == (hook_name or "blocks.5.hook_resid_post")
    assert width(sae) == features


def test_every_sae_has_a_kind_and_all_but_embeddings_a_layer() -> None:
    assert {hook_kind(sae) for sae in all_saes()} == set(KINDS)
    assert {hook_kind(sae) for sae in all_saes() if layer(sae) is None} == {"embedding"}


def test_widths_are_those_that_are_trained() -> None:
    powers = {768 << doubled for doubled in range(8)} | {1 << power for power in (12, *range(14, 21))} | {81_920}
    assert {width(sae) for sae in all_saes()} - {None} == powers


@pytest.mark.parametrize(
    ("features", "short"), [(16_384, "16k"), (131_072, "131k"), (1 << 20, "1m"), (24_576, "24,576")]
)
def test_a_width_is_written_as_names_write_it(features: int, short: str) -> None:
    assert short_width(features) == short


def test_the_l0_of_a_canonical_name_stands_in_its_path() -> None:
    assert mean_l0(published_sae("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical")) == 82
    assert mean_l0(published_sae("gpt2-small-res_sce-ajt", "blocks.2.hook_resid_pre")) is None
