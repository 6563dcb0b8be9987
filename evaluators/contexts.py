"""What evaluators of next-token distributions share: the contexts, a mixture's answer, and how far two answers are."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric, Prompt, PromptSource
from bench.serving import ServedModel
from bench.stats import Floats, RatioStatistic, ratio_statistic
from bench.suite.prompts import load_prompts, texts_digest
from evaluators.base import Answer, ContrastEvaluator

CONTEXTS: Mapping[str, PromptSource] = {
    name: PromptSource(source=f"mini:prompts/{name}") for name in ("neutral", "positive", "negative")
}


class ContextEvaluator(ContrastEvaluator):
    """Compares what mixtures predict after contexts: defines `beside` and `compare`."""

    contexts: dict[str, PromptSource] = Field(
        default=dict(CONTEXTS), min_length=1, description="name -> where its contexts are; the next token is predicted"
    )

    def data_digests(self) -> list[str]:
        return [texts_digest(self.positions)]

    @cached_property
    def positions(self) -> list[Prompt]:
        """All contexts in order; read once.  Raises UserError for a source that cannot be read."""
        return load_prompts(self.contexts)

    def answer(self, model: ServedModel, advance: Advance = silent) -> Answer:
        """log p(next token | context), (N, V); NaN for a context that is longer than the model's."""
        limit = model.context_length()
        fit = [i for i, context in enumerate(self.positions) if len(model.token_ids(context.text)) <= limit]
        logprobs = model.next_token_logprobs([self.positions[i].text for i in fit])
        found = np.full((len(self.positions), logprobs.shape[-1]), np.nan, np.float32)
        found[fit] = logprobs
        advance(len(self.positions))
        return found

    def mean(self, metric: Metric, values: Floats, scored: NDArray[np.bool_]) -> RatioStatistic:
        """The mean over contexts, which are clusters of their own; values: those of the scored ones."""
        everywhere = np.zeros(len(scored))
        everywhere[scored] = values
        return ratio_statistic(metric.name, np.arange(len(scored)), everywhere, len(scored), scored=scored)


def normalised(logits: NDArray[np.floating]) -> Floats:
    """Log-softmax over the last axis in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def divergence(p: Floats, q: Floats) -> Floats:
    """KL(p || q) of log-probabilities (N, V), nats; what p never says counts nothing.  Returns (N,)."""
    said = np.isfinite(p)
    return np.asarray((np.exp(p) * np.where(said, np.where(said, p, 0.0) - q, 0.0)).sum(axis=-1))
