"""Pure: methods at the same divergence from the base, KL(mixture || base), a strength that every method has.

Along a curve the root of KL is linear between measured neighbours, since near the base KL grows with the square of a
step.  A curve may meet a value on both sides of the base: half of the prompts choose the side that steers more, the
other half measures.  A plane and a single model have no setting at just that value.
"""

from collections.abc import Sequence

import numpy as np

from bench.stats import Floats
from leaderboard.measure.iso import Half, Reached, Setting, Target, choosing_half, crossings, reports, value_at
from leaderboard.measure.rank import Series
from leaderboard.names import DIVERGENCE
from leaderboard.read.board import ALL, Board

VALUES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # nats a token


def roots(board: Board) -> Floats:
    """The root of every place's KL to the base, (places,); NaN where none is stored."""
    found = [board.value(i, DIVERGENCE) for i in range(len(board.places))]
    return np.array([np.nan if value is None else max(value, 0.0) ** 0.5 for value in found])


def rank_at_divergences(board: Board, series: Sequence[Series], prompts: str = ALL) -> list[Target]:
    """The methods at each of VALUES that two of them meet, the strongest first."""
    control = board.per_prompt.get(board.goal.control)
    if DIVERGENCE not in board.metrics or control is None or control.rows(prompts).sum() < 4:
        return []
    half, root = choosing_half(board, prompts), roots(board)
    found = []
    for value in VALUES:
        chosen = [(s, setting) for s in series if (setting := choose(board, s, half, root, value)) is not None]
        if len(chosen) > 1:
            measured = reports(board, [setting for _, setting in chosen], prompts)
            rows = [Reached(s, at, metrics=metrics) for (s, at), metrics in zip(chosen, measured, strict=True)]
            found.append(Target(value, tuple(sorted(rows, key=lambda row: -_strength(board, row)))))
    return found


def choose(board: Board, series: Series, half: Half, root: Floats, value: float) -> Setting | None:
    """The setting of a curve at this KL that steers most on the choosing half."""
    if series.kind != "curve":
        return None
    places = [i for i in series.places if np.isfinite(root[i]) and np.isfinite(half.strength[i])]
    met = crossings(board, series, places, root, value**0.5)
    return max(met, key=lambda s: board.goal.sign * value_at(half.strength, s), default=None)


def _strength(board: Board, row: Reached) -> float:
    found = row.by_metric.get(board.goal.control)
    return -np.inf if found is None or found.value is None else board.goal.sign * found.value
