"""Results in a temporary folder."""

import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from extraction_assets.python_api.closing import Closing
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.reading import Advice
from extraction_assets.python_api.source import Source

if TYPE_CHECKING:
    from extraction_assets.engine.saes.sae import SAE


class ExtractedResults(ExtractionResults, Closing):
    """What ``extract`` gives: the results of one SAE, whose files are removed on ``close`` or with the object."""

    _outlives_its_checkpoints = False
    _advice = Advice(
        relations="not counted with exclude_outlier_norms, for stored features do not say what is an outlier",
        directions="not computed: call extract(..., directions=True), with model and SAE by their names",
    )

    def __init__(self, source: Source, extraction: str, sae: str, folder: Path, loaded: "SAE | None") -> None:
        super().__init__(source, extraction, sae)
        self._weights = loaded
        self._remove = weakref.finalize(self, _remove, source, folder)

    def close(self) -> None:
        """Closes the results and removes their files; what is asked for afterwards raises ClosedError."""
        super().close()
        self._remove()


def _remove(source: Source, folder: Path) -> None:
    source.close()
    shutil.rmtree(folder, ignore_errors=True)
