"""What ``--sae`` means: names of published SAEs, folders and hub ids, and what is said of an unknown name."""

from pathlib import Path

import pytest

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.cli.new_project import ARGUMENTS, FIRST, init, settings_of
from extraction_assets_tests.command import invoke
from extraction_assets_tests.engine.saes.formats.published_layouts_b import write_qwen_scope
from extraction_assets_tests.tiny import make_faithful_sae

HUB = ["--model", "google/gemma-2-2b", "--corpus", "../things/texts"]


def _saes(settings: ExtractionSettings) -> dict[str, tuple[str | None, ...]]:
    return {name: (sae.release, sae.sae_id, sae.path, sae.hook) for name, sae in settings.saes.items()}


def _refused(*arguments: str) -> str:
    result = invoke("workshop.definitions", "init", "new", *HUB, *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line


def test_a_release_ends_at_the_first_slash_and_the_id_may_hold_others(workshop: Path) -> None:
    output = init(*HUB, "--sae", "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")
    assert "warning" not in output
    assert _saes(settings_of(workshop)) == {
        "layer_12_width_16k_canonical": (
            "gemma-scope-2b-pt-res-canonical",
            "layer_12/width_16k/canonical",
            None,
            None,
        )
    }


def test_names_folders_and_hub_ids_may_be_mixed(workshop: Path) -> None:
    named = ["--sae", "gemma-2-2b-res-matryoshka-dc/blocks.3.hook_resid_post"]
    init(*ARGUMENTS, *named, *FIRST, "--sae", "someone/some-sae", "--subfolder", ".")
    assert _saes(settings_of(workshop)) == {
        "blocks_3_hook_resid_post": ("gemma-2-2b-res-matryoshka-dc", "blocks.3.hook_resid_post", None, None),
        "first_sae": (None, None, "../../../../things/first-sae", "layers.0"),
        "some_sae": (None, None, "someone/some-sae", None),
    }
    text = (workshop / "workshop" / "defs" / "new" / "defs.yaml").read_text()
    assert "# hook: blocks.3.hook_resid_post # what it reads; by default what the checkpoint records" in text


def test_a_path_that_exists_comes_before_a_name(workshop: Path) -> None:
    make_faithful_sae(workshop / "gpt2-small-res-jb" / "blocks.8.hook_resid_pre", hook="layers.0")
    init(*ARGUMENTS, "--sae", "gpt2-small-res-jb/blocks.8.hook_resid_pre")
    (sae,) = settings_of(workshop).saes.values()
    assert (sae.release, sae.path) == (None, "../../../gpt2-small-res-jb/blocks.8.hook_resid_pre")


def test_another_model_than_the_registrys_is_a_warning(workshop: Path) -> None:
    output = init(*ARGUMENTS, "--sae", "gpt2-small-res-jb/blocks.8.hook_resid_pre", "--hook", "layers.1")
    said = "it was trained on model gpt2-small, but runs on ../things/model"
    assert f"warning  SAE blocks_8_hook_resid_pre: {said}" in output
    (sae,) = settings_of(workshop).saes.values()
    assert sae.hook == "layers.1"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "gemma-scope-2b-pt-rse/layer_12/width_16k",
            "has no release 'gemma-scope-2b-pt-rse'; near names: gemma-scope-2b-",
        ),
        ("gpt2-small-res-bj/blocks.8.hook_resid_pre", "no release 'gpt2-small-res-bj'; near names: gpt2-small-res-jb"),
        ("gpt2-small-res-bj", "no release 'gpt2-small-res-bj'; near names: gpt2-small-res-jb"),
        (
            "gpt2-small-res-jb/blocks.8.resid_pre",
            "has no SAE 'blocks.8.resid_pre'; near names: blocks.8.hook_resid_pre",
        ),
        ("gemma-scope-2b-pt-res/layer_12/width_16k", "near names: layer_12/width_16k/average_l0_22"),
        ("gemma-scope-2b-pt-res/layer_12/width_16k/canonical", ", but gemma-scope-2b-pt-res-canonical has"),
        ("gpt2-small-res-jb", "as `extraction-assets saes gpt2-small-res-jb` lists them: blocks.0.hook_resid_pre, "),
        ("gpt2-small-res-jb/", "name one of its SAEs, gpt2-small-res-jb/ID, "),
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "cannot be read: its features depend"),
        ("google/gemma-scope-2b-pt-res/layer_12", "give --sae google/gemma-scope-2b-pt-res --subfolder layer_12"),
        (
            "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",
            "give --sae gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",
        ),
    ],
)
def test_a_name_that_is_none_is_one_sentence_and_nothing_is_written(workshop: Path, value: str, said: str) -> None:
    assert said in _refused("--sae", value)
    assert f"--sae {value}: " in _refused("--sae", value)
    assert not (workshop / "workshop" / "defs").exists()


