"""All chunk tables of an SAE as one, by tables of many chunks that earlier merges have left where there are many."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from extraction_assets.assets.chunks.checks import CHUNK_CHECKS
from extraction_assets.assets.examples.checks import MATCH_TABLES, NONE_MISSING, MergeRefused
from extraction_assets.assets.examples.expected import Expectation
from extraction_assets.assets.examples.fit_chunks import failed_check, records_of_chunks
from extraction_assets.assets.examples.merging import Merged, TooLargeError, expected_bytes, merge_tables
from extraction_assets.assets.examples.spilled import merge_by_ranges
from extraction_assets.catalog import MERGED_TABLES, TOP_K_TABLE
from extraction_assets.execution.damage import put_aside, warn
from extraction_assets.execution.progress import progress
from extraction_assets.planning.draw_rules import draw_rules
from extraction_assets.planning.merge_order import TableToMerge, joined_tables, tables_to_merge
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import FeaturePart, States, TableFile, read_tables, write_table
from extraction_assets.stores.chunk_record import Record
from extraction_assets.stores.sealed import MAKE_AGAIN, DamagedFileError

Update = Callable[[int], object]

_ATTEMPTS = 3
"""Of a merge by ranges, whose tables a run may replace meanwhile."""


class _ReplacedError(Exception):
    """A table is not the one any more from which a range of features was merged."""


def merge_chunks(plan: ExtractionPlan, sae: str, logger: logging.Logger) -> Merged:
    """Merges all chunk tables of an SAE, one after the other, in memory that does not grow with their number.

    Raises MergeRefused, which names every chunk that is missing, made from other inputs, or not checked; or a damaged
    chunk, which is set aside so that it counts as missing and can be recomputed.
    """
    try:
        merged = _ChunkTables(plan, sae, logger).merge()
    except DamagedFileError as error:
        raise MergeRefused(NONE_MISSING, put_aside(error, plan)) from error
    if len(merged.numerics) > 1:
        logger.warning(
            "%d different numerics records: last bits may differ between chunks: %s",
            len(merged.numerics),
            merged.numerics,
        )
    return merged


class _ChunkTables:
    """The tables of an SAE, and those of many chunks that are merged from them."""

    def __init__(self, plan: ExtractionPlan, sae: str, logger: logging.Logger) -> None:
        self._plan, self._sae, self._logger = plan, sae, logger
        self._checksums = {key: str(record.get("checksum")) for key, record in records_of_chunks(plan, sae).items()}

    def merge(self) -> Merged:
        """All of them as one. What is damaged of the tables of many chunks is merged again, once."""
        tables = tables_to_merge(self._plan, self._sae)
        joined = list(joined_tables(tables))
        for _ in joined:
            try:
                return self._merge(tables, joined)
            except DamagedFileError as error:
                if error.path is None or error.path.parent.name != MERGED_TABLES:
                    raise
                files = self._plan.store.files
                files.set_aside(error.path)
                warn(self._logger, files.shown(str(error)).replace(MAKE_AGAIN, "its chunks are merged again"))
        return self._merge(tables, joined)

    def _merge(self, tables: Sequence[TableToMerge], joined: Sequence[TableToMerge]) -> Merged:
        absent = [table for table in joined if not self._is_current(table)]
        total = len(tables) + sum(len(table.parts) for table in absent)
        with progress("merge", total, "tables" if absent else "chunks", self._logger) as update:
            for table in absent:
                self._join(table, update)
            return self._merged(tables, update)

    def _is_current(self, table: TableToMerge) -> bool:
        """Whether a table of many chunks is there, made from the very files that its chunks have now."""
        try:
            return self._record(table).get("tables") == self._checksums_of_parts(table)
        except (FileNotFoundError, DamagedFileError):
            return False

    def _join(self, table: TableToMerge, update: Update) -> None:
        """Merges the parts of a table of many chunks and stores it, if that is what they say without the merge."""
        merged = self._merged(table.parts, update)
        record: Record = {
            "fingerprint": table.fingerprint,
            "tables": self._checksums_of_parts(table),
            "all_numerics": merged.numerics,
            "checks": dict.fromkeys(CHUNK_CHECKS, True),
        }
        again = Expectation(self._plan.settings.top_k_examples, draw_rules(self._plan.settings))
        again.add(TableFile(merged.table, merged.statistics, record, merged.draws))
        if again.by_feature() != merged.expected:
            first, last = table.chunks[0].key, table.chunks[-1].key
            raise MergeRefused(MATCH_TABLES, f"chunks {first} to {last} merged are not what their tables hold")
        with self._plan.store.files.storing(self._paths(table)[0]) as draft:
            write_table(draft, merged.table, merged.statistics, record, merged.draws)

    def _merged(self, tables: Sequence[TableToMerge], update: Update) -> Merged:
        """Tables as one: all features at once where they fit, else one range of them after the other."""
        paths = [self._path(table) for table in tables]
        merge = _MergeByRanges(self._plan, tables, paths, update, self._logger)
        merged = merge.merged()
        self._checksums |= {table.key: merge.checksums[table.key] for table in tables if not table.parts}
        return merged

    def _checksums_of_parts(self, table: TableToMerge) -> list[str]:
        return [self._checksum(part) for part in table.parts]

    def _checksum(self, table: TableToMerge) -> str:
        return str(self._record(table).get("checksum")) if table.parts else self._checksums[table.key]

    def _record(self, table: TableToMerge) -> Record:
        return self._plan.store.record(self._path(table))

    def _path(self, table: TableToMerge) -> Path:
        asset = MERGED_TABLES if table.parts else TOP_K_TABLE
        return self._plan.store.chunk_path(self._plan.settings.name, asset, self._sae, table.key, table.fingerprint)

    def _paths(self, table: TableToMerge) -> list[Path]:
        return self._plan.store.chunk_paths(
            self._plan.settings.name, MERGED_TABLES, self._sae, table.key, table.fingerprint
        )


class _MergeByRanges:
    """A merge of some tables, by as few ranges of features as fit into ``MERGE_BYTES``."""

    def __init__(
        self,
        plan: ExtractionPlan,
        tables: Sequence[TableToMerge],
        paths: Sequence[Path],
        update: Update,
        logger: logging.Logger,
    ) -> None:
        self._plan, self._tables, self._paths, self._update, self._logger = plan, tables, paths, update, logger
        self._verified = dict[Path, States]()
        self.checksums = dict[str, str]()
        """Of the tables that were read, by their keys."""
        self._done, self._shown = 0.0, 0

    def merged(self) -> Merged:
        """Begins again where a table is replaced between two ranges. Raises MergeRefused if that goes on."""
        store = self._plan.store
        for _ in range(_ATTEMPTS):
            self.checksums.clear()
            self._done = 0.0
            passes = store.files.several_passes()
            try:
                return merge_by_ranges(self._part, self._expected, self._features(), store.root, passes)
            except _ReplacedError as error:
                replaced = str(error)
                warn(self._logger, f"{replaced}: its features are merged again, from the first on")
        raise MergeRefused(NONE_MISSING, f"{replaced}, {_ATTEMPTS} times: merge when no run computes its chunks")

    def _features(self) -> int:
        """How many features the tables have, as each of them says; 0 if one is of a version that did not."""
        return min(int(self._plan.store.record(path).get("num_features", 0)) for path in self._paths)

    def _expected(self, part: FeaturePart) -> int:
        """What a merge of a range of features holds, as its first table lets expect."""
        first = zip(self._paths[:1], (table.fingerprint for table in self._tables), strict=False)
        with contextlib.closing(read_tables(first, self._plan.store, part, self._verified)) as files:
            return expected_bytes(next(files), self._plan.settings.top_k_examples, len(self._tables))

    def _part(self, part: FeaturePart | None, most_bytes: int | None) -> Merged:
        """All tables, or a range of features of them. Raises TooLargeError, _ReplacedError."""
        settings = self._plan.settings
        wanted = zip(self._paths, (table.fingerprint for table in self._tables), strict=True)
        files = read_tables(wanted, self._plan.store, part, self._verified)
        share = 1.0 if part is None else len(part.features) / part.of
        begun = self._done
        with contextlib.closing(_of_own_samples(self._tables, files)) as checked:
            try:
                return merge_tables(
                    self._of_one_version(checked),
                    settings.top_k_examples,
                    settings.min_activation,
                    lambda: self._count(share),
                    draw_rules(settings),
                    part,
                    most_bytes,
                )
            except TooLargeError:
                self._done = begun
                raise

    def _of_one_version(self, files: Iterable[TableFile]) -> Iterator[TableFile]:
        """The files of the tables. Raises _ReplacedError where one is another than it was for another range, as where
        a run has computed its chunk again on another device: then half of its features would be of either."""
        for table, file in zip(self._tables, files, strict=True):
            checksum = str(file.record.get("checksum"))
            if self.checksums.setdefault(table.key, checksum) != checksum:
                raise _ReplacedError(f"the table of chunk {table.key} was replaced while it was merged")
            yield file

    def _count(self, share: float) -> None:
        """Shows a table as done once all of its features are."""
        self._done += share
        more = int(self._done + 1e-6) - self._shown
        if more > 0:
            self._shown += more
            self._update(more)


def _of_own_samples(tables: Sequence[TableToMerge], files: Iterator[TableFile]) -> Generator[TableFile, None, None]:
    """The files of the tables, refused where one holds samples of other chunks: so no sample is counted twice."""
    for table, file in zip(tables, files, strict=True):
        samples, last_chunk = file.table.sample_index, table.chunks[-1]
        begin, end = table.chunks[0].first_sample, last_chunk.first_sample + last_chunk.num_samples
        first, last = (int(one) for one in torch.aminmax(samples)) if len(samples) else (begin, begin)
        if not begin <= first <= last < end:
            raise MergeRefused(NONE_MISSING, f"the table of chunk {table.key} holds samples of other chunks")
        problem = failed_check(file.record)  # again, of a record that was verified
        if problem:
            raise MergeRefused(NONE_MISSING, f"chunk {table.key}: {problem}")
        yield file
