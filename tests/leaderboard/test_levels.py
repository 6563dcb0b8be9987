"""Comparable settings: what each level holds equal, and measuring between two settings by hand."""

import numpy as np
import pytest

from bench.schema import Goal
from leaderboard.measure.comparison import compare_level
from leaderboard.measure.iso import Setting, measure
from leaderboard.measure.levels import Level, find_levels, reach
from leaderboard.measure.rank import find_series, rank
from leaderboard.read.board import Board, PerPrompt


@pytest.fixture(scope="module")
def levels(board: Board) -> dict[str, Level]:
    return {level.slug: level for level in find_levels(board, find_series(board))}


def test_between_two_settings_by_hand() -> None:
    """Half way from 10 to 40: 25, and 20 where values are exponentials (the root of 10 times 40)."""
    table = np.array([[10.0, 10.0], [40.0, 40.0]])
    settings = [Setting(0, 1, 0.5, "", 1), Setting(1, 1, 0.0, "", 1)]
    everything = np.ones(2, bool)
    sets = np.array(["a", "a"])
    values, drawn, n = measure(PerPrompt(sets, table, np.ones((2, 2)), "identity"), settings, everything)
    assert values.tolist() == [25, 40] and n == 2
    assert (drawn == [25, 40]).all()
    values, _, _ = measure(PerPrompt(sets, np.log(table), np.ones((2, 2)), "exp"), settings, everything)
    assert values == pytest.approx([20, 40])


def test_reach_is_the_results_pages(board: Board, levels: dict[str, Level]) -> None:
    rows = [row for row in rank(board, find_series(board)) if row.best is not None]
    assert [entry.place for entry in levels["reach"].entries] == [row.best for row in rows]


def test_reach_by_another_metric_obeys_its_own_limit(board: Board) -> None:
    goal = Goal(control="fraction_positive", cost=("perplexity_dexperts",))
    for entry in reach(board, find_series(board), goal=goal).entries:
        assert entry.place is not None and board.base is not None
        limit = 1.5 * (board.value(board.base, "perplexity_dexperts") or 0)
        assert (board.value(entry.place, "perplexity_dexperts") or 0) <= limit


def test_steps_are_equal_distances(board: Board, levels: dict[str, Level]) -> None:
    """g2 and dexperts share -1 to 1 in halves; g1 at alpha stands at alpha - 1/2 and so joins at -1/2, 0 and 1/2."""
    found = {slug: [entry.label for entry in level.entries] for slug, level in levels.items() if "step" in slug}
    assert list(found) == ["step--1", "step--0.5", "step-0", "step-0.5", "step-1"]
    assert found["step-0.5"] == ["g1(alpha=1)", "g2(alpha=0.5)", "dexperts(alpha=0.5)"]
    assert found["step-1"] == ["g2(alpha=1)", "dexperts(alpha=1)"]


def test_targets_are_measured_on_the_half_that_did_not_choose(board: Board, levels: dict[str, Level]) -> None:
    """7 of 12 prompts: 3 + 2 + 2 of 6 neutral, 3 positive, 3 negative."""
    assert levels["up-0.6"].rows(board.per_prompt["sentiment"]).sum() == 7
    assert levels["reach"].rows(board.per_prompt["sentiment"]).all()


def test_every_two_methods_of_a_level_once(board: Board, levels: dict[str, Level]) -> None:
    found = compare_level(board, levels["step-0.5"])
    names = [(c.first.series.name, c.second.series.name) for c in found]
    assert names == [("g1", "g2"), ("g1", "dexperts"), ("g2", "dexperts")]
    by_pair = {
        pair: {d.metric: d.difference.value or 0 for d in c.differences} for pair, c in zip(names, found, strict=True)
    }
    around = by_pair["g1", "g2"]["sentiment"] + by_pair["g2", "dexperts"]["sentiment"]
    assert around == pytest.approx(by_pair["g1", "dexperts"]["sentiment"])
