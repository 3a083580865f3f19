"""One line of the benchmark's table."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import Timing, Usage

FLOOR = "forward + encode, eager (the floor)"
BOTH = ("forward", "encode")
LEGACY = "legacy loop on encoded features"


@dataclass
class Line:
    """A measured figure, what it was measured on, and what it used of the machine."""

    stage: str
    name: str
    value: float | None = None
    """None if it was not measured; ``notes`` says why."""
    unit: str = "samples/s"
    samples: int | None = None
    seconds: float | None = None
    """Median of the repeats."""
    repeats: int = 1
    usage: Usage | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    failed: bool = False
    products: tuple[str, ...] = ()
    """Matrix products that it does for each sample: ``forward``, ``encode``."""


def rate_line(
    stage: str, name: str, timing: Timing, usage: Usage, products: tuple[str, ...] = (), **notes: Any
) -> Line:
    """A line in samples a second."""
    return Line(
        stage,
        name,
        timing.rate,
        samples=timing.samples,
        seconds=timing.samples / timing.rate,
        repeats=len(timing.seconds),
        usage=usage,
        notes=notes,
        products=products,
    )
