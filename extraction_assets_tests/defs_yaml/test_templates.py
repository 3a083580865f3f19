"""Templates in a YAML file: paths may name the environment; nothing is ever run."""

import json
from pathlib import Path

import pytest

from extraction_assets.cli.declared_extractions import declared_extractions
from extraction_assets.defs_yaml.folder import not_loaded
from extraction_assets_tests.defs_yaml.test_folder import _break, _load
from extraction_assets_tests.test_component import YAML

GOOD = YAML.format(sae="topk")


def _why(defs: Path) -> str:
    (one,) = not_loaded(_load())
    assert one.file == defs / "second" / "defs.yaml"
    return one.why


@pytest.mark.parametrize(
    "template",
    ["{{ env.MODELS }}", "{{env('MODELS')}}", '{{ env("MODELS", "x") }}', "{{ env('NOT_SET', '../../models') }}"],
)
def test_paths_may_name_an_environment_variable(
    yard: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
) -> None:
    models = yard.parent / "models"
    monkeypatch.setenv("MODELS", str(models))
    _break(yard, GOOD.replace("path: ../../models/topk", f"path: {json.dumps(template + '/topk')}"))
    assert declared_extractions(_load())["second"].saes["topk"].path == str(models / "topk")


def test_a_path_may_begin_with_the_projects_folder(yard: Path) -> None:
    text = GOOD.replace("source: ../../models/texts", 'source: "{{ context.project_root }}/yard/models/texts"')
    _break(yard, text)
    assert declared_extractions(_load())["second"].corpus.source == str(yard.parent / "models" / "texts")


def test_a_variable_that_is_not_set_is_named_with_its_line(yard: Path) -> None:
    file = _break(yard, GOOD.replace("path: ../../models/model", 'path: "{{ env.NOT_SET }}"'))
    assert _why(yard) == f"{file}:5: language_model.path: the environment variable NOT_SET is not set"


RUNS = "{{ cycler.__init__.__globals__.os.system('touch ' ~ env.MARK) }}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("chunk_size: 8", f"chunk_size: 8\n  name: {json.dumps(RUNS)}"),
        ("chunk_size: 8", f"chunk_size: {json.dumps(RUNS)}"),
        ("chunk_size: 8", f"chunk_size: 8\n  schedule: {json.dumps(RUNS)}"),
        ("chunk_size: 8", f"chunk_size: 8\n  keep: {json.dumps(RUNS)}"),
        ('owners: ["team:interp", me@example.org]', f"owners: [{json.dumps(RUNS)}]"),
        ("hook: model.layers.1", f"hook: {json.dumps(RUNS)}"),
        ("path: ../../models/model", f"path: {json.dumps(RUNS)}"),
        ("path: ../../models/model", f"path: {json.dumps('{{ env.HOME }}' + RUNS)}"),
        ("path: ../../models/model", 'path: "{% for x in [1] %}{{ x }}{% endfor %}"'),
        ("source: ../../models/texts", 'source: "{{ env.__class__ }}"'),
        ("source: ../../models/texts", 'source: "{# nothing #}"'),
    ],
    ids=["name", "number", "schedule", "group", "owner", "hook", "path", "beside", "loop", "attribute", "comment"],
)
def test_any_other_template_is_refused_and_not_run(
    yard: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    assert old in GOOD
    file = _break(yard, GOOD.replace(old, new))
    why = _why(yard)
    assert why.startswith(f"{file}:"), why
    assert "takes no template" in why or "a template that is not allowed" in why
    assert len(why.splitlines()) == 1
    assert not (tmp_path / "mark").exists()


def test_what_was_put_in_is_validated(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "../outside")
    _break(yard, GOOD.replace("hook: model.layers.1", 'hook: model.layers.1\n      subfolder: "{{ env.FOLDER }}"'))
    assert "subfolder '../outside' must lie inside path" in _why(yard)
