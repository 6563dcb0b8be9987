"""Trim, elect sign, merge."""

from typing import Literal

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, Share, merged


class Ties(Method):
    """g2 with trimmed task vectors, averaged where their signs agree.

    The share `density` of largest magnitudes is kept of each tensor, or of all tensors together (as the paper's code).
    """

    source = "Yadav et al. 2023, arXiv 2306.01708, algorithm 1"
    formula = "theta0 + alpha mean of {trim(tau+), -trim(tau-)} with the elected sign, tau = theta - theta0"
    alpha: FiniteFloat
    density: Share = 0.2
    trim: Literal["tensor", "global"] = "tensor"

    def recipe(self) -> Recipe:
        of = {"base": 1, "expert": self.alpha, "antiexpert": -self.alpha}
        return merged("ties", of=of, density=self.density, trim=self.trim)
