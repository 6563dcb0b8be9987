"""Perplexity against direct transformers computations, text by text, in both definitions."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples

from evaluators import scoring
from evaluators.judges import Judge, Judges
from evaluators.packing import common_start
from evaluators.perplexity import Perplexity, TokenSum, measure

TEXTS = {
    "The movie": [" was good and long.", " was bad.", " is a story of a man", " was bad."],
    "A film in the city": [" and the actors are", " is great", ".", "s of the city are long and the story is bad."],
}


@pytest.fixture(scope="module")
def judge(tiny_trio: dict[str, Path]) -> Judge:
    return Judges().language_model(str(tiny_trio["base"]))


@pytest.fixture(scope="module")
def evaluator(tiny_trio: dict[str, Path]) -> Perplexity:
    return Perplexity(model=str(tiny_trio["base"]))


@torch.no_grad()
def loss(judge: Judge, text: str) -> tuple[float, int]:
    """transformers' own loss, summed, and over how many tokens."""
    ids = judge.tokenizer(text, return_tensors="pt")["input_ids"]
    return float(judge.model(ids, labels=ids).loss) * (ids.shape[1] - 1), ids.shape[1] - 1


def test_both_definitions_equal_direct_computations(evaluator: Perplexity, judge: Judge) -> None:
    found = estimates(evaluator.judge(samples(TEXTS), Judges()), 2)
    pairs = [(prompt, text) for prompt, texts in TEXTS.items() for text in texts]
    losses = [loss(judge, prompt + text) for prompt, text in pairs]
    corpus = math.exp(sum(nats for nats, _ in losses) / sum(tokens for _, tokens in losses))
    assert found["perplexity"].value == pytest.approx(corpus, rel=1e-4)
    # DExperts' evaluation script: (loss of the whole - loss of the prompt) / tokens of the completion
    each = []
    for (prompt, _), (nats, tokens) in zip(pairs, losses, strict=True):
        prompt_nats, prompt_tokens = loss(judge, prompt)
        each.append(math.exp((nats - prompt_nats) / (tokens - prompt_tokens)))
    assert found["perplexity_dexperts"].value == pytest.approx(np.mean(each), rel=1e-4)
    assert found["perplexity_median"].value == pytest.approx(np.median(each), rel=1e-4)
    assert found["perplexity_dexperts"].n_scored == found["perplexity_dexperts"].n_total == 8


def test_scope_completion_counts_only_completion_tokens(tiny_trio: dict[str, Path], judge: Judge) -> None:
    found = estimates(Perplexity(model=str(tiny_trio["base"]), scope="completion").judge(samples(TEXTS), Judges()), 2)
    nats = tokens = 0.0
    for prompt, texts in TEXTS.items():
        prompt_nats, prompt_tokens = loss(judge, prompt)
        for text in texts:
            whole_nats, whole_tokens = loss(judge, prompt + text)
            nats, tokens = nats + whole_nats - prompt_nats, tokens + whole_tokens - prompt_tokens
    assert found["perplexity"].value == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_scores_are_stored_per_completion(evaluator: Perplexity) -> None:
    judged = evaluator.judge(samples(TEXTS), Judges())
    conditional = judged.scores["perplexity_dexperts"].values
    assert len(conditional) == 8
    assert conditional[1] == conditional[3]  # the same text is judged once
    assert np.mean([float(v) for v in conditional if v is not None]) == pytest.approx(
        estimates(judged, 2)["perplexity_dexperts"].value
    )


def test_cap_drops_from_the_mean_and_says_how_many(tiny_trio: dict[str, Path]) -> None:
    source = str(tiny_trio["base"])
    values = Perplexity(model=source).judge(samples(TEXTS), Judges()).scores["perplexity_dexperts"].values
    cap = float(np.median([float(v) for v in values if v is not None]))
    judged = Perplexity(model=source, cap=cap).judge(samples(TEXTS), Judges())
    below = [v for v in values if v is not None and v < cap]
    found = estimates(judged, 2)["perplexity_dexperts"]
    assert 0 < len(below) < 8
    assert (found.n_scored, found.n_total) == (len(below), 8)
    assert found.value == pytest.approx(np.mean(below))
    column = judged.scores["perplexity_dexperts"]
    assert len(column.reasons) == 8 - len(below)
    assert all("cap" in reason and column.values[i] is not None for i, reason in column.reasons.items())


def test_an_empty_completion_has_no_conditional_perplexity(evaluator: Perplexity, judge: Judge) -> None:
    judged = evaluator.judge(samples({"The movie was": [" good.", ""]}), Judges())
    column = judged.scores["perplexity_dexperts"]
    assert column.values[1] is None
    assert column.reasons[1] == "empty completion"
    found = estimates(judged, 1)
    assert (found["perplexity_dexperts"].n_scored, found["perplexity_dexperts"].n_total) == (1, 2)
    # In the paper's definition its text is the prompt, which counts as any other text does.
    nats, tokens = loss(judge, "The movie was")
    assert judged.scores["perplexity"].values[1] == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_a_text_longer_than_the_context_is_missing_with_a_reason(evaluator: Perplexity) -> None:
    judged = evaluator.judge(samples({"The movie": [" was" * 70, " was"]}), Judges())
    assert judged.scores["perplexity"].values[0] is None
    assert judged.scores["perplexity"].reasons[0] == "longer than the judge's context of 64 tokens"
    assert estimates(judged, 1)["perplexity"].n_scored == 1


def test_a_text_of_one_token_has_nothing_to_score(judge: Judge) -> None:
    (measured,) = measure(judge, [("", "T")])
    assert measured.full == TokenSum(0.0, 0, "a text of one token: nothing precedes it")


def test_a_token_across_the_boundary_belongs_to_the_completion(judge: Judge) -> None:
    # " was" is one token of this vocabulary, so that the prompt's last tokens do not survive in the whole text.
    prompt, whole = judge.tokenizer("The movie wa")["input_ids"], judge.tokenizer("The movie was")["input_ids"]
    start = common_start(prompt, whole)
    assert start < len(prompt)
    (measured,) = measure(judge, [("The movie wa", "s")])
    assert measured.conditional.tokens == len(whole) - start == 1


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(scoring.TOKENS_PER_BATCH, "cpu", 7)
    monkeypatch.setattr(scoring, "HEAD_ROWS", 3)
    monkeypatch.setitem(scoring.LOGITS_AT_ONCE, "cpu", 1000)
    return


def all_values(evaluator: Perplexity, texts: dict[str, list[str]]) -> dict[tuple[str, str], tuple[Any, Any]]:
    judged = evaluator.judge(samples(texts), Judges())
    full, conditional = judged.scores["perplexity"].values, judged.scores["perplexity_dexperts"].values
    pairs = [(prompt, text) for prompt, group in texts.items() for text in group]
    return {pair: (a, b) for pair, a, b in zip(pairs, full, conditional, strict=True)}


def test_batch_size_and_order_change_nothing(evaluator: Perplexity, request: pytest.FixtureRequest) -> None:
    usual = all_values(evaluator, TEXTS)
    request.getfixturevalue("small_batches")
    turned = all_values(evaluator, {prompt: texts[::-1] for prompt, texts in reversed(TEXTS.items())})
    for pair, values in usual.items():
        assert turned[pair] == pytest.approx(values, rel=1e-5)


def test_progress_counts_every_completion_once(evaluator: Perplexity) -> None:
    told: list[int] = []
    evaluator.judge(samples(TEXTS | {"The": ["", " was" * 70, "se are"]}), Judges(), told.append)
    assert sum(told) == 11
