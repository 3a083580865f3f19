"""The firings of a chunk's sampled samples on their way to the host."""

from extraction_assets.engine.chunk_pass.staging import HostStaging
from extraction_assets.engine.selection.sparse import concatenate_rows
from extraction_assets.engine.shapes import FeatureRows

_AT_ONCE = 1 << 23
"""Firings that are gathered on the device, 64 MB: those of a chunk of 5,000 samples are a third of it."""


class SampledRows:
    """Gathers rows on the device and copies many of them at once: on the host, the rows of 20 batches took 60 ms to
    join, a tenth of the pass."""

    def __init__(self, none: FeatureRows, staging: HostStaging) -> None:
        self._none, self._staging = none, staging
        self._gathered: list[FeatureRows] = []
        self._firings = 0
        self._copied: list[FeatureRows] = []

    def add(self, rows: FeatureRows) -> None:
        """Rows of later samples than all before. No synchronisation."""
        self._gathered.append(rows)
        self._firings += len(rows.values)
        if self._firings >= _AT_ONCE:
            self._copy()

    def finish(self) -> list[FeatureRows]:
        """All rows, queued to be copied to the host, in their order."""
        if self._gathered:
            self._copy()
        return self._copied or [self._none]

    def _copy(self) -> None:
        self._copied.append(self._staging.copy_fields(concatenate_rows(self._gathered)))
        self._gathered, self._firings = [], 0
