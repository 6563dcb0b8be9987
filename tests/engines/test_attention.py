"""Rows that share their prompts' keys attend as if each had its own."""

import pytest
import torch
from torch import Tensor

from bench.engines.attention import AT_ONCE, Beginnings, decoding_attention

OWNERS = [
    [0, 0, 1, 1, 2, 2],
    [2, 0, 2, 1, 0, 2],
    [1],
]  # equal groups in order; ragged; two prompts that nobody continues
P, T, OWN, D, E = 3, 5, 4, 8, 6


class Layer:
    layer_idx = 1
    is_causal = True


def time_first(*shape: int) -> Tensor:
    """(B, K, T, d) as the cache has it."""
    rows, heads, length, size = shape
    return torch.randn(length, rows, heads, size).permute(1, 2, 0, 3)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize(("heads", "query_heads"), [(2, 2), (2, 6)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("at_once", [1, AT_ONCE])
def test_shared_keys_are_as_good_as_own_ones(
    monkeypatch: pytest.MonkeyPatch, owner: list[int], heads: int, query_heads: int, padded: bool, at_once: int
) -> None:
    monkeypatch.setattr("bench.engines.attention.AT_ONCE", at_once)
    torch.manual_seed(0)
    prompts = [(time_first(P, heads, T, D), time_first(P, heads, T, E)) for _ in range(2)]
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]) if padded else None
    rows = torch.tensor(owner)
    query = torch.randn(len(rows), query_heads, 1, D)
    key, value = time_first(len(rows), heads, OWN, D), time_first(len(rows), heads, OWN, E)
    found, _ = decoding_attention(Layer(), query, key, value, None, Beginnings(prompts, real, rows), scaling=0.3)
    whole_key, whole_value = (
        torch.cat([before[rows], own], dim=2).repeat_interleave(query_heads // heads, dim=1)
        for before, own in zip(prompts[1], (key, value), strict=True)
    )
    scores = 0.3 * query @ whole_key.transpose(2, 3)
    if real is not None:
        scores[..., :T].masked_fill_(real[rows][:, None, None] == 0, -torch.inf)
    torch.testing.assert_close(found, (scores.softmax(dim=-1) @ whole_value).transpose(1, 2))


def test_rows_that_go_take_their_seats_with_them() -> None:
    torch.manual_seed(0)
    prompts = [(time_first(P, 2, T, D), time_first(P, 2, T, E))]
    query = torch.randn(6, 2, 1, D)
    beginnings = Beginnings(prompts, None, torch.tensor([0, 0, 1, 1, 2, 2]))
    before = beginnings.scores(0, query)
    kept = torch.tensor([1, 2, 3, 5])
    beginnings.select(kept)
    torch.testing.assert_close(beginnings.scores(0, query[kept]), before[kept])


@pytest.mark.parametrize("rows", [2, 9])
def test_rows_without_beginnings_attend_as_torch_does(rows: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(rows, 2, 1, D), time_first(rows, 2, OWN, D), time_first(rows, 2, OWN, D)
    mask = torch.ones(rows, 1, 1, OWN, dtype=torch.bool)
    mask[1, ..., :2] = False
    found, _ = decoding_attention(Layer(), query, key, value, mask, scaling=0.5)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.5)
    torch.testing.assert_close(found, expected.transpose(1, 2))
