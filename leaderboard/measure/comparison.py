"""Paired differences between two settings on the same prompts, with Holm's correction over the family of metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.registry import suggest
from bench.schema import Number, UserError
from bench.stats import Floats, holm, with_interval
from leaderboard.measure.iso import measure
from leaderboard.measure.levels import Entry, Level, at_places
from leaderboard.measure.rank import find_series, rank
from leaderboard.read.board import ALL, Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores


@dataclass(frozen=True)
class Difference:
    """One metric of A minus B; `p` is two-sided from the bootstrap, `p_holm` corrected over this comparison."""

    metric: str
    a: float
    b: float
    difference: Number
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """The first setting minus the second, metric by metric."""

    suite: str
    engine: str
    first: Entry
    second: Entry
    differences: tuple[Difference, ...]

    @property
    def a(self) -> str:
        return self.first.label

    @property
    def b(self) -> str:
        return self.second.label


def compare(
    databases: Sequence[Path],
    a: str,
    b: str,
    *,
    suite: str | None = None,
    engine: str | None = None,
    prompts: str = ALL,
) -> list[Comparison]:
    """A minus B on every board that has both.

    A and B are settings such as `g2(alpha=0.5)`, or names of methods, which stand for the method's reach.  Raises
    UserError where no board has them.
    """
    with open_stores(databases) as stores:
        boards = load_boards(stores, [Path(path) for path in databases])
    wanted = [x for x in boards if suite in (None, x.suite) and engine in (None, x.engine)]
    if not wanted:
        raise UserError(f"no board of suite {suite or 'any'} and engine {engine or 'any'} in these databases")
    having = [x for x in wanted if find_place(x, a) is not None and find_place(x, b) is not None]
    if not having:
        names = sorted(
            {name for x in wanted for name in (*(s.name for s in find_series(x)), *(p.label for p in x.places))}
        )
        unknown = next((x for x in (a, b) if x not in names), a)
        raise UserError(f"unknown method or setting {unknown!r}{suggest(unknown, names)}")
    return [compare_places(x, _require(x, a, prompts), _require(x, b, prompts), prompts) for x in having]


def find_place(board: Board, name: str, prompts: str = ALL) -> int | None:
    """The place of a label, or of a method's reach."""
    label = next((i for i, place in enumerate(board.places) if place.label == name), None)
    if label is not None:
        return label
    series = [s for s in find_series(board) if s.name == name]
    return rank(board, series, prompts)[0].best if series else None


def _require(board: Board, name: str, prompts: str) -> int:
    found = find_place(board, name, prompts)
    if found is None:
        raise UserError(f"{name}: no measured setting for prompts {prompts!r} in suite {board.suite}")
    return found


def compare_places(board: Board, a: int, b: int, prompts: str = ALL) -> Comparison:
    """Every metric with per-prompt sums, paired on the same prompts."""
    (found,) = compare_level(board, at_places(board, [a, b], prompts))
    return found


def compare_level(board: Board, level: Level) -> list[Comparison]:
    """Every two methods of a level, the earlier minus the later."""
    settings = [entry.setting for entry in level.entries]
    measured = {
        metric: measure(sums, settings, level.rows(sums))
        for metric, sums in board.per_prompt.items()
        if board.metrics[metric].of_text
    }
    found = []
    for i, j in combinations(range(len(settings)), 2):
        pairs = [difference(metric, *all_, i, j) for metric, all_ in measured.items()]
        differences = _corrected([pair for pair in pairs if pair is not None])
        found.append(Comparison(board.suite, board.engine, level.entries[i], level.entries[j], differences))
    return found


def difference(metric: str, values: Floats, drawn: Floats, n: int, i: int, j: int) -> Difference | None:
    """Setting i minus setting j of what `measure` found; None where either has no value."""
    if not np.isfinite(values[[i, j]]).all():
        return None
    resampled = drawn[:, i] - drawn[:, j]
    a, b = float(values[i]), float(values[j])
    return Difference(metric, a, b, with_interval(a - b, resampled, n), p_value(resampled), 1.0)


def _corrected(family: Sequence[Difference]) -> tuple[Difference, ...]:
    adjusted = holm([found.p for found in family])
    return tuple(replace(found, p_holm=p) for found, p in zip(family, adjusted, strict=True))


def p_value(resampled: Floats) -> float:
    """Two-sided: twice the smaller share of resampled differences on either side of zero; at least 2 / (draws + 1)."""
    n = len(resampled)
    beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (n + 1))
