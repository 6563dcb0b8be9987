"""What an engine must do: serve a mixture, and let the served model generate and be probed.

An engine knows two operations, a mixture in weight space and one in logit space, and no method by name.  It holds all
checkpoints of a suite; `serve` changes the mixture in place, so a model served earlier is then no longer valid.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.progress import Advance, silent
from bench.schema import Completion, Prompt, Recipe, Sampling
from bench.suite.checkpoints import Checkpoint


class NotFiniteError(ArithmeticError):
    """A mixture whose numbers are no numbers: its point fails, and the others go on."""


def sweep_of(recipe: Recipe) -> str | None:
    """The same for mixtures of logits that differ in the values of their coefficients alone; None for all others."""
    if recipe.space != "logits" or recipe.draft is not None:
        return None
    return recipe.model_copy(update={"coefficients": dict.fromkeys(recipe.coefficients, 1.0)}).model_dump_json()


class ServedModel(Protocol):
    """A mixture that is ready to run."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent) -> list[Completion]:
        """`sampling.samples` completions of each prompt, ordered by prompt, then sample."""
        ...

    def decode(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        """Draw exactly `sampling.max_new_tokens` tokens for every row, past any end-of-text token, and keep none.

        All rows are one batch.  Returns the number of tokens drawn when the device has finished: what is timed.
        """
        ...

    def token_logprobs(self, texts: Sequence[str], advance: Advance = silent) -> list[NDArray[np.float32]]:
        """log P(token | tokens before) of every token of every text; the first follows the end-of-text token.

        One (T,) float32 array a text, T its number of tokens; nats.
        """
        ...

    def next_token_logprobs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """log P(next token | text), nats.  Returns (N, V) float32."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """The text's tokens, without special ones."""
        ...

    def context_length(self) -> int:
        """Most tokens of a text, the end-of-text token before it included."""
        ...


@runtime_checkable
class Drafting(Protocol):
    """A served model with a draft: how many tokens it proposes at once; how many were judged so far, and accepted."""

    k: int | None  # None until it is known
    accepted: int
    judged: int

    def overlap(self, texts: Sequence[str], sampling: Sampling) -> float:
        """sum_x min(p(x), q(x)), mean over texts, p and q what the ensemble and the draft draw the next token from.

        The probability that a drafted token is accepted (Leviathan et al. 2023, arXiv 2211.17192, corollary 3.6).
        """
        ...


class Engine(Protocol):
    """One live engine for all points of a suite."""

    name: ClassVar[str]
    version: ClassVar[int]  # raised when the same request would give other completions

    def __init__(self, checkpoints: Mapping[str, Checkpoint], dtype: str, device: str) -> None: ...

    def serve(self, recipe: Recipe) -> ServedModel:
        """Mix in place.  Raises UserError for a recipe that this engine cannot serve."""
        ...

    def sweep(
        self, recipes: Sequence[Recipe], prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent
    ) -> list[list[Completion]]:
        """The completions of each of some recipes of one `sweep_of`, as each alone has them; on a GPU and on vLLM, but
        for rounding.
        """
        ...

    def mixtures_per_batch(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        """How many mixtures of a sweep are best completed by one call of `sweep`; 1 where that gains nothing."""
        ...

    def survived_update(self) -> float | None:
        """Of the last weights mixture: the share of the update to the base's weights left after rounding to dtype."""
        ...

    def batches(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """The places of the prompts that are completed together.

        Prompts cut between batches, in this order, are completed to the last bit as all are in one call.
        """
        ...

    def context_length(self) -> int:
        """Most tokens of a prompt and its completion together."""
        ...

    def close(self) -> None: ...
