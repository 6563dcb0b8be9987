"""Classifier evaluators: equation 6 by hand, label safety, and agreement with transformers on every text alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples

from bench.schema import UserError
from evaluators import scoring
from evaluators.acceptability import Acceptability
from evaluators.classifier import Classifier, activation_of, normalise_tweet
from evaluators.judges import Judge, Judges
from evaluators.sentiment import Sentiment

TEXTS = {
    "The movie": [" was good and long.", " was bad.", ""],
    "A film": [" is great", " was bad.", " of a man in a city"],
}


@torch.no_grad()
def direct(judge: Judge, text: str) -> np.ndarray:
    ids = judge.tokenizer(text, return_tensors="pt")["input_ids"]
    return judge.model(ids).logits.softmax(-1)[0].double().numpy()


def relabelled(folder: Path, target: Path, labels: list[str], **changes: object) -> str:
    """A copy of a classifier whose configuration names its labels otherwise."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(labels)}
    config["label2id"] = {name: i for i, name in enumerate(labels)}
    (target / "config.json").write_text(json.dumps(config | changes))
    return str(target)


def test_sentiment_is_equation_6_on_every_text(tiny_classifier: Path) -> None:
    judges = Judges()
    judged = Sentiment(model=str(tiny_classifier)).judge(samples(TEXTS), judges)
    judge = judges.classifier(str(tiny_classifier))
    expected, positive = [], []
    for prompt, texts in TEXTS.items():
        for text in texts:
            p_negative, p_neutral, p_positive = direct(judge, prompt + text)
            expected.append(0 * p_negative + 0.5 * p_neutral + 1 * p_positive)  # equation 6
            positive.append(float(p_positive > p_negative))
    assert judged.scores["sentiment"].values == pytest.approx(expected, abs=1e-6)
    assert judged.scores["fraction_positive"].values == positive
    found = estimates(judged, 2)
    assert found["sentiment"].value == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["fraction_positive"].value == pytest.approx(np.mean(positive))


def test_label_order_comes_from_the_model(tiny_classifier: Path, tmp_path: Path) -> None:
    turned = relabelled(tiny_classifier, tmp_path / "turned", ["positive", "neutral", "negative"])
    usual = Sentiment(model=str(tiny_classifier)).judge(samples(TEXTS), Judges()).scores["sentiment"].values
    other = Sentiment(model=turned).judge(samples(TEXTS), Judges()).scores["sentiment"].values
    # With positive and negative swapped, 0.5 n + p becomes 0.5 n + (1 - n - p): the two add up to 1.
    assert [a + b for a, b in zip(usual, other, strict=True)] == pytest.approx([1.0] * 6, abs=1e-6)


def test_unnamed_labels_are_refused_with_the_way_to_map_them(tiny_classifier: Path, tmp_path: Path) -> None:
    unnamed = relabelled(tiny_classifier, tmp_path / "unnamed", ["LABEL_0", "LABEL_1", "LABEL_2"])
    with pytest.raises(UserError) as refused:
        Sentiment(model=unnamed).judge(samples(TEXTS), Judges())
    assert "LABEL_0, LABEL_1, LABEL_2" in str(refused.value)
    assert "labels: {LABEL_0: negative, LABEL_1: neutral, LABEL_2: positive}" in str(refused.value)
    mapping = {"LABEL_0": "negative", "LABEL_1": "neutral", "LABEL_2": "positive"}
    mapped = Sentiment(model=unnamed, labels=mapping).judge(samples(TEXTS), Judges())
    named = Sentiment(model=str(tiny_classifier)).judge(samples(TEXTS), Judges())
    assert mapped.scores["sentiment"].values == named.scores["sentiment"].values


