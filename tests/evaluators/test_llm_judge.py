"""A random language model as a judge: preferences by hand, and what swapping positions is worth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples
from pydantic import ValidationError

from bench.schema import PromptSource, UserError
from evaluators.judges import Judges
from evaluators.llm_judge import Labelled, LlmJudge

RUBRIC = "A: {a} B: {b} good:"


@pytest.fixture
def judge_of(tmp_path: Path, tiny_trio: dict[str, Path]) -> LlmJudge:
    def source(name: str, *texts: str) -> PromptSource:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return PromptSource(source=str(path))

    return LlmJudge(
        model=str(tiny_trio["other"]),
        rubric=RUBRIC,
        references=source("references", "The movie", "The film"),
        labelled=Labelled(better=source("better", "good", "great", "the city"), worse=source("worse", "bad", "a", "x")),
    )


def by_hand(judges: Judges, source: str, a: str, b: str) -> float:
    """P(" A") / (P(" A") + P(" B")) behind the rubric; both answers are one space and one letter."""
    judge = judges.language_model(source)
    total = []
    for answer in (" A", " B"):
        ids = judge.tokenizer(f"A: {a} B: {b} good:")["input_ids"]
        tail = judge.tokenizer(answer)["input_ids"]
        with torch.no_grad():
            logprobs = judge.model(torch.tensor([ids + tail])).logits[0].double().log_softmax(-1)
        total.append(float(sum(logprobs[len(ids) - 1 + i, token] for i, token in enumerate(tail))))
    return float(1 / (1 + np.exp(total[1] - total[0])))


def test_a_preference_is_the_mean_of_both_orders_by_hand(judge_of: LlmJudge) -> None:
    judges = Judges()
    found = judge_of.verdicts(judges.language_model(judge_of.model), [("good", "bad")])
    first, second = by_hand(judges, judge_of.model, "good", "bad"), by_hand(judges, judge_of.model, "bad", "good")
    assert found.first_shown == pytest.approx([first], abs=1e-6)
    assert found.second_shown == pytest.approx([1 - second], abs=1e-6)
    assert found.preference == pytest.approx([(first + 1 - second) / 2], abs=1e-6)
    assert found.consistent == [float((first > 0.5) == (second < 0.5))]


def test_who_is_shown_first_does_not_matter(judge_of: LlmJudge) -> None:
    judge = Judges().language_model(judge_of.model)
    pairs = [("good", "bad"), ("The film is long", "a"), ("city", "city")]
    one = judge_of.verdicts(judge, pairs).preference
    other = judge_of.verdicts(judge, [(b, a) for a, b in pairs]).preference
    np.testing.assert_allclose(one + other, 1)
    assert one[2] == pytest.approx(0.5)


def test_completions_meet_references_and_labels_judge_the_judge(judge_of: LlmJudge) -> None:
    judges = Judges()
    judged = judge_of.judge(samples({"The": [" good film", " man"], "A": [" city", " " + "long " * 40]}), judges)
    judge = judges.language_model(judge_of.model)
    pairs = [("The good film", "The movie"), ("The man", "The film"), ("A city", "The film")]
    expected = judge_of.verdicts(judge, pairs).preference
    assert judged.scores["llm_judge"].values[:3] == pytest.approx(expected.tolist())
    assert judged.scores["llm_judge"].reasons == {3: "longer than the judge's context"}
    found = estimates(judged, 2)
    assert found["llm_judge"].value == pytest.approx(expected.mean())
    labelled = judge_of.verdicts(judge, [("good", "bad"), ("great", "a"), ("the city", "x")]).preference
    assert found["llm_judge_agreement"].value == pytest.approx(np.mean(labelled > 0.5))
    assert found["llm_judge_agreement"].n_scored == 3
    assert {m.name for m in judge_of.metrics()} == set(found)


def test_labelled_texts_without_a_partner_are_refused(judge_of: LlmJudge, tmp_path: Path) -> None:
    (tmp_path / "better.txt").write_text("good\ngreat\n")
    uneven = Labelled(better=PromptSource(source=str(tmp_path / "better.txt")), worse=judge_of.labelled.worse)
    with pytest.raises(UserError, match="better and worse are no pairs: they have 2 and 3 texts"):
        judge_of.model_copy(update={"labelled": uneven}).data_digests()


def test_braces_in_a_text_are_text_and_a_rubric_shows_both(judge_of: LlmJudge, tiny_trio: dict[str, Path]) -> None:
    judge = Judges().language_model(str(tiny_trio["other"]))
    assert judge_of._question(judge, "{b}", "{a}") == "A: {b} B: {a} good:"
    with pytest.raises(ValidationError, match=r"needs \{a\} and \{b\}"):
        LlmJudge(**(judge_of.model_dump() | {"rubric": "Is {a} good?"}))
