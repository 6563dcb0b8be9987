"""Linear interpolation in parameter space: g1, g2 and g3 (arXiv 2211.12092, equations 1, 3 and 4)."""

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, weights


class G1(Method):
    """The line through both experts."""

    source = "arXiv 2211.12092, equation 1"
    formula = "alpha theta+ + (1 - alpha) theta-"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return weights(expert=self.alpha, antiexpert=1 - self.alpha)


class G2(Method):
    """From the base along the experts' difference."""

    source = "arXiv 2211.12092, equation 3"
    formula = "theta0 + alpha (theta+ - theta-)"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return weights(base=1, expert=self.alpha, antiexpert=-self.alpha)


class G3(Method):
    """The plane through the base and both experts."""

    source = "arXiv 2211.12092, equation 4"
    formula = "theta0 + alpha (theta+ - theta0) + beta (theta- - theta0)"
    alpha: FiniteFloat
    beta: FiniteFloat

    def recipe(self) -> Recipe:
        return weights(base=1 - self.alpha - self.beta, expert=self.alpha, antiexpert=self.beta)
