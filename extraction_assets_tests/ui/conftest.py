"""One home, one demo, one Chromium for all tests of this folder: the backfill of ``test_ui`` fills the home."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import axe_core_python  # noqa: F401
    import selenium  # noqa: F401
except ImportError as error:
    pytest.fail(f"the UI tests need {error.name}: pip install 'extraction-assets[ui-test]'", pytrace=False)

from extraction_assets_tests.serving import HOST, free_port, serving
from extraction_assets_tests.ui.browser import Browser, chromium
from extraction_assets_tests.ui.reading import Reader

PROGRAM = str(Path(sys.executable).parent / "extraction-assets")
DEMO_SECONDS = 600


@pytest.fixture(scope="session")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def shared_browser(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = (pytestconfig.rootpath / pytestconfig.getoption("--screenshots")).absolute()
    with chromium("", folder, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def demo_home(home_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home with the demo's results, of the backfill in ``test_ui`` if that has run before."""
    if not (home_of_all / "results.sqlite").exists():
        subprocess.run(
            [PROGRAM, "run", "demo"],
            check=True,
            timeout=DEMO_SECONDS,
            cwd=tmp_path_factory.mktemp("folder"),
            env=environment_of(home_of_all),
        )
    return home_of_all


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a command on a home."""
    return {**os.environ, "EXTRACTION_HOME": str(home), "DAGSTER_HOME": "", "EXTRACTION_PROGRESS": "log"}


@pytest.fixture(scope="session")
def browse_address(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The results browser as ``extraction-assets browse`` serves it."""
    with browsing(demo_home, tmp_path_factory.mktemp("browse")) as address:
        yield address


@contextlib.contextmanager
def browsing(home: Path, folder: Path, *options: str) -> Iterator[str]:
    """A running ``extraction-assets browse`` on a home; its address."""
    port = free_port()
    command = [PROGRAM, "browse", "--port", str(port), *options]
    with serving(command, port, folder / "browse.log", folder, environment_of(home), page=""):
        yield f"http://{HOST}:{port}"


@pytest.fixture
def reader(shared_browser: Browser, browse_address: str) -> Iterator[Reader]:
    """The browser on the demo's pages. After each test its console must hold no error."""
    reading = Reader(shared_browser, browse_address)
    reading.errors()  # those of the test before
    yield reading
    assert reading.errors() == []
