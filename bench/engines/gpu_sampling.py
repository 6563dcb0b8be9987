"""The sampler's passes over the vocabulary on a GPU, a kernel each: a row is read where it lies, and written once."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # tokens that are read at once
WARPS = 16
ONE = 0x3F800000  # the bits of 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _weigh(  # type: ignore[no-untyped-def]
    logits, allowed, sums, row_stride, allowed_stride, vocabulary, n_blocks,
    masked: tl.constexpr, block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * row_stride
    places = tl.arange(0, tile)
    tops = tl.full([tile], float("-inf"), dtype=tl.float32)
    for start in range(0, vocabulary, tile):
        t = start + places
        tops = tl.maximum(tops, tl.load(own + t, mask=t < vocabulary, other=float("-inf")))
    highest = tl.max(tops, axis=0)
    for start in range(0, vocabulary, tile):
        t = start + places
        inside = t < vocabulary
        weight = tl.exp(tl.load(own + t, mask=inside, other=float("-inf")) - highest)
        if masked:
            weight = weight * tl.load(allowed + row * allowed_stride + t, mask=inside, other=0).to(tl.float32)
        tl.store(own + t, weight, mask=inside)
        of_blocks = tl.sum(tl.reshape(weight, [tile // block, block]), axis=1)
        b = start // block + tl.arange(0, tile // block)
        tl.store(sums + row * n_blocks + b, of_blocks, mask=b < n_blocks)


@triton.jit  # type: ignore[untyped-decorator]
def _above(weights, edge, found, row_stride, vocabulary, tile: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    limit = tl.load(edge + row)
    places = tl.arange(0, tile)
    mass = tl.zeros([tile], dtype=tl.float32)
    for start in range(0, vocabulary, tile):
        t = start + places
        weight = tl.load(weights + row * row_stride + t, mask=t < vocabulary, other=0.0)
        mass += tl.where(weight > limit, weight, 0.0)
    tl.store(found + row, tl.sum(mass, axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def _nucleus(  # type: ignore[no-untyped-def]
    probabilities, found, row_stride, vocabulary, top_p, one: tl.constexpr, tile: tl.constexpr
):
    """Halves the numbers between 0 and 1 by their bits, which are ordered as they are: 2^30 of them."""
    row = tl.program_id(0).to(tl.int64)
    own = probabilities + row * row_stride
    places = tl.arange(0, tile)
    low = tl.program_id(0) * 0
    high = low + one
    for _ in range(0, 30):
        middle = (low + high) >> 1
        edge = middle.to(tl.float32, bitcast=True)
        mass = tl.zeros([tile], dtype=tl.float32)
        for start in range(0, vocabulary, tile):
            t = start + places
            p = tl.load(own + t, mask=t < vocabulary, other=0.0)
            mass += tl.where(p > edge, p, 0.0)
        inside = tl.sum(mass, axis=0) < top_p
        high = tl.where(inside, middle, high)
        low = tl.where(inside, low, middle + 1)
    tl.store(found + row, high.to(tl.float32, bitcast=True))


def weigh(logits: Tensor, allowed: Tensor | None, block: int) -> Tensor:
    """exp(z - max z) of each row in the place of the logits z, 0 where not allowed.

    logits: (B, V) float32, V last in memory; allowed: (B, V) bool.  Returns the sums of each `block` of
    them, a power of two, (B, n).
    """
    rows, vocabulary = logits.shape
    n_blocks = triton.cdiv(vocabulary, block)
    sums = torch.empty(rows, n_blocks, device=logits.device)
    mask = logits if allowed is None else allowed.contiguous().view(torch.uint8)
    launch: Any = _weigh[(rows,)]
    launch(
        logits, mask, sums, logits.stride(0), mask.stride(0), vocabulary, n_blocks,
        masked=allowed is not None, block=block, tile=TILE, num_warps=WARPS,
    )  # fmt: skip
    return sums


def mass_above(weights: Tensor, edge: Tensor) -> Tensor:
    """The sum of the weights (B, V) that exceed their row's edge (B, 1).  Returns (B,) float32."""
    found = torch.empty(len(weights), device=weights.device)
    launch: Any = _above[(len(weights),)]
    launch(weights, edge.contiguous(), found, weights.stride(0), weights.shape[1], tile=TILE, num_warps=WARPS)
    return found


def nucleus_edge(probabilities: Tensor, top_p: float) -> Tensor:
    """The least probability inside the top-p nucleus: what lies above it has less than p.  (..., V) -> (..., 1)."""
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    found = torch.empty(len(rows), device=rows.device)
    launch: Any = _nucleus[(len(rows),)]
    launch(rows, found, rows.stride(0), rows.shape[1], top_p, one=ONE, tile=TILE, num_warps=WARPS)
    return found.view(*probabilities.shape[:-1], 1)
