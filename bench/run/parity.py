"""Do two engines agree on a suite's points?  Greedy tokens, log-probabilities, and a test on sampled metrics.

`observe` has the effects: it runs one engine over all points.  `compare` is pure: two lists of observations become a
`ParityReport`.  Greedy decoding must give the same text; log-probabilities may differ by rounding; sampled texts differ
draw by draw, so their metrics are compared by a two-sample test over prompts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.markdown import table
from bench.progress import Advance, silent
from bench.schema import Completion, Estimate, Point, Prompt, Sampling, Suite, Value
from bench.serving import Engine, ServedModel
from bench.stats import RatioStatistic, holm

Judge = Callable[[Sequence[Prompt], Sequence[Completion]], Sequence[RatioStatistic]]
OpenEngine = Callable[[], Engine]

TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 3e-1}  # nats; half precision rounds at every layer
LEVEL = 0.01  # of the whole family of tests, after Holm's correction


@dataclass(frozen=True)
class Observation:
    """What one engine did at one point.  `scored` are the texts whose tokens have `logprobs`, (T,) float32 each."""

    greedy: tuple[str, ...]
    scored: tuple[str, ...]
    logprobs: tuple[NDArray[np.float32], ...]
    statistics: tuple[RatioStatistic, ...]


class SampledMetric(Value):
    """One metric of completions drawn by both engines; p_value is of the two-sample test, Holm's over the report."""

    metric: str
    a: Estimate
    b: Estimate
    p_value: float
    p_adjusted: float


class PointParity(Value):
    """One point; a log-probability difference is None where nothing was scored."""

    method: str
    params: Mapping[str, Any]
    label: str
    greedy_equal: int
    greedy_total: int
    max_logprob_difference: float | None
    n_logprobs: int
    metrics: tuple[SampledMetric, ...]


class ParityReport(Value):
    """Engine `a` against engine `b` on the points of a suite."""

    suite: str
    engine_a: str
    engine_b: str
    dtype: str
    device: str
    tolerance: float
    level: float
    points: tuple[PointParity, ...]

    @property
    def greedy_equal(self) -> bool:
        return all(point.greedy_equal == point.greedy_total for point in self.points)

    @property
    def max_logprob_difference(self) -> float | None:
        found = [p.max_logprob_difference for p in self.points if p.max_logprob_difference is not None]
        return max(found) if found else None

    @property
    def smallest_p_adjusted(self) -> float | None:
        found = [metric.p_adjusted for point in self.points for metric in point.metrics]
        return min(found) if found else None

    @property
    def passed(self) -> bool:
        """In float32, greedy texts must be equal; half precision may break near ties differently."""
        difference, p = self.max_logprob_difference, self.smallest_p_adjusted
        same_tokens = self.greedy_equal or self.dtype != "float32"
        close = difference is None or difference <= self.tolerance
        return same_tokens and close and (p is None or p >= self.level)

    def markdown(self) -> str:
        """A table with a row a point, and the verdict."""
        head = f"{self.engine_a} against {self.engine_b}, suite {self.suite}, {self.dtype} on {self.device}: "
        columns = ["point", "greedy texts equal", "largest log-probability difference", "smallest p (corrected)"]
        verdict = "they agree" if self.passed else "THEY DIFFER"
        return f"{head}{verdict}\n\n{table(columns, map(_row, self.points))}\n"


def _row(point: PointParity) -> tuple[str, ...]:
    difference = "-" if point.max_logprob_difference is None else f"{point.max_logprob_difference:.1e}"
    least = min(point.metrics, key=lambda m: m.p_value, default=None)
    tested = "-" if least is None else f"{least.p_value:.3f} ({least.p_adjusted:.2f}), {least.metric}"
    return point.label, f"{point.greedy_equal} of {point.greedy_total}", difference, tested


# ---------------------------------------------------------------------------------------------- effects


def parity(
    suite: Suite,
    points: Sequence[Point],
    prompts: Sequence[Prompt],
    open_a: OpenEngine,
    open_b: OpenEngine,
    judge: Judge,
    device: str,
    advance: Advance = silent,
) -> ParityReport:
    """Run one engine over all points, close it, run the other, compare.  `advance` counts points, 2 per point in all.

    `judge` turns completions into per-prompt statistics, one a metric (`judged_by` makes it from text evaluators).
    """
    first, name_a = _observed_by(open_a, points, prompts, suite.sampling, judge, None, advance)
    scored = [o.scored for o in first]
    second, name_b = _observed_by(open_b, points, prompts, suite.sampling, judge, scored, advance)
    compared = compare(points, first, second)
    return ParityReport(
        suite=suite.name, engine_a=name_a, engine_b=name_b, dtype=suite.dtype, device=device,
        tolerance=TOLERANCE[suite.dtype], level=LEVEL, points=tuple(compared),
    )  # fmt: skip


