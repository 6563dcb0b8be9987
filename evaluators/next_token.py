"""Probability of chosen words right after a prompt, under the served model (arXiv 2211.12092, figure 4)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Estimate, Metric
from bench.serving import ServedModel
from evaluators.base import Judgement, ProbeEvaluator

WORDS = ("great", "good", "amazing", "wonderful", "bad", "terrible", "awful", "boring")


class NextToken(ProbeEvaluator):
    """`next_token[WORD]`: the probability that the prompt goes on with a space and the word.

    A word of several tokens gets the product of P(token | prompt, tokens before) along them, so it is never above the
    probability of its first token.  The context is the prompt as in generation, without an end-of-text token before it.
    The numbers are exact, so they have no interval.
    """

    source = "arXiv 2211.12092, section 4.1 and figure 4"
    prompt: str = Field(default="The movie was", min_length=1, description="the text before the word")
    words: tuple[str, ...] = Field(default=WORDS, min_length=1, description="the words, without the space before them")

    def metrics(self) -> tuple[Metric, ...]:
        return tuple(
            self.metric(f"next_token[{word}]", "neutral", "probability", f"P({word!r} after {self.prompt!r})")
            for word in dict.fromkeys(self.words)
        )

    def probe(self, model: ServedModel, advance: Advance = silent) -> Judgement:
        paths = {word: token_path(model, self.prompt, f" {word}") for word in self.words}
        contexts = list(dict.fromkeys(text for path in paths.values() for text, _ in path or ()))
        logprobs = model.next_token_logprobs(contexts) if contexts else np.zeros((0, 0), np.float32)
        rows = dict(zip(contexts, logprobs, strict=True))
        advance(len(self.words))
        return Judgement(estimates=[self._estimate(word, path, rows) for word, path in paths.items()])

    def _estimate(
        self, word: str, path: Sequence[tuple[str, int]] | None, rows: dict[str, NDArray[np.float32]]
    ) -> Estimate:
        name = self.named(f"next_token[{word}]")
        if path is None:
            return Estimate(metric=name, prompts=None, value=None, n_scored=0, n_total=1,
                            reason=f"the tokens of {word!r} cannot be told apart from the prompt's")  # fmt: skip
        value = math.exp(math.fsum(float(rows[text][token]) for text, token in path))
        return Estimate(metric=name, prompts=None, value=value, n_scored=1, n_total=1)


def token_path(model: ServedModel, prompt: str, continuation: str) -> list[tuple[str, int]] | None:
    """(text before, next token) for each token of the continuation.

    None where some token does not end at a character, or a shorter text is tokenised otherwise than the whole.
    """
    text = prompt + continuation
    ids = model.token_ids(text)
    shorter = {tuple(model.token_ids(text[:end])): text[:end] for end in range(len(prompt), len(text))}
    start = len(model.token_ids(prompt))
    befores = [shorter.get(tuple(ids[:place])) for place in range(start, len(ids))]
    if not befores or befores[0] != prompt or None in befores:
        return None
    return [(before, token) for before, token in zip(befores, ids[start:], strict=True) if before is not None]
