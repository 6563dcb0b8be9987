"""Sentence NLL and next-token probabilities, on the real engine, against direct transformers computations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates

from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe, UserError
from bench.serving import ServedModel
from bench.suite.checkpoints import resolve
from evaluators.judges import Judge, Judges
from evaluators.next_token import NextToken, token_path
from evaluators.nll import SentenceNLL

POSITIVE = ["The movie was good.", "The actors are great."]
NEGATIVE = ["The film is bad and long."]


@pytest.fixture(scope="module")
def model(tiny_trio: dict[str, Path]) -> ServedModel:
    checkpoints = {name: resolve(str(tiny_trio[name])) for name in ("base", "expert", "antiexpert")}
    engine = TransformersEngine(checkpoints, "float32", "cpu")
    return engine.serve(Recipe(space="weights", coefficients={"base": 1}))


@pytest.fixture(scope="module")
def judge(tiny_trio: dict[str, Path]) -> Judge:
    return Judges().language_model(str(tiny_trio["base"]))


def sentences(path: Path, texts: list[str]) -> PromptSource:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return PromptSource(source=str(path))


@torch.no_grad()
def summed(judge: Judge, text: str) -> tuple[float, int]:
    """Sum of token NLLs after the end-of-text token, and the number of tokens."""
    ids = torch.tensor([[judge.tokenizer.eos_token_id, *judge.tokenizer(text)["input_ids"]]])
    return float(judge.model(ids, labels=ids).loss) * (ids.shape[1] - 1), ids.shape[1] - 1


def test_nll_is_the_sum_over_tokens_by_their_number(model: ServedModel, judge: Judge, tmp_path: Path) -> None:
    sets = {"good": sentences(tmp_path / "p.jsonl", POSITIVE), "poor": sentences(tmp_path / "n.jsonl", NEGATIVE)}
    evaluator = SentenceNLL(sets=sets)
    judged = evaluator.probe(model)
    found = estimates(judged, 3)
    (a, n), (b, m) = summed(judge, POSITIVE[0]), summed(judge, POSITIVE[1])
    assert found["nll_good"].value == pytest.approx((a + b) / (n + m), rel=1e-4)
    assert (found["nll_good"].n_scored, found["nll_good"].n_total) == (2, 2)
    c, k = summed(judge, NEGATIVE[0])
    assert found["nll_poor"].value == pytest.approx(c / k, rel=1e-4)
    assert judged.items is not None
    assert [item.text for item in judged.items] == [*POSITIVE, *NEGATIVE]
    assert [metric.name for metric in evaluator.metrics()] == ["nll_good", "nll_poor"]


def test_batch_size_and_order_change_nothing(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*POSITIVE, *NEGATIVE, "A man"]
    tokens, following = model.token_logprobs(texts), model.next_token_logprobs(texts)
    monkeypatch.setattr("bench.engines.transformers.rows_per_chunk", lambda _: 1)
    monkeypatch.setattr("bench.engines.transformers.ROWS_READ", {"cpu": 1})
    for one, other in zip(tokens, reversed(model.token_logprobs(texts[::-1])), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(following, model.next_token_logprobs(texts[::-1])[::-1], atol=1e-5)
    assert np.exp(following).sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_a_sentence_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        SentenceNLL(sets={"gone": PromptSource(source=str(tmp_path / "gone.jsonl"))}).data_digests()


def test_the_sentences_are_part_of_the_key(tmp_path: Path) -> None:
    one = SentenceNLL(sets={"a": sentences(tmp_path / "a.jsonl", POSITIVE)})
    before = one.data_digests()
    sentences(tmp_path / "a.jsonl", NEGATIVE)
    assert one.data_digests() == before  # read once an instance
    assert SentenceNLL(sets=one.sets).data_digests() != before


def test_default_sentences_are_the_packaged_ones() -> None:
    found = SentenceNLL().sentences
    assert {s.set for s in found} == {"positive", "negative"}
    assert sum(s.set == "positive" for s in found) >= 120
    assert sum(s.set == "negative" for s in found) >= 120


@torch.no_grad()
def probability(judge: Judge, prompt: str, word: str) -> float:
    """P(word | prompt) along the tokens of the whole text."""
    start = len(judge.tokenizer(prompt)["input_ids"])
    ids = judge.tokenizer(f"{prompt} {word}", return_tensors="pt")["input_ids"]
    logprobs = judge.model(ids).logits[0].log_softmax(-1)
    return math.exp(sum(float(logprobs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))


def test_words_of_one_and_of_several_tokens(model: ServedModel, judge: Judge) -> None:
    evaluator = NextToken(words=("good", "awful"))
    assert len(model.token_ids(" good")) == 1  # of this vocabulary
    assert len(model.token_ids(" awful")) > 1
    found = estimates(evaluator.probe(model), 0)
    for word in ("good", "awful"):
        estimate = found[f"next_token[{word}]"]
        assert estimate.value == pytest.approx(probability(judge, "The movie was", word), rel=1e-4)
        assert (estimate.low, estimate.n_scored, estimate.n_total) == (None, 1, 1)


def test_probabilities_of_all_single_tokens_are_at_most_one(model: ServedModel) -> None:
    found = estimates(NextToken(words=("good", "bad", "great", "long")).probe(model), 0)
    values = [float(e.value) for e in found.values() if e.value is not None]
    assert len(values) == 4
    assert 0 < np.sum(values) < 1


def test_a_prompt_whose_last_token_changes_is_missing_with_a_reason(model: ServedModel) -> None:
    # The prompt ends in a space that the word's first token swallows: " " + "was" against " was".
    assert token_path(model, "The movie ", "was") is None


def test_repeated_words_are_reported_once() -> None:
    assert [m.name for m in NextToken(words=("good", "good")).metrics()] == ["next_token[good]"]
