"""The requirements on an SAE's results, in one place: for one batch before a run, and for every chunk."""

import math
from typing import NamedTuple

FEW_TOKENS = 32
"""With fewer counted positions, numbers say little, and a missing number is no failure."""

_BOS_EXCESS = 4
"""First and special tokens dominate only where they hold so many times more than their share of positions: of samples
of two tokens every second strongest token is the first one."""


class Verdict(NamedTuple):
    """The answer to one question."""

    passed: bool
    description: str
    """The numbers beside their limits, in one sentence."""
    metadata: dict[str, float]
    """The same numbers by name."""


NOT_APPLICABLE = "not applicable: this SAE encodes only, for its features are decoded into several layers together"
"""Of the reconstruction by a layer of a cross-layer transcoder."""


def reconstruction_verdict(variance_explained: float | None, minimum: float, tokens: int) -> Verdict:
    """Whether an SAE explains enough of the variance of activations at ``tokens`` counted positions.

    ``variance_explained`` is NaN where these do not vary, and None of an SAE that encodes only, of which nothing is
    required. If there are few, as at the end of a corpus, the verdict says that they do not suffice.
    """
    if variance_explained is None:
        return Verdict(True, NOT_APPLICABLE, {})
    passed = variance_explained >= minimum
    description = f"explains {variance_explained:.3f} of the variance, at least {minimum} is required"
    if math.isnan(variance_explained):
        passed = tokens < FEW_TOKENS
        description = f"nothing to judge by: {tokens} positions of the first samples count"
        description += "" if passed else ", and the activations do not vary there"
    return Verdict(passed, description, {"variance_explained": variance_explained, "minimum": minimum})


def sparsity_verdict(mean_l0: float, maximum: float, features_firing: int, latent_dim: int, tokens: int) -> Verdict:
    """Whether some feature fires, and on a token at most ``maximum`` of them on average (``mean_l0``).

    ``features_firing`` of ``latent_dim`` fire somewhere in the ``tokens`` counted positions; of none there is nothing
    to judge.
    """
    return Verdict(
        not tokens or 0 < mean_l0 <= maximum,
        f"{mean_l0:.1f} features fire on a token on average, between 0 and {maximum:g} are expected; "
        f"{features_firing} of {latent_dim} fire somewhere in the chunk",
        {
            "mean_l0": mean_l0,
            "maximum_l0": maximum,
            "features_firing": features_firing,
            "dead_fraction": 1 - features_firing / latent_dim,
        },
    )


def bos_verdict(share: float, positions: float, maximum: float) -> Verdict:
    """Whether first and special tokens do not dominate: they are the strongest of at most ``maximum`` of the examples,
    or not of far more than the share ``positions`` of the counted positions that they are. All three are fractions."""
    return Verdict(
        not (share > maximum and share > _BOS_EXCESS * positions),
        f"{share:.1%} of the examples are strongest at a first or special token, which are {positions:.1%} of the "
        f"counted positions; more than {maximum:.0%} are not expected",
        {"bos_share": share, "maximum_bos_share": maximum, "bos_positions": positions},
    )
