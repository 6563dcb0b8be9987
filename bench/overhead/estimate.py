"""Pure: recorded times -> medians, ratios to the base, their intervals, the noise floor, the amortisation point.

A round times the base, every subject once, and the base again.  A subject's ratio in a round is its time over the
base's time *at that moment*, interpolated between the round's two bases: a machine whose speed drifts evenly gives the
same ratio as a steady one.  Rounds are the unit of the bootstrap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.schema import Number
from bench.stats import Floats, with_interval

RESAMPLES = 1000
SHORTEST_S = 1e-9
FLOOR_WIDTH = 1.96 * 1.4826  # median absolute deviation -> half of a normal's central 95 %


@dataclass(frozen=True)
class Timing:
    """One subject in one round: when, and how long in seconds.  `whole_s` draws all tokens, `first_s` one a row.

    `joules`: what the device drew during `whole_s`, where that can be known.
    """

    at_s: float
    switch_s: float
    first_s: float
    whole_s: float
    joules: float | None = None


@dataclass(frozen=True)
class Round:
    """The base before and after, and every subject in between, by name."""

    opening: Timing
    subjects: dict[str, Timing]
    closing: Timing

    @property
    def timings(self) -> "list[Timing]":
        return [self.opening, *self.subjects.values(), self.closing]

    def base(self, at_s: float, quantity: "Quantity") -> float:
        """The base's quantity at a moment of this round: linear between its opening and its closing."""
        before, after = quantity(self.opening), quantity(self.closing)
        span = self.closing.at_s - self.opening.at_s
        return before if span <= 0 else before + (after - before) * (at_s - self.opening.at_s) / span


Quantity = Callable[[Timing], float]


@dataclass(frozen=True)
class Timed:
    """A quantity over the rounds: its median, the median of its ratio to the base's, and the rounds themselves."""

    median: Number
    ratio: Number
    samples: tuple[float, ...]
    ratios: tuple[float, ...]


def time_to_first_token(timing: Timing) -> float:
    return timing.first_s


def time_per_output_token(new_tokens: int) -> Quantity:
    """Seconds of a decoding step after the first: (whole - first) / (new_tokens - 1).

    At least a nanosecond: where another program stopped the first draw for long, the difference may be negative.
    """
    return lambda timing: max(timing.whole_s - timing.first_s, SHORTEST_S) / (new_tokens - 1)


def tokens_per_second(tokens: int) -> Quantity:
    """Of a whole call that draws `tokens` tokens over all rows."""
    return lambda timing: tokens / timing.whole_s


def money_per_million_tokens(tokens: int, per_hour: float) -> Quantity:
    """Of a whole call: its share of an hour's price, for each token, a million times."""
    return lambda timing: timing.whole_s / 3600 * per_hour / tokens * 1e6


def joules_per_million_tokens(tokens: int) -> Quantity:
    """Of a whole call whose `joules` are known."""

    def quantity(timing: Timing) -> float:
        if timing.joules is None:
            raise ValueError("the joules of this timing are not known")
        return timing.joules / tokens * 1e6

    return quantity


def switch(timing: Timing) -> float:
    """At least a nanosecond, as a coarse clock may see nothing pass."""
    return max(timing.switch_s, SHORTEST_S)


def measured(rounds: Sequence[Round], subject: str | None, quantity: Quantity) -> Timed:
    """A subject's quantity (None: the base's own, whose ratio is 1 by definition).  Needs at least one round."""
    if subject is None:
        samples = [(quantity(r.opening) + quantity(r.closing)) / 2 for r in rounds]
        ratios = [1.0] * len(rounds)
    else:
        samples = [quantity(r.subjects[subject]) for r in rounds]
        ratios = ratios_to_base(rounds, subject, quantity)
    return Timed(median_interval(samples), median_interval(ratios), tuple(samples), tuple(ratios))


def ratios_to_base(rounds: Sequence[Round], subject: str, quantity: Quantity) -> list[float]:
    """Each round's ratio."""
    timings = [(r, r.subjects[subject]) for r in rounds]
    return [quantity(timing) / r.base(timing.at_s, quantity) for r, timing in timings]


def median_interval(samples: Sequence[float]) -> Number:
    """The median and the 95 % percentile interval of its bootstrap over rounds."""
    values = np.asarray(samples, dtype=np.float64)
    return with_interval(float(np.median(values)), np.median(values[resampled(len(values))], axis=1), len(values))


def resampled(n: int, seed: int = 0) -> NDArray[np.int64]:
    """Rounds drawn with replacement, (RESAMPLES, n); the same for the same n."""
    return np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))


# ---------------------------------------------------------------------------------------------- verdicts


def noise_floor(base_ratios: Sequence[float]) -> tuple[float, float]:
    """What single rounds of base against base differ by: a symmetric central 95 % range around 1, robust to outliers.

    exp(-f) and exp(f) with f = 1.96 * 1.4826 * median |log ratio|: deviations from 1, which is the truth.
    """
    half = FLOOR_WIDTH * float(np.median(np.abs(np.log(np.asarray(base_ratios, dtype=np.float64)))))
    return float(np.exp(-half)), float(np.exp(half))


def within(ratio: Number, floor: tuple[float, float]) -> bool:
    """Whether the whole interval of the ratio lies inside the floor: not told apart from the base."""
    low, high = ratio.low, ratio.high
    return low is not None and high is not None and floor[0] <= low and high <= floor[1]


def is_narrow(rounds: Sequence[Round], subjects: Sequence[str], quantity: Quantity, precision: float) -> bool:
    """Whether every subject's ratio is known to +-precision of itself."""
    found = (measured(rounds, subject, quantity).ratio for subject in subjects)
    return all(((r.high or np.inf) - (r.low or 0.0)) / 2 <= precision * (r.value or 0.0) for r in found)


# ---------------------------------------------------------------------------------------------- amortisation


def amortisation(rounds: Sequence[Round], mixing: str, ensemble: str, batch_size: int, new_tokens: int) -> Number:
    """Generated tokens (over all rows) after which mixing once has paid off; unknown where it never does.

    (switch_mixing - switch_ensemble) / (seconds a token saved), from medians; joint bootstrap over rounds.  Zero where
    switching costs no more than the ensemble's.
    """
    per_token = time_per_output_token(new_tokens)

    def times(name: str, quantity: Quantity) -> Floats:
        return np.array([quantity(r.subjects[name]) for r in rounds])

    costs = times(mixing, switch), times(ensemble, switch)
    steps = times(ensemble, per_token), times(mixing, per_token)
    whole = np.arange(len(rounds))[None]
    value = float(_paid_off(costs, steps, whole, batch_size)[0])
    if not np.isfinite(value):
        return Number(None, reason=f"{ensemble} is not slower than {mixing} here")
    low, high = np.quantile(
        _paid_off(costs, steps, resampled(len(rounds)), batch_size), [0.025, 0.975], method="nearest"
    )
    return Number(value, _finite(low), _finite(high), len(rounds), len(rounds))


def _paid_off(
    costs: tuple[Floats, Floats], steps: tuple[Floats, Floats], rows: NDArray[np.int64], batch: int
) -> Floats:
    """Tokens for each row of round numbers; infinite where nothing is saved."""
    cost = np.median(costs[0][rows], axis=1) - np.median(costs[1][rows], axis=1)
    saved = (np.median(steps[0][rows], axis=1) - np.median(steps[1][rows], axis=1)) / batch
    with np.errstate(divide="ignore", invalid="ignore"):
        tokens: Floats = np.where(saved > 0, np.maximum(cost, 0) / saved, np.inf)
    return tokens


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
