"""The files that the order of the tests names."""

import logging

import pytest

from extraction_assets_tests.conftest import FIRST, MANY_SECONDS
from extraction_assets_tests.processes import ROOT


@pytest.mark.parametrize("name", sorted({*FIRST, *MANY_SECONDS}))
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / "extraction_assets_tests" / name).is_file()


@pytest.fixture
def lonely() -> logging.Logger:
    """A logger that hands nothing on to others."""
    logger = logging.getLogger("extraction_assets_tests.lonely")
    logger.propagate = False
    return logger


def test_lines_of_a_logger_that_does_not_propagate_are_caught(
    lonely: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    lonely.warning("one line")
    logging.getLogger("extraction_assets_tests.other").warning("another")
    assert caplog.messages == ["one line", "another"]
    assert len(lonely.handlers) == 2  # of caplog and of the report, gone once the test is over
