"""What a draft is worth: how many of its tokens are accepted, and what that gives in time; predicted, then measured.

A drafted token is accepted with probability sum_x min(p(x), q(x)), p and q what the ensemble and the draft draw from
(Leviathan, Kalman and Matias 2023, arXiv 2211.17192, corollary 3.6).  So one look at both next-token distributions
predicts it, without drawing anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.schema import Prompt, Recipe, Sampling
from bench.serving import Drafting, Engine
from evaluators.linearity import shared_mass

PROMPTS = 64  # at whose ends distributions are compared, at most


@dataclass
class Acceptance:
    """Of one subject: the predicted share, and what was counted in each cell."""

    predicted: float
    k: int | None = None  # of what was timed
    counted: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # accepted, judged

    def count(self, cell: tuple[int, int], model: Drafting) -> None:
        before = self.counted.get(cell, (0, 0))
        self.counted[cell] = before[0] + model.accepted, before[1] + model.judged
        self.k = model.k

    def measured(self, cell: tuple[int, int]) -> float | None:
        """None where nothing was judged."""
        accepted, judged = self.counted.get(cell, (0, 0))
        return accepted / judged if judged else None


def overlap(engine: Engine, recipe: Recipe, prompts: Sequence[Prompt], sampling: Sampling) -> float:
    """The predicted acceptance of a recipe with a draft, mean over prompts: at the first token behind each."""
    assert recipe.draft is not None
    texts = [prompt.text for prompt in prompts[:PROMPTS]]
    mixtures = recipe.model_copy(update={"draft": None}), recipe.draft.recipe
    p, q = (engine.serve(mixture).next_token_logprobs(texts).astype(np.float64) for mixture in mixtures)
    if sampling.temperature == 0:
        return float((p.argmax(axis=-1) == q.argmax(axis=-1)).mean())
    return float(shared_mass(p / sampling.temperature, q / sampling.temperature, sampling.top_p).mean())
