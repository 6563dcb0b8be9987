"""Pure: Suite -> points, and the content keys under which their work is stored.

A key is the SHA-256 of canonical JSON over bytes and settings, never over names or places, so that equal work has
equal keys whoever asks for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from bench.registry import Registry, explain
from bench.schema import Point, Prompt, Recipe, Sampling, Suite, UserError, canonical_json


def plan_points(suite: Suite, methods: Registry[Any], only: Sequence[str] = ()) -> list[Point]:
    """Every method at every combination of its parameters, in the suite's order, each once.

    Raises UserError if `only` names a method that the suite lacks, or a recipe names a checkpoint that it lacks.
    """
    listed = [spec.name for spec in suite.methods]
    for name in only:
        if name not in listed:
            raise UserError(f"--only {name}: suite {suite.name} has the methods {', '.join(dict.fromkeys(listed))}")
    points: dict[str, Point] = {}
    for spec in suite.methods:
        if only and spec.name not in only:
            continue
        for values in product(*spec.params.values()):
            params = dict(zip(spec.params, values, strict=True))
            method = methods.create(spec.name, params)
            try:
                recipe = method.recipe()
            except ValidationError as error:
                raise explain(error, f"suite {suite.name}: {spec.name} with {params}") from error
            point = Point(method=spec.name, params=params, recipe=recipe)
            _require_checkpoints(point, suite)
            points.setdefault(point.key, point)
    return list(points.values())


def _require_checkpoints(point: Point, suite: Suite) -> None:
    for name in point.recipe.coefficients:
        if name not in suite.checkpoint_names:
            known = ", ".join(suite.checkpoint_names)
            raise UserError(
                f"suite {suite.name}: {point.label} mixes checkpoint {name!r}, which checkpoints lacks; it has {known}"
            )


def key_of(*parts: Any) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def mixture_key(engine: str, version: int, dtype: str, recipe: Recipe, digests: Mapping[str, str]) -> str:
    """Key of a served mixture: engine, dtype, and each coefficient on its checkpoint's bytes."""
    members = sorted((digests[name], value) for name, value in recipe.coefficients.items())
    base = digests["base"] if recipe.filter_p is not None else None
    return key_of("mixture", engine, version, dtype, recipe.space, members, recipe.filter_p, base)


def generation_key(mixture: str, prompts: Sequence[Prompt], sampling: Sampling) -> str:
    texts = [(p.set, p.row, p.text) for p in prompts]
    return key_of("generation", mixture, texts, sampling.model_dump(mode="json"))


def evaluation_key(subject: str, evaluator: str, version: int, options: Mapping[str, Any], data: Sequence[str]) -> str:
    """Key of an evaluator's verdict on a generation or a mixture; `data` are the digests of its models and files."""
    return key_of("evaluation", subject, evaluator, version, options, list(data))
