"""A YAML file that does not load hurts its own extraction alone, and is named."""

import os
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets import default_resources
from extraction_assets.defs_yaml.folder import not_loaded
from extraction_assets.engine.saes.published import registry
from extraction_assets.execution.preview import escape
from extraction_assets_tests.command import invoke, succeed
from extraction_assets_tests.processes import run_module
from extraction_assets_tests.test_component import YAML

ALIASES = "    - &a0 [x, x]\n" + "".join(f"    - &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))

PATH = "path: ../../models/topk"
NAMED = "release: {}\n      sae_id: blocks.8.hook_resid_per"

BROKEN = {
    "syntax": ("attributes:\n  a: b: c\n", "no YAML at {file}:2: mapping values are not allowed here"),
    "type": ("type: extraction_assets.FeatureExtractoin\n", "has no attribute `FeatureExtractoin`; an extraction has"),
    "field": (YAML.format(sae="topk") + "  top_k: 3\n", "attributes.top_k at {file}:17: no such field; there"),
    "value": (
        YAML.format(sae="topk").replace("23", "banana"),
        "evaluation_samples at {file}:14: Input should be",
    ),
    "empty": ("", "it is empty"),
    "list": ("- a\n", "{file}:1: Input should be an object: the keys type and attributes"),
    "text": ("hello\n", "{file}:1: Input should be an object: the keys type and attributes"),
    "no type": (
        YAML.format(sae="topk").replace("type: extraction_assets.FeatureExtraction", ""),
        "type at {file}:3: Field required; an extraction has type: extraction_assets.FeatureExtraction",
    ),
    "no module": (
        YAML.format(sae="topk").replace("extraction_assets.", "nomodule_x."),
        "type at {file}:2: there is no module 'nomodule_x'; an extraction has type: extraction_assets.",
    ),
    "no variables": (
        "template_vars_module: nope_mod\n" + YAML.format(sae="topk"),
        "template_vars_module at {file}:1: there is no module 'nope_mod'; name a module",
    ),
    "deep": (
        YAML.format(sae="topk") + "  owners: " + "[" * 5000 + "]" * 5000,
        "it is nested too deep at {file}:17",
    ),
    "NUL": (YAML.format(sae="topk") + "  # \0", "no YAML at {file}:17: it holds the character U+0000"),
    "digits": (
        YAML.format(sae="topk").replace("23", "2" * 5000),
        "attributes.evaluation_samples at {file}:14: a value of 5000 characters, '22222222222222222222'…, is no int",
    ),
    "tag": (YAML.format(sae="topk").replace("23", "!!bool abc"), "{file}:14: 'abc' is no bool that can be read"),
    "large": ("# " + "x" * (1 << 20), "it is larger than the 1048576 bytes that such a file can have: put"),
    "aliases": (
        YAML.format(sae="topk") + "post_processing:\n  assets:\n" + ALIASES,
        "line 34 repeats other lines until there are more than 100000 values",
    ),
    "twice": (
        "---\n".join([YAML.format(sae="topk")] * 2),
        "two documents of this file hold an extraction called 'second'",
    ),
    "many": (
        YAML.format(sae="topk") + "  q: 1\n  zz: 2\n",
        "attributes.q at {file}:17, attributes.zz at {file}:18: no such field; there are name, ",
    ),
    "no UTF-8": (b"\xff\xfe", "it is not UTF-8"),
    "nothing set": ("type: extraction_assets.FeatureExtraction\n", "language_model: Field required"),
    "used name": (YAML.format(sae="topk") + "  name: first\n", "another extraction is called 'first', in "),
    "no release": (
        YAML.format(sae="topk").replace(PATH, NAMED.format("gpt2-smal-res-jb")),
        f"saes.topk: SAELens {registry().sae_lens} has no release 'gpt2-smal-res-jb'; near names: gpt2-small-res-jb, ",
    ),
    "no SAE": (
        YAML.format(sae="topk").replace(PATH, NAMED.format("gpt2-small-res-jb")),
        f"saes.topk: release 'gpt2-small-res-jb' of SAELens {registry().sae_lens} has no SAE "
        "'blocks.8.hook_resid_per'; near names: ",
    ),
    "one name": (
        YAML.format(sae="topk").replace(PATH, "sae_id: blocks.8.hook_resid_pre"),
        "saes.topk at {file}:9: sae_id names an SAE together with release: set both, or path alone",
    ),
    "a release as path": (
        YAML.format(sae="topk").replace(PATH, "path: gpt2-small-res-jb"),
        "saes.topk: path 'gpt2-small-res-jb' is no folder, but gpt2-small-res-jb is a release of SAELens: write ",
    ),
    "a kind that is refused": (
        YAML.format(sae="topk").replace(
            PATH, "release: temporal-sae-gemma-2-2b\n      sae_id: blocks.12.hook_resid_post"
        ),
        "saes.topk: SAE temporal-sae-gemma-2-2b/blocks.12.hook_resid_post: this kind of SAE cannot be read: its ",
    ),
    "template": (YAML.format(sae="topk") + '  name: "{{ nothing.here }}"\n', "name"),
}


def _load() -> dg.Definitions:
    from importlib import import_module

    definitions: dg.Definitions = import_module("yard.definitions").defs()
    return definitions


def _groups(definitions: dg.Definitions) -> dict[str | None, int]:
    groups = [spec.group_name for spec in definitions.resolve_all_asset_specs()]
    return {name: groups.count(name) for name in groups}


def _break(defs: Path, content: str | bytes) -> Path:
    file = defs / "second" / "defs.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_good_files_load_as_dagster_loads_them(yard: Path) -> None:
    ours = _load()
    theirs = dg.load_from_defs_folder(path_within_project=yard)
    theirs = dg.Definitions.merge(theirs, dg.Definitions(resources=default_resources()))
    keys = {spec.key for spec in theirs.resolve_all_asset_specs()} | {dg.AssetKey("labels")}
    assert {spec.key for spec in ours.resolve_all_asset_specs()} == keys
    assert not_loaded(ours) == []


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_file_is_named_with_what_is_wrong_and_the_other_extraction_stays(yard: Path, kind: str) -> None:
    content, expected = BROKEN[kind]
    file = _break(yard, content)
    definitions = _load()
    assert _groups(definitions) == {"first": 8, "second": 1, "default": 1}
    (one,) = not_loaded(definitions)
    assert (one.name, one.file) == ("second", file)
    assert expected.format(file=file) in one.why
    assert len(one.why.splitlines()) == 1


def test_the_ui_shows_the_bad_one_in_its_group_with_the_reason(yard: Path) -> None:
    file = _break(yard, BROKEN["syntax"][0])
    repository = _load().get_repository_def()
    node = repository.asset_graph.get(dg.AssetKey(["second", "not_loaded"]))
    assert node.group_name == "second"
    assert not node.is_materializable
    assert f"`{file}` does not load: no YAML at {escape(str(file))}:2" in str(node.description)


def _irregular(file: Path, kind: str) -> None:
    file.unlink()
    made = {"pipe": os.mkfifo, "folder": Path.mkdir, "circle": lambda file: file.symlink_to(file.name)}
    made.get(kind, lambda file: file.symlink_to("nowhere"))(file)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("pipe", "it is not a regular file but a named pipe: put a YAML file there"),
        ("folder", "it is not a regular file but a folder: put"),
        ("circle", "it is not a regular file (symbolic links in a circle): put"),
        ("nowhere", "it is a symbolic link to a file that does not exist: put"),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(yard: Path, kind: str, expected: str) -> None:
    _irregular(yard / "second" / "defs.yaml", kind)
    definitions = _load()
    assert _groups(definitions) == {"first": 8, "second": 1, "default": 1}
    (one,) = not_loaded(definitions)
    assert (one.name, one.why[: len(expected)]) == ("second", expected)


def test_a_python_file_that_is_a_pipe_is_refused_and_not_waited_for(yard: Path) -> None:
    os.mkfifo(yard / "third.py")
    with pytest.raises(ValueError, match=r"third\.py is not a regular file but a named pipe"):
        _load()


def test_a_file_that_is_left_out_takes_no_name_from_another(yard: Path) -> None:
    document = YAML.format(sae="topk")
    (yard / "a").mkdir()
    (yard / "a" / "defs.yaml").write_text(
        "---\n".join([document + f"  name: {name}\n" for name in ("first", "b", "b")])
    )
    definitions = _load()
    assert _groups(definitions) == {"a": 1, "first": 8, "second": 8, "default": 1}
    assert [one.name for one in not_loaded(definitions)] == ["a"]


def test_bad_files_in_folders_of_like_names_are_named_each(yard: Path) -> None:
    for name in ("a-b", "a_b", "日本", "中国"):
        (yard / name).mkdir()
        (yard / name / "defs.yaml").write_text("")
    assert sorted(one.name for one in not_loaded(_load())) == sorted(["a-b", "a_b", "日本", "中国"])


def test_controls_and_markup_of_keys_and_folders_are_shown_and_not_done(
    yard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = yard / "x`<b>\x1b[31m\u202e"
    folder.mkdir()
    (folder / "defs.yaml").write_text(YAML.format(sae="topk") + '  "k\\e]8;;\\n\\u202e<i>": 1\n')
    (one,) = [spec for spec in _load().resolve_all_asset_specs() if spec.key.path[-1] == "not_loaded"]
    said = f"{one.description}{one.metadata}{one.key.path}{caplog.text}"
    assert not {"\x1b", "\u202e"} & {*said}
    assert "``" + str(yard).replace("|", "") + "/x`<b>" in str(one.description)
    assert "\\<i\\>" in str(one.description)
    assert len(str(one.description).splitlines()) == 1


def test_status_of_the_good_one_goes_on(yard: Path) -> None:
    file = _break(yard, BROKEN["value"][0])
    result = invoke("yard.definitions", "status", "first")
    assert result.exit_code == 0
    assert "all 3 chunks are missing" in result.stdout
    assert f"left out: {file} does not load: " in result.stderr


@pytest.mark.slow
def test_a_command_about_the_bad_one_gives_its_error(yard: Path) -> None:
    file = _break(yard, BROKEN["syntax"][0])
    for command in ("status", "run", "check", "show", "clean"):
        result = invoke("yard.definitions", command, "second")
        assert result.exit_code == 1, command
        assert result.stderr.splitlines()[-1].startswith(f"Error: {file} does not load: no YAML at {file}:2"), command
        assert result.stderr.count("does not load") == 1, command


@pytest.mark.slow
def test_list_and_doctor_name_it_and_exit_with_1(yard: Path) -> None:
    file = _break(yard, BROKEN["type"][0])
    listed = invoke("yard.definitions", "list")
    assert (listed.exit_code, listed.stdout.split()[0]) == (1, "first")
    assert f"left out: {file} does not load" in listed.stderr
    doctor = invoke("yard.definitions", "doctor")
    assert doctor.exit_code == 1
    assert f"problem  definitions  {file} does not load and is left out" in doctor.stdout


def test_clean_leaves_what_the_bad_one_has(yard: Path, home: Path) -> None:
    kept = home / "second" / "corpus.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"corpus": "0"}')
    _break(yard, BROKEN["value"][0])
    assert "note: second (" in succeed("yard.definitions", "clean", "--yes")
    assert kept.is_file()


def test_a_bad_file_in_a_folder_of_folders_is_isolated_too(yard: Path) -> None:
    (yard / "more" / "third").mkdir(parents=True)
    (yard / "more" / "third" / "defs.yaml").write_text(BROKEN["syntax"][0])
    definitions = _load()
    assert _groups(definitions) == {"first": 8, "second": 8, "more_third": 1, "default": 1}
    assert [one.name for one in not_loaded(definitions)] == ["third"]


def test_a_python_file_that_does_not_load_raises_as_ever(yard: Path) -> None:
    (yard / "broken.py").write_text("raise RuntimeError('mine')")
    with pytest.raises(Exception, match="mine"):
        _load()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "why"), [("syntax", "no YAML at "), ("value", "attributes.evaluation_samples at ")])
def test_a_code_location_loads_with_the_good_ones(yard: Path, kind: str, why: str) -> None:
    file = _break(yard, BROKEN[kind][0])
    done = run_module("dagster", ["definitions", "validate", "-m", "yard.definitions"], folder=yard.parents[1])
    assert done.returncode == 0, done.stderr
    assert f"{file} does not load and is left out: {why}{file}" in done.stdout + done.stderr
