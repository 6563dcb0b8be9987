"""Estimates and their intervals.  The bootstrap resamples prompts: completions of one prompt are not independent.

A ratio statistic is T(sum_p a_p / sum_p b_p) over prompts p, with T the identity or exp: a mean over completions
(b counts them), a corpus perplexity (a sums token NLL, b tokens), a mean over prompts (b is 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.schema import Estimate, Number

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Transform = Literal["identity", "exp"]

RESAMPLES = 1000
AT_ONCE = 2**17  # items of resamples whose median is looked for together: 1 MiB
LEVEL = 0.95


@dataclass(frozen=True)
class ScoreColumn:
    """One score per completion, in the order of the completions; None has its reason under its index."""

    values: Sequence[float | None]
    reasons: Mapping[int, str] = field(default_factory=dict)


class Summary(Protocol):
    """A metric that can be estimated on any subset of the prompts."""

    @property
    def metric(self) -> str: ...

    def estimate(self, rows: NDArray[np.bool_], prompts: str | None) -> Estimate:
        """The estimate over the prompts where `rows` (P,) is true."""
        ...


@dataclass(frozen=True)
class RatioStatistic:
    """One number per prompt above and below the line.  All arrays are (P,)."""

    metric: str
    numerators: Floats
    denominators: Floats
    n_scored: Counts
    n_total: Counts
    transform: Transform = "identity"

    def estimate(self, rows: NDArray[np.bool_], prompts: str | None) -> Estimate:
        a, b = self.numerators[rows], self.denominators[rows]
        scored, total = int(self.n_scored[rows].sum()), int(self.n_total[rows].sum())
        if not b.sum() > 0:
            return Estimate(metric=self.metric, prompts=prompts, value=None, n_scored=scored, n_total=total,
                            reason="nothing could be scored")  # fmt: skip
        value = float(transformed(a.sum() / b.sum(), self.transform))
        low, high = interval(bootstrap_ratios(a, b, self.transform))
        return Estimate(metric=self.metric, prompts=prompts, value=value, low=low, high=high, n_scored=scored,
                        n_total=total)  # fmt: skip


@dataclass(frozen=True)
class MedianStatistic:
    """The median of items (N,) of P prompts; NaN marks an unscored item.  Resamples draw prompts with their items."""

    metric: str
    prompt_of: Counts
    values: Floats
    n_prompts: int

    def estimate(self, rows: NDArray[np.bool_], prompts: str | None) -> Estimate:
        taken = rows[self.prompt_of]
        scored = taken & ~np.isnan(self.values)
        n_scored, n_total = int(scored.sum()), int(taken.sum())
        if n_scored == 0:
            return Estimate(metric=self.metric, prompts=prompts, value=None, n_scored=0, n_total=n_total,
                            reason="nothing could be scored")  # fmt: skip
        values = self.values[scored]
        place = (np.cumsum(rows) - 1)[self.prompt_of[scored]]  # among the prompts that are taken
        low, high = interval(bootstrap_medians(values, place, int(rows.sum())))
        return Estimate(metric=self.metric, prompts=prompts, value=float(np.median(values)), low=low, high=high,
                        n_scored=n_scored, n_total=n_total)  # fmt: skip


def bootstrap_medians(values: Floats, prompt_of: Counts, n_prompts: int, seed: int = 0) -> Floats:
    """Medians of items (N,) weighted by how often their prompt was drawn; an even count averages the middle two."""
    order = np.argsort(values, kind="stable")
    ordered, prompt_of = values[order], prompt_of[order]
    medians = []
    weights, at_once = bootstrap_weights(n_prompts, seed=seed), max(1, AT_ONCE // len(values))
    for start in range(0, len(weights), at_once):
        counts = weights[start : start + at_once, prompt_of].cumsum(axis=1)  # (resamples, N)
        counts = counts[counts[:, -1] > 0]  # else only prompts without a scored item were drawn
        total = counts[:, -1:]
        low, high = ((counts < place).sum(axis=1) for place in ((total + 1) // 2, total // 2 + 1))
        medians.append((ordered[low] + ordered[high]) / 2)
    return np.concatenate(medians)


def transformed(ratio: NDArray[np.float64] | float, transform: Transform) -> NDArray[np.float64]:
    return np.exp(ratio) if transform == "exp" else np.asarray(ratio)


@lru_cache(maxsize=8)
def bootstrap_weights(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each of n prompts is drawn in each resample.  Returns (resamples, n); the same for the same n."""
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    draws.setflags(write=False)  # kept for the next who asks
    return draws


def bootstrap_ratios(a: Floats, b: Floats, transform: Transform = "identity", seed: int = 0) -> Floats:
    """Resampled values of T(sum a / sum b); resamples without any weight below the line are left out."""
    weights = bootstrap_weights(len(a), seed=seed)
    below = weights @ b
    kept = below > 0
    return transformed((weights @ a)[kept] / below[kept], transform)


def interval(resampled: Floats, level: float = LEVEL) -> tuple[float | None, float | None]:
    """The percentile interval; (None, None) where there is nothing to resample."""
    if resampled.size == 0:
        return None, None
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def with_interval(value: float, resampled: Floats, n: int) -> Number:
    """A number that rests on n items, with the interval of its finite resamples; unknown where it is not finite."""
    known = float(value) if np.isfinite(value) else None
    return Number(known, *interval(resampled[np.isfinite(resampled)]), n, n)


def ratio_statistic(
    metric: str,
    prompt_of: Counts,
    values: Floats,
    n_prompts: int,
    *,
    weights: Floats | None = None,
    scored: NDArray[np.bool_] | None = None,
    transform: Transform = "identity",
) -> RatioStatistic:
    """Sum items (N,) by prompt: values over weights (default 1).  Unscored items count in n_total alone."""
    kept = np.ones(len(values), bool) if scored is None else scored
    weights = np.ones(len(values)) if weights is None else weights

    def summed(x: Floats) -> Floats:
        return np.bincount(prompt_of[kept], x[kept], n_prompts).astype(np.float64)

    return RatioStatistic(
        metric=metric,
        numerators=summed(values),
        denominators=summed(weights),
        n_scored=np.bincount(prompt_of[kept], minlength=n_prompts).astype(np.int64),
        n_total=np.bincount(prompt_of, minlength=n_prompts).astype(np.int64),
        transform=transform,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
