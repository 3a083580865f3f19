"""What `import extraction_assets.engine` offers, and what it does not load."""

import pytest

from extraction_assets import engine
from extraction_assets_tests.processes import run_code

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
    others = ("transformers", "dagster", "sqlalchemy", "pyarrow")
    code = (
        f"from extraction_assets_tests.processes import forget; forget('extraction_assets', *{others});"
        f"from extraction_assets.engine import {', '.join(PLAN)}; import sys; print(*sys.modules)"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    assert not set(others) & set(done.stdout.split())
    assert "extraction_assets.engine" in done.stdout.split()


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(engine, "vectorised_max_activations")
