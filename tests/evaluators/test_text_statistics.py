"""Length, repetition and weight distance, by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates, samples
from safetensors.torch import save_file

from bench.schema import Completion, Prompt, UserError
from bench.suite.checkpoints import Checkpoint, resolve
from evaluators import registry
from evaluators.base import Samples
from evaluators.judges import Judges
from evaluators.length import Length
from evaluators.repetition import Repetition, ends_in_loop, repeated_share
from evaluators.weight_distance import WeightDistance


def test_length_by_hand() -> None:
    completions = [Completion(0, 0, " a b", 3, "stop"), Completion(0, 1, " c d e f", 30, "length")]
    judged = Length().judge(Samples([Prompt(set="s", row=0, text="x")], completions), Judges())
    found = estimates(judged, 1)
    assert found["length_tokens"].value == pytest.approx((3 + 30) / 2)
    assert found["length_words"].value == pytest.approx((2 + 4) / 2)
    assert found["ended"].value == pytest.approx(1 / 2)


def test_repetition_by_hand() -> None:
    # a b a b a: bigrams ab ba ab ba, 2 of 4 unique; c d: 1 of 1; "e" has no bigram
    judged = Repetition(n=2).judge(samples({"x": [" a b a b a", " c d"], "y": [" e", ""]}), Judges())
    assert judged.scores["repetition"].values == [0.5, 0.0, None, None]
    assert judged.scores["repetition"].reasons == {2: "fewer than 2 words", 3: "fewer than 2 words"}
    found = estimates(judged, 2)
    assert (found["repetition"].value, found["repetition"].n_scored, found["repetition"].n_total) == (0.25, 2, 4)
    assert (found["looping"].value, found["looping"].n_scored) == (0.0, 3)
    assert repeated_share(["a"] * 5, 4) == 0.5  # aaaa aaaa: one of two


@pytest.mark.parametrize(
    ("words", "loops"),
    [("so so so", True), ("x a b a b a b", True), ("a b a b", False), ("so so so then", False), ("", False)],
)
def test_a_loop_is_a_phrase_three_times_at_the_end(words: str, loops: bool) -> None:
    assert ends_in_loop(words.split()) is loops


def checkpoint(folder: Path, tensors: dict[str, Sequence[float]]) -> Checkpoint:
    folder.mkdir()
    save_file({name: torch.tensor(values) for name, values in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "vocab.json").write_text("{}")
    return resolve(str(folder))


def test_weight_distance_by_hand(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a", {"u": [1.0, 2.0], "w": [0.0, 0.0, 3.0, 0.0]})
    b = checkpoint(tmp_path / "b", {"u": [1.0, 0.0], "w": [1.0, 1.0, 2.0, 1.0]})
    judged = WeightDistance(pairs=("a:b",)).inspect({"a": a, "b": b})
    assert [(d.pair, d.tensor, d.elements, d.distance) for d in judged.distances] == [
        ("a:b", "u", 2, pytest.approx(np.sqrt((0**2 + 2**2) / 2))),
        ("a:b", "w", 4, pytest.approx(np.sqrt((1 + 1 + 1 + 1) / 4))),
    ]
    (overall,) = judged.estimates
    assert (overall.metric, overall.n_total) == ("weight_distance[a:b]", 6)
    assert overall.value == pytest.approx(np.sqrt((4 + 4) / 6))
    assert [metric.name for metric in WeightDistance(pairs=("a:b",)).metrics()] == [overall.metric]


def test_weight_distance_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a", {"u": [1.0]})
    b = checkpoint(tmp_path / "b", {"u": [1.0, 2.0]})
    with pytest.raises(UserError, match="differ in the shape of u"):
        WeightDistance(pairs=("a:b",)).inspect({"a": a, "b": b})
    with pytest.raises(UserError, match="expected two of the checkpoints a, b as a:b, got 'a:c'"):
        WeightDistance(pairs=("a:c",)).require(["a", "b"])


def test_every_name_in_the_table_loads_and_documents_its_fields() -> None:
    found = registry()
    for name in found.names():
        cls = found.get(name)
        assert cls.__doc__ and cls.source, name
        undocumented = [key for key, field in cls.model_fields.items() if not field.description]
        assert undocumented == [], name
