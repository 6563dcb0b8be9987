"""The base steered by a vector in its residual stream."""

from typing import Annotated

from pydantic import Field

from bench.schema import STEERING, Recipe, Steering
from methods.base import FiniteFloat, Method, Text


class ActivationAddition(Method):
    """Add alpha times the difference that two texts make to the output of a layer, at every position."""

    source = "Turner et al. 2023, arXiv 2308.10248, algorithm 1; at all positions: Rimsky et al. 2024, 2312.06681"
    formula = "h_layer + alpha (mean h_layer(add) - mean h_layer(subtract))"
    mixes = "activations"
    alpha: FiniteFloat
    layer: Annotated[int, Field(ge=0)]
    add: Text
    subtract: Text

    def recipe(self) -> Recipe:
        steering = Steering(layer=self.layer, add=self.add, subtract=self.subtract)
        return Recipe(space="activations", coefficients={"base": 1, STEERING: self.alpha}, steering=steering)
