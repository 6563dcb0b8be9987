"""Pure: do the controls of a suite's goals put its settings in one order?  Two judges of one attribute should."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bench.schema import Number
from bench.stats import Floats, with_interval
from leaderboard.measure.rank import draws
from leaderboard.read.board import ALL, Board


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of two controls over the settings that both judged."""

    first: str
    second: str
    spearman: Number


def agreements(board: Board, prompts: str = ALL) -> list[Agreement]:
    """Every two goals' controls; prompts are resampled for both together."""
    controls = list(dict.fromkeys(goal.control for goal in board.goals if goal.control in board.per_prompt))
    return [Agreement(a, b, _spearman(board, a, b, prompts)) for a, b in combinations(controls, 2)]


def _spearman(board: Board, first: str, second: str, prompts: str) -> Number:
    everywhere = range(len(board.places))
    places = [i for i in everywhere if None not in (board.value(i, first, prompts), board.value(i, second, prompts))]
    if len(places) < 3:
        return Number(None, reason="fewer than three settings")
    (a, a_drawn), (b, b_drawn) = (draws(board.per_prompt[name], prompts, places) for name in (first, second))
    return with_interval(float(_paired(a[None, :], b[None, :])[0]), _paired(a_drawn, b_drawn), len(places))


def _paired(a: Floats, b: Floats) -> Floats:
    """Rank correlation of each row of a with the same row of b, (draws, n) both."""
    x, y = (ranks(values) for values in (a, b))
    x, y = (part - part.mean(axis=1, keepdims=True) for part in (x, y))
    return np.asarray((x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)))


def ranks(values: Sequence[Sequence[float]] | Floats) -> Floats:
    """Ranks within each row; equal values share their mean rank."""
    table = np.asarray(values, dtype=np.float64)
    below = (table[:, :, None] > table[:, None, :]).sum(axis=2)
    equal = (table[:, :, None] == table[:, None, :]).sum(axis=2)
    return np.asarray(below + (equal - 1) / 2, dtype=np.float64)
