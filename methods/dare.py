"""Drop and rescale."""

from typing import Literal

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, Seed, Share, merged


class Dare(Method):
    """g2 with the share `density` of each task vector's elements, drawn at random and rescaled.

    They are summed (DARE with task arithmetic), or averaged by elected sign (DARE with TIES).
    """

    source = "Yu et al. 2024, arXiv 2311.03099, section 3: drop and rescale"
    formula = "theta0 + alpha (drop(tau+) - drop(tau-)), drop(tau) = m tau / density, m ~ Bernoulli(density)"
    alpha: FiniteFloat
    density: Share = 0.5
    consensus: Literal["sum", "elect"] = "sum"
    seed: Seed = 0

    def recipe(self) -> Recipe:
        of = {"base": 1, "expert": self.alpha, "antiexpert": -self.alpha}
        return merged("dare", self.seed, of=of, density=self.density, consensus=self.consensus)
