"""On a GPU: texts in memory give the numbers of a run of Dagster there."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from extraction_assets import open_results
from extraction_assets_tests import tiny
from extraction_assets_tests.project import Project
from extraction_assets_tests.python_api.test_extract import extracted, same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_numbers_are_those_of_a_run_of_dagster_on_the_gpu(tiny_folder: Path, home: Path) -> None:
    Project(tiny.make_settings(tiny_folder), home, device="cuda").merged()
    with open_results() as results, extracted(tiny_folder, device="cuda") as found:
        same(found, results["tiny/relu"])


def test_a_loaded_model_stays_on_its_gpu(tiny_folder: Path) -> None:
    model = AutoModel.from_pretrained(tiny_folder / "model", dtype=torch.float32).cuda()
    with extracted(tiny_folder, model=model) as found, extracted(tiny_folder, device="cuda", dtype="float32") as other:
        same(found, other)
    assert next(model.parameters()).device.type == "cuda"


def test_memory_of_the_gpu_is_freed(tiny_folder: Path) -> None:
    extracted(tiny_folder, device="cuda").close()
    before = torch.cuda.memory_allocated()
    extracted(tiny_folder, device="cuda").close()
    assert torch.cuda.memory_allocated() == before
