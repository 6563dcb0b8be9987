"""The sampler's distribution, its random numbers and its laws."""

import pytest
import torch
from scipy import stats

from bench.engines.sampling import (
    first_draw,
    inverse_cdf,
    nucleus,
    nucleus_mask,
    redraw,
    row_keys,
    rows_per_chunk,
    uniforms,
)
from bench.malloc import LARGE
from bench.schema import Prompt

PROMPTS = [Prompt(set="s", row=row, text="x") for row in range(4)]


def sample_nucleus(
    logits: torch.Tensor, top_p: float, keys: torch.Tensor, step: int, allowed: torch.Tensor | None = None
) -> torch.Tensor:
    """A whole step: the first draw of all rows, and those that a rejection asks for.  Returns (B,) int64."""
    tokens, rejected = first_draw(logits, top_p, uniforms(keys, step, 0), allowed)
    redraw(tokens, [rejected], keys, step)
    return tokens


def exact_nucleus(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The nucleus distribution by sorting: the shortest prefix of the sorted tokens whose mass reaches p."""
    probabilities = logits.double().softmax(-1)
    kept = torch.zeros_like(probabilities)
    mass = 0.0
    for token in probabilities.argsort(descending=True):
        if mass >= p:
            break
        kept[token] = probabilities[token]
        mass += float(probabilities[token])
    return kept / kept.sum()


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_draws_follow_the_exact_nucleus(top_p: float, spread: float) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(7)) * spread
    n = 40_000
    keys = row_keys([Prompt(set="chi", row=0, text="")], n, seed=11)
    drawn = sample_nucleus(logits.repeat(n, 1), top_p, keys, step=3)
    expected = exact_nucleus(logits, top_p) * n
    counts = torch.bincount(drawn, minlength=50).double()
    assert counts[expected == 0].sum() == 0
    inside = expected > 0
    if inside.sum() > 1:
        assert stats.chisquare(counts[inside], expected[inside]).pvalue > 1e-3


def test_uniforms_are_uniform_and_independent_over_steps() -> None:
    keys = row_keys(PROMPTS, 5000, seed=0)
    first, second = uniforms(keys, 0, 0), uniforms(keys, 1, 0)
    assert stats.kstest(first.numpy(), "uniform").pvalue > 1e-3
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([first, uniforms(keys, 0, 1)]))[0, 1])) < 0.03


def test_a_row_key_depends_on_set_row_sample_and_seed_alone() -> None:
    keys = row_keys(PROMPTS, 3, seed=0).view(4, 3)
    assert keys.unique().numel() == 12
    assert (row_keys(PROMPTS[2:3], 3, seed=0) == keys[2]).all()
    assert not (row_keys(PROMPTS, 3, seed=1).view(4, 3) == keys).any()


def test_nucleus_mask_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert nucleus_mask(logits, 0.75).tolist() == [[True, True, False, False]]  # 0.5 < 0.75 <= 0.8
    assert nucleus_mask(logits, 0.4).tolist() == [[True, False, False, False]]


def test_equal_tokens_at_the_nucleus_edge_are_all_inside() -> None:
    """0.4 < 0.5, so the edge is at 0.2, which three tokens have; strictly above them is 0.4 < 0.5."""
    logits = torch.tensor([[0.2, 0.4, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]]).log()
    assert nucleus_mask(logits, 0.5).all()
    assert nucleus_mask(logits, 0.3).tolist() == [[False, True, False, False], [True] * 4]
    torch.testing.assert_close(nucleus(logits, 0.3)[1], torch.full((4,), 0.25))


def test_allowed_tokens_are_the_only_candidates() -> None:
    allowed = torch.tensor([[False, True, False, True]])
    keys = row_keys(PROMPTS, 100, seed=0)
    drawn = sample_nucleus(torch.zeros(400, 4), 1.0, keys, 0, allowed.expand(400, -1))
    assert set(drawn.tolist()) == {1, 3}


def test_a_certain_token_is_always_drawn() -> None:
    logits = torch.full((400, 10), -torch.inf)
    logits[:, 6] = 0.0
    assert (sample_nucleus(logits, 0.9, row_keys(PROMPTS, 100, seed=0), 0) == 6).all()


@pytest.mark.parametrize("vocabulary", [1, 3, 64, 65, 200])
def test_the_drawn_token_is_the_first_whose_running_sum_exceeds_the_number(vocabulary: int) -> None:
    """And never a token without weight."""
    weights = torch.randint(0, 3, (1, vocabulary), generator=torch.Generator().manual_seed(1)).float()
    weights[0, vocabulary // 2] = 2.0
    total = int(weights.sum())
    below = (torch.arange(4 * total).double() + 0.5) / (4 * total)  # inside each quarter of a weight
    rows = weights.expand(len(below), -1)
    drawn = inverse_cdf(rows, below)
    expected = [int((weights[0].cumsum(0) > quarter / 4 + 0.125).nonzero()[0]) for quarter in range(4 * total)]
    assert drawn.tolist() == expected
    assert (weights[0, inverse_cdf(rows, torch.full_like(below, 1 - 2**-53))] > 0).all()


def test_rows_of_a_chunk_fit_what_malloc_keeps() -> None:
    for vocabulary in (5, 4096, 32000, 50257, 151936):
        rows = rows_per_chunk(vocabulary)
        assert (rows == 256 and rows * vocabulary * 4 < LARGE) or (rows == 128 and 256 * vocabulary * 4 >= LARGE)
