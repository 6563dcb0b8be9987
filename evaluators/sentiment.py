"""Sentiment of the completions (arXiv 2211.12092, equation 6) and the share of positive ones (DExperts)."""

import numpy as np
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric
from evaluators.base import Judgement, Samples
from evaluators.classifier import ClassifierEvaluator, mean_judgement
from evaluators.judges import Judges

EXPECTED = (("negative", "neutral", "positive"), ("negative", "positive"))


class Sentiment(ClassifierEvaluator):
    """0 P(negative) + 0.5 P(neutral) + 1 P(positive), and whether P(positive) > P(negative); means over completions.

    A classifier without a neutral label has P(neutral) = 0.
    """

    source = "arXiv 2211.12092, equation 6; Liu et al. 2021 (DExperts), section 3.2"
    model: str = Field(default="cardiffnlp/twitter-roberta-base-sentiment", description="a sentiment classifier")

    def metrics(self) -> tuple[Metric, ...]:
        judged = f"by {self.model}, {self.scope} text"
        return (
            self.metric("sentiment", "neutral", "0 to 1", f"0.5 P(neutral) + P(positive) {judged}"),
            self.metric("fraction_positive", "neutral", "share", f"share with P(positive) > P(negative) {judged}"),
        )

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        judge = judges.classifier(self.model)
        places = self.places(judge, EXPECTED)
        probabilities, reasons = self.probabilities(judge, samples, advance)
        negative, positive = probabilities[:, places["negative"]], probabilities[:, places["positive"]]
        neutral = probabilities[:, places["neutral"]] if "neutral" in places else np.zeros(len(samples))
        values = {
            self.named("sentiment"): 0.5 * neutral + positive,
            self.named("fraction_positive"): (positive > negative).astype(float),
        }
        return mean_judgement(samples, values, reasons)