def test_a_subfolder_does_not_go_with_a_name(workshop: Path) -> None:
    named = ["--sae", "gpt2-small-res-jb/blocks.8.hook_resid_pre"]
    assert "1 --subfolder for 0 --sae of a path" in _refused(*named, "--subfolder", "x")


def test_a_copy_of_a_published_sae_is_declared_by_its_names_too(workshop: Path, tmp_path: Path) -> None:
    copy, inside = tmp_path / "GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre"
    make_faithful_sae(copy / inside, hook="layers.0")
    output = init(*ARGUMENTS, "--sae", str(copy), "--subfolder", inside)
    assert f"SAE {inside.replace('.', '_')}  by its folder's name it is gpt2-small-res-jb/{inside} of SAELens" in output
    (sae,) = settings_of(workshop).saes.values()
    assert (sae.release, sae.sae_id, sae.subfolder) == ("gpt2-small-res-jb", inside, None)


def test_a_hook_of_another_layer_than_the_names_is_a_warning(workshop: Path) -> None:
    named = ["--sae", "gpt2-small-res-jb/blocks.1.hook_resid_pre"]
    said = "by its name it was trained on blocks.1.hook_resid_pre, but reads layers.1"
    assert said in init(*ARGUMENTS, *named, "--hook", "layers.1")


@pytest.mark.parametrize("subfolder", [None, "resid_post"])
def test_a_repository_of_many_saes_is_refused_with_the_command_that_lists_them(
    workshop: Path, subfolder: str | None
) -> None:
    repository = "google/gemma-scope-2-270m-it"
    said = f"--sae {repository}: it holds many SAEs: `extraction-assets saes {repository}` lists them; give one by its"
    assert said in _refused("--sae", repository, *([] if subfolder is None else ["--subfolder", subfolder]))


def test_a_file_whose_name_lacks_what_its_format_needs_is_refused(workshop: Path, tmp_path: Path) -> None:
    write_qwen_scope(tmp_path, "layer12.sae.pt")
    file = str(tmp_path / "layer12.sae.pt")
    assert f"--sae {file}: SAE {file}: the number k" in _refused("--sae", file, "--hook", "layers.0")


def test_a_copy_of_a_whole_repository_needs_the_folder_of_one_sae(workshop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "GPT2-Small-SAEs-Reformatted"
    make_faithful_sae(copy / "blocks.8.hook_resid_pre")
    said = "is a copy of jbloom/GPT2-Small-SAEs-Reformatted, which holds many SAEs: give the folder of one, such as "
    assert f"{said}--subfolder blocks.8.hook_resid_pre" in _refused("--sae", str(copy))


@pytest.mark.parametrize(
    ("page", "instead"),
    [
        (
            "google/gemma-scope-2b-pt-res/tree/main/layer_12/width_16k/average_l0_82/",
            "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",
        ),
        ("some/saes/blob/v1/layer3.sae.pt", "some/saes --subfolder layer3.sae.pt"),
        ("some/saes", "some/saes"),
    ],
)
def test_of_an_address_of_the_hub_what_to_give_is_said(workshop: Path, page: str, instead: str) -> None:
    assert _refused("--sae", f"https://huggingface.co/{page}").endswith(
        f"is a repository of the hub: give --sae {instead}"
    )
