"""How much completions repeat themselves: n-grams that occurred before in the same completion, and loops at the end."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric
from bench.stats import ScoreColumn, ratio_statistic
from evaluators.base import Judgement, Samples, TextEvaluator
from evaluators.distinct import n_grams
from evaluators.judges import Judges


class Repetition(TextEvaluator):
    """`repetition`: 1 - unique n-grams / n-grams within a completion, mean over completions of at least n words;
    `looping`: the share of completions whose end is one phrase at least three times in a row.

    Words are what whitespace separates.
    """

    source = "Welleck et al. 2020 (seq-rep-n); Holtzman et al. 2020, section 5.4 (repetition)"
    n: int = Field(default=4, ge=1, description="the n of the n-grams")

    def metrics(self) -> tuple[Metric, ...]:
        seen = f"share of {self.n}-grams that occurred before in the completion, mean"
        return (
            self.metric("repetition", "lower", "share", seen),
            self.metric("looping", "lower", "share", "share of completions that end in a phrase three times in a row"),
        )

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        repetition, looping = (metric.name for metric in self.metrics())
        words = [completion.text.split() for completion in samples.completions]
        values = [repeated_share(w, self.n) for w in words]
        loops = [float(ends_in_loop(w)) if w else None for w in words]
        advance(len(samples))
        scores = {
            repetition: _column(values, f"fewer than {self.n} words"),
            looping: _column(loops, "empty completion"),
        }
        summaries = []
        for name, column in scores.items():
            known = np.array(column.values, dtype=np.float64)  # None as NaN
            summaries.append(
                ratio_statistic(name, samples.prompt_of, known, len(samples.prompts), scored=~np.isnan(known))
            )
        return Judgement(scores=scores, summaries=summaries)


def repeated_share(words: Sequence[str], n: int) -> float | None:
    """1 - unique n-grams / n-grams; None where there is no n-gram."""
    grams = n_grams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def ends_in_loop(words: Sequence[str], times: int = 3) -> bool:
    """Whether the last words are some phrase `times` times in a row."""
    phrases = range(1, len(words) // times + 1)
    return any(list(words[-length:]) * times == list(words[-length * times :]) for length in phrases)


def _column(values: Sequence[float | None], reason: str) -> ScoreColumn:
    return ScoreColumn(values, {i: reason for i, value in enumerate(values) if value is None})
