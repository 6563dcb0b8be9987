"""Task vectors without their extremes."""

from typing import Annotated

from pydantic import Field

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, merged

Part = Annotated[float, Field(ge=0, lt=0.5)]


class Breadcrumbs(Method):
    """g2 with task vectors without, in each tensor, the shares `bottom` of smallest and `top` of largest magnitudes."""

    source = "Davari and Belilovsky 2023, arXiv 2312.06795: the sparse masks by layer"
    formula = "theta0 + alpha (m+ tau+ - m- tau-), m keeps neither the smallest nor the largest magnitudes"
    alpha: FiniteFloat
    bottom: Part = 0.4
    top: Part = 0.01

    def recipe(self) -> Recipe:
        of = {"base": 1, "expert": self.alpha, "antiexpert": -self.alpha}
        return merged("breadcrumbs", of=of, bottom=self.bottom, top=self.top)
