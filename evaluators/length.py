"""How long completions are, and how many ended by themselves."""

import numpy as np

from bench.progress import Advance, silent
from bench.schema import Metric
from bench.stats import ratio_statistic
from evaluators.base import Judgement, Samples, TextEvaluator
from evaluators.judges import Judges


class Length(TextEvaluator):
    """`length_tokens` (the generating model's), `length_words` (between whitespace) and `ended`, as means."""

    source = "descriptive"

    def metrics(self) -> tuple[Metric, ...]:
        return (
            self.metric("length_tokens", "neutral", "tokens", "tokens of a completion, mean"),
            self.metric("length_words", "neutral", "words", "words of a completion, mean"),
            self.metric("ended", "neutral", "share", "share of completions that ended by themselves"),
        )

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        columns = (
            [c.n_tokens for c in samples.completions],
            [len(c.text.split()) for c in samples.completions],
            [c.finish_reason == "stop" for c in samples.completions],
        )
        advance(len(samples))
        names = (metric.name for metric in self.metrics())
        return Judgement(
            summaries=[
                ratio_statistic(name, samples.prompt_of, np.array(column, dtype=np.float64), len(samples.prompts))
                for name, column in zip(names, columns, strict=True)
            ]
        )
