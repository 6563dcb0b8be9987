"""Rows that share their prompts' keys attend as if each had its own."""

import pytest
import torch
from torch import Tensor

from bench.engines.attention import AT_ONCE, FEW, Beginnings, decoding_attention

OWNERS = [  # equal groups in order, and in another; ragged; two prompts that nobody continues
    [0, 0, 1, 1, 2, 2],
    [2, 2, 0, 0, 1, 1],
    [2, 0, 2, 1, 0, 2],
    [1],
]
P, T, OWN, D, E = 3, 5, 4, 8, 6


class Layer:
    layer_idx = 1
    num_key_value_groups = 1
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


@pytest.mark.parametrize(("rows", "queries"), [(1, 1), (2, 1), (9, 1), (3, 4), (2, FEW + 1)])
@pytest.mark.parametrize(("heads", "query_heads"), [(2, 2), (2, 6)])
def test_rows_without_beginnings_attend_as_torch_does(rows: int, queries: int, heads: int, query_heads: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(rows, query_heads, queries, D)
    key, value = time_first(rows, heads, 12, D), time_first(rows, heads, 12, E)
    mask = torch.ones(rows, 1, queries, 12, dtype=torch.bool).tril(diagonal=12 - queries)
    mask[-1, ..., :2] = False
    layer = Layer()
    layer.num_key_value_groups = query_heads // heads
    found, _ = decoding_attention(layer, query, key, value, mask, scaling=0.5)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.5, enable_gqa=True
    )
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_query_at_padding_stays_finite() -> None:
    query, key = torch.randn(2, 2, 3, D), time_first(2, 2, 3, D)
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool).tril()
    mask[0, ..., 0] = False  # so the first query sees nothing
    assert decoding_attention(Layer(), query, key, key, mask)[0].isfinite().all()
