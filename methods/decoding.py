"""Other mixtures of next-token distributions: two checkpoints' logits or probabilities, and three of two sizes."""

from typing import Annotated

from pydantic import Field

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, Share, logits


class Dera(Method):
    """Decoding-time realignment: between the base's logits and the expert's, and beyond."""

    source = "Liu et al. 2024, arXiv 2402.02992: the autoregressive approximation of DeRa"
    formula = "(1 - alpha) z0 + alpha z+"
    mixes = "logits"
    models_per_token = "2"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return logits(base=1 - self.alpha, expert=self.alpha)


class Mod(Method):
    """Multi-objective decoding of two experts: g1 with logits in place of weights."""

    source = "Shi et al. 2024, arXiv 2406.18853: the policy for reverse KL, in logits"
    formula = "alpha z+ + (1 - alpha) z-"
    mixes = "logits"
    models_per_token = "2"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return logits(expert=self.alpha, antiexpert=1 - self.alpha)


class Probs(Method):
    """The experts' probabilities averaged, as language models have been interpolated since the beginning."""

    source = "Jelinek and Mercer 1980, interpolated estimation; Stone 1961, the linear opinion pool"
    formula = "alpha p+ + (1 - alpha) p-, 0 <= alpha <= 1"
    mixes = "probs"
    models_per_token = "2"
    alpha: Annotated[float, Field(ge=0, le=1)]

    def recipe(self) -> Recipe:
        return Recipe(space="probs", coefficients={"expert": self.alpha, "antiexpert": 1 - self.alpha})


class Contrastive(Method):
    """The expert against the anti-expert, among the tokens that the expert finds plausible."""

    source = "Li et al. 2023, arXiv 2210.15097, with its plausibility; so written O'Brien and Lewis 2023, 2309.09117"
    formula = "(1 + alpha) z+ - alpha z-, where p+ >= plausible max p+"
    mixes = "logits"
    models_per_token = "2"
    alpha: FiniteFloat
    plausible: Share = 0.1

    def recipe(self) -> Recipe:
        both = {"expert": 1 + self.alpha, "antiexpert": -self.alpha}
        return Recipe(space="logits", coefficients=both, plausible=self.plausible)


class ProxyTuning(Method):
    """A model that was never tuned, `target`, moved by what tuning did to another, from base to expert."""

    source = "Liu et al. 2024, arXiv 2401.08565, equation 1"
    formula = "z_target + alpha (z+ - z0)"
    mixes = "logits"
    models_per_token = "3"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return logits(target=1, expert=self.alpha, base=-self.alpha)
