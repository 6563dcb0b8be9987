"""Exact nucleus sampling without sorting the vocabulary, from counter-based random numbers.

Draw from the softmax over a candidate set that holds the nucleus; the draw is in the nucleus exactly when the mass
strictly above it is below p.  A rejected draw shrinks the candidates to the tokens above it, which still hold the whole
nucleus, so the accepted draw has the nucleus distribution and few rounds suffice (the first accepts with
probability p or more).  The draw is by sums of blocks of tokens first and inside one block then, so that no sum runs
over the vocabulary.  Cost: exponentials and three reductions; a sort is many times dearer.

The random number of a draw is a hash of (seed, prompt set, prompt row, sample, step, attempt).  So a completion does
not depend on its batch, a rerun is identical, and all points of a sweep share their noise (common random numbers).
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import malloc
from bench.schema import Prompt
from bench.serving import NotFiniteError
from bench.suite.exponentials import exponentials

GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed 64-bit integer
MIX_1 = -4658895280553007687
MIX_2 = -7723592293110705685
ATTEMPTS = 4096  # random numbers that a step has
CHUNK_ROWS = 128, 256
BLOCK = 64  # tokens whose weights are summed at once
NO_NUMBERS = "its logits are not finite"


def rows_per_chunk(vocabulary: int) -> int:
    """How many rows of logits a CPU makes and draws from at once: many where malloc has room for them kept."""
    few, many = CHUNK_ROWS
    return many if 4 * many * vocabulary < malloc.LARGE else few


def row_keys(prompts: Sequence[Prompt], samples: int, seed: int) -> Tensor:
    """One 64-bit key per completion, ordered by prompt, then sample.  Returns (P * samples,) int64."""
    digests = [hashlib.blake2b(f"{seed}\0{p.set}\0{p.row}".encode(), digest_size=8).digest() for p in prompts]
    keys = torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests], dtype=torch.int64)
    return scramble(keys[:, None] + GOLDEN * torch.arange(1, samples + 1)).flatten()


def scramble(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), element by element on int64."""
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def uniforms(keys: Tensor, step: int, attempt: int) -> Tensor:
    """Independent uniform numbers in [0, 1) for keys at a step and attempt.  int64 of any shape to float64."""
    counter = GOLDEN * (step * ATTEMPTS + attempt + 1)
    bits = scramble(keys + ((counter + 2**63) % 2**64 - 2**63))  # int64 wraps around, as the hash wants
    return _shift(bits, 11).to(torch.float64) * 2.0**-53


def from_step(keys: Tensor, steps: Tensor) -> Tensor:
    """Keys whose step 0 is a step of the given ones: for rows that are not all at the same.  Shapes broadcast."""
    return keys + GOLDEN * (ATTEMPTS * steps)  # int64 wraps around


class Draw(NamedTuple):
    """The first draw of all rows and what tells whether it stands: kernels alone, nothing has asked for an answer."""

    tokens: Tensor  # (B,) int64
    weights: Tensor  # (B, V)
    edge: Tensor  # (B, 1) the weight of the draw
    limit: Tensor  # (B,) float64, the mass that the tokens above a draw must stay below
    finite: Tensor  # () bool: whether every row has a softmax
    outside: Tensor  # (B,) bool: whether the draw lies outside of the nucleus
    left: Tensor | None = None  # (B, V) the weights above the draws, where they were made; scratch

    def rejected(self) -> "Rejected":
        rows = self.outside.nonzero()[:, 0]
        left = above(self.weights[rows], self.edge[rows]) if self.left is None else self.left[rows]
        return Rejected(rows, left, self.limit[rows])


class Rejected(NamedTuple):
    """Rows whose first draw lies outside of the nucleus."""

    rows: Tensor  # (n,) int64
    weights: Tensor  # (n, V) of the tokens above the draw, which hold the nucleus
    limit: Tensor  # (n,) float64, the mass that the tokens above a draw must stay below


def first_draw(
    logits: Tensor, top_p: float, noise: Tensor, allowed: Tensor | None = None, work: Tensor | None = None
) -> tuple[Tensor, Rejected]:
    """A token a row from the top-p nucleus of softmax(logits), or a rejection: `redraw` runs once for all of a step.

    logits: (B, V) float32, overwritten; noise: (B,) `uniforms` of attempt 0; allowed: (B, V) bool narrows the
    candidates first; work: (>= B, V) float32 scratch, since fresh megabytes cost more in page faults than in
    arithmetic.  Returns the tokens (B,) int64 and which of them are still to be drawn.  Ties at the nucleus' edge are
    all inside.  Raises NotFiniteError where a row has no softmax.
    """
    draw = draw_once(logits, top_p, noise, allowed, work)
    if not draw.finite:
        raise NotFiniteError(NO_NUMBERS)
    return draw.tokens, draw.rejected()


def draw_once(
    logits: Tensor, top_p: float, noise: Tensor, allowed: Tensor | None = None, work: Tensor | None = None
) -> Draw:
    """`first_draw` as kernels alone, which a CUDA graph can hold: nothing waits for the device."""
    if logits.is_cuda:
        from bench.engines.gpu_sampling import mass_above, weigh

        weights, blocks = logits, weigh(logits, allowed, BLOCK)
    else:
        weights, _ = exponentials(logits)  # (B, V), not normalised
        if allowed is not None:
            weights *= allowed
        blocks = block_sums(weights)
    running = blocks.double().cumsum(dim=-1)
    limit = top_p * running[:, -1]
    tokens = inverse_cdf(weights, noise, running).clamp_(max=weights.shape[1] - 1)  # beyond it where numbers are none
    chosen = weights.gather(1, tokens[:, None])
    left = None
    if top_p == 1:
        outside = torch.zeros_like(tokens, dtype=torch.bool)
    elif weights.is_cuda:
        outside = mass_above(weights, chosen).double() >= limit
    else:
        left = above(weights, chosen, work)
        outside = left.sum(dim=-1).double() >= limit
    return Draw(tokens, weights, chosen, limit, torch.isfinite(limit).all(), outside, left)