@pytest.mark.parametrize("labels", [["negative", "neutral", "happy"], ["negative", "negative", "positive"]])
def test_other_labels_are_refused(tiny_classifier: Path, tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(UserError, match="expected the labels negative, neutral, positive or negative, positive"):
        Sentiment(model=relabelled(tiny_classifier, tmp_path / "other", labels)).judge(samples(TEXTS), Judges())


def test_two_labels_are_enough_for_sentiment(tiny_acceptability: Path, tmp_path: Path) -> None:
    source = relabelled(tiny_acceptability, tmp_path / "binary", ["NEGATIVE", "POSITIVE"])
    judges = Judges()
    judged = Sentiment(model=source).judge(samples({"The movie": [" was good"]}), judges)
    expected = direct(judges.classifier(source), "The movie was good")[1]
    assert judged.scores["sentiment"].values == pytest.approx([expected], abs=1e-6)


def test_acceptability_and_the_generic_classifier_agree(tiny_acceptability: Path) -> None:
    source = str(tiny_acceptability)
    special = Acceptability(model=source).judge(samples(TEXTS), Judges())
    generic = Classifier(model=source, label="acceptable", name="ok").judge(samples(TEXTS), Judges())
    other = Classifier(model=source, label="unacceptable").judge(samples(TEXTS), Judges())
    assert special.scores["acceptability"].values == generic.scores["ok"].values
    pairs = zip(special.scores["acceptability"].values, other.scores["classifier"].values, strict=True)
    assert [a + b for a, b in pairs] == pytest.approx([1.0] * 6, abs=1e-6)


def test_an_unknown_label_is_refused_with_those_it_has(tiny_acceptability: Path) -> None:
    with pytest.raises(
        UserError, match="expected the labels toxic, but its configuration has unacceptable, acceptable"
    ):
        Classifier(model=str(tiny_acceptability), label="toxic").judge(samples(TEXTS), Judges())


def test_several_independent_labels_use_sigmoid(tiny_acceptability: Path, tmp_path: Path) -> None:
    source = relabelled(
        tiny_acceptability, tmp_path / "multi", ["toxic", "rude"], problem_type="multi_label_classification"
    )
    judges = Judges()
    judge = judges.classifier(source)
    assert activation_of(judge) == "sigmoid"
    judged = Classifier(model=source, label="toxic").judge(samples({"The movie": [" was bad."]}), judges)
    with torch.no_grad():
        logit = judge.model(judge.tokenizer("The movie was bad.", return_tensors="pt")["input_ids"]).logits[0, 0]
    assert judged.scores["classifier"].values == pytest.approx([1 / (1 + np.exp(-float(logit)))], abs=1e-6)


def test_scope_completion_leaves_an_empty_one_unscored(tiny_classifier: Path) -> None:
    judged = Sentiment(model=str(tiny_classifier), scope="completion").judge(samples(TEXTS), Judges())
    assert judged.scores["sentiment"].values[2] is None
    assert judged.scores["sentiment"].reasons == {2: "empty text"}
    found = estimates(judged, 2)["sentiment"]
    assert (found.n_scored, found.n_total) == (5, 6)
    scored = [float(v) for v in judged.scores["sentiment"].values if v is not None]
    assert found.value == pytest.approx(np.mean(scored))


def test_a_text_longer_than_the_context_is_unscored(tiny_classifier: Path) -> None:
    judged = Sentiment(model=str(tiny_classifier)).judge(samples({"The": [" was" * 70, " movie"]}), Judges())
    assert "longer than the judge's context of 64" in judged.scores["sentiment"].reasons[0]
    assert judged.scores["sentiment"].values[1] is not None


def test_batch_size_and_order_change_nothing(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Sentiment(model=str(tiny_classifier)).judge(samples(TEXTS), Judges()).scores["sentiment"].values
    monkeypatch.setitem(scoring.TOKENS_PER_BATCH, "cpu", 1)
    turned = {prompt: texts[::-1] for prompt, texts in reversed(TEXTS.items())}
    other = Sentiment(model=str(tiny_classifier)).judge(samples(turned), Judges()).scores["sentiment"].values
    assert other[::-1] == pytest.approx(usual, abs=1e-5)


def test_normalise_tweet_as_on_the_model_card() -> None:
    assert normalise_tweet("@Ann saw it: https://a.b/c @ home, not http") == "@user saw it: http @ home, not http"
    assert normalise_tweet("mail me@home") == "mail me@home"


def test_normalisation_reaches_the_judge(tiny_classifier: Path) -> None:
    source = str(tiny_classifier)
    tweet = Sentiment(model=source, normalise="tweet").judge(samples({"Hi": [" @Ann http://x.y"]}), Judges())
    plain = Sentiment(model=source).judge(samples({"Hi": [" @user http"]}), Judges())
    assert tweet.scores["sentiment"].values == plain.scores["sentiment"].values


def test_the_judges_bytes_are_part_of_the_key(tiny_classifier: Path, tiny_acceptability: Path) -> None:
    a, b = Sentiment(model=str(tiny_classifier)), Acceptability(model=str(tiny_acceptability))
    assert a.data_digests() != b.data_digests()
    assert a.data_digests() == Sentiment(model=str(tiny_classifier)).data_digests()
