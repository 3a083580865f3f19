"""The chunks of an extraction, made in one place."""

from pathlib import Path

import pytest

from extraction_assets.settings import Chunk
from extraction_assets_tests.tiny import make_settings


def test_the_last_chunk_holds_what_is_left(tiny_folder: Path) -> None:
    settings = make_settings(tiny_folder, evaluation_samples=23, chunk_size=8)
    assert settings.chunks == [Chunk(0, 0, 8), Chunk(8, 8, 8), Chunk(16, 16, 7)]


def test_a_key_is_the_first_sample_in_12_digits(tiny_folder: Path) -> None:
    settings = make_settings(tiny_folder, evaluation_samples=9, chunk_size=8)
    assert settings.chunk_keys == ["000000000000", "000000000008"]


def test_samples_are_absolute_and_rows_begin_at_start_sample(tiny_folder: Path) -> None:
    _, second = make_settings(tiny_folder, start_sample=100, evaluation_samples=12, chunk_size=8).chunks
    assert (second.key, second.first_sample, second.rows) == ("000000000108", 108, slice(8, 12))


@pytest.mark.parametrize("start", [0, 100])
def test_a_chunk_is_found_by_its_key(tiny_folder: Path, start: int) -> None:
    settings = make_settings(tiny_folder, start_sample=start)
    assert [settings.chunk(key) for key in settings.chunk_keys] == settings.chunks


@pytest.mark.parametrize("key", ["000000000004", "000000000024", "8", "", "-00000000008", "everything"])
def test_a_key_of_no_chunk_is_refused(tiny_folder: Path, key: str) -> None:
    with pytest.raises(ValueError, match="tiny has no chunk"):
        make_settings(tiny_folder).chunk(key)
