"""Whether an SAE makes sense of a model's activations, from one small batch: what it explains, how sparse it is, and
whether what it finds lies where sentences begin."""

import math
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.findings import Finding, Severity
from extraction_assets.engine.preflight.verdicts import (
    FEW_TOKENS,
    Verdict,
    bos_verdict,
    reconstruction_verdict,
    sparsity_verdict,
)
from extraction_assets.engine.saes.sae import SAE, VarianceExplained, matmul_precision
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.shapes import SparseFeatures, TopKTable

_CHANCES = 10
"""With this many firings per feature in a batch, a feature that never fires is suspicious."""
_MOSTLY_DEAD = 0.9
_NUMBERS_AT_ONCE = 1 << 22
"""Of activations that are compared with their reconstruction, which takes 24 bytes for each."""


class SanityError(ValueError):
    """An SAE that makes no sense of the activations that it reads; the message has the numbers and a likely cause."""


class SanityLimits(NamedTuple):
    """What a batch must show; see the settings of an SAE."""

    minimum_variance_explained: float
    maximum_l0: float
    maximum_bos_share: float


class SaeSanity(NamedTuple):
    """What one batch shows of an SAE, at its counted positions."""

    tokens: int
    """Counted positions in the batch, all of them finite."""
    variance_explained: float | None
    """NaN where fewer than two positions count or they do not vary; None of an SAE that encodes only."""
    mean_l0: float
    """Features that fire on a token, on average."""
    features_firing: int
    """Features that fire somewhere in the batch: with few tokens far fewer than will fire in the corpus."""
    latent_dim: int
    bos_share: float
    """Share of the batch's (feature, sample) pairs whose strongest token is the sample's first or a special one."""
    bos_positions: float
    """Share of the counted positions that are the first or special ones."""
    mean_norm: float
    """Mean Euclidean norm of the activations."""
    d_in: int
    not_finite: int = 0
    """Counted positions with a NaN or an infinity in the activations, the SAE's outputs, or the target."""
    first_not_finite: tuple[int, int] | None = None
    """Sample and position of the first of them."""

    @property
    def dead_fraction(self) -> float:
        """Fraction of the features that fire nowhere in the batch."""
        return 1 - self.features_firing / self.latent_dim


def measure_sae(
    sae: SAE,
    activations: Tensor,
    counted: Tensor,
    first_or_special: Tensor,
    *,
    target: Tensor | None = None,
    precision: str = "high",
    first_sample: int = 0,
) -> SaeSanity:
    """What ``sae`` makes of a batch: hook output [n, T, D] of any float dtype, ``counted`` and ``first_or_special``
    bool [n, T], all on the SAE's device. ``target`` [n, T, d_out] is the output hook's, of a transcoder; the
    samples are those from ``first_sample`` on.

    Tokens with a NaN or an infinity are counted and left out. Peak extra memory: what ``SAE.encode_sparse`` takes of
    tiles of a sample, the sparse features of all, 100 MB or those of a sample to compare, and [n, F] maxima. Leaves
    nothing behind.
    """
    explained, parts, used = VarianceExplained(), [], torch.zeros_like(counted)
    target = activations if target is None else target
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, counted.shape[1] * max(sae.d_in, sae.d_out)))
    with matmul_precision(precision):
        for start in range(0, len(activations), at_once):
            rows = slice(start, start + at_once)
            x, y, mask = activations[rows], target[rows], counted[rows]
            features, finite = encode_samples(sae, x, mask)
            used[rows] = mask & finite & torch.isfinite(y).all(-1)
            if sae.reconstructs:
                explained.add(sae.target(y), sae.decode(features, x), used[rows])
            parts.append(features)
    features = _stacked(parts)
    tokens = int(used.sum())
    norms = activations.float().norm(dim=-1)  # [n, T]
    table = select_top_k(features, sample_maxima(features), 0, len(activations))
    wrong = (counted & ~used).nonzero().tolist()
    return SaeSanity(
        tokens=tokens,
        variance_explained=float(explained.value()) if sae.reconstructs else None,
        mean_l0=len(features.values) / max(1, tokens),
        features_firing=len(features.features.unique()),
        latent_dim=sae.latent_dim,
        bos_share=bos_share(table, first_or_special),
        bos_positions=float((first_or_special & used).sum()) / max(1, tokens),
        mean_norm=float(torch.where(used, norms, 0).double().sum()) / max(1, tokens),
        d_in=sae.d_in,
        not_finite=len(wrong),
        first_not_finite=(first_sample + wrong[0][0], wrong[0][1]) if wrong else None,
    )


def bos_share(table: TopKTable, first_or_special: Tensor, first_sample: int = 0) -> float:
    """Share of the examples of a table whose strongest token is the first or a special one; 0 of no examples.

    ``first_or_special`` bool [n, T] of samples from ``first_sample`` on.
    """
    if not len(table.sample_index):
        return 0.0
    strongest = table.positions[table.firing_offsets[:-1]]  # [E]
    return float(first_or_special[table.sample_index - first_sample, strongest].double().mean())


def reconstruction_of(found: SaeSanity, limits: SanityLimits) -> Verdict:
    """Whether the SAE explains enough of the batch."""
    return reconstruction_verdict(found.variance_explained, limits.minimum_variance_explained, found.tokens)


