"""Frontier, paired comparison and Holm by hand; coverage of the intervals on simulated clustered data."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from toyboard import MakeDatabase, make_suite

from bench import stats
from bench.schema import UserError
from bench.stats import bootstrap_ratios, bootstrap_weights, interval
from leaderboard.measure.comparison import compare, p_value
from leaderboard.measure.pareto import areas, dominated_area, front, pareto_places
from leaderboard.measure.rank import find_series
from leaderboard.read.query import open_stores, read_boards


def test_front_by_hand() -> None:
    """(0.5, 10) and (0.9, 30) stay; (0.4, 20) is worse in both; (0.9, 40) is as strong but dearer."""
    assert front([0.5, 0.9, 0.4, 0.9], [10, 30, 20, 40]) == [0, 1]


def test_area_by_hand() -> None:
    """Points (saving 1, gain 0.2) and (saving 0.5, gain 0.4): 0.5 * 0.2 + 0.5 * 0.4 = 0.3; too dear counts nothing."""
    assert dominated_area(np.array([[0.2, 0.4]]), np.array([[1.0, 0.5]]))[0] == pytest.approx(0.3)
    assert dominated_area(np.array([[0.2, 0.9]]), np.array([[1.0, -0.1]]))[0] == pytest.approx(0.2)
    assert dominated_area(np.array([[-0.2]]), np.array([[1.0]]))[0] == 0


def test_areas_grow_with_settings(toy_database: Path) -> None:
    """g3 holds every setting of g2 and more, so its area is at least g2's; the base alone is not ranked."""
    with open_stores([toy_database]) as (store,):
        (board,) = read_boards(store, 0, "toy.db")
    found = {area.series.name: area for area in areas(board, find_series(board))}
    assert set(found) == {"g1", "g2", "g3", "dexperts"}
    assert (found["g3"].up.value or 0) >= (found["g2"].up.value or 0) > 0
    for area in found.values():
        assert area.up.low is not None and area.up.high is not None
        assert area.up.low <= (area.up.value or 0) <= area.up.high
    assert board.base in pareto_places(board, up=True)


def test_p_value_is_never_zero() -> None:
    assert p_value(np.ones(999)) == 2 / 1000
    assert p_value(np.array([-1.0, 1.0] * 500)) == 1


def test_compare_two_settings(toy_database: Path) -> None:
    (found,) = compare([toy_database], "g2(alpha=1)", "g2(alpha=-1)")
    by_metric = {d.metric: d for d in found.differences}
    sentiment = by_metric["sentiment"]
    assert sentiment.difference.value == pytest.approx(sentiment.a - sentiment.b)
    assert sentiment.difference.low is not None and sentiment.difference.low > 0
    assert sentiment.p_holm >= sentiment.p
    assert "nll_positive" not in by_metric


def test_compare_methods_by_their_reach(toy_database: Path) -> None:
    (found,) = compare([toy_database], "g2", "dexperts")
    assert (found.a, found.b) == ("g2(alpha=0.5)", "dexperts(alpha=0.5)")
    (reverse,) = compare([toy_database], "dexperts", "g2")
    for one, other in zip(found.differences, reverse.differences, strict=True):
        assert one.difference.value == pytest.approx(-(other.difference.value or 0))


def test_a_setting_does_not_differ_from_itself(toy_database: Path) -> None:
    (found,) = compare([toy_database], "expert", "g1(alpha=1)")
    assert all(d.difference.value == 0 and d.p == 1 for d in found.differences)


def test_compare_unknown_name_suggests(toy_database: Path, make_database: MakeDatabase) -> None:
    with pytest.raises(UserError, match="dexpert"):
        compare([toy_database], "dexpert", "g2")
    with pytest.raises(UserError, match="no board"):
        compare([toy_database], "g1", "g2", suite="nowhere")
    assert len(compare([make_database(make_suite("one"), make_suite("two"))], "g1", "g2")) == 2


@pytest.mark.parametrize("paired", [False, True], ids=["mean", "paired difference"])
def test_coverage_with_clustered_samples(paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """800 experiments of 100 prompts x 5 samples, prompts' spread twice the samples': 93 to 97 % hold the truth.

    The interval of independent samples would hold it far less often, which is why prompts are resampled.
    """
    monkeypatch.setattr(stats, "bootstrap_weights", cache(bootstrap_weights))  # the same draws, made once
    rng = np.random.default_rng(5)
    experiments, prompts, samples = 800, 100, 5
    hits = naive = 0
    for _ in range(experiments):
        shared = rng.normal(0, 0.2, (prompts, 1))
        a = 0.5 + shared + rng.normal(0, 0.1, (prompts, samples))
        b = (
            (0.4 + shared + rng.normal(0, 0.1, (prompts, samples)) + rng.normal(0, 0.1, (prompts, 1)))
            if paired
            else 0 * a
        )
        truth = 0.1 if paired else 0.5
        values = a - b
        low, high = interval(bootstrap_ratios(values.sum(axis=1), np.full(prompts, float(samples))))
        assert low is not None and high is not None
        hits += low <= truth <= high
        half = 1.96 * values.std() / np.sqrt(values.size)
        naive += abs(values.mean() - truth) <= half
    assert 0.93 <= hits / experiments <= 0.97
    assert naive / experiments < 0.85
