"""distinct-n against counts made by hand, and its interval against laws of the jackknife."""

import numpy as np
import pytest
from evaluator_samples import estimates, samples

from bench.schema import Metric
from evaluators.distinct import Distinct, UniqueShare, corpus_distinct, jackknife_deviations
from evaluators.judges import Judges

TEXTS = {"One": [" a b a", " b c"], "Two": [" a b d e", ""]}


def test_corpus_and_per_prompt_definitions_by_hand() -> None:
    found = estimates(Distinct().judge(samples(TEXTS), Judges()), 2)
    # Words: (a b a), (b c), (a b d e), ().
    # unigrams: 3 + 2 + 4 = 9, unique {a, b, c, d, e} = 5
    assert found["distinct_1"].value == pytest.approx(5 / 9)
    # bigrams: ab ba | bc | ab bd de = 6, unique {ab, ba, bc, bd, de} = 5
    assert found["distinct_2"].value == pytest.approx(5 / 6)
    # trigrams: aba | | abd bde = 3, all unique
    assert found["distinct_3"].value == pytest.approx(1.0)
    # The empty completion has no n-gram, and (b c) no trigram.
    assert [(found[f"distinct_{n}"].n_scored, found[f"distinct_{n}"].n_total) for n in (1, 2, 3)] == [
        (3, 4), (3, 4), (2, 4),
    ]  # fmt: skip
    # DExperts splits at single spaces: One has ("" a b a) and ("" b c), 7 words, unigrams {"", a, b, c};
    # Two has ("" a b d e) and (""), 6 words, unigrams {"", a, b, d, e}.
    assert found["distinct_1_dexperts"].value == pytest.approx((4 / 7 + 5 / 6) / 2)
    # bigrams One: ""a ab ba | ""b bc = 5 unique; Two: ""a ab bd de = 4
    assert found["distinct_2_dexperts"].value == pytest.approx((5 / 7 + 4 / 6) / 2)
    # trigrams One: ""ab aba | ""bc = 3; Two: ""ab abd bde = 3
    assert found["distinct_3_dexperts"].value == pytest.approx((3 / 7 + 3 / 6) / 2)
    assert found["distinct_1_dexperts"].n_total == 2  # its items are prompts


def test_scope_full_counts_the_prompt_with_every_completion() -> None:
    found = estimates(Distinct(scope="full").judge(samples({"x y": [" a", " b"]}), Judges()), 1)
    assert found["distinct_1"].value == pytest.approx(4 / 6)  # (x y a), (x y b): {x, y, a, b} of 6 words


def test_every_judged_name_is_declared_with_its_suffix() -> None:
    evaluator = Distinct(suffix="_full", scope="full")
    declared = {metric.name for metric in evaluator.metrics()}
    assert all(isinstance(metric, Metric) for metric in evaluator.metrics())
    assert set(estimates(evaluator.judge(samples(TEXTS), Judges()), 2)) == declared
    assert "distinct_2_full" in declared


def test_leaving_out_one_prompt_equals_counting_again() -> None:
    rng = np.random.default_rng(0)
    words = list("abcdefghij")
    texts = {str(p): [" ".join(rng.choice(words, 5)) for _ in range(3)] for p in range(6)}
    all_samples = samples(texts)
    share = corpus_distinct("d", [t.split() for t in all_samples.texts("completion")], all_samples, 2)
    rows = np.ones(6, dtype=bool)
    unique, own = share._unique(rows)
    for p in range(6):
        others = samples({k: v for k, v in texts.items() if k != str(p)})
        alone = corpus_distinct("d", [t.split() for t in others.texts("completion")], others, 2)
        counted = alone.estimate(np.ones(5, dtype=bool), None).value
        assert (unique - own[p]) / (share.counts.sum() - share.counts[p]) == pytest.approx(counted)
        without = rows.copy()
        without[p] = False
        assert share.estimate(without, None).value == pytest.approx(counted)


def test_pseudo_values_of_an_additive_count_are_exact() -> None:
    # If every thing belongs to one prompt and all prompts have equally many, U / T is the mean of own_p / counts_p, so
    # that the linearised bootstrap is the plain bootstrap of that mean: same seed, same resamples.
    own, counts = np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 5.0)
    weights = np.random.default_rng(0).multinomial(4, np.full(4, 1 / 4), size=1000)
    plain = weights @ (own / counts) / 4
    assert jackknife_deviations(10, own, counts) + 10 / 20 == pytest.approx(plain)


def test_interval_holds_the_estimate_and_shrinks_with_prompts() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n_prompts in (10, 160):
        texts = {str(p): [" ".join(map(str, rng.zipf(1.5, 20))) for _ in range(4)] for p in range(n_prompts)}
        found = estimates(Distinct().judge(samples(texts), Judges()), n_prompts)["distinct_2"]
        assert found.low is not None and found.value is not None and found.high is not None
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize("texts", [{"One": [""]}, {"One": ["", " "], "Two": [""]}])
def test_no_words_is_missing_with_a_reason(texts: dict[str, list[str]]) -> None:
    found = estimates(Distinct().judge(samples(texts), Judges()), len(texts))
    assert found["distinct_1"].value is None
    assert found["distinct_1"].reason == "no n-gram"
    assert found["distinct_1"].n_scored == 0


def test_one_prompt_has_no_interval() -> None:
    one = UniqueShare("d", np.array([0]), np.array([0]), np.array([2.0]), np.array([1]), np.array([1]))
    assert one.estimate(np.array([True]), None).low is None
