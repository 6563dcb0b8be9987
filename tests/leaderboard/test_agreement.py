"""Two judges' order of the same settings, by hand and on the toy board."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboard.measure.agreement import agreements, ranks
from leaderboard.read.query import open_stores, read_boards


def test_ranks_by_hand() -> None:
    assert ranks([[3.0, 1.0, 2.0, 1.0]]).tolist() == [[3, 0.5, 2, 0.5]]


def test_controls_of_two_goals_are_compared_over_all_settings(toy_database: Path) -> None:
    with open_stores([toy_database]) as (store,):
        board = read_boards(store, 0, "toy.db")[0]
    assert agreements(board) == []  # one goal has nothing to agree with
    goals = [{"control": name} for name in ("sentiment", "fraction_positive", "acceptability")]
    both = replace(board, definition={**board.definition, "goal": goals})
    same, other, _ = agreements(both)
    assert (same.first, same.second) == ("sentiment", "fraction_positive")
    assert same.spearman.value is not None and 0.8 < same.spearman.value < 1
    assert other.spearman.value is not None and abs(other.spearman.value) < same.spearman.value
    assert same.spearman.low is not None and same.spearman.n_total == len(board.places)
    values = [np.array([both.value(i, name) for i in range(len(board.places))]) for name in (same.first, same.second)]
    a, b = (ranks(v[None, :].astype(float))[0] for v in values)
    assert same.spearman.value == pytest.approx(np.corrcoef(a, b)[0, 1])
