"""The median's resamples against the definition: repeat each prompt's items and take numpy's median."""

import numpy as np
import pytest

from bench.stats import MedianStatistic, bootstrap_medians, bootstrap_weights


def test_resampled_medians_equal_medians_of_repeated_items() -> None:
    rng = np.random.default_rng(0)
    prompt_of = np.array([0, 0, 1, 2, 2, 2, 3])
    values = rng.normal(size=7)
    weights = bootstrap_weights(4).astype(int)
    expected = [np.median(np.repeat(values, drawn[prompt_of])) for drawn in weights]
    assert bootstrap_medians(values, prompt_of, 4) == pytest.approx(np.array(expected))


def test_unscored_items_are_left_out_and_counted() -> None:
    statistic = MedianStatistic("m", np.array([0, 0, 1, 1]), np.array([1.0, np.nan, 3.0, 4.0]), 2)
    found = statistic.estimate(np.array([True, True]), None)
    assert (found.value, found.n_scored, found.n_total) == (3.0, 3, 4)
    second = statistic.estimate(np.array([False, True]), "set")
    assert (second.value, second.n_scored, second.n_total, second.prompts) == (3.5, 2, 2, "set")


def test_nothing_scored_has_a_reason() -> None:
    found = MedianStatistic("m", np.array([0]), np.array([np.nan]), 1).estimate(np.array([True]), None)
    assert (found.value, found.reason) == (None, "nothing could be scored")
