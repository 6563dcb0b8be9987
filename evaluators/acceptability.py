"""Grammatical acceptability (arXiv 2211.12092, section 4): the mean P(acceptable) of a classifier trained on CoLA."""

from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric
from evaluators.base import Judgement, Samples
from evaluators.classifier import ClassifierEvaluator, mean_judgement
from evaluators.judges import Judges


class Acceptability(ClassifierEvaluator):
    """P(acceptable), mean over completions."""

    source = "arXiv 2211.12092, section 4; Warstadt et al. 2019 (CoLA)"
    model: str = Field(default="textattack/roberta-base-CoLA", description="an acceptability classifier")

    def metrics(self) -> tuple[Metric, ...]:
        description = f"mean P(acceptable) by {self.model}, {self.scope} text"
        return (self.metric("acceptability", "higher", "probability", description),)

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        judge = judges.classifier(self.model)
        column = self.places(judge, [("unacceptable", "acceptable")])["acceptable"]
        probabilities, reasons = self.probabilities(judge, samples, advance)
        return mean_judgement(samples, {self.named("acceptability"): probabilities[:, column]}, reasons)
