"""One stored verdict read back, and the comparison of it with what it should be.  Pure but for `read_verdict`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.schema import Estimate, Prompt
from bench.stats import RatioStatistic, Transform, ratio_statistic
from bench.store.read import Reader
from evaluators.base import Judgement, Samples

EXACT = 1e-8  # the same arithmetic on the same numbers; stored scores have nine digits
Place = tuple[str, int, int]  # prompt set, row, sample
Score = tuple[float | None, str | None]  # a value, and why there is none or why it does not count
Sums = tuple[float, float, int, int]  # numerator, denominator, n_scored, n_total
Difference = tuple[str, dict[str, Any], str, Any, Any]  # table, what tells the row apart, column, stored, expected
ABSENT = "no such row"


@dataclass(frozen=True)
class StoredVerdict:
    """What is stored of one evaluation, by metric."""

    scores: Mapping[str, Mapping[Place, Score]]
    sums: Mapping[str, Mapping[Prompt, Sums]]
    estimates: Mapping[tuple[str, str | None], Estimate]
    transforms: Mapping[str, Transform]

    def statistic(self, metric: str, items: Sequence[Prompt]) -> RatioStatistic:
        """The sums of one metric over these items; each has to be stored."""
        rows = [self.sums[metric][item] for item in items]
        above, below, scored, total = (np.array(column) for column in zip(*rows, strict=True))
        return RatioStatistic(metric, above, below, scored, total, self.transforms.get(metric, "identity"))


def read_verdict(store: Reader, evaluation_id: int) -> StoredVerdict:
    """Raises ValueError where two estimates have one place."""
    scores: dict[str, dict[Place, Score]] = {}
    for one in store.scores(evaluation_id):
        scores.setdefault(one.metric, {})[one.set, one.row, one.sample] = one.value, one.reason
    sums: dict[str, dict[Prompt, Sums]] = {}
    for row in store.statistics(evaluation_id):
        item = Prompt(set=row.set, row=row.row, text=row.text)
        sums.setdefault(row.metric, {})[item] = row.numerator, row.denominator, row.n_scored, row.n_total
    estimates: dict[tuple[str, str | None], Estimate] = {}
    transforms: dict[str, Transform] = {}
    for estimate, transform in store.estimates(evaluation_id):
        if (estimate.metric, estimate.prompts) in estimates:
            raise ValueError(f"two estimates of {estimate.metric} over {estimate.prompts or 'all prompts'}")
        estimates[estimate.metric, estimate.prompts] = estimate
        if transform is not None:
            transforms[estimate.metric] = "exp" if transform == "exp" else "identity"
    return StoredVerdict(scores, sums, estimates, transforms)


# ------------------------------------------------------------------------------------------------------ comparing


def compare_judgement(
    stored: StoredVerdict, samples: Samples, judgement: Judgement, tolerance: float
) -> Iterator[Difference]:
    """The scores and sums of some completions, judged again."""
    for metric, column in judgement.scores.items():
        own = stored.scores.get(metric, {})
        for i, (place, value) in enumerate(zip(places(samples), column.values, strict=True)):
            has, reason = own.get(place, (None, ABSENT))
            if not near(has, value, tolerance) or reason != column.reasons.get(i):
                yield ("scores", row_of(metric, place), "value", reason if has is None else has,
                       column.reasons.get(i) if value is None else value)  # fmt: skip
    for summary in judgement.summaries:
        if isinstance(summary, RatioStatistic):
            transform = stored.transforms.get(summary.metric)
            if transform != summary.transform:
                yield "estimates", {"metric": summary.metric}, "transform", transform, summary.transform
            yield from compare_sums(stored, summary, samples.prompts, tolerance)


def compare_sums(
    stored: StoredVerdict, expected: RatioStatistic, items: Sequence[Prompt], tolerance: float
) -> Iterator[Difference]:
    """The stored sums of one metric at these items; `expected` has them in the same order."""
    own = stored.sums.get(expected.metric, {})
    columns = {"numerator": expected.numerators, "denominator": expected.denominators, "n_scored": expected.n_scored,
               "n_total": expected.n_total}  # fmt: skip
    for i, item in enumerate(items):
        row = {"metric": expected.metric, "prompts": item.set, "row": item.row}
        has = own.get(item)
        for k, (column, values) in enumerate(columns.items()):
            if has is None or not near(has[k], float(values[i]), tolerance):
                yield "statistics", row, column, ABSENT if has is None else has[k], float(values[i])
                break


def compare_scores_with_sums(stored: StoredVerdict, samples: Samples) -> Iterator[Difference]:
    """Every completion has its score, and where a metric is a mean over completions its sums follow from them."""
    listed = places(samples)
    for metric, own in stored.scores.items():
        if lost := [place for place in listed if place not in own]:
            yield "scores", row_of(metric, lost[0]), "value", ABSENT, "a score or a reason"
            continue
        if len(own) > len(listed):
            extra = next(iter(own.keys() - set(listed)))
            yield "scores", row_of(metric, extra), "value", own[extra][0], ABSENT
        if stored.transforms.get(metric) != "exp":  # else the weights are tokens, which scores do not tell
            found = [own[place] for place in listed]
            scored = np.array([value is not None and reason is None for value, reason in found], dtype=bool)
            values = np.array([0.0 if value is None else value for value, _ in found])
            sums = ratio_statistic(metric, samples.prompt_of, values, len(samples.prompts), scored=scored)
            yield from compare_sums(stored, sums, samples.prompts, EXACT)


def compare_estimates(stored: StoredVerdict, expected: Sequence[Estimate], metrics: set[str]) -> Iterator[Difference]:
    """The stored estimates of these metrics are the expected ones, no fewer and no more."""
    wanted = {(e.metric, e.prompts): e for e in expected}
    own = {key: estimate for key, estimate in stored.estimates.items() if key[0] in metrics}
    for key in sorted(wanted.keys() | own.keys(), key=repr):
        has, want = own.get(key), wanted.get(key)
        row = {"metric": key[0], "prompts": key[1] or "all"}
        if has is None or want is None:
            yield "estimates", row, "value", has.value if has else ABSENT, want.value if want else ABSENT
            continue
        for column in ("value", "low", "high", "n_scored", "n_total"):
            if not near(getattr(has, column), getattr(want, column), EXACT):
                yield "estimates", row, column, getattr(has, column), getattr(want, column)
        if has.reason != want.reason:
            yield "estimates", row, "reason", has.reason, want.reason


def places(samples: Samples) -> list[Place]:
    prompts = samples.prompts
    return [(prompts[c.prompt].set, prompts[c.prompt].row, c.sample) for c in samples.completions]


def row_of(metric: str, place: Place) -> dict[str, Any]:
    return {"metric": metric, "prompts": place[0], "row": place[1], "sample": place[2]}


def near(x: float | None, y: float | None, tolerance: float) -> bool:
    """Equal within `tolerance`, relative for what is larger than 1; None equals None alone."""
    if x is None or y is None:
        return x is y
    return math.isfinite(x) and abs(x - y) <= tolerance * max(1.0, abs(y))
