"""Intervals that are asked for beside the fixed ones, as rows of the database: on disk until all are counted, because
they are large and the database takes one writer at a time."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa

from extraction_assets.engine.relations.parts import Groups
from extraction_assets.engine.relations.ranges import DrawnSample, FeatureRange, RangeRules, ranges_of_features
from extraction_assets.engine.relations.totals import Totals
from extraction_assets.execution.progress import progress
from extraction_assets.planning.plan import ExtractionPlan

WINDOW = 10
"""Tokens on each side of the strongest one."""

_FEATURES_AT_ONCE = 1_000
_SCHEMA = pa.schema([("neuron_index", pa.int64()), ("ranges", pa.string())])


def range_rules(plan: ExtractionPlan) -> RangeRules | None:
    """What the settings ask for; None for nothing."""
    settings = plan.settings
    counts = {"maximum": settings.maximum_intervals, "quantile": settings.quantile_intervals}
    parts: dict[Any, int] = {kind: count for kind, count in counts.items() if count}
    if not parts or settings.statistics == "basic":
        return None
    return RangeRules(parts, settings.interval_examples, settings.draw_seed)


class RangeRows:
    """Rows of ``feature_ranges`` in a temporary file."""

    def __init__(
        self, file: IO[bytes], plan: ExtractionPlan, display: Callable[[list[int]], list[str]], logger: logging.Logger
    ) -> None:
        self._file, self._plan, self._display, self._logger = file, plan, display, logger
        self.count = 0

    def write(self, groups: Groups, totals: Totals, rules: RangeRules) -> None:
        """Counts, draws and writes the intervals of all features."""
        with (
            progress("further intervals", int((totals.firings > 0).sum()), "features", self._logger) as update,
            pa.ipc.new_stream(self._file, _SCHEMA) as writer,
        ):
            for rows in _batches(ranges_of_features(groups, totals, rules)):
                texts = [json.dumps([self._row(one) for one in ranges], ensure_ascii=False) for _, ranges in rows]
                writer.write_table(pa.table([[feature for feature, _ in rows], texts], schema=_SCHEMA))
                self.count += len(rows)
                update(len(rows))

    def tables(self) -> Iterator[pa.Table]:
        """What was written, in parts; nothing if nothing was."""
        if self.count:
            self._file.seek(0)
            with pa.ipc.open_stream(self._file) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])

    def _row(self, one: FeatureRange) -> list[Any]:
        return [one.kind, one.low, one.high, one.samples, [self._sample(drawn) for drawn in one.drawn]]

    def _sample(self, drawn: DrawnSample) -> list[Any]:
        """Activations in the fewest digits that are no other float32."""
        arrays = self._plan.corpus.arrays
        row = drawn.sample_index - self._plan.settings.start_sample
        ids = arrays.token_ids[row][arrays.attention_mask[row]].tolist()
        strongest = drawn.positions[0]
        first = max(0, strongest - WINDOW)
        tokens = self._display(ids[first : strongest + WINDOW + 1])
        values = [_short(value) for value in (drawn.max_activation, *drawn.activations)]
        return [drawn.sample_index, values[0], tokens[strongest - first], drawn.positions, values[1:], first, tokens]


def _batches(
    found: Iterator[tuple[int, list[FeatureRange]]],
) -> Iterator[list[tuple[int, list[FeatureRange]]]]:
    rows = []
    for one in found:
        rows.append(one)
        if len(rows) == _FEATURES_AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows


def _short(value: float) -> float:
    return float(str(np.float32(value)))
