"""Mixing logits at every decoding step: DExperts, and g3's twin in logit space."""

from typing import Annotated, Literal

from pydantic import Field

from bench.schema import Draft, Recipe, UserError
from methods.base import FiniteFloat, Method, logits


class DExperts(Method):
    """The base's logits steered by the difference of two experts'.

    Candidates are the nucleus of the mixture (arXiv 2211.12092); with `filter_p` the base's before mixing (the DExperts
    release).  With `draft`, g2 drafts `k` tokens (4; `auto`: as many as pay) for one pass to verify: other draws of one
    distribution, sooner.
    """

    source = "Liu et al. 2021, DExperts, equation 2; arXiv 2211.12092, section 3.2"
    formula = "z0 + alpha (z+ - z-)"
    mixes = "logits"
    models_per_token = "3"
    alpha: FiniteFloat
    filter_p: Annotated[float, Field(gt=0, le=1)] | None = None
    draft: Literal["g2"] | None = None
    k: Annotated[int, Field(ge=1, le=32)] | Literal["auto"] | None = None

    def recipe(self) -> Recipe:
        if self.k is not None and self.draft is None:
            raise UserError("dexperts: k counts the tokens that a draft proposes; give draft: g2 as well")
        mixed = {"base": 1.0, "expert": self.alpha, "antiexpert": -self.alpha}
        draft = None if self.draft is None else Draft(coefficients=mixed, k=4 if self.k is None else self.k)
        return Recipe(space="logits", coefficients=mixed, filter_p=self.filter_p, draft=draft)


class LogitG3(Method):
    """g3 with logits in place of weights."""

    source = "the logit-space twin of arXiv 2211.12092, equation 4"
    formula = "(1 - alpha - beta) z0 + alpha z+ + beta z-"
    mixes = "logits"
    models_per_token = "3"
    alpha: FiniteFloat
    beta: FiniteFloat

    def recipe(self) -> Recipe:
        return logits(base=1 - self.alpha - self.beta, expert=self.alpha, antiexpert=self.beta)
