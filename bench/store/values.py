"""What the store hands out beside the nouns of `bench.schema`: stored work with its ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.schema import Recipe, Sampling, Share


@dataclass(frozen=True)
class StoredMixture:
    """`checkpoints`: name -> SHA-256 of the bytes that were mixed."""

    id: int
    key: str
    engine: str
    dtype: str
    recipe: Recipe
    checkpoints: Mapping[str, str]
    survived_update: float | None


@dataclass(frozen=True)
class StoredPoint:
    """A place of a suite on an engine and what stands for it; `params_json` is how the views show its parameters."""

    id: int
    engine: str
    method: str
    params_json: str
    params: Mapping[str, Any]
    generation_id: int | None
    failed: str | None
    mixture: StoredMixture

    @property
    def name(self) -> str:
        return point_name(self.method, self.params_json)


def point_name(method: str, params_json: str) -> str:
    """A point's method and parameters as one name."""
    return method if params_json == "{}" else f"{method} {params_json}"


@dataclass(frozen=True)
class StoredSuite:
    """A suite on one engine."""

    id: int
    name: str
    definition: Mapping[str, Any]
    engine: str


@dataclass(frozen=True)
class StoredGeneration:
    id: int
    key: str
    mixture_id: int
    sampling: Sampling
    n_prompts: int
    n_completions: int
    n_tokens: int
    duration_s: float


@dataclass(frozen=True)
class StoredEvaluation:
    """`options` is canonical JSON; `data` are the digests of the models and files behind the verdict."""

    id: int
    key: str
    evaluator: str
    version: int
    options: str
    data: tuple[str, ...]
    mixture_id: int
    generation_id: int | None


@dataclass(frozen=True)
class StoredRun:
    command: str
    started_at: str
    finished_at: str | None
    environment: Mapping[str, Any]
    digest: str
    workers: tuple[Share, ...]


@dataclass(frozen=True)
class TimedSuite:
    """An engine on which a suite's ledger was timed: when last, with which environment and command."""

    suite_id: int
    engine: str
    timed_at: str
    environment: Mapping[str, Any]
    command: str


class ResultRow(NamedTuple):
    """A row of the view `results`."""

    suite: str
    engine: str
    method: str
    params: str
    prompts: str | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_scored: int
    n_total: int


class ScoreRow(NamedTuple):
    metric: str
    set: str
    row: int
    sample: int
    value: float | None
    reason: str | None


class SumsRow(NamedTuple):
    metric: str
    set: str
    row: int
    text: str
    numerator: float
    denominator: float
    n_scored: int
    n_total: int


class ShownCompletion(NamedTuple):
    """`prompt` indexes the prompts that were asked for."""

    prompt: int
    sample: int
    text: str
    n_tokens: int
    finish_reason: str
    score: float | None
