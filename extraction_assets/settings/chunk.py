"""A chunk: the samples that are computed, stored and recorded together."""

from typing import NamedTuple


class Chunk(NamedTuple):
    """Consecutive samples of an extraction: one Dagster partition, one set of files."""

    first_sample: int
    """Its absolute index."""
    first_row: int
    """Its row in the corpus files, which begin at ``start_sample``."""
    num_samples: int
    """At most ``chunk_size``; the last chunk may hold fewer."""

    @property
    def key(self) -> str:
        """Partition key, and beginning of the files' names: the first sample in 12 digits, so that more samples rename
        nothing."""
        return f"{self.first_sample:012d}"

    @property
    def rows(self) -> slice:
        """Rows of the corpus files."""
        return slice(self.first_row, self.first_row + self.num_samples)
