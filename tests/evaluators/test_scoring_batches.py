"""The machinery under the judges: batches, memory, shared prompts, heads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from bench.schema import UserError
from evaluators import scoring
from evaluators.judges import Judge, Judges, require_linear_head
from evaluators.scoring import distinct_items, head_nlls, run_in_batches, shared_prefixes, token_nlls


def test_batches_take_every_row_once_longest_first_within_the_budget() -> None:
    lengths = [3, 9, 1, 4, 4, 20]
    batches: list[list[int]] = []
    run_in_batches(lengths, 10, batches.append)
    # 20 alone (over the budget, but at least one row), 9 alone, 4 + 4 (2 x 4 <= 10), 3 + 1 (2 x 3 <= 10)
    assert batches == [[5], [1], [3, 4], [0, 2]]


def test_alike_rows_are_not_padded_where_they_fill_half_a_batch() -> None:
    batches: list[list[int]] = []
    run_in_batches([5, 5, 4, 4, 4, 2], 16, batches.append, alike=True)
    # 5 5 (10 >= 8) without the 4; 4 4 4 (12 >= 8) without the 2; the 2 is what is left
    assert batches == [[0, 1], [2, 3, 4], [5]]


def test_running_out_of_memory_halves_the_budget_for_all_that_follows() -> None:
    tried: list[int] = []
    finished: list[int] = []

    def run(rows: list[int]) -> None:
        tried.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        finished.extend(rows)

    run_in_batches([1] * 10, 8, run)
    assert sorted(finished) == list(range(10))
    assert tried == [8, 4, 2, 2, 2, 2, 2]


def test_a_single_row_that_does_not_fit_raises() -> None:
    def run(rows: list[int]) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run_in_batches([4, 4], 8, run)


def test_distinct_items() -> None:
    items, index, counts = distinct_items(["b", "a", "b"])
    assert (items, index.tolist(), counts.tolist()) == (["b", "a"], [0, 1, 0], [2, 1])


def test_prompts_of_several_rows_are_shared() -> None:
    sequences = [[1, 2, 3], [1, 2, 4], [1, 2], [5, 6, 7], [8, 9], [8, 9]]
    # Row 2 has no token behind its prompt, row 3's prompt is its own, rows 4 and 5 have a prompt of one token.
    assert shared_prefixes(sequences, [2, 2, 2, 2, 1, 1]) == {(1, 2): [0, 1]}


def test_sharing_prompts_changes_nothing(tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judges().language_model(str(tiny_trio["base"]))
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(1, 200, (n,), generator=generator).tolist() for n in (2, 5, 5, 9)]
    lengths = (1, 4, 4, 13, 30)
    tails = [torch.randint(1, 200, (n,), generator=generator).tolist() for n in lengths]
    sequences = [prompt + tail for prompt in prompts for tail in tails]
    starts = [len(prompt) for prompt in prompts for _ in tails]
    alone = token_nlls(judge, sequences)
    for budget in (1, 40, 10_000):
        monkeypatch.setitem(scoring.TOKENS_PER_BATCH, "cpu", budget)
        shared = token_nlls(judge, sequences, starts)
        assert [len(nll) for nll in shared] == [len(ids) - 1 for ids in sequences]
        assert np.concatenate(shared) == pytest.approx(np.concatenate(alone), rel=1e-5, abs=1e-5)


def test_chunks_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, hidden, targets = torch.nn.Linear(8, 50), torch.randn(7, 8), torch.randint(0, 50, (7,))
    expected = -head(hidden).log_softmax(-1)[torch.arange(7), targets]
    monkeypatch.setitem(scoring.HEAD_ELEMENTS, "cpu", 100)  # two tokens at a time
    assert torch.allclose(head_nlls(head, hidden, targets), expected, atol=1e-6)


def test_a_judge_that_changes_its_logits_behind_the_head_is_refused(tiny_trio: dict[str, Path]) -> None:
    plain = Judges().language_model(str(tiny_trio["base"]))
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logit_scale=0.01, initializer_range=1.0,
    )  # fmt: skip
    scaled = Judge(plain.checkpoint, CohereForCausalLM(config).eval(), plain.tokenizer)
    with pytest.raises(UserError, match="cohere changes its logits behind the head"):
        require_linear_head(scaled)
