"""A published SAE that is far less sparse, or far sparser, than its registry says."""

from typing import Any

import pytest

from extraction_assets.early_checks.published_l0 import examine_l0
from extraction_assets.engine.preflight.sanity import SaeSanity
from extraction_assets.settings import SaeSettings

NAMED = {"release": "gpt2-small-res-jb", "sae_id": "blocks.8.hook_resid_pre"}  # 60 by the registry


def warnings(mean_l0: float, sae: dict[str, Any] = NAMED, tokens: int = 1000) -> list[str]:
    found = SaeSanity(tokens, 0.9, mean_l0, 100, 24_576, 0.0, 0.0, 1.0, 768)
    return [finding.message for finding in examine_l0("some", SaeSettings(**sae), found)]


@pytest.mark.parametrize("mean_l0", [21.0, 60.0, 179.0])
def test_an_l0_near_the_registrys_is_not_mentioned(mean_l0: float) -> None:
    assert warnings(mean_l0) == []


@pytest.mark.parametrize(("mean_l0", "shown"), [(19.0, "19"), (181.0, "181")])
def test_an_l0_far_from_the_registrys_is_a_warning(mean_l0: float, shown: str) -> None:
    (said,) = warnings(mean_l0)
    assert f"SAE 'some' has {shown} features firing on a token (mean L0), but SAELens's registry says 60: " in said


def test_the_place_on_the_hub_is_as_good_as_the_name() -> None:
    place = {"path": "jbloom/GPT2-Small-SAEs-Reformatted", "subfolder": "blocks.8.hook_resid_pre"}
    assert len(warnings(300.0, place)) == 1


def test_nothing_is_said_of_few_tokens_of_unknown_saes_and_where_the_registry_says_nothing() -> None:
    assert warnings(300.0, tokens=50) == []
    assert warnings(300.0, {"path": "/somewhere"}) == []
    assert warnings(300.0, {"release": "gpt2-small-res_sce-ajt", "sae_id": "blocks.2.hook_resid_pre"}) == []
