"""``init`` in the project ``workshop``, a fixture of ``conftest.py``."""

from pathlib import Path

import yaml

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.command import invoke

ARGUMENTS = ["--model", "../things/model", "--corpus", "../things/texts", "--max-length", "16", "--samples", "23"]
FIRST = ["--sae", "../things/first-sae"]
BOTH = [*FIRST, "--sae", "../things/second", "--hook", "model.layers.0", "--hook", "model.layers.1"]


def init(*arguments: str, name: str = "new") -> str:
    """Output of ``init``, which succeeds."""
    result = invoke("workshop.definitions", "init", name, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def settings_of(workshop: Path, name: str = "new") -> ExtractionSettings:
    """What ``init`` has written."""
    file = workshop / "workshop" / "defs" / name / "defs.yaml"
    return ExtractionSettings.model_validate(yaml.safe_load(file.read_text())["attributes"])


def refused(*arguments: str) -> str:
    """The one sentence that ``init`` refuses with."""
    result = invoke("workshop.definitions", "init", "new", *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line
