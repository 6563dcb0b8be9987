"""The unmixed checkpoints: the reference points of every comparison."""

from bench.schema import Recipe
from methods.base import Method, weights


class Base(Method):
    """The pre-trained model theta0 alone."""

    source = "arXiv 2211.12092, section 3"
    formula = "theta0"

    def recipe(self) -> Recipe:
        return weights(base=1)


class Expert(Method):
    """The expert theta+ alone."""

    source = "arXiv 2211.12092, section 3.1"
    formula = "theta+"

    def recipe(self) -> Recipe:
        return weights(expert=1)


class Antiexpert(Method):
    """The anti-expert theta- alone."""

    source = "arXiv 2211.12092, section 3.1"
    formula = "theta-"

    def recipe(self) -> Recipe:
        return weights(antiexpert=1)
