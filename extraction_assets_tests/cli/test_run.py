"""Which chunks ``run --chunks`` means, how other commands name them, and how many processes ``--gpus`` gives."""

from pathlib import Path

import click
import pytest

from extraction_assets.cli.app import numbered
from extraction_assets.cli.run import chosen_chunks, number_of_processes
from extraction_assets.dagster_instance import home
from extraction_assets_tests import command
from extraction_assets_tests.tiny import make_settings


@pytest.mark.parametrize(
    ("chunks", "chosen"),
    [(None, "012"), ("0:2", "01"), (":", "012"), ("000000000008", "1"), ("000000000008:000000000016", "1")],
)
def test_chunks_are_chosen_by_number_or_name(tiny_folder: Path, chunks: str | None, chosen: str) -> None:
    settings = make_settings(tiny_folder)
    assert chosen_chunks(settings, chunks) == [settings.chunk_keys[int(number)] for number in chosen]


def test_chunks_are_named_with_the_numbers_that_choose_them() -> None:
    every = [f"{first:012d}" for first in range(0, 80, 8)]
    assert numbered(every[:2], every) == "000000000000, 000000000008 (--chunks 0:2)"
    assert numbered([*every[:2], *every[8:]], every) == (
        "000000000000, 000000000008, 000000000064, … (--chunks 0:2, 8:10)"
    )


@pytest.mark.parametrize(
    ("gpus", "device", "there", "count"),
    [(None, "auto", 0, 1), (1, "cuda:1", 2, 1), (3, "cpu", 0, 3), (2, "auto", 4, 2), ("all", "auto", 4, 4)],
)
def test_gpus_are_counted(
    monkeypatch: pytest.MonkeyPatch, gpus: int | str | None, device: str, there: int, count: int
) -> None:
    monkeypatch.setattr(home, "count_gpus", lambda: there)
    assert number_of_processes(gpus, device) == count


@pytest.mark.parametrize(
    ("gpus", "device", "why"),
    [
        (2, "cuda:1", "--gpus 2 chooses the GPUs itself, but the device is cuda:1: use auto"),
        ("all", "cpu", "--gpus all counts the GPUs of this host, but the device is cpu: use a number"),
        (2, "auto", "--gpus 2: this host has no GPU; with --device cpu it takes the CPU"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: int | str, device: str, why: str
) -> None:
    monkeypatch.setattr(home, "count_gpus", lambda: 0)
    with pytest.raises(click.ClickException) as caught:
        number_of_processes(gpus, device)
    assert caught.value.message == why


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "count_gpus", lambda: 1)
    with pytest.raises(click.ClickException, match=r"--gpus 2: this host has 1 GPU$"):
        number_of_processes(2, "auto")


@pytest.mark.parametrize("gpus", ["0", "-1", "many", "1.5"])
def test_a_number_of_gpus_is_a_whole_number(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, gpus: str) -> None:
    result = command.invoke(command.declare(monkeypatch, make_settings(tiny_folder)), "run", "tiny", "--gpus", gpus)
    assert result.exit_code == 2
    assert f"must be a whole number of at least 1, or all, got '{gpus}'" in result.output
