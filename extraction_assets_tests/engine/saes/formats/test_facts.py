"""Facts of the registry are in an SAE's fingerprint where they decide what it computes, and nowhere else."""

from dataclasses import replace
from pathlib import Path

from extraction_assets.engine.saes.formats import SaePlace, checkpoint_facts, read_checkpoint
from extraction_assets.engine.saes.published import PublishedSae, published_sae
from extraction_assets_tests.engine.saes.formats.published_layouts import write_sae_lens
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    write_llama_scope,
    write_llama_scope_r1_distill,
)

R1 = published_sae("llama_scope_r1_distill", "l0r_800m_openr1_math")
MLP = published_sae("gpt2-small-mlp-tm", "blocks.3.hook_mlp_out")


def place(folder: Path, sae: PublishedSae) -> SaePlace:
    return SaePlace(folder / sae.path, repository=sae.repository, inside=sae.path, published=sae)


def test_a_scale_of_the_registry_that_the_files_need_is_a_fact(tmp_path: Path) -> None:
    write_sae_lens(tmp_path, MLP.path, normalize_activations="expected_average_only_in")
    assert checkpoint_facts(place(tmp_path, MLP)) == {"norm_scaling_factor": MLP.norm_scaling_factor}


def test_a_scale_that_nothing_is_multiplied_by_is_none(tmp_path: Path) -> None:
    write_sae_lens(tmp_path, MLP.path, normalize_activations="none")
    assert checkpoint_facts(place(tmp_path, MLP)) == {}


def test_llama_scope_holds_its_scale_itself(tmp_path: Path) -> None:
    """A copy without a name has the fingerprint of the named SAE."""
    sae = published_sae("llama_scope_lxr_8x", "l15r_8x")
    write_llama_scope(tmp_path, sae.path, scale=2.0)
    assert checkpoint_facts(place(tmp_path, sae)) == {}


def test_r1_distill_needs_the_registrys_scale_where_its_files_hold_none(tmp_path: Path) -> None:
    write_llama_scope_r1_distill(tmp_path / "with", R1.path, scale=2.0)
    write_llama_scope_r1_distill(tmp_path / "without", R1.path, scale=None)
    assert checkpoint_facts(place(tmp_path / "with", R1)) == {}
    assert checkpoint_facts(place(tmp_path / "without", R1)) == {"norm_scaling_factor": R1.norm_scaling_factor}


def test_a_repair_is_a_fact_unless_it_says_only_where_the_sae_is_from(tmp_path: Path) -> None:
    """Also one that SAELens's registry has had none of so far."""
    repaired = replace(MLP, overrides={**MLP.overrides, "apply_b_dec_to_input": False})
    write_sae_lens(tmp_path, MLP.path, normalize_activations="none")
    assert checkpoint_facts(place(tmp_path, repaired)) == {"apply_b_dec_to_input": False}


def test_a_repair_may_use_the_names_of_old_configurations(tmp_path: Path) -> None:
    repaired = replace(MLP, overrides={"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}})
    write_sae_lens(tmp_path, MLP.path, normalize_activations="none")
    assert read_checkpoint(place(tmp_path, repaired)).k == 3
