"""Pure: the content keys under which work is stored.

A key is the SHA-256 of canonical JSON over bytes and settings, never over names or places, so that equal work has
equal keys whoever asks for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from bench.schema import STEERING, Prompt, Recipe, Sampling, canonical_json


def key_of(*parts: Any) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def mixture_key(engine: str, version: int, dtype: str, recipe: Recipe, digests: Mapping[str, str]) -> str:
    """Key of a served mixture: engine, dtype, and each coefficient on its checkpoint's bytes.

    What a plain sum has not stands behind: a member's prefix behind its coefficient, a rule, a mask, a draft or a
    steering vector behind all, with the bytes of the checkpoint that plays a part in it.
    """
    read = {name: (prefixed.text,) for name, prefixed in recipe.prefixes.items()}
    members = sorted(
        (digests[source], recipe.coefficients[name], *read.get(name, ())) for name, source in recipe.checkpoints.items()
    )
    base = digests["base"] if recipe.filter_p is not None else None
    beyond: list[Any] = []
    if recipe.rule is not None:
        origin = digests["base"] if "base" in recipe.coefficients else None
        beyond.append(("rule", recipe.rule.model_dump(mode="json"), origin))
    if recipe.plausible is not None:
        beyond.append(("plausible", recipe.plausible, digests[recipe.checkpoints["expert"]]))
    if recipe.draft is not None:
        drafting = sorted((digests[name], value) for name, value in recipe.draft.coefficients.items())
        beyond.append(("draft", drafting, recipe.draft.k))
    if recipe.steering is not None:
        beyond.append(("steering", recipe.steering.model_dump(mode="json"), recipe.coefficients[STEERING]))
    return key_of("mixture", engine, version, dtype, recipe.space, members, recipe.filter_p, base, *beyond)


def generation_key(mixture: str, prompts: Sequence[Prompt], sampling: Sampling, shard: int | None = None) -> str:
    """`shard`: how many prompts are completed in one call, for an engine whose completions depend on it."""
    texts = [(p.set, p.row, p.text) for p in prompts]
    beyond = [] if shard is None else [("shard", shard)]
    return key_of("generation", mixture, texts, sampling.model_dump(mode="json"), *beyond)


def evaluation_key(subject: str, evaluator: str, version: int, options: Mapping[str, Any], data: Sequence[str]) -> str:
    """Key of an evaluator's verdict on a generation or a mixture; `data` are the digests of its models and files."""
    return key_of("evaluation", subject, evaluator, version, options, list(data))
