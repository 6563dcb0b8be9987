"""What a method is: parameters that become a recipe."""

from typing import Annotated, ClassVar

from pydantic import Field, FiniteFloat

from bench.schema import Prefixed, Recipe, Rule, Text, Value

__all__ = ["FiniteFloat", "Method", "Seed", "Share", "Text", "logits", "merged", "prompted", "weights"]

Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Method(Value):
    """A way of combining checkpoints.  Its fields are its parameters; `recipe` is all it must define.

    A suite gives every field a value or a list of values to sweep.  `source` names the paper and equation, `formula` is
    what is computed, `mixes` in which space, and `models_per_token` how many models run for a token.
    """

    source: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    mixes: ClassVar[str] = "weights"
    models_per_token: ClassVar[str] = "1"

    def recipe(self) -> Recipe:
        """The mixture these parameters stand for."""
        raise NotImplementedError


def weights(**coefficients: float) -> Recipe:
    """theta = sum_i c_i theta_i."""
    return Recipe(space="weights", coefficients=coefficients)


def merged(rule: str, seed: int | None = None, /, *, of: dict[str, float], **params: float | str) -> Recipe:
    """What a rule of `bench.engines.mixing` makes of each tensor of these checkpoints by these coefficients."""
    return Recipe(space="weights", coefficients=of, rule=Rule(name=rule, params=params, seed=seed))


def logits(filter_p: float | None = None, **coefficients: float) -> Recipe:
    """z = sum_i c_i z_i."""
    return Recipe(space="logits", coefficients=coefficients, filter_p=filter_p)


def prompted(text: str, **coefficients: float) -> Recipe:
    """z = sum_i c_i z_i, where the member `prompted` is the base that reads a text before every prompt."""
    prefixes = {"prompted": Prefixed(checkpoint="base", text=text)}
    return Recipe(space="logits", coefficients=coefficients, prefixes=prefixes)
