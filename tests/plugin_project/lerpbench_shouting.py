"""A method and evaluators from outside."""

import numpy as np
from pydantic import Field

from lerpbench import (
    Advance,
    FiniteFloat,
    Judgement,
    Judges,
    Method,
    Metric,
    ProbeEvaluator,
    Recipe,
    Samples,
    ServedModel,
    TextEvaluator,
    ratio_statistic,
    silent,
    weights,
)


class TaskVector(Method):
    """theta0 + alpha (theta+ - theta0): the expert's task vector alone."""

    source = "Ilharco et al. 2023"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return weights(base=1 - self.alpha, expert=self.alpha)


class Shouting(TextEvaluator):
    """The share of completions with one of the marks."""

    source = "nobody's paper"
    marks: str = Field(default="!", min_length=1, description="the characters that count as shouting")

    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric("shouting", "lower", "share", f"completions with one of {self.marks}"),)

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        found = [any(mark in text for mark in self.marks) for text in samples.texts("completion")]
        name = self.named("shouting")
        shares = ratio_statistic(name, samples.prompt_of, np.array(found, dtype=float), len(samples.prompts))
        return Judgement(summaries=[shares])


class Fragile(ProbeEvaluator):
    """Divides by zero wherever it is asked."""

    source = "nobody's paper"

    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric("fragility", "neutral", "", "never reported"),)

    def probe(self, model: ServedModel, advance: Advance = silent) -> Judgement:
        raise ZeroDivisionError("nothing to divide by")
