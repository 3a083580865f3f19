"""Which chunks ``run --chunks`` means, and how other commands name them."""

from pathlib import Path

import pytest

from extraction_assets.cli.app import numbered
from extraction_assets.cli.run import chosen_chunks
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
