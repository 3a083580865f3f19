"""What `import extraction_assets.engine` offers, and what it does not load."""

import subprocess
import sys

import pytest

from extraction_assets import engine

PLAN = [
    "DeferredTopKHeap",
    "batch_process_features",
    "calculate_optimal_vectorization_batch",
    "load_sae",
    "vectorized_max_activations",
    "vectorized_top_k_positions",
]


def test_the_plans_names_are_the_engines_public_names() -> None:
    assert engine.__all__ == PLAN == dir(engine)
    assert all(getattr(engine, name).__doc__ for name in PLAN)


@pytest.mark.slow
def test_the_engine_loads_neither_transformers_nor_dagster() -> None:
    code = f"from extraction_assets.engine import {', '.join(PLAN)}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"transformers", "dagster", "sqlalchemy", "pyarrow"} & set(run.stdout.split())
    assert "torch" in run.stdout.split()


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(engine, "vectorised_max_activations")
