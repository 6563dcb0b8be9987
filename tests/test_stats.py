"""Ratio statistics and their bootstrap."""

import numpy as np
import pytest

from bench.stats import RatioStatistic, bootstrap_ratios, bootstrap_weights, holm, ratio_statistic


def test_a_mean_over_completions_by_hand() -> None:
    # prompt 0: 1, 3; prompt 1: 5, unscored -> (1 + 3 + 5) / 3 = 3
    statistic = ratio_statistic(
        "m", np.array([0, 0, 1, 1]), np.array([1.0, 3, 5, 7]), 2, scored=np.array([True, True, True, False])
    )
    estimate = statistic.estimate(np.array([True, True]), None)
    assert estimate.value == 3
    assert (estimate.n_scored, estimate.n_total) == (3, 4)
    assert statistic.estimate(np.array([False, True]), "one").value == 5


def test_a_corpus_perplexity_by_hand() -> None:
    # NLL sums 2 ln 2 over 2 tokens and 4 ln 2 over 4: exp(6 ln 2 / 6) = 2
    nll = np.array([2 * np.log(2), 4 * np.log(2)])
    statistic = ratio_statistic("ppl", np.array([0, 1]), nll, 2, weights=np.array([2.0, 4.0]), transform="exp")
    assert statistic.estimate(np.ones(2, bool), None).value == pytest.approx(2)


def test_nothing_scored_is_none_with_a_reason() -> None:
    statistic = ratio_statistic("m", np.array([0]), np.array([1.0]), 1, scored=np.array([False]))
    estimate = statistic.estimate(np.ones(1, bool), None)
    assert estimate.value is None and estimate.reason and (estimate.n_scored, estimate.n_total) == (0, 1)


def test_resamples_draw_n_prompts_and_repeat_themselves() -> None:
    weights = bootstrap_weights(7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == bootstrap_weights(7)).all()


def test_the_interval_of_clustered_means_is_as_wide_as_theory_says() -> None:
    # 400 prompts whose values are all alike within a prompt: the standard error is sigma / sqrt(400), not / sqrt(2000)
    generator = np.random.default_rng(3)
    means = generator.normal(size=400)
    resampled = bootstrap_ratios(5 * means, np.full(400, 5.0))
    assert resampled.std() == pytest.approx(means.std() / 20, rel=0.1)


def test_one_prompt_has_a_degenerate_interval() -> None:
    statistic = RatioStatistic("m", np.array([2.0]), np.array([1.0]), np.array([1]), np.array([1]))
    estimate = statistic.estimate(np.ones(1, bool), None)
    assert (estimate.value, estimate.low, estimate.high) == (2, 2, 2)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .04: 3 x .01 = .03, 2 x .02 = .04, 1 x .04 = .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
