"""Iso-control ranking on curves whose crossing is known, and the halves that choose and report."""

from dataclasses import replace

import numpy as np
import pytest
from toyboard import PROMPTS, series_of

from leaderboard.measure.iso import FURTHER, Setting, choose, choosing_half, halves, models_between, rank_at_targets
from leaderboard.measure.rank import Series, find_series
from leaderboard.read.board import Board, PerPrompt
from methods.interpolation import G1
from methods.prompting import Cfg


def with_values(board: Board, metric: str, values: dict[int, float], transform: str = "identity") -> Board:
    """The board with the same value of a metric on every prompt, NaN for places that are not named."""
    n = len(PROMPTS)
    table = np.full((len(board.places), n), np.nan)
    for place, value in values.items():
        table[place] = np.log(value) if transform == "exp" else value
    sums = replace(board.per_prompt[metric], numerators=table, denominators=np.where(np.isnan(table), np.nan, 1.0))
    return replace(board, per_prompt={**board.per_prompt, metric: sums})


def cheapest(board: Board, series: Series, target: float, *, up: bool = True) -> Setting | None:
    return choose(board, series, choosing_half(board), target, up=up)


def test_halves_split_every_set(board: Board) -> None:
    sums = board.per_prompt["sentiment"]
    choosing, reporting = halves(sums)
    assert not (choosing & reporting).any()
    assert (choosing | reporting).all()
    assert [int(choosing[sums.sets == name].sum()) for name in ("neutral", "positive", "negative")] == [3, 1, 1]
    assert (halves(sums)[0] == choosing).all()


def test_crossing_by_hand(board: Board) -> None:
    """Sentiment 0.5 at alpha 0, 0.9 at alpha 0.5: 0.7 is met half way, at alpha 0.25."""
    g2 = series_of(board, "g2")
    at = dict(zip(g2.places, (0.1, 0.3, 0.5, 0.9, 0.95), strict=True))
    setting = cheapest(with_values(board, "sentiment", at), g2, 0.7)
    assert setting is not None
    assert (setting.left, setting.right) == (g2.places[2], g2.places[3])
    assert setting.share == pytest.approx(0.5)
    assert setting.label == "alpha=0.25"


def test_the_cheapest_crossing_is_taken(board: Board) -> None:
    """A curve that rises, falls and rises meets 0.7 three times; perplexity picks the last."""
    g2 = series_of(board, "g2")
    made = with_values(board, "sentiment", dict(zip(g2.places, (0.5, 0.9, 0.5, 0.9, 0.95), strict=True)))
    made = with_values(made, "perplexity", dict(zip(g2.places, (90.0, 80.0, 30.0, 10.0, 10.0), strict=True)), "exp")
    setting = cheapest(made, g2, 0.7)
    assert setting is not None and setting.left == g2.places[2]


def test_nothing_is_extrapolated(board: Board) -> None:
    g2 = series_of(board, "g2")
    made = with_values(board, "sentiment", dict(zip(g2.places, (0.1, 0.3, 0.5, 0.6, 0.65), strict=True)))
    assert cheapest(made, g2, 0.7) is None
    assert cheapest(made, g2, 0.05, up=False) is None


def test_a_curve_beyond_a_target_is_not_said_to_miss_it(board: Board) -> None:
    g2 = series_of(board, "g2")
    far = with_values(board, "sentiment", dict(zip(g2.places, (0.65, 0.75, 0.7, 0.9, 0.85), strict=True)))
    up, down = rank_at_targets(far, [g2])
    assert [t.rows[0].reason == FURTHER for t in up] == [
        True,
        False,
        False,
        False,
    ]  # the others are met
    assert not any(t.rows[0].reason == FURTHER for t in down)
    nothing = with_values(board, "sentiment", {})
    assert not any(t.rows[0].reason == FURTHER for t in rank_at_targets(nothing, [g2])[0])


def test_a_plane_has_only_its_measured_places(board: Board) -> None:
    g3 = series_of(board, "g3")
    setting = cheapest(board, g3, 0.7)
    assert setting is not None and setting.left == setting.right and setting.share == 0


def test_targets_and_reports(board: Board) -> None:
    up, down = rank_at_targets(board, find_series(board))
    assert [t.value for t in up] == [0.6, 0.7, 0.8, 0.9]
    assert [t.value for t in down] == [0.4, 0.3, 0.2, 0.1]
    for target in (*up, *down):
        settled = [row for row in target.rows if row.setting is not None]
        prices = [row.by_metric["perplexity"].value or 0 for row in settled]
        assert prices == sorted(prices)
        assert all(row.by_metric["sentiment"].n_total == 7 for row in settled)  # 3 + 2 + 2 of 6 + 3 + 3
        for row in settled[1:]:
            assert row.over is not None and row.over.value is not None
            assert row.over.value == pytest.approx((row.by_metric["perplexity"].value or 0) / prices[0])


def test_dexperts_between_base_and_three_models_costs_three(board: Board) -> None:
    """DExperts at alpha 0 is the base alone, but any alpha beside it runs all three."""
    setting = cheapest(board, series_of(board, "dexperts"), 0.6)
    assert isinstance(setting, Setting) and setting.models == 3


def test_between_two_single_members_both_run() -> None:
    """Guidance at 0 is the base and at 1 the prompted base: one model each, and two for what lies between."""
    ends = [Cfg(alpha=alpha, text="x").recipe() for alpha in (0, 1)]
    assert [end.models_per_token for end in ends] == [1, 1] and models_between(*ends) == 2
    assert models_between(G1(alpha=0).recipe(), G1(alpha=1).recipe()) == 1


def test_no_statistics_no_ranking(board: Board) -> None:
    assert rank_at_targets(replace(board, per_prompt={}), find_series(board)) == ([], [])
    few: PerPrompt = board.per_prompt["sentiment"]
    one = replace(few, sets=few.sets[:1], numerators=few.numerators[:, :1], denominators=few.denominators[:, :1])
    assert rank_at_targets(replace(board, per_prompt={"sentiment": one}), find_series(board)) == ([], [])


def test_a_setting_without_a_price_is_not_the_cheapest(board: Board) -> None:
    """Two places of a plane reach 0.7; the first was not judged by perplexity."""
    g3 = series_of(board, "g3")
    made = with_values(board, "sentiment", dict.fromkeys(g3.places[:2], 0.9))
    made = with_values(made, "perplexity", {g3.places[1]: 10.0}, "exp")
    setting = cheapest(made, g3, 0.7)
    assert setting is not None and setting.left == g3.places[1]
