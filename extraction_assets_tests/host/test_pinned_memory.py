"""How torch is told to pin memory."""

import os

import pytest

from extraction_assets.host.pinned_memory import VARIABLES, pin_beside_the_driver

OURS = "pinned_use_cuda_host_register:True,pinned_num_register_threads:8"
NEWER, OLDER = VARIABLES


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # restored afterwards, also where it was not set
        monkeypatch.delenv(name)


def test_it_is_set_once_by_the_name_that_every_torch_knows() -> None:
    pin_beside_the_driver()
    pin_beside_the_driver()
    assert os.environ[OLDER] == OURS
    assert NEWER not in os.environ


@pytest.mark.parametrize("name", VARIABLES)
def test_it_is_added_to_what_a_user_has_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "expandable_segments:True")
    pin_beside_the_driver()
    assert [os.environ.get(one) for one in VARIABLES if one != name] == [None]
    assert os.environ[name] == f"expandable_segments:True,{OURS}"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_choice_of_the_user_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "pinned_use_cuda_host_register:False")
    pin_beside_the_driver()
    assert os.environ[name] == "pinned_use_cuda_host_register:False"
