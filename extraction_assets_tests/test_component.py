"""The component in a project of somebody else: two extractions beside assets of their own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest
from pydantic import ValidationError

from extraction_assets import default_resources
from extraction_assets_tests.command import invoke, succeed
from extraction_assets_tests.processes import run_module
from extraction_assets_tests.tiny import make_settings

DEFINITIONS = """
from pathlib import Path

import dagster as dg
from extraction_assets import default_resources


@dg.asset
def labels():
    return 1


@dg.definitions
def defs():
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    own = dg.Definitions(assets=[labels], resources=default_resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(loaded, own)
"""

YAML = """
type: extraction_assets.FeatureExtraction
attributes:
  language_model:
    path: ../../models/model
  corpus:
    source: ../../models/texts
    max_length: 16
  saes:
    {sae}:
      path: ../../models/{sae}
      hook: model.layers.1
      minimum_variance_explained: -1000000000
  evaluation_samples: 23
  chunk_size: 8
  owners: ["team:interp", me@example.org]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster project called ``lab`` that declares two extractions by relative paths."""
    package = tmp_path / "project" / "lab"
    for name, sae in (("first", "relu"), ("second", "topk")):
        folder = package / "defs" / name
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(YAML.format(sae=sae))
    make_settings(package / "models")
    (package / "__init__.py").write_text("")
    (package / "definitions.py").write_text(dedent(DEFINITIONS))
    (package.parent / "pyproject.toml").write_text(
        '[project]\nname = "lab"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "lab"\ncode_location_target_module = "lab.definitions"\n'
    )
    monkeypatch.syspath_prepend(str(package.parent))
    yield package.parent
    for name in [name for name in sys.modules if name.split(".")[0] == "lab"]:
        del sys.modules[name]


def _load() -> dg.Definitions:
    from importlib import import_module

    loaded = import_module("lab.definitions")
    definitions: dg.Definitions = loaded.defs()
    return definitions


def test_each_extraction_is_a_group_beside_the_projects_own_assets(project: Path) -> None:
    specs = _load().resolve_all_asset_specs()
    by_group: dict[str | None, set[str]] = {}
    for spec in specs:
        by_group.setdefault(spec.group_name, set()).add(spec.key.to_user_string())
    assert by_group["first"] == {
        "first/corpus",
        "first/model_activations",
        "first/relu/sae_features",
        "first/relu/top_k_table",
        "first/relu/feature_examples",
        "first/relu/feature_relations",
        "first/relu/feature_directions",
        "first/relu/feature_report",
    }
    assert "second/topk/feature_examples" in by_group["second"]
    assert by_group["default"] == {"labels"}


def test_everything_that_the_ui_lists_says_what_it_is_and_whose(project: Path) -> None:
    repository = _load().get_repository_def()
    ours = [spec for spec in _load().resolve_all_asset_specs() if spec.key.path != ["labels"]]
    assert len(ours) == 16
    for spec in ours:
        assert spec.group_name == spec.key.path[0], spec.key
        assert spec.kinds, spec.key
        assert spec.description, spec.key
        assert list(spec.owners) == ["team:interp", "me@example.org"], spec.key
    checks = list(repository.asset_graph.asset_check_keys)
    assert len(checks) == 14
    named = [repository.asset_graph.get_check_spec(key) for key in checks]
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for listed in (*named, *jobs, *repository.schedule_defs, *repository.sensor_defs):
        assert listed.description, listed.name
    resources = repository.get_top_level_resources()
    assert set(resources) == {"gpu", "chunk_store", "results"}
    assert all(resource.description for resource in resources.values())
    for own in default_resources().values():
        assert all(field.description for field in type(own).model_fields.values()), own


@pytest.mark.parametrize("owner", ["interp", "team:", "me@nowhere", ""])
def test_an_owner_that_dagster_would_refuse_is_refused_by_name(tiny_folder: Path, owner: str) -> None:
    with pytest.raises(ValidationError, match=f"owner {owner!r} must be team:NAME or an e-mail address"):
        make_settings(tiny_folder, owners=[owner])


def test_an_error_in_the_yaml_names_the_field(project: Path) -> None:
    yaml = project / "lab" / "defs" / "first" / "defs.yaml"
    yaml.write_text(yaml.read_text().replace("chunk_size: 8", "chunk_size: 8\n  top_k_exampels: 5"))
    with pytest.raises(Exception, match="first") as caught:
        _load()
    chain, error = "", caught.value
    while error is not None:
        chain, error = chain + str(error), error.__cause__ or error.__context__
    assert "top_k_exampels" in chain


def test_keep_is_read_from_the_yaml_and_changes_nothing_else(project: Path) -> None:
    from extraction_assets.cli.declared_extractions import declared_extractions

    before = declared_extractions(_load())
    yaml = project / "lab" / "defs" / "first" / "defs.yaml"
    yaml.write_text(yaml.read_text() + "  keep: {model_activations: false}\n")
    del sys.modules["lab.definitions"]
    after = declared_extractions(_load())
    assert after["first"].keep.model_dump() == {"model_activations": False, "sae_features": True, "top_k_table": True}
    assert after["first"].model_copy(update={"keep": before["first"].keep}) == before["first"]
    assert after["second"] == before["second"]


def test_what_a_corpus_is_made_of_is_read_from_the_yaml(project: Path) -> None:
    from extraction_assets.cli.declared_extractions import declared_extractions

    chosen = {
        "source": "NeelNanda/pile-10k",
        "streaming": True,
        "split": "train",
        "shuffle_seed": 3,
        "packing": "concatenated",
        "sequence_separator_token": "eos",
        "exclude_positions": [3, 7],
        "exclude_outlier_norms": 10.0,
        "drop_duplicates": True,
        "max_length": 16,
    }
    yaml = project / "lab" / "defs" / "first" / "defs.yaml"
    written = "source: NeelNanda/pile-10k\n" + "".join(
        f"    {name}: {json.dumps(value)}\n" for name, value in chosen.items() if name not in ("source", "max_length")
    )
    yaml.write_text(yaml.read_text().replace("source: ../../models/texts\n", written))
    corpus = declared_extractions(_load())["first"].corpus
    assert corpus.model_dump(exclude_defaults=True) == chosen


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("  top_k_exampels: 5", "attributes.top_k_exampels at {}: no such field: did you mean top_k_examples?"),
        ("  max_length: 5", "attributes.max_length at {}: no field here: it belongs under attributes.corpus:"),
        ("  hook: 5", "attributes.hook at {}: no field here: it belongs under attributes.saes.NAME:"),
        ("top_k_examples: 5", "top_k_examples at {}: no field here: it belongs under attributes:"),
        ("  top_k_examples: 0", "attributes.top_k_examples at {}: top_k_examples must be at least 1, got 0"),
        ("  top_k_examples: abc", "attributes.top_k_examples at {}: Input should be a valid integer, unable to parse"),
        ("  top_k_examples: [1]", "attributes.top_k_examples at {}: Input should be a valid integer"),
        ("  interval_examples: yes", "attributes.interval_examples at {}: interval_examples takes numbers, got true"),
        ("  schedule: '0 2 * *'", "attributes.schedule at {}: schedule '0 2 * *' is not in cron form: minute, hour, "),
        (
            "  keep: {{top_k_tabel: true}}",
            "attributes.keep.top_k_tabel at {}: no such field: did you mean top_k_t",
        ),
        ("  keep: {{top_k_table: false}}", "attributes.keep.top_k_table at {}: keep.top_k_table cannot be false: with"),
        ("  chunk_size: 9", "chunk_size at {} stands already in line 15: remove one of the two"),
    ],
    ids=lambda value: value.strip(),
)
def test_an_error_in_the_yaml_is_one_sentence_with_file_and_line(project: Path, line: str, sentence: str) -> None:
    yaml = project / "lab" / "defs" / "first" / "defs.yaml"
    yaml.write_text(yaml.read_text() + line.format() + "\n")
    result = invoke("lab.definitions", "list")
    assert result.exit_code == 1
    last = result.output.splitlines()[-1].removeprefix("Error: ")
    assert last.startswith(sentence.format(f"{yaml}:17")), result.output
    assert ";" not in last


@pytest.mark.slow
def test_an_error_in_the_yaml_is_short_on_the_command_line(project: Path) -> None:
    yaml = project / "lab" / "defs" / "first" / "defs.yaml"
    yaml.write_text(yaml.read_text() + "  top_k_examples: 0\n")
    done = _command(project, "run", "first")
    assert done.returncode == 1
    assert "top_k_examples must be at least 1, got 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 12


@pytest.mark.slow
def test_both_run_from_the_command_line_and_share_their_corpus(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _command(project, "run", "first")
    assert done.returncode == 0, done.stderr
    assert "Five features of" in done.stdout
    monkeypatch.setenv("DAGSTER_HOME", "")  # the others in this process, which has all imported
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    assert "Five features of" in succeed("lab.definitions", "run", "second")
    assert "done" in succeed("lab.definitions", "status", "first")
    assert len(list((home / "corpora").iterdir())) == 1


def _command(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_module("extraction_assets.cli", ["--module", "lab.definitions", *arguments], folder=project)


def test_assets_of_a_published_sae_link_to_its_pages(project: Path) -> None:
    file = project / "lab" / "defs" / "second" / "defs.yaml"
    named = "release: gpt2-small-res-jb\n      sae_id: blocks.8.hook_resid_pre\n      revision: v1"
    file.write_text(file.read_text().replace("path: ../../models/topk", named))
    by_key = {spec.key: dict(spec.metadata) for spec in _load().resolve_all_asset_specs()}
    metadata = by_key[dg.AssetKey(["second", "topk", "feature_examples"])]
    assert metadata["published_sae"].value == "gpt2-small-res-jb/blocks.8.hook_resid_pre"
    page = "https://huggingface.co/jbloom/GPT2-Small-SAEs-Reformatted/tree/v1/blocks.8.hook_resid_pre"
    assert metadata["hugging_face"].value == page
    assert metadata["neuronpedia"].value == "https://www.neuronpedia.org/gpt2-small/8-res-jb"
    assert "published_sae" not in by_key[dg.AssetKey(["second", "corpus"])]
    assert "published_sae" not in by_key[dg.AssetKey(["first", "relu", "feature_examples"])]
