"""Pure: Suite -> points, every method at every combination of its parameters."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.registry import Registry, explain
from bench.schema import Point, Suite, UserError

MAX_POINTS = 100_000  # of one method


def plan_points(suite: Suite, methods: Registry[Any], only: Sequence[str] = ()) -> list[Point]:
    """Every method at every combination of its parameters, in the suite's order, each once.

    Raises UserError if `only` names a method that the suite lacks, a recipe names a checkpoint that it lacks, or the
    sweeps span more than MAX_POINTS.
    """
    listed = [spec.name for spec in suite.methods]
    for name in only:
        if name not in listed:
            raise UserError(f"--only {name}: suite {suite.name} has the methods {', '.join(dict.fromkeys(listed))}")
    require_countable(suite)
    suite = canonical(suite, methods)
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


def canonical(suite: Suite, methods: Registry[Any]) -> Suite:
    """The suite with every parameter as its method holds it: 1 and 1.0, 0 and -0.0, 0.3 and 0.1 + 0.2 are one value.

    Raises UserError for an unknown method; ValidationError for a value that it does not take.
    """
    specs = []
    for spec in suite.methods:
        cls = methods.get(spec.name)
        swept = {key: tuple(dict.fromkeys(held(cls, key, v) for v in values)) for key, values in spec.params.items()}
        specs.append(spec.model_copy(update={"params": swept}))
    return suite.model_copy(update={"methods": tuple(specs)})


def held(cls: type[BaseModel], key: str, value: Any) -> Any:
    """A method's parameter as the method holds it: of its own type, a float with 12 decimals and never -0.0."""
    method = cls.model_construct()
    cls.__pydantic_validator__.validate_assignment(method, key, value)
    found = getattr(method, key)
    return round(found, 12) + 0.0 if isinstance(found, float) else found


def require_countable(suite: Suite) -> None:
    """Raise UserError where a method spans more points than anyone can run, before any is made."""
    for spec in suite.methods:
        if (n := math.prod(map(len, spec.params.values()))) > MAX_POINTS:
            axes = " x ".join(f"{len(values):,} {name}" for name, values in spec.params.items())
            raise UserError(f"suite {suite.name}: {spec.name} spans {n:,} points ({axes}), more than {MAX_POINTS:,}")


def _require_checkpoints(point: Point, suite: Suite) -> None:
    for name in point.recipe.checkpoints.values():
        if name not in suite.checkpoint_names:
            known = ", ".join(suite.checkpoint_names)
            raise UserError(
                f"suite {suite.name}: {point.label} mixes checkpoint {name!r}, which checkpoints lacks; it has {known}"
            )
