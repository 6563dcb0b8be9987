"""Test NLL of labelled sentences under the served model: the paper's loss on SST (arXiv 2211.12092, figure 8)."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric, Prompt, PromptSource
from bench.serving import ServedModel
from bench.stats import RatioStatistic, ratio_statistic
from bench.suite.prompts import load_prompts, texts_digest
from evaluators.base import Judgement, ProbeEvaluator

SETS = {
    "positive": PromptSource(source="mini:sentences/positive"),
    "negative": PromptSource(source="mini:sentences/negative"),
}


class SentenceNLL(ProbeEvaluator):
    """`nll_NAME` for each set of sentences: the sum of -log p over all tokens / the number of tokens, in nats.

    The first token follows the end-of-text token, so that every token of a sentence counts.  A sentence longer than the
    model's context is not scored.
    """

    source = "arXiv 2211.12092, section 4.3 and figure 8"
    sets: dict[str, PromptSource] = Field(default=SETS, min_length=1, description="name -> where its sentences are")

    def metrics(self) -> tuple[Metric, ...]:
        text = "mean token NLL of the {} sentences under the mixed model"
        return tuple(self.metric(f"nll_{name}", "lower", "nats per token", text.format(name)) for name in self.sets)

    def data_digests(self) -> list[str]:
        return [texts_digest(self.sentences)]

    def held_out(self) -> list[Prompt]:
        return self.sentences

    @cached_property
    def sentences(self) -> list[Prompt]:
        """All sets in order; read once.  Raises UserError for a source that cannot be read."""
        return load_prompts(self.sets)

    def probe(self, model: ServedModel, advance: Advance = silent) -> Judgement:
        nlls = self._nlls(model, advance)
        summaries = [self._summary(name, nlls) for name in self.sets]
        return Judgement(summaries=summaries, items=self.sentences)

    def _nlls(self, model: ServedModel, advance: Advance) -> list[NDArray[np.float64] | None]:
        """Each sentence's token NLLs (T,), None for one that is longer than the context or gives no finite number."""
        limit = model.context_length()
        fit = [i for i, s in enumerate(self.sentences) if len(model.token_ids(s.text)) <= limit]
        advance(len(self.sentences) - len(fit))
        logprobs = model.token_logprobs([self.sentences[i].text for i in fit], advance)
        nlls: list[NDArray[np.float64] | None] = [None] * len(self.sentences)
        for i, logprob in zip(fit, logprobs, strict=True):
            nlls[i] = -logprob.astype(np.float64) if len(logprob) and np.isfinite(logprob).all() else None
        return nlls

    def _summary(self, name: str, nlls: Sequence[NDArray[np.float64] | None]) -> RatioStatistic:
        """Sentences are clusters of their own; those of other sets have no part in this one."""
        own = np.array([i for i, s in enumerate(self.sentences) if s.set == name], dtype=np.int64)
        sums = [nlls[i] for i in own.tolist()]
        return ratio_statistic(
            self.named(f"nll_{name}"),
            own,
            np.array([0.0 if nll is None else nll.sum() for nll in sums]),
            len(self.sentences),
            weights=np.array([0.0 if nll is None else float(len(nll)) for nll in sums]),
            scored=np.array([nll is not None for nll in sums]),
        )
