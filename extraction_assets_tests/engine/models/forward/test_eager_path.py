"""transformers does not learn that a pass is recorded, and learns it elsewhere as ever."""

import threading
from collections.abc import Iterator

import pytest
import torch
from transformers.utils import import_utils

from extraction_assets.engine.models.forward import eager_path
from extraction_assets.engine.models.forward.eager_path import as_if_eager


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As while a CUDA stream is recorded."""
    asked = getattr(import_utils.is_cuda_stream_capturing, "__wrapped__", import_utils.is_cuda_stream_capturing)
    monkeypatch.setattr(import_utils, "is_cuda_stream_capturing", asked)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    eager_path._install.cache_clear()
    yield
    eager_path._install.cache_clear()


@pytest.mark.usefixtures("recorded")
def test_a_recorded_pass_takes_the_path_of_an_eager_one() -> None:
    assert import_utils.is_tracing()
    with as_if_eager():
        with as_if_eager():
            assert not import_utils.is_tracing()
        assert not import_utils.is_tracing()
    assert import_utils.is_tracing()


@pytest.mark.usefixtures("recorded")
def test_another_thread_learns_that_it_records() -> None:
    found = list[bool]()
    with as_if_eager():
        thread = threading.Thread(target=lambda: found.append(import_utils.is_tracing()))
        thread.start()
        thread.join()
    assert found == [True]
