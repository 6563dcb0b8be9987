"""The machinery under the judges: batches, memory, heads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from bench.suite.heads import head_of
from evaluators import scoring
from evaluators.judges import Judge, Judges
from evaluators.packing import Packing, packed_states
from evaluators.scoring import distinct_items, head_nlls, run_packed, run_padded, token_nlls


def test_batches_take_every_row_once_longest_first_within_the_budget() -> None:
    lengths = [3, 9, 1, 4, 4, 20]
    batches: list[list[int]] = []
    run_padded(lengths, 10, batches.append)
    # 20 alone (over the budget, but at least one row), 9 alone, 4 + 4 (2 x 4 <= 10), 3 + 1 (2 x 3 <= 10)
    assert batches == [[5], [1], [3, 4], [0, 2]]


def test_alike_rows_are_not_padded_where_they_fill_half_a_batch() -> None:
    batches: list[list[int]] = []
    run_padded([5, 5, 4, 4, 4, 2], 16, batches.append)
    # 5 5 (10 >= 8) without the 4; 4 4 4 (12 >= 8) without the 2; the 2 is what is left
    assert batches == [[0, 1], [2, 3, 4], [5]]


def test_packed_batches_count_a_shared_beginning_once() -> None:
    sequences = [[7, 8], [1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4, 6]]
    batches: list[list[int]] = []
    run_packed(sequences, 6, batches.append)
    # In order: 1234 has 4 tokens, 12346 one more, 1235 one more (6 in all); 78 has 2 of its own.
    assert batches == [[1, 3, 2], [0]]


@pytest.mark.parametrize("place", [run_padded, run_packed])
def test_running_out_of_memory_halves_the_budget_for_all_that_follows(place: object) -> None:
    tried: list[int] = []
    finished: list[int] = []

    def run(rows: list[int]) -> None:
        tried.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        finished.extend(rows)

    if place is run_padded:
        run_padded([1] * 10, 8, run)
    else:
        run_packed([[row] for row in range(10)], 8, run)
    assert sorted(finished) == list(range(10))
    assert tried == [8, 4, 2, 2, 2, 2, 2]


def test_a_single_row_that_does_not_fit_raises() -> None:
    def run(rows: list[int]) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run_padded([4, 4], 8, run)


def test_running_out_of_memory_within_a_judge_changes_nothing(
    tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judges().language_model(str(tiny_trio["base"]))
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, 200, (n,), generator=generator).tolist() for n in (3, 9, 9, 20, 31)]
    expected = token_nlls(judge, sequences)
    failed: list[int] = []

    def small_device(model: object, packing: Packing) -> torch.Tensor:
        if packing.ids.shape[1] > 30:
            failed.append(packing.ids.shape[1])
            raise torch.OutOfMemoryError
        return packed_states(model, packing)

    monkeypatch.setattr(scoring, "packed_states", small_device)
    told: list[int] = []
    found = token_nlls(judge, sequences, advance=told.append)
    assert failed[0] == 2 + 8 + 8 + 19 + 30  # all at once; the last token of each predicts nothing
    assert sum(told) == 5
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), rel=1e-5, abs=1e-5)


def test_distinct_items() -> None:
    items, index, counts = distinct_items(["b", "a", "b"])
    assert (items, index.tolist(), counts.tolist()) == (["b", "a"], [0, 1, 0], [2, 1])


def test_pieces_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, hidden, targets = torch.nn.Linear(8, 50), torch.randn(7, 8), torch.randint(0, 50, (7,))
    expected = -head(hidden).log_softmax(-1)[torch.arange(7), targets]
    monkeypatch.setattr(scoring, "HEAD_ROWS", 4)
    monkeypatch.setitem(scoring.LOGITS_AT_ONCE, "cpu", 100)  # the softmax of two tokens at a time
    assert torch.allclose(head_nlls(head, hidden, targets), expected, atol=1e-6)


def test_a_judge_that_scales_its_logits_is_asked_as_it_answers(tiny_trio: dict[str, Path]) -> None:
    plain = Judges().language_model(str(tiny_trio["base"]))
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logit_scale=0.01, initializer_range=1.0,
    )  # fmt: skip
    model = CohereForCausalLM(config).eval()
    scaled = Judge(plain.checkpoint, model, plain.tokenizer, head=head_of(model, plain.checkpoint))
    ids = [3, 1, 4, 1, 5]
    with torch.no_grad():
        expected = -scaled.model(torch.tensor([ids])).logits[0].log_softmax(-1)[torch.arange(4), torch.tensor(ids[1:])]
    assert np.allclose(token_nlls(scaled, [ids])[0], expected.numpy(), atol=1e-6)
