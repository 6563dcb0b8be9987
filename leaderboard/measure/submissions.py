"""Pure: who measured what, when and on what, and how far apart the same point is in several hands.

A database is called `NAME.anything`; NAME is who handed it in.  The spread is over whole runs: where engine and seed
are the same, texts are too, and what is left is the machines' arithmetic; else it is sampling noise.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.schema import Number
from leaderboard.read.board import Board


@dataclass(frozen=True)
class Submission:
    """One database of a board.  `first`: its points that no earlier database has; `again`: those that one has."""

    database: str
    measured: str
    hardware: str
    versions: str
    first: int
    again: int
    methods: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        return self.database.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True)
class Spread:
    """One metric of one point in several databases: the first's number, the least and the largest value of all, and in
    how many of the others it lies outside the first's interval."""

    place: int
    n: int
    first: Number
    low: float
    high: float
    outside: int

    @property
    def width(self) -> float:
        return self.high - self.low


def handed_in(board: Board) -> list[Submission]:
    """Every database, in the order that decides whose numbers are shown."""
    first = Counter(place.database for place in board.places)
    again = Counter(repeat.database for repeat in board.repeats)
    brought: dict[str, set[tuple[str, str]]] = {}
    measured = [*((place.database, place) for place in board.places),
                *((repeat.database, board.places[repeat.place]) for repeat in board.repeats)]  # fmt: skip
    for database, place in measured:
        brought.setdefault(database, set()).add((place.method, place.recipe.space))
    found = []
    for database in board.databases:
        runs = [run for run in board.runs if run.database == database]
        env = runs[-1].environment if runs else {}
        days = [run.finished_at or run.started_at for run in runs]
        methods, spaces = ({pair[k] for pair in brought.get(database, ())} for k in (0, 1))
        found.append(
            Submission(database, max(days, default="")[:10], hardware(env), _versions(env), first[database],
                       again[database], tuple(sorted(methods)), tuple(sorted(spaces)))
        )  # fmt: skip
    return found


def hardware(env: Mapping[str, Any]) -> str:
    """Device and processor of a run's environment."""
    return ", ".join(str(part) for part in (env.get("device"), env.get("processor")) if part)


def _versions(env: Mapping[str, Any]) -> str:
    packages = env.get("packages", {})
    return ", ".join(f"{name} {packages[name]}" for name in ("lerpbench", "torch", "vllm") if name in packages)


def spreads(board: Board, metric: str) -> list[Spread]:
    """Every point that several databases have a value for, the widest spread first."""
    others: dict[int, list[float]] = {}
    for repeat in board.repeats:
        number = repeat.results.get(metric)
        if number is not None and number.value is not None:
            others.setdefault(repeat.place, []).append(number.value)
    found = []
    for place, values in others.items():
        first = board.get(place, metric)
        if first is None or first.value is None:
            continue
        low, high = min(first.value, *values), max(first.value, *values)
        outside = 0
        if first.low is not None and first.high is not None:
            outside = sum(not first.low <= value <= first.high for value in values)
        found.append(Spread(place, len(values) + 1, first, low, high, outside))
    return sorted(found, key=lambda spread: (-spread.width, spread.place))
