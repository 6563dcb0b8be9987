"""A random language model's cloze: by hand from its own probabilities, and what its words say of each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples

import evaluators
from bench.schema import Completion, PromptSource
from bench.suite.load import PACKAGED, read_yaml
from bench.suite.prompts import load_set
from evaluators.base import Evaluator, Samples
from evaluators.judges import Judges
from evaluators.zero_shot import ZeroShot

TEXTS = {"The movie": [" was good.", " was bad and long."], "A film": ["", " " + "long " * 80]}


def zero_shot(source: Path, *words: str, opposite: tuple[str, ...]) -> ZeroShot:
    return ZeroShot(model=str(source), template=" It was", words=words, opposite=opposite, name="mood")


def test_the_share_of_the_words_by_hand(tiny_trio: dict[str, Path]) -> None:
    judges = Judges()
    judged = zero_shot(tiny_trio["other"], " good", " great", opposite=(" bad",)).judge(samples(TEXTS), judges)
    judge = judges.language_model(str(tiny_trio["other"]))

    def p(text: str, word: str) -> float:
        ids, tail = (judge.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text + " It was", word))
        with torch.no_grad():
            logprobs = judge.model(torch.tensor([ids + tail])).logits[0].double().log_softmax(-1)
        return float(sum(logprobs[len(ids) - 1 + i, token] for i, token in enumerate(tail)).exp())  # type: ignore[union-attr]

    expected = []
    for text in ("The movie was good.", "The movie was bad and long.", "A film"):
        good, great, bad = (p(text, word) for word in (" good", " great", " bad"))
        expected.append((good + great) / (good + great + bad))
    assert judged.scores["mood"].values[:3] == pytest.approx(expected, abs=1e-6)
    assert judged.scores["mood"].reasons == {3: "longer than the judge's context"}
    assert estimates(judged, 2)["mood"].value == pytest.approx(sum(expected) / 3)


def test_the_opposite_has_the_rest(tiny_trio: dict[str, Path]) -> None:
    judges, source = Judges(), tiny_trio["other"]
    one = zero_shot(source, " good", opposite=(" bad",)).judge(samples(TEXTS), judges).scores["mood"].values
    other = zero_shot(source, " bad", opposite=(" good",)).judge(samples(TEXTS), judges).scores["mood"].values
    assert [a + b for a, b in zip(one[:3], other[:3], strict=True) if a and b] == pytest.approx([1, 1, 1])


def in_order(evaluator: Evaluator, metric: str) -> float:
    """How often a positive packaged sentence is put above a negative one."""
    better, worse = (load_set(n, PromptSource(source=f"mini:sentences/{n}")) for n in ("positive", "negative"))
    sentences = Samples([*better, *worse], [Completion(i, 0, "", 0, "stop") for i in range(len(better) + len(worse))])
    found = np.array(evaluator.judge(sentences, Judges()).scores[metric].values, dtype=np.float64)
    return float((found[: len(better), None] > found[None, len(better) :]).mean())


def test_what_the_two_judges_of_mini_methods_are_worth() -> None:
    """docs/EVALUATORS.md has these figures."""
    listed = read_yaml(PACKAGED / "mini-methods.yaml")["evaluators"]
    named = {name: options for entry in listed if isinstance(entry, dict) for name, options in entry.items()}
    registry = evaluators.registry()
    zero_shot = registry.create("zero_shot", named["zero_shot"])
    assert in_order(zero_shot, "sentiment_zero_shot") == pytest.approx(0.66, abs=0.01)
    assert in_order(registry.create("sentiment", named["sentiment"]), "sentiment") == pytest.approx(0.90, abs=0.01)
