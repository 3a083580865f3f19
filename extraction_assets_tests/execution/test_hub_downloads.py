"""What a command or a step shows of downloads."""

import logging

import pytest

from extraction_assets.engine.hub.session import current_session
from extraction_assets.execution.hub_downloads import hub_downloads


def test_a_step_logs_the_megabytes_that_have_arrived(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with hub_downloads(logging.getLogger("step")), current_session().show("google/gemma", 2_500_000) as arrived:
        for size in (400_000, 1_500_000, -1_900_000, 2_500_000):  # a transfer that began again
            arrived(size)
    assert "download of google/gemma: 3 of 3 MB" in caplog.text


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EXTRACTION_PROGRESS", "bar")
    with hub_downloads(logging.getLogger("step")), current_session().show("google/gemma", 2_500_000) as arrived:
        arrived(2_500_000)
    assert "download of google/gemma: 100%" in capsys.readouterr().err


def test_a_session_ends_with_its_block() -> None:
    before = current_session().logger.name
    with hub_downloads(logging.getLogger("step")):
        assert current_session().logger.name == "step"
    assert current_session().logger.name == before
