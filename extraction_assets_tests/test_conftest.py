"""The files that the order of the tests names."""

import pytest

from extraction_assets_tests.conftest import FIRST, MANY_SECONDS
from extraction_assets_tests.processes import ROOT


@pytest.mark.parametrize("name", sorted({*FIRST, *MANY_SECONDS}))
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (ROOT / "extraction_assets_tests" / name).is_file()
