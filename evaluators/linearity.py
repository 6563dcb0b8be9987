"""Is mixing weights mixing logits?  The same coefficients in both spaces, compared by what they predict.

If fine-tuning moves a model only a little, its logits are an affine function of its weights (lazy training, arXiv
2211.12092, section 5), and z(sum_i c_i theta_i) = sum_i c_i z(theta_i) where the coefficients sum to 1.  The logits
mixture needs no engine of its own: a softmax does not feel constants, so sum_i c_i log p_i over the members, each asked
once, is its logits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.schema import Estimate, Metric, Recipe
from bench.stats import Floats
from evaluators.base import Answer, Judgement
from evaluators.contexts import ContextEvaluator, divergence, normalised


class Linearity(ContextEvaluator):
    """The weights mixture W against the logits mixture L of the same coefficients: their next token after a context.

    `kl_weights_logits`: the mean over contexts of sum_v W(v) [log W(v) - log L(v)], in nats: KL(W || L), what is lost
    where L stands in for W.  `nucleus_overlap`: the mean over contexts of sum_v min(W'(v), L'(v)), W' and L' being what
    top-p sampling draws from (the nucleus, renormalised): 1 - their total variation distance, the largest share of
    draws that can agree.  A single checkpoint has 0 and 1.  A mixture of logits is not judged.
    """

    source = "the lazy-training claim of arXiv 2211.12092, section 5, tested directly"
    top_p: float = Field(default=0.9, gt=0, le=1, description="the nucleus: the fewest likeliest tokens with this mass")

    def metrics(self) -> tuple[Metric, ...]:
        kl = "KL(weights mixture || logits mixture of the same coefficients) of the next token, mean over contexts"
        overlap = f"probability that the top-{self.top_p:g} nuclei of both mixtures, renormalised, have in common"
        return (
            self.metric("kl_weights_logits", "neutral", "nats", kl),
            self.metric("nucleus_overlap", "neutral", "share", overlap),
        )

    def beside(self, recipe: Recipe) -> Sequence[Recipe]:
        """The members, each by itself."""
        if not _is_sum(recipe):
            return ()
        return [Recipe(space="weights", coefficients={name: 1}) for name in recipe.coefficients]

    def compare(self, recipe: Recipe, answer: Answer, beside: Sequence[Answer]) -> Judgement:
        if not _is_sum(recipe):
            return Judgement(estimates=[self._not_judged(metric, recipe) for metric in self.metrics()])
        weights = normalised(answer)
        logits = normalised(mixed(list(recipe.coefficients.values()), beside))
        scored = np.asarray(np.isfinite(weights + logits).all(axis=-1))
        kl, overlap = self.metrics()
        w, z = weights[scored], logits[scored]
        summaries = [
            self.mean(kl, divergence(w, z), scored),
            self.mean(overlap, shared_mass(w, z, self.top_p), scored),
        ]
        return Judgement(summaries=summaries, items=self.positions)

    def _not_judged(self, metric: Metric, recipe: Recipe) -> Estimate:
        reason = f"a mixture of {recipe.space}; see the weights mixture of the same coefficients"
        if recipe.space == "weights":
            reason = "no plain sum of weights, so that its logits have no counterpart"
        return Estimate(metric=metric.name, prompts=None, value=None, n_scored=0, n_total=len(self.positions),
                        reason=reason)  # fmt: skip


def _is_sum(recipe: Recipe) -> bool:
    """theta = sum_i c_i theta_i."""
    return recipe.space == "weights" and recipe.rule is None


def mixed(coefficients: Sequence[float], logprobs: Sequence[NDArray[np.float32]]) -> Floats:
    """sum_i c_i log p_i, (N, V) float64."""
    total = np.zeros(logprobs[0].shape)
    for coefficient, logprob in zip(coefficients, logprobs, strict=True):
        total += coefficient * logprob.astype(np.float64)
    return total


def shared_mass(p: Floats, q: Floats, top_p: float) -> Floats:
    """sum_v min(p'(v), q'(v)) of the renormalised nuclei of log-probabilities (N, V).  Returns (N,)."""
    return np.asarray(np.minimum(nucleus(np.exp(p), top_p), nucleus(np.exp(q), top_p)).sum(axis=-1))


def nucleus(probabilities: Floats, top_p: float) -> Floats:
    """Each row's (N, V) nucleus, renormalised, zero elsewhere; ties at its edge are all inside, as in sampling."""
    ordered = -np.sort(-probabilities, axis=-1)
    inside = ordered.cumsum(axis=-1) - ordered < top_p  # the mass before a token is too little
    edge = np.take_along_axis(ordered, inside.sum(axis=-1, keepdims=True) - 1, axis=-1)
    kept = np.where(probabilities >= edge, probabilities, 0.0)
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))