def _observed_by(
    open_engine: OpenEngine,
    points: Sequence[Point],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    judge: Judge,
    scored: Sequence[Sequence[str]] | None,
    advance: Advance,
) -> tuple[list[Observation], str]:
    """All points on one engine, weight space first so that it builds what a space needs once; in the points' order."""
    engine = open_engine()
    try:
        found: dict[int, Observation] = {}
        for i in sorted(range(len(points)), key=lambda i: points[i].recipe.space != "weights"):
            texts = None if scored is None else scored[i]
            found[i] = observe(engine.serve(points[i].recipe), prompts, sampling, judge, texts)
            advance(1)
        return [found[i] for i in range(len(points))], engine.name
    finally:
        engine.close()


def observe(
    model: ServedModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    judge: Judge,
    scored: Sequence[str] | None = None,
) -> Observation:
    """Decode greedily, score texts (prompt and greedy completion unless given), draw and judge completions."""
    greedy = model.generate(prompts, sampling.model_copy(update={"samples": 1, "temperature": 0.0}))
    texts = [prompts[c.prompt].text + c.text for c in greedy] if scored is None else list(scored)
    logprobs = model.token_logprobs(texts)
    statistics = judge(prompts, model.generate(prompts, sampling))
    return Observation(tuple(c.text for c in greedy), tuple(texts), tuple(logprobs), tuple(statistics))


def judged_by(evaluators: Sequence[Any], judges: Any) -> Judge:
    """A judge from text evaluators (`evaluators.base.TextEvaluator`); metrics that are not ratios over prompts are left
    out, since the test resamples prompts."""
    from evaluators.base import Samples

    def judge(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[RatioStatistic]:
        samples = Samples(prompts, completions)
        summaries = [s for evaluator in evaluators for s in evaluator.judge(samples, judges).summaries]
        return [s for s in summaries if isinstance(s, RatioStatistic)]

    return judge


# ---------------------------------------------------------------------------------------------- comparisons


def compare(points: Sequence[Point], a: Sequence[Observation], b: Sequence[Observation]) -> list[PointParity]:
    """Point by point; the p-values of all points and metrics are corrected together."""
    compared = [_compared(point, x, y) for point, x, y in zip(points, a, b, strict=True)]
    adjusted = iter(holm([metric.p_value for point in compared for metric in point.metrics]))
    return [
        point.model_copy(
            update={"metrics": tuple(m.model_copy(update={"p_adjusted": next(adjusted)}) for m in point.metrics)}
        )
        for point in compared
    ]


def _compared(point: Point, a: Observation, b: Observation) -> PointParity:
    if a.scored != b.scored:
        raise ValueError(f"{point.label}: the engines scored different texts")
    pairs = [(s, t) for s in a.statistics for t in b.statistics if s.metric == t.metric]
    return PointParity(
        method=point.method,
        params=point.params,
        label=point.label,
        greedy_equal=sum(x == y for x, y in zip(a.greedy, b.greedy, strict=True)),
        greedy_total=len(a.greedy),
        max_logprob_difference=largest_difference(a.logprobs, b.logprobs),
        n_logprobs=sum(len(row) for row in a.logprobs),
        metrics=tuple(_sampled(s, t) for s, t in pairs),
    )


def _sampled(a: RatioStatistic, b: RatioStatistic) -> SampledMetric:
    everywhere = np.ones(len(a.numerators), dtype=bool)
    p = two_sample_p(a, b)
    return SampledMetric(
        metric=a.metric, a=a.estimate(everywhere, None), b=b.estimate(everywhere, None), p_value=p, p_adjusted=p
    )


def largest_difference(a: Sequence[NDArray[np.float32]], b: Sequence[NDArray[np.float32]]) -> float | None:
    """The largest absolute difference over all tokens of all texts; None where there is no token.

    Raises ValueError where the engines split a text into different numbers of tokens.
    """
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape:
            raise ValueError(f"text {i} has {len(x)} tokens on one engine, {len(y)} on the other")
    found = [float(np.abs(x.astype(np.float64) - y).max()) for x, y in zip(a, b, strict=True) if len(x)]
    return max(found) if found else None


def two_sample_p(a: RatioStatistic, b: RatioStatistic) -> float:
    """p of "both engines draw alike": the sign-flip test on paired prompts, in its normal limit.

    With R the pooled ratio, prompt p contributes e_p = (a_p - R b_p) of one engine minus that of the other.  If the
    engines draw alike, each e_p is as likely with the other sign, so sum e has mean 0 and variance sum e^2.
    """
    total = a.denominators.sum() + b.denominators.sum()
    if not total > 0:
        return 1.0
    ratio = (a.numerators.sum() + b.numerators.sum()) / total
    excess = (a.numerators - ratio * a.denominators) - (b.numerators - ratio * b.denominators)
    spread = math.sqrt(float(np.square(excess).sum()))
    return math.erfc(abs(float(excess.sum())) / spread / math.sqrt(2)) if spread > 0 else 1.0
