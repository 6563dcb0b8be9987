"""As far from the base as the experts' angle says."""

from typing import Annotated

from pydantic import Field

from bench.schema import Recipe
from methods.base import Method, merged


class ModelStock(Method):
    """g1 drawn to the base, tensor by tensor, the more the nearer the task vectors are to a right angle.

    alpha 0.5 is the paper's average of fine-tuned models.
    """

    source = "Jang et al. 2024, arXiv 2403.19522: the interpolation ratio for N fine-tuned models"
    formula = "t g1(alpha) + (1 - t) theta0, t = 2 cos / (1 + cos), cos between theta+ - theta0 and theta- - theta0"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def recipe(self) -> Recipe:
        return merged("model_stock", of={"base": 1, "expert": self.alpha, "antiexpert": 1 - self.alpha})
