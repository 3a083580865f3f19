"""What the tests of killed processes share."""

from pathlib import Path

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.tiny import make_settings

CHUNKS = 40

ROWS = """
SELECT e.name, e.sae, e.fingerprint, a.neuron_index, a.rank, a.sample_index, a.max_activation, a.positions,
       a.activations
FROM feature_activations a JOIN extractions e ON e.id = a.extraction_id ORDER BY 1, 2, 4, 5
"""


def make_chunks(folder: Path, count: int) -> ExtractionSettings:
    """The tiny extraction with so many chunks of one sample, and a schedule for those that are missing."""
    corpus = {"source": str(folder / "texts"), "max_length": 5}
    return make_settings(folder, corpus=corpus, chunk_size=1, evaluation_samples=count, schedule="* * * * *")


def unchanged(before: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """What was durable is there still, and was not written again."""
    assert {path: (file, now.get(path)) for path, file in before.items() if now.get(path) != file} == {}
    return now
