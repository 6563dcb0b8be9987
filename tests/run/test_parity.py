"""Comparing two engines: the pure comparisons by hand, and the whole on two stand-ins for engines."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.progress import Advance, silent
from bench.run.parity import (
    Observation,
    ParityReport,
    compare,
    judged_by,
    largest_difference,
    parity,
    two_sample_p,
)
from bench.schema import Completion, Point, Prompt, Recipe, Sampling, Suite
from bench.stats import RatioStatistic

POINT = Point(method="base", params={}, recipe=Recipe(space="weights", coefficients={"base": 1}))
DEXPERTS = Point(method="dexperts", params={"alpha": 1.0}, recipe=Recipe(space="logits", coefficients={"base": 1}))


def statistic(values: Sequence[float], weights: Sequence[float] | None = None) -> RatioStatistic:
    n = len(values)
    counts = np.ones(n, np.int64)
    below = np.ones(n) if weights is None else np.array(weights, float)
    return RatioStatistic("m", np.array(values, float), below, counts, counts)


def test_two_sample_p_by_hand() -> None:
    # differences 1, 1, 1, 1: sum 4, variance 4, z = 2
    assert two_sample_p(statistic([2, 3, 4, 5]), statistic([1, 2, 3, 4])) == pytest.approx(math.erfc(2 / math.sqrt(2)))
    assert two_sample_p(statistic([1, 2]), statistic([1, 2])) == 1
    assert two_sample_p(statistic([1, 0]), statistic([0, 1])) == 1  # differences 1 and -1 cancel
    assert two_sample_p(statistic([0], [0]), statistic([0], [0])) == 1


def test_two_sample_p_is_uniform_when_both_draw_alike_and_small_when_they_do_not() -> None:
    random = np.random.default_rng(0)
    prompts = random.normal(size=100)  # prompts differ far more than engines do
    alike = [two_sample_p(*(statistic(prompts + random.normal(size=100)) for _ in range(2))) for _ in range(400)]
    assert np.mean(np.array(alike) < 0.1) == pytest.approx(0.1, abs=0.045)
    shifted = two_sample_p(statistic(prompts + random.normal(size=100)), statistic(prompts + 1))
    assert shifted < 1e-6


def test_weights_count_in_the_ratio() -> None:
    # both engines have 1 per token; the second merely writes more tokens
    assert two_sample_p(statistic([4, 6], [4, 6]), statistic([8, 9], [8, 9])) == 1


def test_largest_difference() -> None:
    a = [np.array([-1.0, -2.0], np.float32), np.zeros(0, np.float32)]
    b = [np.array([-1.5, -2.25], np.float32), np.zeros(0, np.float32)]
    assert largest_difference(a, b) == 0.5
    assert largest_difference(a[1:], b[1:]) is None
    with pytest.raises(ValueError, match="text 0 has 2 tokens on one engine, 0"):
        largest_difference(a, b[::-1])


def observation(greedy: str, logprob: float, values: Sequence[float]) -> Observation:
    return Observation((greedy,), ("text",), (np.array([logprob], np.float32),), (statistic(values),))


def test_compare_counts_and_corrects_over_all_points() -> None:
    a = [observation("x", -1.0, [2, 3, 4, 5]), observation("y", -1.0, [0, 0, 0, 0])]
    b = [observation("x", -1.0, [1, 2, 3, 4]), observation("z", -1.5, [0, 0, 0, 0])]
    first, second = compare([POINT, DEXPERTS], a, b)
    assert (first.greedy_equal, first.greedy_total, first.max_logprob_difference) == (1, 1, 0.0)
    assert (second.greedy_equal, second.max_logprob_difference) == (0, 0.5)
    p = math.erfc(2 / math.sqrt(2))
    assert first.metrics[0].p_value == pytest.approx(p)
    assert first.metrics[0].p_adjusted == pytest.approx(2 * p)
    assert (first.metrics[0].a.value, first.metrics[0].b.value) == (3.5, 2.5)


class StandIn:
    """An engine whose tokens are characters; `shift` is added to every log-probability."""

    version = 1

    def __init__(self, name: str, shift: float = 0.0) -> None:
        self.name = name
        self.shift = shift
        self.served: list[str] = []
        self.closed = False

    def serve(self, recipe: Recipe) -> "StandIn":
        self.served.append(recipe.space)
        return self

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent) -> list[Completion]:
        return [Completion(i, s, "abc", 3, "length") for i in range(len(prompts)) for s in range(sampling.samples)]

    def token_logprobs(self, texts: Sequence[str], advance: Advance = silent) -> list[NDArray[np.float32]]:
        return [np.full(len(text), -1 + self.shift, np.float32) for text in texts]

    def close(self) -> None:
        self.closed = True


def run(a: StandIn, b: StandIn, dtype: str = "float32") -> ParityReport:
    suite = Suite(
        name="s", checkpoints={}, prompts={}, methods=(), sampling=Sampling(samples=2), dtype=dtype  # type: ignore[arg-type]
    )  # fmt: skip
    prompts = [Prompt(set="p", row=i, text="ab") for i in range(3)]

    def judge(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[RatioStatistic]:
        lengths = [sum(c.n_tokens for c in completions if c.prompt == i) for i in range(len(prompts))]
        return [statistic(lengths)]

    return parity(suite, [DEXPERTS, POINT], prompts, lambda: a, lambda: b, judge, "cpu")  # type: ignore[arg-type, return-value]


def test_engines_run_one_after_the_other_and_weights_come_first() -> None:
    a, b = StandIn("a"), StandIn("b")
    report = run(a, b)
    assert a.closed and b.closed and a.served == ["weights", "logits"]
    assert [point.label for point in report.points] == ["dexperts(alpha=1)", "base"]
    assert report.passed and report.greedy_equal and report.max_logprob_difference == 0
    assert report.points[0].n_logprobs == 3 * len("ababc")
    told = " ".join(report.markdown().split())  # cells are padded
    assert "they agree" in told and "| base | 3 of 3 | 0.0e+00 | 1.000 (1.00), m |" in told
    assert ParityReport.model_validate_json(report.model_dump_json()) == report


def test_a_log_probability_off_by_more_than_rounding_fails() -> None:
    assert not run(StandIn("a"), StandIn("b", shift=0.01)).passed
    assert run(StandIn("a"), StandIn("b", shift=0.01), "bfloat16").passed  # within half precision's rounding
    assert "THEY DIFFER" in run(StandIn("a"), StandIn("b", shift=0.01)).markdown()


def test_text_evaluators_become_a_judge() -> None:
    from evaluators.base import Judgement

    class Lengths:
        def judge(self, samples: object, judges: object) -> Judgement:
            return Judgement(summaries=[statistic([1, 2]), object()])  # type: ignore[list-item]

    prompts = [Prompt(set="p", row=0, text="a"), Prompt(set="p", row=1, text="b")]
    assert [s.metric for s in judged_by([Lengths()], None)(prompts, [])] == ["m"]
