"""What a method is: parameters that become a recipe."""

from typing import ClassVar

from pydantic import FiniteFloat

from bench.schema import Recipe, Value

__all__ = ["FiniteFloat", "Method", "logits", "weights"]


class Method(Value):
    """A way of combining checkpoints.  Its fields are its parameters; `recipe` is all it must define.

    A suite gives every field a value or a list of values to sweep.  `source` names the paper and equation.
    """

    source: ClassVar[str] = ""

    def recipe(self) -> Recipe:
        """The mixture these parameters stand for."""
        raise NotImplementedError


def weights(**coefficients: float) -> Recipe:
    """theta = sum_i c_i theta_i."""
    return Recipe(space="weights", coefficients=coefficients)


def logits(filter_p: float | None = None, **coefficients: float) -> Recipe:
    """z = sum_i c_i z_i."""
    return Recipe(space="logits", coefficients=coefficients, filter_p=filter_p)