def redraw(tokens: Tensor, rejected: Sequence[Rejected], keys: Tensor, step: int) -> None:
    """Draw again for rejected rows, in place: only tokens above the rejected one stay candidates.

    tokens, keys: (B,), all rows of a step.
    """
    rows, weights, limit = (torch.cat(parts) for parts in zip(*rejected, strict=True))
    attempt = 1
    while rows.numel():
        drawn = inverse_cdf(weights, uniforms(keys[rows], step, attempt))
        tokens[rows] = drawn  # the last one stands
        left = above(weights, weights.gather(1, drawn[:, None]))
        again = left.sum(dim=-1).double() >= limit
        rows, weights, limit = rows[again], left[again], limit[again]
        attempt += 1


def most_likely(logits: Tensor) -> Tensor:
    """Greedy: (B,) int64 of logits (B, V).  Raises NotFiniteError where a row has no highest number."""
    draw = draw_highest(logits)
    if not draw.finite:
        raise NotFiniteError(NO_NUMBERS)
    return draw.tokens


def draw_highest(logits: Tensor) -> Draw:
    """`most_likely` as kernels alone."""
    highest, tokens = logits.max(dim=-1, keepdim=True)
    outside = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    return Draw(tokens[:, 0], logits, highest, highest[:, 0].double(), torch.isfinite(highest).all(), outside)


def block_sums(weights: Tensor) -> Tensor:
    """The sums of blocks of the weights (B, V), (B, ceil(V / BLOCK)) float32."""
    n_blocks = weights.shape[1] // BLOCK
    whole = weights[:, : n_blocks * BLOCK].reshape(len(weights), n_blocks, BLOCK).sum(dim=-1)
    rest = weights[:, n_blocks * BLOCK :]
    return torch.cat([whole, rest.sum(dim=-1, keepdim=True)], dim=-1) if rest.shape[1] else whole


def inverse_cdf(weights: Tensor, u: Tensor, running: Tensor | None = None) -> Tensor:
    """The first token up to which the weights (B, V) exceed u (B,) times their total.  Returns (B,) int64.

    running: the sums (B, n) float64 of the weights up to the end of each block, where they are known.
    """
    running = block_sums(weights).double().cumsum(dim=-1) if running is None else running
    target = _below(u * running[:, -1], running[:, -1])[:, None]
    block = torch.searchsorted(running, target, right=True)  # (B, 1)
    before = running.gather(1, (block - 1).clamp(min=0)).masked_fill_(block == 0, 0.0)
    places = block * BLOCK + torch.arange(BLOCK, device=weights.device)  # (B, BLOCK)
    inside = weights.gather(1, places.clamp(max=weights.shape[1] - 1)).double()
    cumulative = inside.masked_fill_(places >= weights.shape[1], 0.0).cumsum(dim=-1)
    target = _below((target - before)[:, 0], cumulative[:, -1])[:, None]
    return (block * BLOCK + torch.searchsorted(cumulative, target, right=True))[:, 0]


def _below(x: Tensor, limit: Tensor) -> Tensor:
    """x where it is below the limit, else the number before it: rounding leads to no token without weight."""
    return torch.minimum(x, limit.nextafter(torch.zeros_like(limit)))


def above(weights: Tensor, edge: Tensor, work: Tensor | None = None) -> Tensor:
    """The weights (B, V) that exceed edge (B, 1), 0 for the others; written to the first rows of `work`.

    By a mask of floats: products with booleans take ten times as long.
    """
    mask = torch.empty_like(weights) if work is None else work[: len(weights)]
    return torch.gt(weights, edge, out=mask).mul_(weights)


def nucleus_mask(logits: Tensor, top_p: float) -> Tensor:
    """Which tokens are in the top-p nucleus of softmax(logits): the mass strictly above them is below p.

    logits: (B, V).  Returns (B, V) bool.  For filters that need the whole set, not one draw.
    """
    probabilities = logits.softmax(dim=-1)
    return probabilities >= _edge(probabilities, top_p)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The distribution that is drawn from, ties at the edge inside.  (..., V) float32, as are logits."""
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        probabilities *= probabilities >= _edge(probabilities, top_p)
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def _edge(probabilities: Tensor, top_p: float) -> Tensor:
    """The least probability inside the top-p nucleus, so that equal ones are inside with it.  (..., V) -> (..., 1).

    On a CPU by NumPy's sort, which is vectorised and many times as quick as torch's (docs/SPEED.md).
    """
    if probabilities.is_cuda:
        from bench.engines.gpu_sampling import nucleus_edge

        return nucleus_edge(probabilities, top_p)
    ordered = torch.from_numpy(np.sort(probabilities.numpy(), axis=-1)).flip(-1)
    inside = (ordered.cumsum(dim=-1) - ordered < top_p).sum(dim=-1, keepdim=True)  # the first ones, as sums only grow
    return ordered.gather(-1, (inside - 1).clamp_(min=0))  # none where there are no numbers
