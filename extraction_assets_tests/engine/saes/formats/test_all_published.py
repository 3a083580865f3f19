"""Every SAE of the registry: which format reads it, and for those that names describe, the same facts as in SAELens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.engine.saes.formats import FORMATS, SaePlace, files_on_hub, format_of_loader, gemma_scope
from extraction_assets.engine.saes.formats import gemma_scope_2 as scope_2
from extraction_assets.engine.saes.published import PublishedSae, all_saes
from extraction_assets_tests.engine.saes.formats.published_layouts import sae_lens

NOWHERE = Path("/nowhere")


def of_loader(loader: str) -> Iterator[tuple[PublishedSae, SaePlace]]:
    """The SAEs that SAELens reads by a function, at places that hold no files."""
    for sae in all_saes():
        if sae.loader == loader:
            yield sae, SaePlace(NOWHERE / sae.path, None, sae.repository, sae.path, sae)


def test_all_but_the_temporal_ones_are_read() -> None:
    saes = list(all_saes())
    unread = {sae.loader for sae in saes if format_of_loader(sae.loader) is None}
    assert (len(saes), unread) == (13_857, {"temporal"})
    assert sum(sae.loader != "temporal" for sae in saes) == 13_854


def test_every_loader_of_sae_lens_is_read_or_refused() -> None:
    loaders = set(sae_lens().NAMED_PRETRAINED_SAE_LOADERS)
    assert {loader for format_ in FORMATS.values() for loader in format_.LOADERS} == loaders - {"temporal"}


def test_every_published_sae_has_files_of_its_format_alone() -> None:
    for sae in all_saes():
        if sae.loader != "temporal":
            reader = FORMATS[str(format_of_loader(sae.loader))]
            assert files_on_hub(sae.path, sae.loader)
            assert reader.files(sae.path.rpartition("/")[2]).required or reader.files(None).required


@pytest.mark.parametrize("loader", ["gemma_2", "gemma_2_transcoder"])
def test_the_names_of_gemma_scope_say_hook_and_model_as_in_sae_lens(loader: str) -> None:
    config_of = sae_lens().NAMED_PRETRAINED_SAE_CONFIG_GETTERS[loader]
    for sae, place in of_loader(loader):
        record, theirs = gemma_scope.record(place), config_of(sae.repository, sae.path, "cpu")
        assert (record.hook, record.hook_out) == (theirs["hook_name"], theirs.get("hook_name_out"))
        assert record.model_name == f"google/{theirs['model_name']}"


def test_the_names_of_gemma_scope_2_say_hooks_and_model_as_in_sae_lens() -> None:
    for sae, place in of_loader("gemma_3"):
        record, theirs = scope_2.record(place), sae_lens()._infer_gemma_3_raw_cfg_dict(sae.repository, sae.path)
        assert (record.hook, record.hook_out) == (theirs["hf_hook_point_in"], theirs.get("hf_hook_point_out"))
        assert record.model_name == sae.model
        assert record.is_transcoder is ("hf_hook_point_out" in theirs)
