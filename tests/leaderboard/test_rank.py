"""Decisions from hand-computed numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toyboard import points_of

from leaderboard.measure.rank import (
    PRICE,
    Series,
    affordable,
    barrier,
    find_series,
    losses,
    monotonicity,
    rank,
    spearman,
    time_over_base,
)
from leaderboard.read.board import ALL, Board


@pytest.fixture(scope="module")
def series(board: Board) -> dict[str, Series]:
    return {s.name: s for s in find_series(board)}


def test_series_are_recognised_by_parameters(series: dict[str, Series]) -> None:
    kinds = {name: s.kind for name, s in series.items()}
    assert kinds == {"g1": "curve", "g2": "curve", "dexperts": "curve", "g3": "plane", "base": "point",
                     "expert": "point", "antiexpert": "point"}  # fmt: skip


def test_a_text_is_in_a_name_only_where_it_tells_series_apart(board: Board) -> None:
    """Two texts that part in their 42nd character are cut behind it; one that all points share is not shown."""
    start = "This film is the very best I have ever seen"
    given: list[dict[str, Any]] = [
        {"text": f"{start}: a wonder"},
        {"text": f"{start}? a bore"},
        {"alpha": 1, "layer": 0, "add": start},
        {"alpha": 2, "layer": 0, "add": start},
    ]
    methods = ["prompt", "prompt", "steer", "steer"]
    places = [
        replace(board.places[0], method=method, params=params, params_json=str(params))
        for method, params in zip(methods, given, strict=True)
    ]
    names = {s.name for s in find_series(replace(board, places=tuple(places)))}
    cut = [f"{start}{end}\N{HORIZONTAL ELLIPSIS}" for end in (": a w", "? a b")]
    assert names == {f"prompt (text={cut[0]})", f"prompt (text={cut[1]})", "steer (layer=0)"}
    found = {s.method: s for s in find_series(replace(board, places=tuple(places)))}
    assert found["steer"].setting(given[2]) == "alpha=1"
    assert found["prompt"].setting(given[0]) == "as it is"
    assert places[0].label == f"prompt(text={start}: a wonder)"  # whole: points are found by their labels


def test_spearman_by_hand() -> None:
    """Ranks 1 3 2 against 1 2 3: d = (0, 1, -1), 1 - 6 * 2 / (3 * 8) = 0.5.  A constant has no rank correlation."""
    found = spearman(np.array([[1.0, 9.0, 2.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), np.array([0.0, 1.0, 2.0]))
    assert found[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found[2])


def test_reach_is_the_largest_affordable_sentiment(board: Board, series: dict[str, Series]) -> None:
    assert board.base is not None
    limit = PRICE * (board.value(board.base, "perplexity") or 0)
    for row in rank(board, list(series.values())):
        allowed = [i for i in row.series.places if (board.value(i, "perplexity") or np.inf) <= limit]
        assert row.best in allowed
        assert board.value(row.best, "sentiment") == max(board.value(i, "sentiment") or 0 for i in allowed)


def test_rows_are_in_the_stated_order(board: Board, series: dict[str, Series]) -> None:
    reached = [board.value(row.best or 0, "sentiment") or 0 for row in rank(board, list(series.values()))]
    assert reached == sorted(reached, reverse=True)


def test_barrier_by_hand(board: Board, series: dict[str, Series]) -> None:
    """Perplexity at g1 0.25, 0.5, 0.75 minus the chord between g1 0 and g1 1; the interval covers the value."""
    at = {board.places[i].label: board.value(i, "perplexity") or 0 for i in range(len(board.places))}
    chord = {a: (1 - a) * at["g1(alpha=0)"] + a * at["g1(alpha=1)"] for a in (0.25, 0.5, 0.75)}
    expected = max(at[f"g1(alpha={a:g})"] - chord[a] for a in chord)
    found = barrier(board, series["g1"])
    assert found.value == pytest.approx(expected)
    assert found.low is not None and found.high is not None and found.low <= expected <= found.high
    assert barrier(board, series["g2"]).reason == "does not pass through both experts"


def test_loss_barriers_by_hand(board: Board, series: dict[str, Series]) -> None:
    """nll_positive is 4 - s with s = 1 / (1 + exp(-0.9 (2 alpha - 1))) on g1; nll_negative is 3 + s.

    s at alpha 0, 1/4, 1/2, 3/4, 1: 0.289050, 0.389361, 0.5, 0.610639, 0.710950.  The chord of s at 1/4 is 0.394525, at
    3/4 0.605475, so 4 - s rises most at 1/4, by 0.394525 - 0.389361, and 3 + s as much at 3/4.
    """
    assert losses(board) == ["nll_positive", "nll_negative"]
    for metric in losses(board):
        rise = barrier(board, series["g1"], metric=metric)
        assert (rise.value, rise.n_total) == (pytest.approx(0.005164, abs=1e-6), 3)


def test_the_time_over_the_base_is_that_of_the_same_way_to_mix(board: Board, series: dict[str, Series]) -> None:
    """g2 mixes weights: neither its control at alpha 0 nor a twin of its name that mixes logits is its cost."""
    line = {"metric": "time_per_output_token_s", "batch_size": 1, "new_tokens": 8, "n_rounds": 9,
            "ratio_low": 0.9, "ratio_high": 9.0}  # fmt: skip
    ledger = tuple(
        line
        | {
            "method": method,
            "made_by": method.partition("(")[0],
            "role": role,
            "ratio_to_base": ratio,
            "recipe": {"space": space, "filter_p": None},
        }
        for method, role, space, ratio in (
            ("g2(alpha=0)", "control", "weights", 1.1),
            ("g2(space=logits)", "method", "logits", 3.0),
            ("g2", "method", "weights", 1.2),
        )
    )
    timed = replace(board, overhead=ledger)
    assert time_over_base(timed, series["g2"]).value == 1.2
    assert time_over_base(timed, series["g1"]).reason == "not timed"


def test_monotonicity(board: Board, series: dict[str, Series]) -> None:
    found = monotonicity(board, series["g2"])
    assert (found.value, found.n_total) == (1.0, 5)
    assert monotonicity(board, series["g3"]).value is None


def test_unknown_prompt_set_has_no_reach(board: Board, series: dict[str, Series]) -> None:
    assert affordable(board, series["g1"].places, "nowhere") == ([], "no sentiment stored")
    assert ALL == ""


def test_the_fixture_covers_the_plan(board: Board) -> None:
    from toyboard import make_suite

    assert len(board.places) == len(points_of(make_suite()))
