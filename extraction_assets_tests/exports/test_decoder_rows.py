"""Decoder rows for files: those of the SAE, read one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.exports.decoder_rows import read_decoder_rows
from extraction_assets.settings import ResolvedSae


@pytest.mark.parametrize("options", [{}, {"fold_decoder_norm": True}])
def test_rows_are_those_of_the_sae(tiny_folder: Path, options: dict[str, Any]) -> None:
    chosen = ResolvedSae(path=str(tiny_folder / "relu"), hook="layers.0", **options)
    rows, expected = read_decoder_rows(chosen), SAE(read_sae(chosen)).decoder
    assert rows is not None
    assert expected is not None
    assert np.array_equal([rows[index] for index in range(len(expected))], expected.numpy())
    with pytest.raises(IndexError):
        rows[len(expected)]
