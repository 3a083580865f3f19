"""Histograms of features as small SVG pictures: inline in the report, as Markdown images in Dagster's metadata."""

from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg
import numpy as np

DENSITY_TITLE = "Features by the share of tokens on which they fire"
EXAMPLES_TITLE = "Features by the number of examples that are stored"

_EXAMPLE_BARS = 8
_ROW = 18
_WIDEST = 190


class Bar(NamedTuple):
    """One bar of a histogram."""

    label: str
    features: int


def density_histogram(token_frequencies: np.ndarray) -> list[Bar]:
    """Features by the share of tokens on which they fire, one bar a power of ten; features that never fire apart."""
    living = token_frequencies[token_frequencies > 0]
    exponents = np.clip(np.floor(np.log10(living)), -6, -1).astype(int)
    bars = [Bar("never", int((token_frequencies == 0).sum()))]
    for exponent in range(-6, 0):
        low, high = (f"{10.0 ** (power + 2):g}" for power in (exponent, exponent + 1))
        label = f"below {high} %" if exponent == -6 else f"{low} to {high} %"
        bars.append(Bar(label, int((exponents == exponent).sum())))
    return bars


def examples_histogram(examples_of_features: np.ndarray, top_k: int) -> list[Bar]:
    """Features by how many examples they have: none, some of ``top_k`` in equal steps, all ``top_k``."""
    step = max(1, -(-(top_k - 1) // _EXAMPLE_BARS))
    bars = [Bar("none", int((examples_of_features == 0).sum()))]
    for first in range(1, top_k, step):
        last = min(first + step, top_k) - 1
        within = (first <= examples_of_features) & (examples_of_features <= last)
        bars.append(Bar(f"{first}" if first == last else f"{first} to {last}", int(within.sum())))
    return [*bars, Bar(f"all {top_k}", int((examples_of_features == top_k).sum()))]


def bar_chart(bars: Sequence[Bar]) -> str:
    """An SVG picture of a histogram: each bar's label and number, then the bar.

    As short as can be, see ``markdown_picture``. It has a background of its own, for dark pages.
    """
    tallest, height = max(1, *(bar.features for bar in bars)), _ROW * len(bars) + 4
    widths = [-(-_WIDEST * bar.features // tallest) for bar in bars]  # rounded up: one feature is seen beside a million
    lines = "".join(f"M145 {_ROW * row + 11}h{width}" for row, width in enumerate(widths))
    texts = "".join(f"<text y='{_ROW * row + 15}'>{bar.label}: {bar.features}</text>" for row, bar in enumerate(bars))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='346' height='{height}' viewBox='-6 0 346 {height}' "
        f"font-family='sans-serif' font-size='12'><rect x='-6' width='346' height='{height}' fill='#fff'/>"
        f"<path stroke='#46d' stroke-width='12' d='{lines}'/>{texts}</svg>"
    )


def markdown_picture(title: str, bars: Sequence[Bar]) -> str:
    """A histogram as Markdown with an image that carries its own bytes, so that nothing is fetched.

    Dagster's UI shows Markdown below 1,000 characters in place and the rest behind a link: therefore no base64 and
    no more escapes than a Markdown address and a URL need.
    """
    escaped = bar_chart(bars).replace("%", "%25").replace("#", "%23").replace("<", "%3C").replace(">", "%3E")
    return f"{title}\n\n![histogram](<data:image/svg+xml,{escaped}>)"


def picture_metadata(title: str, bars: Sequence[Bar]) -> dg.MarkdownMetadataValue:
    """A histogram as metadata of a materialization."""
    return dg.MetadataValue.md(markdown_picture(title, bars))
