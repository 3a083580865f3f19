"""The image is built from the base image and the package index alone."""

import re
import tomllib
from pathlib import Path

from extraction_assets_tests.deploy.manifests import KUBERNETES, ROOT

DOCKERFILE = (KUBERNETES / "Dockerfile").read_text("utf-8")
LINES = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()


def instructions(kind: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in LINES if line.startswith(f"{kind} ")]


def arguments() -> dict[str, str]:
    """Build arguments and their defaults."""
    return {line.partition("=")[0]: line.partition("=")[2].strip('"') for line in instructions("ARG")}


def test_what_is_copied_exists_and_is_in_the_build() -> None:
    ignored = (KUBERNETES / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {f"!{source}" for source in sources} == {line for line in ignored if line.startswith("!")}


def test_the_build_asks_the_package_index_alone() -> None:
    programs = {part.split()[0] for line in instructions("RUN") for part in line.split("&&")}
    assert programs <= {"pip", "python", "useradd", "mkdir", "chown"}
    assert re.findall(r"(?:https?|git|ftp)://\S+", "\n".join(LINES)) == []
    assert not DOCKERFILE.startswith("# syntax")  # a front end is fetched from a registry


def test_every_install_keeps_to_the_constraints() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert len(installs) == 2
    assert all("-c constraints.txt" in line and "$TORCH_INDEX" in line for line in installs)


def test_what_the_package_is_built_from_is_copied() -> None:
    assert instructions("COPY")[1:] == ["pyproject.toml README.md ./", "extraction_assets extraction_assets"]
    assert '".[$EXTRAS]"' in instructions("RUN")[-1]


def test_the_extras_are_those_of_the_package() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    extras = arguments()["EXTRAS"].split(",")
    assert set(extras) <= known.keys()
    assert {"kubernetes", "postgres", "s3", "ui"} == set(extras)


def test_the_python_of_the_image_is_one_that_the_package_runs_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = re.fullmatch(r"python:(\d+\.\d+)-\w+", arguments()["BASE"])
    assert version is not None
    assert project["requires-python"] == f">={version[1]}"


def test_nothing_runs_as_root() -> None:
    assert instructions("USER")[-1] == "1000"
    assert Path("/var/lib/extraction") == Path(re.search(r"EXTRACTION_HOME=(\S+)", DOCKERFILE)[1])
