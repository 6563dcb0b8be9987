"""Sums of checkpoints that have names of their own: each is a point of g3's plane."""

from typing import Annotated

from pydantic import Field

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, weights


class TaskArithmetic(Method):
    """Add alpha times the expert's task vector, take away beta times the anti-expert's."""

    source = "Ilharco et al. 2023, arXiv 2212.04089, section 2: addition and negation of task vectors"
    formula = "theta0 + alpha (theta+ - theta0) - beta (theta- - theta0)"
    alpha: FiniteFloat
    beta: FiniteFloat = 0.0

    def recipe(self) -> Recipe:
        return weights(base=1 - self.alpha + self.beta, expert=self.alpha, antiexpert=-self.beta)


class Expo(Method):
    """ExPO: beyond the expert, along the way from the base to it; alpha 0 is the expert."""

    source = "Zheng et al. 2024, arXiv 2404.16792: the extrapolation of ExPO"
    formula = "theta+ + alpha (theta+ - theta0)"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return weights(expert=1 + self.alpha, base=-self.alpha)


class RewardedSoups(Method):
    """Between two experts of one base, never beyond either: g1 from 0 to 1."""

    source = "Rame et al. 2023, arXiv 2306.04488: the interpolation of weights fine-tuned on two rewards"
    formula = "alpha theta+ + (1 - alpha) theta-, 0 <= alpha <= 1"
    alpha: Annotated[float, Field(ge=0, le=1)]

    def recipe(self) -> Recipe:
        return weights(expert=self.alpha, antiexpert=1 - self.alpha)
