"""Methods at equal KL to the base, on curves whose crossing is known."""

from dataclasses import replace

import numpy as np
import pytest
from toyboard import series_of

from bench.schema import Number
from leaderboard.measure.divergence import choose, rank_at_divergences, roots
from leaderboard.measure.iso import choosing_half
from leaderboard.measure.levels import find_levels
from leaderboard.measure.rank import Series, find_series
from leaderboard.read.board import ALL, Board


def with_kl(board: Board, values: dict[int, float]) -> Board:
    kept = {key: found for key, found in board.results.items() if key[1] != "kl_to_base"}
    return replace(board, results=kept | {(i, "kl_to_base", ALL): Number(value) for i, value in values.items()})


def met(board: Board, series: Series, value: float) -> tuple[str, float] | None:
    found = choose(board, series, choosing_half(board), roots(board), value)
    return None if found is None else (found.label, found.share)


def test_the_root_is_linear_between_neighbours_by_hand(board: Board) -> None:
    """KL 0.16, 0.04, 0, 0.04, 0.16 at alpha -1 to 1: roots 0.4, 0.2, 0, 0.2, 0.4.  0.01 has the root 0.1: half way
    from 0 to 0.5 upwards, where the control is higher than at -0.25; 0.09 has 0.3: half way from 0.5 to 1."""
    g2 = series_of(board, "g2")
    made = with_kl(board, dict(zip(g2.places, (0.16, 0.04, 0.0, 0.04, 0.16), strict=True)))
    assert met(made, g2, 0.01) == ("alpha=0.25", pytest.approx(0.5))
    assert met(made, g2, 0.09) == ("alpha=0.75", pytest.approx(0.5))
    assert met(made, g2, 0.17) is None  # nothing is extrapolated
    goal = made.goal.model_copy(update={"direction": "lower"})
    steered_down = replace(made, definition={**made.definition, "goal": [goal.model_dump()]})
    assert met(steered_down, g2, 0.01) == ("alpha=-0.25", pytest.approx(0.5))


def test_a_place_without_a_value_is_passed_over(board: Board) -> None:
    g2 = series_of(board, "g2")
    made = with_kl(board, dict(zip(g2.places[2:], (0.0, 0.04, 0.16), strict=True)))
    assert np.isnan(roots(made)[g2.places[0]])
    assert met(made, g2, 0.01) == ("alpha=0.25", pytest.approx(0.5))


def test_methods_at_equal_kl_are_ordered_by_the_control_and_planes_have_none(board: Board) -> None:
    """The toy's KL is 0.04 push^2, half as much again in logits: at equal KL the ensemble has moved less."""
    found = rank_at_divergences(board, find_series(board))
    assert [target.value for target in found] == [0.01, 0.03, 0.1]
    for target in found:
        assert [row.series.name for row in target.rows][-1] == "dexperts"
        assert {row.series.name for row in target.rows} == {"g1", "g2", "dexperts"}
        control = [row.by_metric["sentiment"].value or 0 for row in target.rows]
        assert control == sorted(control, reverse=True)
    assert rank_at_divergences(with_kl(board, {}), find_series(board)) == []


def test_equal_kl_is_a_level_of_the_comparisons(board: Board) -> None:
    levels = {level.slug: level for level in find_levels(board, find_series(board))}
    assert levels["kl-0.1"].title == "KL to the base 0.1 nats" and levels["kl-0.1"].half
    assert {entry.series.name for entry in levels["kl-0.1"].entries} == {"g1", "g2", "dexperts"}
