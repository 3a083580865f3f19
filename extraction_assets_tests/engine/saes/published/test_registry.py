"""The registry of published SAEs: what it holds, and what it says of names that it does not."""

from importlib.metadata import version

import pytest

from extraction_assets.engine.saes.published import (
    UnknownSae,
    all_saes,
    published_at,
    published_release,
    published_sae,
    registry,
)


@pytest.mark.slow
def test_it_is_what_the_installed_sae_lens_says() -> None:
    pytest.importorskip("sae_lens")
    if version("sae-lens") != registry().sae_lens:
        pytest.skip(f"it is of sae-lens {registry().sae_lens}; `make published` renews it from {version('sae-lens')}")
    from extraction_assets.engine.saes.published.renew import registry_of_sae_lens

    made = registry_of_sae_lens()
    assert list(made["releases"]) == list(registry().releases)
    for name, release in registry().releases.items():
        assert made["releases"][name] == {key: value for key, value in release._asdict().items() if key != "name"}


def test_it_holds_every_sae_that_the_release_names() -> None:
    assert (len(registry().releases), sum(1 for _ in all_saes())) == (170, 13_857)
    assert len({(sae.repository, sae.path) for sae in all_saes()}) == 13_428, "canonical names repeat some"


def test_an_sae_is_found_by_its_names() -> None:
    sae = published_sae("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical")
    assert (sae.repository, sae.path) == ("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82")
    assert (sae.loader, sae.model) == ("gemma_2", "gemma-2-2b")
    assert sae.neuronpedia == "gemma-2-2b/12-gemmascope-res-16k"


def test_an_sae_is_found_by_its_place_under_its_first_name() -> None:
    found = published_at("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82")
    assert found == published_sae("gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82")
    assert published_at("google/gemma-scope-2b-pt-res", "layer_99") is None


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("gemma-scope-2b-pt-rse", "has no release 'gemma-scope-2b-pt-rse'; near names: gemma-scope-2b-pt-res, "),
        ("GPT2-small-res-jb", "; near names: gpt2-small-res-jb, "),
        ("google/gemma-scope-2b-pt-res", "is a repository of the hub, and release is a name: gemma-scope-2b-pt-res, "),
    ],
)
def test_an_unknown_release_is_refused_with_near_names(release: str, said: str) -> None:
    with pytest.raises(UnknownSae) as refused:
        published_release(release)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("release", "sae_id", "said"),
    [
        (
            "gemma-scope-2b-pt-res",
            "layer_12/width_16k",
            "; near names: layer_12/width_16k/average_l0_22, layer_12/width_16k/average_l0_41, ",
        ),
        ("gemma-scope-2b-pt-res", "layer_12/width_16k/canonical", ", but gemma-scope-2b-pt-res-canonical has"),
        ("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k", "; near names: layer_12/width_16k/canonical"),
        ("gpt2-small-res-jb", "blocks.8.resid_pre", "; near names: blocks.8.hook_resid_pre, "),
        ("gpt2-small-res-jb", "", "; near names: blocks.0.hook_resid_pre, "),
    ],
)
def test_an_unknown_id_is_refused_with_near_names(release: str, sae_id: str, said: str) -> None:
    with pytest.raises(UnknownSae, match=f"release '{release}' of SAELens .* has no SAE '{sae_id}'") as refused:
        published_sae(release, sae_id)
    assert said in str(refused.value)
