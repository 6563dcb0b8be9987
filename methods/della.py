"""Drop by magnitude, elect, fuse."""

from bench.schema import Recipe, UserError
from methods.base import FiniteFloat, Method, Seed, Share, merged


class Della(Method):
    """DARE that keeps large elements more often than small ones, by `epsilon` in all; then TIES' election."""

    source = "Deep et al. 2024, arXiv 2406.11617, section 3: MAGPRUNE, elect, fuse"
    formula = "theta0 + alpha mean of {drop(tau+), -drop(tau-)} with the elected sign, p = 1 - density -+ epsilon / 2"
    alpha: FiniteFloat
    density: Share = 0.5
    epsilon: Share = 0.2
    seed: Seed = 0

    def recipe(self) -> Recipe:
        if not self.epsilon / 2 < self.density <= 1 - self.epsilon / 2:
            raise UserError(f"della: density {self.density} -+ epsilon / 2 = {self.epsilon / 2} leaves 0 to 1")
        of = {"base": 1, "expert": self.alpha, "antiexpert": -self.alpha}
        return merged("della", self.seed, of=of, density=self.density, epsilon=self.epsilon)
