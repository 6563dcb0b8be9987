"""Any attribute by any causal language model, untrained: which words does it say behind a text?

A text and a template make a cloze ("... It was"); the attribute is the share of probability that words for it have
against words for its opposite (Schick and Schuetze 2021: verbalizers).  Weak where the model is small; a second opinion
that has seen none of a classifier's labels.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Direction, Metric
from evaluators.base import Judgement, ModelJudgeEvaluator, Samples, Scope
from evaluators.classifier import mean_judgement
from evaluators.judges import Judges
from evaluators.scoring import Precision, context_length, encode, token_nlls

Words = Annotated[tuple[str, ...], Field(min_length=1)]


class ZeroShot(ModelJudgeEvaluator):
    """P(words for the attribute) / P(words for it or against it) behind text + template, mean over completions."""

    source = "Schick and Schuetze 2021, arXiv 2001.07676, section 3.1: verbalizers"
    model: str = Field(description="a packaged, local or hub causal language model")
    template: str = Field(description="what follows the text, up to the words; ' It was'")
    words: Words = Field(description="what is said, blank included, where a text has the attribute: ' great'")
    opposite: Words = Field(description="what is said where it has the opposite: ' terrible'")
    scope: Scope = Field(default="full", description="judge prompt + completion, or the completion alone")
    name: str = Field(default="zero_shot", description="the metric's name", pattern=r"^[A-Za-z0-9_.-]+$")
    direction: Direction = Field(default="higher", description="whether higher or lower is better")
    precision: Precision = Field(default="float32", description="bfloat16: autocast, for a GPU")

    def metrics(self) -> tuple[Metric, ...]:
        said = f"P({'/'.join(w.strip() for w in self.words)}) over {'/'.join(w.strip() for w in self.opposite)} too"
        return (self.metric(self.name, self.direction, "probability", f"mean {said}, by {self.model} behind a text"),)

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        judge = judges.language_model(self.model)
        words = [*self.words, *self.opposite]
        answers = [list(judge.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]
        asked = encode(judge, [text + self.template for text in samples.texts(self.scope)])
        limit = context_length(judge) - max(map(len, answers))
        fit = [i for i, ids in enumerate(asked) if 0 < len(ids) <= limit]
        nlls = token_nlls(judge, [asked[i] + answer for i in fit for answer in answers], precision=self.precision)
        sums = [float(nll[-len(answers[k % len(words)]) :].sum()) for k, nll in enumerate(nlls)]
        p = np.exp(-np.array(sums, dtype=np.float64).reshape(len(fit), len(words)))
        values = np.full(len(samples), np.nan)
        values[fit] = p[:, : len(self.words)].sum(axis=1) / p.sum(axis=1)
        reasons = dict.fromkeys(np.flatnonzero(np.isnan(values)).tolist(), "longer than the judge's context")
        advance(len(samples))
        return mean_judgement(samples, {self.named(self.name): values}, reasons)
