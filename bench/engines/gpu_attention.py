"""Attention of rows that decode a few tokens at a time on a GPU: one kernel, in which a query reads what it sees once.

torch's own kernels take blocks of 64 queries, of which one or a few are there.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SHORT = 256  # places up to which few keys at a time and one warp are the quickest (docs/SPEED.md)


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    query, key, value, mask, out, query_row, query_head, query_place, key_row, key_head, key_place,
    value_row, value_head, value_place, mask_row, mask_query, places, last, scaling, bounded: tl.constexpr,
    heads: tl.constexpr, group: tl.constexpr, size: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One query of a head of a row, by a running softmax (Milakov and Gimelshein 2018, arXiv 1805.02867)."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place = tl.program_id(2)
    shared = head // group
    d = tl.arange(0, padded)
    inside = d < size
    own = query + row * query_row + head * query_head + place * query_place
    q = tl.load(own + d, mask=inside, other=0.0).to(tl.float32) * scaling
    highest = float("-inf")
    total = 0.0
    mixed = tl.zeros([padded], dtype=tl.float32)
    if bounded:
        places = tl.load(last).to(tl.int32) + 1
    for start in range(0, places, block):
        t = start + tl.arange(0, block)
        seen = tl.load(mask + row * mask_row + place * mask_query + t, mask=t < places, other=0) != 0
        wanted = seen[:, None] & inside[None, :]
        keys = key + row * key_row + shared * key_head + t[:, None] * key_place + d[None, :]
        k = tl.load(keys, mask=wanted, other=0.0).to(tl.float32)
        score = tl.where(seen, tl.sum(k * q[None, :], axis=1), float("-inf"))
        top = tl.maximum(highest, tl.max(score, axis=0))
        level = tl.where(top == float("-inf"), 0.0, top)
        weight = tl.exp(score - level)
        before = tl.exp(highest - level)
        values = value + row * value_row + shared * value_head + t[:, None] * value_place + d[None, :]
        v = tl.load(values, mask=wanted, other=0.0).to(tl.float32)
        mixed = mixed * before + tl.sum(weight[:, None] * v, axis=0)
        total = total * before + tl.sum(weight, axis=0)
        highest = top
    found = (mixed / tl.where(total > 0, total, 1.0)).to(out.dtype.element_ty)  # at padding nothing is seen
    tl.store(out + ((row * tl.num_programs(2) + place) * heads + head) * size + d, found, mask=inside)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, last: Tensor | None = None
) -> Tensor:
    """softmax(scaling q k^T) v over the places that the mask leaves.

    query: (B, H, Q, d); key, value: (B, K, T, d), d last in memory; mask: (B, 1, Q, T) bool; last: (1,) int64, the
    last place that it leaves in any row, where that is known.  Returns (B, Q, H, d).
    """
    batch, heads, queries, size = query.shape
    mask = mask.expand(batch, -1, queries, -1)
    out = torch.empty(batch, queries, heads, size, dtype=query.dtype, device=query.device)
    strides = (*query.stride()[:3], *key.stride()[:3], *value.stride()[:3], mask.stride(0), mask.stride(2))
    seen = mask.view(torch.uint8)
    block, warps = (16, 1) if key.shape[2] <= SHORT else (64, 4)
    launch: Any = _attend[batch, heads, queries]
    launch(
        query, key, value, seen, out, *strides, key.shape[2], seen if last is None else last, scaling,
        bounded=last is not None, heads=heads, group=heads // key.shape[1], size=size,
        padded=triton.next_power_of_2(size), block=block, num_warps=warps,
    )  # fmt: skip
    return out
