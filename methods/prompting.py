"""The base steered by what it reads: alone, or against itself without the text."""

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, Text, prompted


class Prompt(Method):
    """The base with a text before every prompt: what control costs where nothing is trained."""

    source = "the baseline of every method here; system prompts are its present form"
    formula = "z0(text, prompt)"
    mixes = "logits"
    text: Text

    def recipe(self) -> Recipe:
        return prompted(self.text, prompted=1)


class Cfg(Method):
    """Classifier-free guidance: from the base without the text to the base with it, and beyond; alpha 1 is `prompt`."""

    source = "Sanchez et al. 2023, arXiv 2306.17806: guidance of next-token logits"
    formula = "z0(prompt) + alpha (z0(text, prompt) - z0(prompt))"
    mixes = "logits"
    models_per_token = "2"
    alpha: FiniteFloat
    text: Text

    def recipe(self) -> Recipe:
        return prompted(self.text, base=1 - self.alpha, prompted=self.alpha)


class Preadd(Method):
    """PREADD: away from what the base says behind a text that calls for what is not wanted."""

    source = "Pei et al. 2023, arXiv 2307.03214: the logits of prefix-adaptive decoding"
    formula = "z0(prompt) - alpha (z0(text, prompt) - z0(prompt))"
    mixes = "logits"
    models_per_token = "2"
    alpha: FiniteFloat
    text: Text

    def recipe(self) -> Recipe:
        return prompted(self.text, base=1 + self.alpha, prompted=-self.alpha)
