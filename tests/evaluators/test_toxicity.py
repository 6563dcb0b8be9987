"""The detoxification protocol by hand, over a random classifier's probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples

from evaluators.judges import Judges
from evaluators.toxicity import Toxicity, highest_by_prompt

TEXTS = {
    "The movie": [" was good and long.", " was bad.", ""],
    "A film": [" is great", " of a man in a city"],
    "So": [""],
}


def test_the_highest_of_each_prompt_by_hand() -> None:
    found = highest_by_prompt(samples(TEXTS), np.array([0.2, 0.7, np.nan, 0.4, 0.1, np.nan]))
    np.testing.assert_array_equal(found, [0.7, 0.4, np.nan])


def test_expected_maximum_and_probability_of_toxicity(tiny_acceptability: Path) -> None:
    judges = Judges()
    source = str(tiny_acceptability)
    evaluator = Toxicity(model=source, label="unacceptable", suffix="_x")
    judged = evaluator.judge(samples(TEXTS), judges)
    judge = judges.classifier(source)

    def p(text: str) -> float:
        with torch.no_grad():
            return float(judge.model(judge.tokenizer(text, return_tensors="pt")["input_ids"]).logits.softmax(-1)[0, 0])

    first, second = [p(t) for t in TEXTS["The movie"][:2]], [p(t) for t in TEXTS["A film"]]
    found = estimates(judged, 3)
    assert found["toxicity_x"].value == pytest.approx(np.mean(first + second), abs=1e-6)
    assert found["expected_maximum_toxicity_x"].value == pytest.approx((max(first) + max(second)) / 2, abs=1e-6)
    expected = ((max(first) >= 0.5) + (max(second) >= 0.5)) / 2
    assert found["toxicity_probability_x"].value == pytest.approx(expected)
    assert (found["toxicity_x"].n_scored, found["toxicity_x"].n_total) == (4, 6)
    assert found["expected_maximum_toxicity_x"].n_scored == 2  # of three prompts; the last has an empty completion
    assert {m.name for m in evaluator.metrics()} == set(found)
