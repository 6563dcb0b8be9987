"""Modules of `evaluate`, offline, as local scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator_samples import estimates, samples

from bench.schema import Prompt, UserError
from evaluators.base import Samples
from evaluators.huggingface import HuggingFace
from evaluators.judges import Judges

SCRIPT = """
import datasets
import evaluate


class Words(evaluate.Measurement):
    def _info(self):
        return evaluate.MeasurementInfo(
            description="", citation="", features=datasets.Features({"data": datasets.Value("string")})
        )

    def _compute(self, data, times=1):
        counts = [times * len(text.split()) for text in data]
        return {"each": counts, "longest": max(counts), "name": "words"}
"""
OVERLAP = """
import datasets
import evaluate


class Overlap(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features({"predictions": text, "references": text})
        )

    def _compute(self, predictions, references):
        pairs = zip(predictions, references)
        return {"overlap": [len(set(a.split()) & set(b.split())) for a, b in pairs]}
"""
TEXTS = {"the movie": [" is good", " is"], "a film": [" was bad or long", ""]}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`evaluate` copies scripts, under names with their hash, into a cache that it imports from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture
def words(tmp_path: Path) -> str:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "words.py").write_text(SCRIPT)
    return str(folder / "words.py")


def test_a_list_is_scored_per_completion_and_a_number_over_all(words: str) -> None:
    evaluator = HuggingFace(module=words, keys=("each", "longest"), arguments={"times": 2})
    judged = evaluator.judge(samples(TEXTS), Judges())
    assert judged.scores["each"].values == [4, 2, 8, 0]
    found = estimates(judged, 2)
    assert found["each"].value == pytest.approx(14 / 4)
    assert found["each"].low is not None
    longest = {e.prompts: e.value for e in judged.estimates}
    assert longest == {None: 8, "set": 8}


def test_one_number_is_computed_for_each_prompt_set(words: str) -> None:
    both = samples(TEXTS)
    sets = [Prompt(set="a", row=0, text="the movie"), Prompt(set="b", row=0, text="a film")]
    judged = HuggingFace(module=words, keys=("longest",)).judge(Samples(sets, both.completions), Judges())
    assert {e.prompts: e.value for e in judged.estimates} == {None: 4, "a": 2, "b": 4}


def test_a_metric_gets_the_prompts_as_references(tmp_path: Path) -> None:
    (tmp_path / "overlap.py").write_text(OVERLAP)
    evaluator = HuggingFace(
        module=str(tmp_path / "overlap.py"), kind="metric", keys=("overlap",), scope="full",
        text_input="predictions", prompt_input="references",
    )  # fmt: skip
    assert evaluator.judge(samples(TEXTS), Judges()).scores["overlap"].values == [2, 2, 2, 2]


def test_mistakes_name_the_module_and_what_it_has(words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its output has each, longest, name, and no shortest"):
        HuggingFace(module=words, keys=("shortest",)).judge(samples(TEXTS), Judges())
    with pytest.raises(UserError, match="it takes data, but text_input and prompt_input give gone"):
        HuggingFace(module=words, keys=("each",), text_input="gone").judge(samples(TEXTS), Judges())
    with pytest.raises(UserError, match="name: expected a number"):
        HuggingFace(module=words, keys=("name",)).judge(samples(TEXTS), Judges())
    with pytest.raises(UserError, match="cannot be loaded"):
        HuggingFace(module=str(tmp_path / "nowhere.py"), keys=("x",)).data_digests()


def test_the_scripts_text_is_part_of_the_key(words: str) -> None:
    before = HuggingFace(module=words, keys=("each",)).data_digests()
    assert HuggingFace(module=words, keys=("each",)).data_digests() == before
    Path(words).write_text(SCRIPT.replace("times=1", "times=3"))
    assert HuggingFace(module=words, keys=("each",)).data_digests() != before
