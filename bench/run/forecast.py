"""How much room and time a suite will take, said before it starts.

Room: what completions with their scores were measured to take (docs/STORAGE.md).  Time: at the rates of this suite's
earlier runs in the same database; where there are none, time is unknown, and a short run makes it known.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.schema import PromptSource, Recipe, Sampling
from bench.store.write import Store

BYTES_PER_TOKEN = 4.5  # of English text in GPT-2's tokens
BYTES_BESIDE_TEXT = 85  # keys, counts and three scores


@dataclass(frozen=True)
class Rates:
    """What earlier runs took.  A model token is one token through one model: a mixture of n logits makes n a token."""

    model_tokens_per_s: float
    tokens_per_completion: float
    judging_s_per_completion: float
    probing_s_per_mixture: float


def measured_rates(store: Store, suite: str, engine: str, asked: Sequence[tuple[str, str]]) -> Rates | None:
    """The rates of this suite's stored points on an engine, shortened runs (`suite-4prompts`) included; or None.

    `asked`: name and options (canonical JSON) of the evaluators that look at every mixture.
    """
    points = (
        "(SELECT DISTINCT generation_id, mixture_id FROM points JOIN suites ON suites.id = suite_id "
        "WHERE engine = ? AND (name = ? OR name GLOB ? || '-[0-9]*prompts'))"
    )
    whose = [engine, suite, suite]
    named = "(evaluator, options) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
    wanted = [*whose, json.dumps(asked)]
    generated = store.db.execute(
        f"SELECT recipe, n_tokens, n_completions, duration_s FROM {points} AS found "
        "JOIN generations ON generations.id = found.generation_id JOIN mixtures ON mixtures.id = found.mixture_id",
        whose,
    ).fetchall()
    seconds, completions = sum(row[3] for row in generated), sum(row[2] for row in generated)
    if not seconds or not completions:
        return None
    passed = sum(row[1] * Recipe.model_validate_json(row[0]).models_per_token for row in generated)
    # One judge at a time: the mean over what each has judged, summed over judges.
    judging = store.db.execute(
        "SELECT SUM(spent / judged) FROM (SELECT SUM(evaluations.duration_s) AS spent, SUM(n_completions) AS judged "
        f"FROM {points} AS found JOIN evaluations USING (generation_id) JOIN generations "
        f"ON generations.id = generation_id WHERE {named} GROUP BY evaluator, options)",
        wanted,
    ).fetchone()[0]
    probing = store.db.execute(
        f"SELECT SUM(mean) FROM (SELECT AVG(duration_s) AS mean FROM {points} AS found "
        "JOIN evaluations ON evaluations.mixture_id = found.mixture_id AND evaluations.generation_id IS NULL "
        f"WHERE {named} GROUP BY evaluator, options)",
        wanted,
    ).fetchone()[0]
    tokens = sum(row[1] for row in generated)
    return Rates(passed / seconds, tokens / completions, judging or 0.0, probing or 0.0)


def seconds_to_do(recipes: Sequence[Recipe], completions_per_mixture: int, rates: Rates) -> float:
    """Generating, judging and probing these mixtures."""
    tokens = completions_per_mixture * rates.tokens_per_completion
    generating = tokens * sum(recipe.models_per_token for recipe in recipes) / rates.model_tokens_per_s
    judging = completions_per_mixture * len(recipes) * rates.judging_s_per_completion
    return generating + judging + len(recipes) * rates.probing_s_per_mixture


def bytes_to_do(n_completions: int, sampling: Sampling) -> float:
    """Room in the database at most: every completion as long as the sampling allows."""
    return n_completions * (BYTES_BESIDE_TEXT + BYTES_PER_TOKEN * sampling.max_new_tokens)


def declared_prompts(sets: Sequence[PromptSource], limit: int | None) -> int | None:
    """How many prompts these sets hold at most by their own limits, for when they are not here; None: one has none."""
    counts = [min((n for n in (limit, source.limit) if n is not None), default=None) for source in sets]
    return None if None in counts else sum(n for n in counts if n is not None)


def megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
