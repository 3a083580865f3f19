"""Made-up results of any size in the layout of the database, written faster than any model could find them.

Features share 512 lists of examples, so that texts of lists need not be made 131,072 times; each still has a row of its
own, of the usual size, and every sample lists exactly the features whose examples name it.
"""

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES
from extraction_assets.database.connect import open_database
from extraction_assets.database.writing.text_index import index_texts

NAME, SAE = "benchmark", "sae"
EXAMPLES, LISTS, POSITIONS, TOKENS = 100, 512, 128, 20
FREQUENT, RARE_WORD = " the", "w7777"
"""A token among the top tokens of a fifth of the features, and a word of few samples."""

_VOCABULARY = 8_000


class Sizes(NamedTuple):
    """How much there is."""

    features: int
    samples: int
    top_k: int = EXAMPLES
    """Examples of a feature; a fifth of them is drawn as well."""

    @property
    def examples(self) -> int:
        return self.features * self.top_k


def make_results(path: Path, sizes: Sizes) -> None:
    """A SQLite file with the results of one extraction, its relations, its labels and the index of its texts."""
    url = f"sqlite:///{path}"
    engine = open_database(url)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    random = np.random.default_rng(0)
    words = [FREQUENT, " of", "\n", "("] + [f" w{number}" for number in range(4, _VOCABULARY)]
    _insert(connection, "corpora", [(1, "made up", sizes.samples, 0, "made up", "none", "documents")])
    _insert(connection, "extractions", [_extraction(sizes)])
    _insert(connection, "samples", _samples(sizes, words, random))
    numbers = _numbers(sizes, random)
    _insert(connection, "features", _features(numbers))
    values = [np.sort(random.lognormal(1, 0.3, sizes.top_k).astype(np.float32))[::-1] for _ in range(LISTS)]
    _insert(connection, "feature_example_lists", _example_lists(sizes, values, words, random))
    _insert(connection, "feature_draw_lists", _draw_lists(sizes, values, words))
    _insert(connection, "sample_feature_lists", _sample_lists(sizes, values))
    _insert(connection, "feature_tokens", _top_tokens(sizes, words, random))
    _insert(connection, "feature_neighbours", _neighbours(sizes))
    _insert(connection, "feature_flags", _flags(sizes, numbers))
    _insert(connection, "relations", [(1, "made up", "made up", "sample", 16, sizes.samples // 16, 1, _now())])
    _insert(connection, "feature_labels", _labels(sizes))
    connection.execute("PRAGMA analysis_limit = 1000")
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()
    index_texts(engine)
    engine.dispose()


def _insert(
    connection: sqlite3.Connection, table: str, rows: Iterator[tuple[Any, ...]] | list[tuple[Any, ...]]
) -> None:
    """Rows in the order of the table's columns; those that are left out at the end are NULL."""
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = iter(rows)
    first = next(rows)
    places = f"INSERT INTO {table} ({', '.join(columns[: len(first)])}) VALUES ({', '.join('?' * len(first))})"
    connection.execute(places, first)
    connection.executemany(places, rows)
    connection.commit()


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _extraction(sizes: Sizes) -> tuple[Any, ...]:
    shape = (sizes.features, sizes.samples, sizes.samples * POSITIONS, POSITIONS, sizes.top_k)
    return (1, NAME, SAE, 1, "model", "model.layers.8", *shape, "{}", "made up", _now(), _now())


def _samples(sizes: Sizes, words: list[str], random: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """A thousand different texts; every 400th sample names the rare word."""
    ranks = np.minimum(random.zipf(1.2, (1_000, POSITIONS)) - 1, _VOCABULARY - 1)
    texts = [(json.dumps(row.tolist()), [words[one] for one in row]) for row in ranks]
    for number in range(sizes.samples):
        ids, tokens = texts[number % len(texts)]
        if number % 400 == 0:
            tokens = [*tokens[:-1], RARE_WORD]
        yield 1, number, f"document {number // 8}", POSITIONS * (number % 8), ids, json.dumps(tokens)


def _numbers(sizes: Sizes, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Densities, maxima, means and deviations, log-normal; a fiftieth never fires."""
    count = sizes.features
    maximum = np.exp2(random.normal(3, 1.2, count)).astype(np.float32).astype(np.float64)
    mean = maximum * random.uniform(0.1, 0.6, count)
    density = np.power(10, random.normal(-3.2, 0.8, count).clip(-7, -0.3))
    return {
        "density": density,
        "maximum": maximum,
        "mean": mean,
        "std": mean * random.uniform(0.2, 0.9, count),
        "dead": random.random(count) < 0.02,
    }


def _features(numbers: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    density_bins = np.searchsorted(DENSITY_EDGES, numbers["density"], side="right").tolist()
    max_bins = np.searchsorted(MAX_EDGES, numbers["maximum"], side="right").tolist()
    histogram, intervals = json.dumps(list(range(1000, 1040))), json.dumps(list(range(100, 180)))
    rows = zip(*(numbers[name].tolist() for name in ("density", "maximum", "mean", "std", "dead")), strict=True)
    for number, (density, maximum, mean, std, dead) in enumerate(rows):
        if dead:
            yield _feature(number, 0.0, None, None, None, histogram, intervals, None, None)
        else:
            bins = density_bins[number], max_bins[number]
            yield _feature(number, density, maximum, mean, std, histogram, intervals, *bins)


def _feature(number: int, density: float, *others: Any) -> tuple[Any, ...]:
    maximum, mean, std, histogram, intervals, density_bin, max_bin = others
    counts = (int(density * 1e6), min(1.0, density * 50), int(density * 1e8), density)
    return (1, number, *counts, maximum, mean, histogram, std, intervals, density_bin, max_bin)


def _sample_of(sizes: Sizes, chosen: int, rank: int) -> int:
    """The sample of an example of a list."""
    return (chosen * sizes.top_k + rank) % sizes.samples


def _entry(sizes: Sizes, chosen: int, rank: int, value: np.float32, word: str) -> list[Any]:
    places = [(7 * chosen + 3 * rank + 11 * step) % POSITIONS for step in range(1 + rank % 5)]
    strengths = [float(str(np.float32(value * (1 - 0.15 * step)))) for step in range(len(places))]
    return [_sample_of(sizes, chosen, rank), strengths[0], word, places, strengths]


def _example_lists(
    sizes: Sizes, values: list[np.ndarray], words: list[str], random: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    texts = []
    for chosen in range(LISTS):
        named = [words[min(_VOCABULARY - 1, one)] for one in random.zipf(1.3, sizes.top_k)]
        entries = [_entry(sizes, chosen, rank, values[chosen][rank], named[rank]) for rank in range(sizes.top_k)]
        texts.append(json.dumps(entries, separators=(",", ":")))
    return ((1, number, texts[number % LISTS]) for number in range(sizes.features))


def _draw_lists(sizes: Sizes, values: list[np.ndarray], words: list[str]) -> Iterator[tuple[Any, ...]]:
    texts = []
    for chosen in range(LISTS):
        ranks = range(0, sizes.top_k, 5)
        entries = [_entry(sizes, chosen, rank, values[chosen][rank], words[chosen]) for rank in ranks]
        drawn = [[(-1 if place % 2 else 44 + place // 5), *entry] for place, entry in enumerate(entries)]
        texts.append(json.dumps(sorted(drawn), separators=(",", ":")))
    return ((1, number, texts[number % LISTS]) for number in range(sizes.features))


def _sample_lists(sizes: Sizes, values: list[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Of every sample the features of the lists that name it."""
    begun = [[f"[{number}," for number in range(chosen, sizes.features, LISTS)] for chosen in range(LISTS)]
    named: dict[int, list[str]] = {}
    for chosen in range(min(LISTS, sizes.features)):
        for rank in range(sizes.top_k):
            value = f"{values[chosen][rank]}]"
            parts = named.setdefault(_sample_of(sizes, chosen, rank), [])
            parts.append(",".join([one + value for one in begun[chosen]]))
    return ((1, sample, f"[{','.join(parts)}]") for sample, parts in sorted(named.items()))


def _top_tokens(sizes: Sizes, words: list[str], random: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Twenty different tokens a feature and place; a fifth of the features has the frequent one."""
    frequent = random.random(sizes.features) < 0.2
    starts = random.integers(1, _VOCABULARY - TOKENS, (sizes.features, 2))
    for number in range(sizes.features):
        for place, start in zip(("firing", "next"), starts[number], strict=True):
            for rank in range(TOKENS):
                token = 0 if rank == 0 and frequent[number] else int(start) + rank
                yield 1, number, place, rank, token, words[token], 1_000 - rank, 1.5, 0.25


def _neighbours(sizes: Sizes) -> Iterator[tuple[Any, ...]]:
    text = json.dumps(
        [[(97 * step) % sizes.features, 500 - step, round(0.5 - step / 50, 3), 2.5] for step in range(20)]
    )
    return ((1, number, text, 1_000) for number in range(sizes.features))


def _flags(sizes: Sizes, numbers: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    chosen = {
        "dead": numbers["dead"],
        "dense": numbers["density"] > 0.1,
        "duplicate": np.arange(sizes.features) % 500 == 0,
        "first_position": np.arange(sizes.features) % 900 == 0,
        "one_token": np.arange(sizes.features) % 6 == 0,
    }
    for flag, which in chosen.items():
        for number in np.flatnonzero(which).tolist():
            yield 1, flag, number, None


def _labels(sizes: Sizes) -> Iterator[tuple[Any, ...]]:
    for number in range(0, sizes.features, max(1, sizes.features // 200)):
        yield NAME, SAE, number, f"label {number}", "interesting", None, _now()
