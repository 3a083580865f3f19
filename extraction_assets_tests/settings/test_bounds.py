"""Values that cannot be meant are refused when settings are read; what reads settings alone starts fast."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from extraction_assets_tests.tiny import make_settings

HUGE = 10**30


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("evaluation_samples", HUGE, "evaluation_samples must be at most 1000000000000, got a number of 31 digits"),
        ("evaluation_samples", 10**12, "in chunks of 8 make 125000000000 partitions, but Dagster is made for 100000"),
        ("evaluation_samples", 800_001, "make 100001 partitions"),
        ("start_sample", HUGE, "start_sample must be at most"),
        ("start_sample", 10**12, "start_sample + evaluation_samples must be at most"),
        ("chunk_size", HUGE, "chunk_size must be at most"),
        ("top_k_examples", HUGE, "top_k_examples must be at most 1000000, got a number of 31 digits"),
        ("top_positions", 10**7, "top_positions must be at most 1000000, got 10000000"),
        ("partitions_per_run", HUGE, "partitions_per_run must be at most"),
        ("interval_examples", True, "interval_examples takes numbers, got true"),
        ("min_activation", False, "min_activation takes numbers, got false"),
        ("partitions_per_run", True, "partitions_per_run takes numbers, got true"),
        ("corpus", {"source": "/x", "exclude_positions": [1, True]}, "exclude_positions takes numbers, got [1, true]"),
        ("name", "n" * 201, "extraction name nnnnnnnnnnnnnnnnnnnn… has 201 characters, but may have 200"),
        ("corpus", {"source": "/x", "max_length": HUGE}, "max_length must be at most 16777216"),
        ("corpus", {"source": " "}, "source ' ' names no file, folder, glob or data set"),
        ("corpus", {"source": "/a\0b"}, "names no file, folder, glob or data set"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_meant_is_refused(tiny_folder: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        make_settings(tiny_folder, **{field: value})


def test_the_greatest_number_of_chunks_is_allowed(tiny_folder: Path) -> None:
    assert len(make_settings(tiny_folder, evaluation_samples=800_000).chunk_keys) == 100_000
    with pytest.raises(ValidationError, match=r"SAE name .* has 300 characters"):
        make_settings(tiny_folder, saes={"s" * 300: {"path": "/x", "hook": "layers.0"}})


@pytest.mark.parametrize(
    ("corpus", "left"),
    [
        ({"exclude_first_positions": 3, "exclude_positions": [0, 3]}, False),
        ({"exclude_first_positions": 2, "exclude_positions": [0, 3, 3]}, True),
        ({"exclude_positions": [0, 1, 2]}, True),
        ({"exclude_positions": [0, 1, 2, 3]}, False),
    ],
    ids=str,
)
def test_some_position_has_to_count(tiny_folder: Path, corpus: dict[str, object], left: bool) -> None:
    refused = contextlib.nullcontext() if left else pytest.raises(ValidationError, match="leaves none of max_length 4")
    with refused:
        make_settings(tiny_folder, corpus={"source": "/x", "max_length": 4, **corpus})


def test_settings_load_neither_torch_nor_transformers_nor_dagster() -> None:
    code = "import extraction_assets.settings, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "dagster", "numpy"} & set(run.stdout.split())
