"""What the doctor says of Dagster's home, the database and declared extractions."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.types import DaemonHeartbeat

from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.database.connect import connect, open_database, write_transaction
from extraction_assets.database.migrations.revisions import known_revisions
from extraction_assets.doctor import instance as doctor_instance
from extraction_assets.doctor import project as doctor_project
from extraction_assets.engine.findings import Finding
from extraction_assets.host.disk import readable_size
from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.daemon_lab import wait_for
from extraction_assets_tests.engine.saes.formats.published_layouts import D_SAE, write_gemma_scope, write_gemma_scope_2
from extraction_assets_tests.engine.saes.formats.published_layouts_b import write_qwen_scope
from extraction_assets_tests.processes import start_code
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


def _levels(findings: list[Finding]) -> list[str]:
    return [finding.severity for finding in findings]


@pytest.mark.slow
def test_a_fresh_machine_has_no_problem_and_is_not_touched(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder))
    result = invoke(module, "doctor")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if not line.strip().startswith("→")]
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert {line[22:23] == " " for line in lines} == {False}
    assert any(line.split()[1:] == ["definitions", module, "declares", "tiny"] for line in lines)
    assert not home.exists()


@pytest.mark.slow
def test_a_problem_gives_exit_code_1_and_json_holds_every_finding(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = make_settings(tiny_folder)
    moved = settings.language_model.model_copy(update={"path": str(tmp_path / "gone")})
    module = declare(monkeypatch, settings.model_copy(update={"language_model": moved}))
    result = invoke(module, "doctor", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    (problem,) = (one for one in found if one["level"] == "problem")
    assert problem == {
        "level": "problem",
        "check": "definitions",
        "text": f"tiny: model {tmp_path / 'gone'} is not there",
        "advice": "correct its path in the YAML file",
    }
    assert {"python", "torch", "database", "definitions", "estimate"} <= {one["check"] for one in found}


@pytest.mark.parametrize("body", ["raise RuntimeError('first line\\nsecond')", "import sys; sys.exit(5)"])
@pytest.mark.slow
def test_definitions_that_do_not_load_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    (tmp_path / "broken_definitions.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = invoke("broken_definitions", "doctor")
    assert result.exit_code == 1
    assert "problem  definitions  broken_definitions does not load: " in result.output
    assert "Traceback" not in result.output
    assert not any(isinstance(value, ModuleType) for name, value in sys.modules.items() if name == "broken_definitions")


# ------------------------------------------------------------------------------------------------- Dagster's own home


def test_a_sqlite_home_beside_a_url_of_postgres_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    prepare_dagster_home()
    assert _levels(list(doctor_instance.check_dagster_home())) == ["ok"]
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", "postgresql://me:geheim@127.0.0.1/dagster")
    (finding,) = doctor_instance.check_dagster_home()
    assert finding.severity == "warning"
    assert finding.message.startswith("EXTRACTION_DAGSTER_POSTGRES_URL is set, but ")
    assert finding.advice.startswith("extraction-assets setup --storage postgres")


def test_a_home_without_dagster_yaml_is_a_warning(home: Path) -> None:
    assert _levels(list(doctor_instance.check_dagster_home())) == ["ok"]
    (home / "dagster").mkdir(parents=True)
    (finding,) = doctor_instance.check_dagster_home()
    assert finding.severity == "warning"
    assert "has no dagster.yaml" in finding.message


def test_a_dagster_yaml_that_cannot_be_read_is_a_problem_for_every_check_that_needs_it(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text("storage: [nonsense")
    monkeypatch.setenv("DAGSTER_HOME", "")
    result = invoke(declare(monkeypatch, make_settings(tiny_folder)), "doctor")
    assert result.exit_code == 1
    problems = [line.split()[1] for line in result.output.splitlines() if line.startswith("problem")]
    assert problems == ["pools", "daemon", "runs"]


def test_a_pool_without_a_limit_is_a_warning_until_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    folder = prepare_dagster_home()
    assert [finding.message for finding in doctor_instance.check_pools()] == ["pool gpu: 1 at once"]
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.event_log_storage.delete_concurrency_limit("gpu")
    (finding,) = doctor_instance.check_pools()
    assert finding.severity == "warning"
    assert "does not hold to the default (1)" in finding.message
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 2)
    (finding,) = doctor_instance.check_pools()
    assert (finding.severity, finding.message) == ("ok", "pool gpu: 2 at once")


def test_a_daemon_is_alive_by_its_heartbeats_and_missed_where_runs_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    folder = prepare_dagster_home()
    (finding,) = doctor_instance.check_daemon()
    assert finding.severity == "warning"
    assert finding.message.startswith("not running: schedules, sensors, backfills and queued runs wait")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("anywhere"), "repository")
        instance.add_run(
            dg.DagsterRun("a", status=dg.DagsterRunStatus.QUEUED, remote_job_origin=RemoteJobOrigin(origin, "a"))
        )
        (finding,) = doctor_instance.check_daemon()
        assert (finding.severity, "1 queued run(s) wait for it now" in finding.message) == ("error", True)
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, "id", errors=[]))
    (finding,) = doctor_instance.check_daemon()
    assert finding.severity == "ok"


_RUN = """
import time
import dagster as dg

