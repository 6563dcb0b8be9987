"""Any number of named checkpoints in one mixture: several attributes at once."""

from typing import Literal

from pydantic import ConfigDict

from bench.schema import Recipe
from methods.base import FiniteFloat, Method


class Mixture(Method):
    """Any checkpoints of the suite by name, in weights, in logits or in probabilities.

    Every key but `space` is a checkpoint's name, its value that checkpoint's coefficient.  `base` takes what the others
    leave of 1, unless it is given too: then the coefficients stand as they are.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, FiniteFloat]

    source = "task arithmetic, Ilharco et al. 2023, equation of section 2; g3 of arXiv 2211.12092 for two checkpoints"
    formula = "theta0 + sum_i c_i (theta_i - theta0), or z or p in place of theta"
    mixes = "weights, logits or probs"
    models_per_token = "1, or one a checkpoint"
    space: Literal["weights", "logits", "probs"] = "weights"

    def recipe(self) -> Recipe:
        named = self.__pydantic_extra__
        return Recipe(space=self.space, coefficients={"base": 1 - sum(named.values()), **named})
