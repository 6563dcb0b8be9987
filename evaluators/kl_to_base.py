"""How far a mixture has moved from its base: the same strength for weights, logits, probabilities and activations.

A parameter means something else in each method; the divergence of what is predicted does not.  It is what fine-tuning
by reinforcement learning is penalised by, and the axis along which its methods are compared (Gao et al. 2023, arXiv
2210.10760, section 3).
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from bench.schema import Metric, PromptSource, Recipe, UserError
from evaluators.base import Answer, Judgement
from evaluators.contexts import CONTEXTS, ContextEvaluator, divergence, normalised


class KlToBase(ContextEvaluator):
    """KL(mixture || base) of the next token, mean over contexts, in nats: 0 for the base.

    The mixture is what tokens are drawn from before top-p: a mask of what is plausible is applied, a prefix read; the
    nucleus is cut from neither side, so that `filter_p`, which stands in its place, is not applied.
    """

    source = "Gao et al. 2023, arXiv 2210.10760, section 3: the distance from the initial policy"
    contexts: dict[str, PromptSource] = Field(
        default={"neutral": CONTEXTS["neutral"]}, min_length=1, description="name -> where its contexts are"
    )

    def metrics(self) -> tuple[Metric, ...]:
        about = "KL(mixture || base) of the next token, mean over contexts"
        return (self.metric("kl_to_base", "neutral", "nats", about),)

    def require(self, names: Sequence[str]) -> None:
        if "base" not in names:
            raise UserError(f"kl_to_base: no checkpoint is called base; the suite has {', '.join(names)}")

    def beside(self, recipe: Recipe) -> Sequence[Recipe]:
        """The base, and the expert whose mask is applied: in the engine that serves the recipe."""
        space = "weights" if recipe.space == "weights" else "logits"
        names = ["base"] if recipe.plausible is None else ["base", recipe.checkpoints["expert"]]
        return [Recipe(space=space, coefficients={name: 1}) for name in names]

    def compare(self, recipe: Recipe, answer: Answer, beside: Sequence[Answer]) -> Judgement:
        """answer and beside: (N, V) each, V of an ensemble the smallest of its members'."""
        width = min(part.shape[-1] for part in (answer, *beside))
        mixture, base, *expert = (part[:, :width] for part in (answer, *beside))
        if recipe.plausible is not None:
            likely = expert[0] >= expert[0].max(axis=-1, keepdims=True) + np.float32(math.log(recipe.plausible))
            mixture = np.where(likely, mixture, -np.inf)
        scored = np.asarray(np.isfinite(mixture.max(axis=-1) + base.max(axis=-1)))
        values = divergence(normalised(mixture[scored]), normalised(base[scored]))
        (metric,) = self.metrics()
        return Judgement(summaries=[self.mean(metric, values, scored)], items=self.positions)
