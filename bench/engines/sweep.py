"""A sweep in logit space as one batch: each row has coefficients of its own, and no model depends on them.

Prompts run once for all mixtures, and small sets of prompts fill a batch.  Random numbers are the rows' own, so texts
are those of one mixture after another.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.engines.mixing import mix_logits
from bench.engines.stream import Member
from bench.engines.transformers import TransformersModel
from bench.schema import Recipe

if TYPE_CHECKING:
    from bench.engines.transformers import TransformersEngine


class SweepModel(TransformersModel):
    """Mixtures of the same members that differ in their coefficients alone: see `bench.serving.sweep_of`."""

    def __init__(self, engine: "TransformersEngine", recipes: Sequence[Recipe], members: Sequence[Member]) -> None:
        super().__init__(engine, recipes[0], members)
        self.n_mixtures = len(recipes)
        names = list(recipes[0].coefficients)
        self.coefficients = [[recipe.coefficients[name] for name in names] for recipe in recipes]

    def _mixed_rows(self, logits: Sequence[Tensor], mixture: Tensor) -> Tensor:
        """Rows of one mixture stand side by side."""
        found, start = [], 0
        for which, rows in groupby(mixture.tolist()):
            end = start + len(list(rows))
            found.append(mix_logits(self.coefficients[which], [z[start:end] for z in logits]))
            start = end
        return torch.cat(found)
