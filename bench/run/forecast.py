"""How much room and time a suite will take, said before it starts.

Room: what completions with their scores were measured to take (docs/STORAGE.md).  Time: at the rates of this suite's
earlier runs in the same database; where there are none, time is unknown, and a short run makes it known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.schema import PromptSource, Recipe, Sampling
from bench.store.read import Reader

BYTES_PER_TOKEN = 4.5  # of English text in GPT-2's tokens
BYTES_BESIDE_TEXT = 85  # keys, counts and three scores


@dataclass(frozen=True)
class Rates:
    """What earlier runs took.  A model token is one token through one model: a mixture of n logits makes n a token."""

    model_tokens_per_s: float
    tokens_per_completion: float
    judging_s_per_completion: float
    probing_s_per_mixture: float


def measured_rates(store: Reader, suite: str, engine: str, asked: Sequence[tuple[str, str]]) -> Rates | None:
    """The rates of this suite's stored points on an engine, shortened runs (`suite-4prompts`) included; or None.

    `asked`: name and options (canonical JSON) of the evaluators that look at every mixture.
    """
    generated = store.generation_costs(suite, engine)
    seconds, completions = sum(one.duration_s for one in generated), sum(one.n_completions for one in generated)
    if not seconds or not completions:
        return None
    passed = sum(one.n_tokens * one.recipe.models_per_token for one in generated)
    tokens = sum(one.n_tokens for one in generated)
    judging, probing = store.judging_s(suite, engine, asked), store.probing_s(suite, engine, asked)
    return Rates(passed / seconds, tokens / completions, judging, probing)


def seconds_to_serve(recipes: Sequence[Recipe], completions_per_mixture: int, rates: Rates) -> float:
    """Generating and probing."""
    tokens = completions_per_mixture * rates.tokens_per_completion
    generating = tokens * sum(recipe.models_per_token for recipe in recipes) / rates.model_tokens_per_s
    return generating + len(recipes) * rates.probing_s_per_mixture


def seconds_to_judge(mixtures: int, completions_per_mixture: int, rates: Rates) -> float:
    return completions_per_mixture * mixtures * rates.judging_s_per_completion


def bytes_to_do(n_completions: int, sampling: Sampling) -> float:
    """Room in the database at most: every completion as long as the sampling allows."""
    return n_completions * (BYTES_BESIDE_TEXT + BYTES_PER_TOKEN * sampling.max_new_tokens)


def declared_prompts(sets: Sequence[PromptSource], limit: int | None) -> int | None:
    """How many prompts these sets hold at most by their own limits, for when they are not here; None: one has none."""
    counts = [min((n for n in (limit, source.limit) if n is not None), default=None) for source in sets]
    return None if None in counts else sum(n for n in counts if n is not None)


def megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