@dg.asset
def slow():
    print("computing", flush=True)
    time.sleep(600)

with dg.DagsterInstance.get() as instance:
    dg.materialize([slow], instance=instance)
"""


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_a_problem_and_one_under_way_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    prepare_dagster_home()
    check = doctor_instance.check_runs("say the word")
    assert [one.message for one in check()] == ["none under way"]
    process, output = start_code(_RUN, streams=tmp_path), tmp_path / "stdout"
    try:
        wait_for("the run", lambda: output.exists() and output.read_text() == "computing\n")
        assert [(one.severity, one.message) for one in check()] == [("ok", "1 under way or waiting")]
    finally:
        process.kill()
        process.join()
    (finding,) = check()
    assert finding.severity == "error"
    assert f"is started, but its process {process.pid} is gone" in finding.message
    assert finding.advice == "say the word"


# ----------------------------------------------------------------------------------------------------------- database


def test_a_database_is_looked_at_and_never_made(home: Path) -> None:
    (finding,) = doctor_project.check_database()
    assert (finding.severity, "is not made yet" in finding.message) == ("ok", True)
    assert not home.exists()
    open_database(f"sqlite:///{home}/results.sqlite").dispose()
    (finding,) = doctor_project.check_database()
    assert (finding.severity, finding.message.endswith(f", schema {known_revisions()[0]}")) == ("ok", True)


def test_a_newer_schema_is_a_problem(home: Path) -> None:
    url = f"sqlite:///{home}/results.sqlite"
    open_database(url).dispose()
    engine = connect(url)
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    (finding,) = doctor_project.check_database()
    assert (finding.severity, "has schema 9999, newer" in finding.message) == ("error", True)


@pytest.mark.parametrize(
    "url", ["banana", "sqlite:///relative.sqlite", "postgresql+psycopg://me:geheim@127.0.0.1:1/x", "{file}"]
)
def test_a_database_that_does_not_answer_is_a_problem_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, but long enough to be looked at as if it were one" * 20)
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", url.format(file=f"sqlite:///{tmp_path}/text.sqlite"))
    (finding,) = doctor_project.check_database()
    assert finding.severity == "error"
    assert finding.advice
    assert "geheim" not in finding.message


# ----------------------------------------------------------------------------------------------------------- estimate


NAMES = {"release": "gemma-scope-2b-pt-res", "sae_id": "layer_12/width_16k/average_l0_82"}


def test_the_estimate_of_an_sae_by_name_takes_the_width_of_its_name(tiny_folder: Path, home: Path) -> None:
    settings = make_settings(tiny_folder, saes={"named": NAMES})
    (found,) = doctor_project.check_estimate(lambda: {"tiny": settings})
    assert found.message.startswith("tiny: about ")
    sizes = doctor_project._checkpoint_sizes(settings)
    assert sizes is not None
    assert (sizes.widths, sizes.latent_dims) == ({"layer 12, residual": 16}, {"named": 16_384})


def test_an_sae_of_no_known_width_is_not_estimated(tiny_folder: Path, home: Path) -> None:
    named = {"release": "gpt2-small-res-jb", "sae_id": "blocks.8.hook_resid_pre"}
    (found,) = doctor_project.check_estimate(lambda: {"tiny": make_settings(tiny_folder, saes={"named": named})})
    assert found.message == "tiny: not known before its checkpoints are downloaded"


@pytest.mark.parametrize("write", [partial(write_gemma_scope_2, config=False), write_gemma_scope])
def test_an_sae_on_this_machine_is_estimated_by_the_headers_of_its_files(
    write: Any, tiny_folder: Path, tmp_path: Path, home: Path
) -> None:
    write(tmp_path, "mine")
    saes = {"mine": {"path": str(tmp_path / "mine"), "hook": "layers.0"}}
    sizes = doctor_project._checkpoint_sizes(make_settings(tiny_folder, saes=saes))
    assert sizes is not None
    assert sizes.latent_dims == {"mine": D_SAE}


def test_files_on_this_machine_whose_size_is_not_known_are_those_that_check_reads(
    tiny_folder: Path, tmp_path: Path, home: Path
) -> None:
    write_qwen_scope(tmp_path, "layer12.sae.pt")
    saes = {"file": {"path": str(tmp_path / "layer12.sae.pt"), "hook": "layers.0"}}
    (found,) = doctor_project.check_estimate(lambda: {"tiny": make_settings(tiny_folder, saes=saes)})
    assert found.message == "tiny: not known here: `check tiny` reads its files"


def test_a_copy_that_lacks_the_named_sae_is_a_problem(tiny_folder: Path, tmp_path: Path, home: Path) -> None:
    settings = make_settings(tiny_folder, saes={"named": {**NAMES, "path": str(tmp_path)}})
    *_, finding = doctor_project.check_definitions("lab", lambda: {"tiny": settings}, list, str)
    assert finding.severity == "error"
    assert f"tiny: SAE named: {tmp_path} has no layer_12/width_16k/average_l0_82, which is " in finding.message


def test_an_sae_that_is_one_file_is_there(tiny_folder: Path, tmp_path: Path, home: Path) -> None:
    (tmp_path / "layer0.sae.pt").write_bytes(b"")
    settings = make_settings(tiny_folder, saes={"file": {"path": str(tmp_path / "layer0.sae.pt"), "hook": "layers.0"}})
    findings = list(doctor_project.check_definitions("lab", lambda: {"tiny": settings}, list, str))
    assert [finding.severity for finding in findings] == ["ok"]


@pytest.mark.slow
def test_the_estimate_is_what_is_still_to_come(tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tiny_folder)

    def text() -> str:
        return next(iter(doctor_project.check_estimate(lambda: {"tiny": settings}))).message

    # activations 23 * 16 * 16 * 4 * 2 hooks, features 23 * 16 * 520 * 2, tables of 48 * ((5 + 16) * 40 + 200) / 8 a
    # sample with a sixteenth of the features, and rows 48 * (5 * 111 + 46 * 102 + 600 + 3600 + 2100) * 2
    # beside texts of 23 * 16 * 24: 47,104 + 382,720 + 287,040 + 23,920 + 1,108,512 + 8,832
    assert text() == "tiny: about 1.9 MB to come"
    project = Project(settings, home)
    project.corpus()
    project.chunks(0, 0)
    bytes_of_one = sum(len(data) for name, data in project.files("tiny/*/**/*").items() if "corpus" not in name)
    assert text() == f"tiny: about {readable_size(bytes_of_one * 15 / 8 + 1_117_344)} to come"
    with monkeypatch.context() as full:
        full.setattr(doctor_project.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert list(doctor_project.check_estimate(lambda: {"tiny": settings}))[-1].severity == "error"
    project.chunks(1, 2)
    assert text() == "tiny: all chunks are on disk"
    settings = make_settings(tiny_folder, top_k_examples=3)
    tables = sum(len(data) for name, data in project.files("tiny/*/top_k_table/*").items())
    rows = 48 * (3 * 111 + 46 * 102 + 6300) * 2 + 23 * 16 * 24
    assert text() == f"tiny: about {readable_size(tables + rows)} to come", (
        "stale tables are computed again, and nothing else"
    )
