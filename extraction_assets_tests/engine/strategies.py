"""What Hypothesis draws: encoded features full of ties, zeros of both signs, subnormals and rubbish in the padding."""

from typing import NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
VALUES = np.array(
    [0.0, -0.0, -1.0, 1e-45, 1e-40, 2.0**-126, 0.1, 0.5, 1.0, ABOVE_ONE, 3.0, 2.0**20, 3.4e38], dtype=np.float32
)
"""Few values, so that many are equal; the smallest positive ones are subnormal."""
RUBBISH = np.array([np.nan, np.inf, -np.inf, 3.4e38], dtype=np.float32)
"""What may stand at positions that do not count."""

min_activations = st.sampled_from([0.0, 1e-45, 0.1, 0.5, 1.0, 2.0, 1e30])
"""0.1 is no float32, the others but the last equal or separate values of ``VALUES``."""


class Drawn(NamedTuple):
    dense: np.ndarray
    """float32 [n, T, F]"""
    counted: np.ndarray
    """bool [n, T]"""


@st.composite
def encoded(draw: st.DrawFn, max_samples: int = 6, max_positions: int = 5, max_features: int = 4) -> Drawn:
    """Dense features and counted positions; some samples may be all padding, some features dead."""
    shape = draw(st.tuples(st.integers(1, max_samples), st.integers(1, max_positions), st.integers(1, max_features)))
    palette = np.array(draw(st.lists(st.sampled_from(VALUES.tolist()), min_size=1, max_size=4)), dtype=np.float32)
    dense = palette[draw(hnp.arrays(np.int64, shape, elements=st.integers(0, len(palette) - 1)))]
    counted = draw(hnp.arrays(np.bool_, shape[:2], elements=st.booleans()))
    if not counted.all():
        dense[~counted] = draw(st.sampled_from(RUBBISH.tolist()))
    return Drawn(dense, counted)


def random_features(
    samples: int, positions: int, features: int, seed: int, density: float = 0.3, distinct: int = 6
) -> Drawn:
    """Features of a fixed size from a seed: ``distinct`` values, so ties everywhere; a tail of padding."""
    generator = np.random.default_rng(seed)
    values = generator.integers(1, distinct + 1, (samples, positions, features)).astype(np.float32) / 4
    dense = np.where(generator.random(values.shape) < density, values, np.float32(0))
    counted = np.arange(positions) < generator.integers(0, positions + 1, samples)[:, None]
    return Drawn(np.where(counted[:, :, None], dense, np.float32(np.nan)), counted)