def judge(
    name: str, hook: str, found: SaeSanity, limits: SanityLimits, cause: str = "", *, is_later_chunk: bool = False
) -> list[Finding]:
    """Findings where a batch breaks the limits or has too few tokens to judge; ``cause`` is the text of
    ``likely_cause`` if the SAE explains too little.

    A chunk after the first may be the short end of a corpus: if it has almost no tokens, findings that its own checks
    let pass are warnings, so that such a chunk can be run alone.
    """
    severity: Severity = "warning" if is_later_chunk and found.tokens < FEW_TOKENS else "error"
    nothing = _no_evidence(name, hook, found)
    if nothing:
        return [Finding("error" if found.not_finite else severity, nothing, SanityError)]
    what, tokens = f"SAE {name!r} at {hook!r}", f"{found.tokens:,} tokens of one batch"
    findings = []
    if found.tokens < FEW_TOKENS:
        text = f"{what} was tried on {tokens} only, which says little: no more of the first samples' tokens count"
        findings.append(Finding("warning", text))
    if not reconstruction_of(found, limits).passed:
        findings.append(Finding("error", _explains_too_little(name, what, found, limits, cause), SanityError))
    if not sparsity_verdict(
        found.mean_l0, limits.maximum_l0, found.features_firing, found.latent_dim, found.tokens
    ).passed:
        findings.append(Finding(severity, _is_not_sparse(name, what, found, limits), SanityError))
    if not bos_verdict(found.bos_share, found.bos_positions, limits.maximum_bos_share).passed:
        findings.append(Finding(severity, _bos_dominates(name, what, found), SanityError))
    if found.tokens * found.mean_l0 >= _CHANCES * found.latent_dim and found.dead_fraction > _MOSTLY_DEAD:
        text = (
            f"{what}: {found.dead_fraction:.1%} of its {found.latent_dim:,} features fire nowhere in {tokens}, though "
            f"a token has {found.mean_l0:.1f} that do: they may be dead"
        )
        findings.append(Finding("warning", text))
    return findings


def _explains_too_little(name: str, what: str, found: SaeSanity, limits: SanityLimits, cause: str) -> str:
    return (
        f"{what} explains {found.variance_explained:.3g} of the variance of the activations, at least "
        f"{limits.minimum_variance_explained:g} is required (mean L0 {found.mean_l0:.1f}, mean norm of the "
        f"activations {found.mean_norm:.3g}, sqrt(d_in) {found.d_in**0.5:.3g}; {found.tokens:,} tokens of one batch). "
        f"{cause} To run it anyway, lower saes.{name}.minimum_variance_explained"
    )


def _is_not_sparse(name: str, what: str, found: SaeSanity, limits: SanityLimits) -> str:
    seen = (
        "has no feature that fires"
        if not found.mean_l0
        else f"has {found.mean_l0:,.1f} of its {found.latent_dim:,} features firing on a token, on average"
    )
    return (
        f"{what} {seen} ({found.tokens:,} tokens of one batch), between 0 and {limits.maximum_l0:g} are expected: its "
        "input is most often not scaled or centered as in its training, or the threshold is wrong; "
        f"saes.{name}.maximum_l0 sets the bound"
    )


def _bos_dominates(name: str, what: str, found: SaeSanity) -> str:
    return (
        f"{what}: {found.bos_share:.0%} of the features' strongest tokens are a sample's first or a special one, "
        f"which are {found.bos_positions:.1%} of the positions ({found.tokens:,} tokens of one batch); most examples "
        "would show nothing else. Set corpus.exclude_first_positions to 1, leave corpus.count_special_tokens false, or "
        f"raise saes.{name}.maximum_bos_share"
    )


def _no_evidence(name: str, hook: str, found: SaeSanity) -> str:
    """Why a batch does not suffice to judge an SAE; empty if it does."""
    what = f"SAE {name!r} at {hook!r}"
    if found.first_not_finite is not None:
        sample, position = found.first_not_finite
        counted = found.tokens + found.not_finite
        return (
            f"hook {hook!r}, which SAE {name!r} reads, or what the SAE makes of it, holds a NaN or an infinity in "
            f"sample {sample}, position {position} ({found.not_finite:,} of {counted:,} tokens of one batch): set "
            "language_model.dtype to a wider type (float32, or bfloat16 in place of float16), and check the weights of "
            "the model"
        )
    if not found.tokens:
        return (
            f"{what}: no token of one batch counts, so there is nothing to judge it by: see "
            "corpus.count_special_tokens, corpus.exclude_first_positions, corpus.exclude_positions and "
            "corpus.exclude_outlier_norms"
        )
    if found.variance_explained is not None and math.isnan(found.variance_explained):
        return (
            f"{what}: the activations of {found.tokens:,} token(s) of one batch do not vary, so there is nothing to "
            "judge it by: more tokens must count, or the hook gives the same for all"
        )
    return ""


def encode_samples(sae: SAE, x: Tensor, wanted: Tensor) -> tuple[SparseFeatures, Tensor]:
    """Features of samples [n, T, D] at ``wanted`` tokens, and which tokens are finite: bool [n, T] both. Of each sample
    what it has alone, to the last bit."""
    count, length = wanted.shape
    found = sae.encode_sparse(x.flatten(0, 1), length, wanted.flatten())
    kept = found.finite[found.tokens]
    tokens, features, values = found.tokens[kept], found.features[kept], found.values[kept]
    return SparseFeatures(tokens, features, values, count, length, sae.latent_dim), found.finite.view(count, length)


def _stacked(parts: list[SparseFeatures]) -> SparseFeatures:
    """The features of consecutive samples, some in each part, as one."""
    if len(parts) == 1:
        return parts[0]
    starts = accumulate((part.num_samples for part in parts), initial=0)
    positions, latent_dim = parts[0].num_positions, parts[0].num_features
    tokens = torch.cat([part.tokens + start * positions for part, start in zip(parts, starts, strict=False)])
    features, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "values"))
    return SparseFeatures(tokens, features, values, sum(part.num_samples for part in parts), positions, latent_dim)
