"""The hooks that sae-lens's loaders make of a release's and an SAE's name are those that the models are tested with."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from extraction_assets_tests.engine.models.published import PUBLISHED, WITHOUT_A_MODULE, classes_of, registry


@pytest.fixture(scope="module")
def loaders() -> Any:
    return pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")


def entries(loader: str) -> Iterator[tuple[str, str, str]]:
    """Model, repository and path of every SAE of a loader."""
    for release in registry().values():
        if release.get("conversion_func") == loader:
            yield from ((release["model"], release["repo_id"], sae["path"]) for sae in release["saes"])


def known_hooks(model: str) -> set[str]:
    [name] = classes_of(model)
    return set(PUBLISHED[name].hooks) | WITHOUT_A_MODULE.get(PUBLISHED[name].family, set())


def unknown(found: dict[str, set[str]]) -> dict[str, set[str]]:
    return {model: hooks - known_hooks(model) for model, hooks in found.items() if hooks - known_hooks(model)}


def numberless(hook: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", hook)


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["gemma_2", "gemma_2_transcoder"])
def test_hooks_of_gemma_scope(loader: str, loaders: Any) -> None:
    found: dict[str, set[str]] = {}
    for model, repository, path in entries(loader):
        config = getattr(loaders, f"get_{loader}_config_from_hf")(repository, path, "cpu")
        hooks = {config["hook_name"], config.get("hook_name_out", config["hook_name"])}
        found.setdefault(model, set()).update(map(numberless, hooks))
    assert found
    assert unknown(found) == {}


def test_hooks_of_gemma_scope_2(loaders: Any) -> None:
    found: dict[str, set[str]] = {}
    for model, repository, path in entries("gemma_3"):
        config = loaders._infer_gemma_3_raw_cfg_dict(repository, path)
        hooks = {config["hf_hook_point_in"], config.get("hf_hook_point_out", config["hf_hook_point_in"])}
        found.setdefault(model, set()).update(map(numberless, hooks))
    assert len(found) == 10
    assert unknown(found) == {}


def test_hooks_that_are_the_names_of_sae_lens_own_saes() -> None:
    found: dict[str, set[str]] = {}
    for release in registry().values():
        names = [sae["id"] for sae in release["saes"] if release.get("conversion_func") is None]
        hooks = {numberless(re.sub(r"_\d+$", "", name)) for name in names}  # behind one of them stands its width
        if hooks:
            found.setdefault(release["model"], set()).update(hooks)
    assert len(found) >= 8
    assert unknown(found) == {}
