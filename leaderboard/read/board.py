"""A board: one suite on one engine with everything the pages show, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.schema import Goal, Number, Recipe, TensorDistance
from bench.stats import Floats, Transform, transformed
from bench.store.values import StoredMixture, StoredRun
from leaderboard.numbers import plain

ALL = ""  # the prompt set that stands for all prompts; NULL in the view


@dataclass(frozen=True)
class Place:
    """A point on the board: a method, its parameters, and the mixture they stand for."""

    id: int
    method: str
    params: Mapping[str, Any]
    params_json: str
    recipe: Recipe
    generation_id: int | None
    store: int = 0
    database: str = ""

    @property
    def label(self) -> str:
        inside = ", ".join(f"{key}={plain(value)}" for key, value in self.params.items())
        return f"{self.method}({inside})" if inside else self.method

    @property
    def displacement(self) -> float:
        """How far along theta+ - theta-: half the difference of the experts' coefficients; alpha of g2."""
        mixed = self.recipe.coefficients
        return (mixed.get("expert", 0.0) - mixed.get("antiexpert", 0.0)) / 2

    @property
    def identity(self) -> tuple[str, str]:
        return self.method, self.params_json


@dataclass(frozen=True)
class MetricInfo:
    name: str
    direction: str = "neutral"
    unit: str = ""
    description: str = ""
    of_text: bool = True  # judged on completions; else on the model itself, where prompt sets mean nothing


@dataclass(frozen=True)
class PerPrompt:
    """The sums behind one metric for every place: T(sum numerators / sum denominators) over prompts.

    `numerators`, `denominators`: (places, prompts), NaN where a place was not judged on a prompt.  `sets`: (prompts,);
    `inputs`: each prompt's set, row and text.
    """

    sets: NDArray[np.str_]
    numerators: Floats
    denominators: Floats
    transform: Transform
    inputs: tuple[tuple[str, int, str], ...] = ()

    def values(self, weights: Floats) -> Floats:
        """weights (draws, prompts) -> the metric (draws, places); NaN where a place cannot be estimated."""
        unknown = np.isnan(self.denominators).any(axis=1, keepdims=True)  # (places, 1)
        below = weights @ np.where(unknown, 0.0, self.denominators).T
        above = weights @ np.where(unknown, 0.0, self.numerators).T
        ratio = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
        return np.asarray(transformed(ratio, self.transform))

    def part(self, places: Sequence[int], prompts: NDArray[np.bool_]) -> "PerPrompt":
        """These places over these prompts alone."""
        wanted = np.ix_(np.asarray(places, dtype=np.int64), np.flatnonzero(prompts))
        return PerPrompt(self.sets[prompts], self.numerators[wanted], self.denominators[wanted], self.transform)

    def rows(self, prompts: str) -> NDArray[np.bool_]:
        return np.ones(len(self.sets), bool) if prompts == ALL else np.asarray(self.sets == prompts)


@dataclass(frozen=True)
class Run(StoredRun):
    database: str


@dataclass(frozen=True)
class Repeat:
    """A point of the board that another database has too: what that one found, over all prompts."""

    place: int  # index into the board's places
    database: str
    results: Mapping[str, Number]


@dataclass(frozen=True)
class Protocol:
    """What must agree before two databases' numbers may stand in one table."""

    sampling: str
    dtype: str
    checkpoints: Mapping[str, str]
    evaluators: Mapping[str, str]
    prompts: Mapping[str, int]
    data: Mapping[str, str] = field(default_factory=dict)  # evaluator -> digests of its models and files
    texts: str = ""  # digest of the prompts


@dataclass(frozen=True)
class Board:
    """One suite on one engine, from one or more databases that agree."""

    suite: str
    engine: str
    databases: tuple[str, ...]
    definition: Mapping[str, Any]
    protocol: Protocol
    places: tuple[Place, ...]
    metrics: Mapping[str, MetricInfo]
    results: Mapping[tuple[int, str, str], Number]  # (index into places, metric, prompt set)
    rows: tuple[tuple[Any, ...], ...]  # the view's rows as they are
    runs: tuple[Run, ...]
    overhead: tuple[Mapping[str, Any], ...]
    overhead_elsewhere: Mapping[str, tuple[Mapping[str, Any], ...]]  # the suite's ledgers on other engines
    mixtures: Mapping[int, StoredMixture]
    per_prompt: Mapping[str, PerPrompt] = field(default_factory=dict)
    n_completions: int = 0
    samples: int = 0
    notes: tuple[str, ...] = ()
    parity: tuple[Mapping[str, Any], ...] = ()  # reports that compare engines on this suite
    distances: tuple[TensorDistance, ...] = ()  # between the suite's checkpoints, tensor by tensor
    chosen: int = 0  # of the suite's goals
    repeats: tuple[Repeat, ...] = ()  # a point's own numbers are those of the first database that has it

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        return tuple(map(Goal.model_validate, self.definition.get("goal") or [{}]))

    @property
    def goal(self) -> Goal:
        return self.goals[self.chosen]

    @property
    def columns(self) -> tuple[str, ...]:
        """The goal's metrics that were measured."""
        return tuple(name for name in self.goal.metrics if name in self.metrics)

    def get(self, place: int, metric: str, prompts: str = ALL) -> Number | None:
        return self.results.get((place, metric, prompts))

    def value(self, place: int, metric: str, prompts: str = ALL) -> float | None:
        found = self.get(place, metric, prompts)
        return None if found is None else found.value

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """The prompt sets, in the suite's order; those that only results know come last."""
        named = list(self.definition.get("prompts", {}))
        stored = sorted({prompts for _, _, prompts in self.results if prompts})
        return tuple(name for name in [*named, *(s for s in stored if s not in named)] if name in stored)

    @cached_property
    def base(self) -> int | None:
        """The place of the unmixed base, if it was measured: weights recipes first."""
        found = [i for i, place in enumerate(self.places) if place.recipe.coefficients == {"base": 1.0}]
        return min(found, key=lambda i: (self.places[i].recipe.space != "weights", i), default=None)

    @property
    def title(self) -> str:
        return str(self.definition.get("title") or self.suite)
