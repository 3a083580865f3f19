"""What deploy/ray and its page hand to Ray, by Ray's own schema, options and configuration."""

import re
import shlex
import subprocess
from typing import Any

import dagster as dg
import pytest
import yaml

from extraction_assets.dagster_instance.dagster_yaml import differences_from, template
from extraction_assets_tests.processes import ROOT

FOLDER = ROOT / "deploy" / "ray"
CLUSTER = yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))
STARTS = [*CLUSTER["head_start_ray_commands"], *CLUSTER["worker_start_ray_commands"]]
NO_RAY = "Ray is not installed here: the extra 'ray' brings it"


def test_the_home_is_that_of_setup_but_for_launcher_and_patience() -> None:
    differences = differences_from((FOLDER / "dagster.yaml").read_text("utf-8"), template("postgres"))
    assert {line.split(":")[0].split(".")[0].strip() for line in differences} == {"run_launcher", "run_monitoring"}


def test_the_cluster_is_of_rays_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason=NO_RAY)
    monkeypatch.chdir(ROOT)
    util.validate_config(util.prepare_config(CLUSTER))


def test_every_option_of_ray_start_exists() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason=NO_RAY)
    known = {option for parameter in scripts.start.params for option in parameter.opts}
    words = [word.partition("=")[0] for command in STARTS for word in _after(command, "ray start")]
    used = {word for word in words if word.startswith("--")}
    assert {"--head", "--address"} <= used <= known


def _after(command: str, start: str) -> list[str]:
    return shlex.split(command.partition(start)[2])


@pytest.mark.parametrize("command", [*CLUSTER["setup_commands"], *STARTS])
def test_every_command_is_one_for_a_shell(command: str) -> None:
    done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_installed_are_extras_of_the_package_and_ray_is_among_them() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (listed,) = re.findall(r"extraction-assets'\[(.*?)\]'", " ".join(CLUSTER["setup_commands"]))
    assert "ray" in listed.split(",")
    assert set(listed.split(",")) <= extras.keys()


def test_the_environment_is_one_for_a_shell_and_names_what_runs_need() -> None:
    command = f". {shlex.quote(str(FOLDER / 'extraction.example.env'))}; env"
    done = subprocess.run(
        ["sh", "-a", "-c", command], env={"HOME": "/home/x"}, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["EXTRACTION_HOME"] == "/home/x/extraction"
    assert found["EXTRACTION_DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")  # Dagster takes it as it is
    assert {"EXTRACTION_DATABASE_URL", "EXTRACTION_STORE", "AWS_ACCESS_KEY_ID", "DAGSTER_HOME"} <= found.keys()


def _tags_of_the_page() -> list[str]:
    """The values of ``dagster-ray/config`` that docs/ray.md shows."""
    return re.findall(r"```json\n(.*?)\n```", (ROOT / "docs" / "ray.md").read_text("utf-8"), re.DOTALL)


def _config(tag: str) -> dict[str, Any]:
    launcher = pytest.importorskip("extraction_assets.dagster_instance.ray_launcher", reason=NO_RAY)
    config: dict[str, Any] = launcher.config_of_tag(dg.DagsterRun(job_name="job", tags={"dagster-ray/config": tag}))
    return config


@pytest.mark.parametrize("tag", _tags_of_the_page())
def test_a_tag_of_the_page_is_one_that_the_launcher_reads(tag: str) -> None:
    assert _config(tag)
