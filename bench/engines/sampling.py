"""Exact nucleus sampling without sorting the vocabulary, from counter-based random numbers.

Draw from the softmax over a candidate set that holds the nucleus; the draw is in the nucleus exactly when the mass
strictly above it is below p.  A rejected draw shrinks the candidates to the tokens above it, which still hold the whole
nucleus, so the accepted draw has the nucleus distribution and few rounds suffice (the first accepts with
probability p or more).  Cost: a softmax, a cumulative sum and two reductions; a sort is several times dearer.

The random number of a draw is a hash of (seed, prompt set, prompt row, sample, step, attempt).  So a completion does
not depend on its batch, a rerun is identical, and all points of a sweep share their noise (common random numbers).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.schema import Prompt
from bench.serving import NotFiniteError

GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed 64-bit integer
MIX_1 = -4658895280553007687
MIX_2 = -7723592293110705685
ATTEMPTS = 4096  # random numbers that a step has
ROWS_PER_CHUNK = 128  # keeps a chunk of weights (rows x vocabulary) within a core's cache


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
    """Independent uniform numbers in [0, 1) for (B,) keys at a step and attempt.  Returns (B,) float64."""
    counter = torch.tensor(step * ATTEMPTS + attempt + 1, device=keys.device)
    bits = scramble(keys + GOLDEN * counter)  # int64 wraps around, as the hash wants
    return _shift(bits, 11).to(torch.float64) * 2.0**-53


def from_step(keys: Tensor, steps: Tensor) -> Tensor:
    """Keys whose step 0 is a step of the given ones: for rows that are not all at the same.  Shapes broadcast."""
    return keys + GOLDEN * (ATTEMPTS * steps)  # int64 wraps around


def sample_nucleus(
    logits: Tensor, top_p: float, keys: Tensor, step: int, allowed: Tensor | None = None, work: Tensor | None = None
) -> Tensor:
    """Draw a token per row from the top-p nucleus of softmax(logits).

    logits: (B, V) float32, overwritten; keys: (B,) int64; allowed: (B, V) bool narrows the candidates first; work:
    (>= B, V) float32 scratch, since fresh megabytes cost more in page faults than in arithmetic.  Returns (B,) int64.
    Ties at the nucleus' edge are all inside.  Raises NotFiniteError where a row has no softmax.
    """
    work = torch.empty_like(logits) if work is None else work[: len(logits)]
    weights = logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()  # (B, V), not normalised
    if allowed is not None:
        weights *= allowed
    cumulative = torch.cumsum(weights, dim=-1, out=work)
    limit = top_p * cumulative[:, -1].double()
    if not torch.isfinite(limit).all():
        raise NotFiniteError("its logits are not finite")
    tokens = inverse_cdf(cumulative, uniforms(keys, step, 0))
    if top_p >= 1:
        return tokens
    chosen = weights.gather(1, tokens[:, None])
    heavier = torch.threshold_(torch.sub(weights, chosen, out=work), 0.0, 0.0).gt_(0)  # 1 where heavier than the draw
    rejected = (heavier.mul_(weights).sum(dim=-1).double() >= limit).nonzero()[:, 0]
    if rejected.numel():
        tokens[rejected] = _redraw(weights[rejected], chosen[rejected], limit[rejected], keys[rejected], step)
    return tokens


def most_likely(logits: Tensor) -> Tensor:
    """Greedy: (B,) int64 of logits (B, V).  Raises NotFiniteError where a row has no highest number."""
    highest, tokens = logits.max(dim=-1)
    if not torch.isfinite(highest).all():
        raise NotFiniteError("its logits are not finite")
    return tokens


def inverse_cdf(cumulative: Tensor, u: Tensor) -> Tensor:
    """The first token whose cumulative weight (B, V) exceeds u (B,) times the total.  Returns (B,) int64."""
    target = (u * cumulative[:, -1].double()).to(cumulative.dtype)
    target = torch.minimum(target, cumulative[:, -1].nextafter(torch.zeros_like(target)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def _redraw(weights: Tensor, edge: Tensor, limit: Tensor, keys: Tensor, step: int) -> Tensor:
    """Further rounds for rejected rows: only tokens above the rejected one stay candidates."""
    tokens = torch.empty(len(keys), dtype=torch.int64, device=keys.device)
    open_rows = torch.arange(len(keys), device=keys.device)
    attempt = 1
    while open_rows.numel():
        weights = weights * (weights > edge)
        drawn = inverse_cdf(weights.cumsum(dim=-1), uniforms(keys[open_rows], step, attempt))
        edge = weights.gather(1, drawn[:, None])
        above = (weights * (weights > edge)).sum(dim=-1)
        accepted = above.double() < limit
        tokens[open_rows[accepted]] = drawn[accepted]
        again = ~accepted
        open_rows, weights, edge, limit = open_rows[again], weights[again], edge[again], limit[again]
        attempt += 1
    return tokens


def nucleus_mask(logits: Tensor, top_p: float) -> Tensor:
    """Which tokens are in the top-p nucleus of softmax(logits): the mass strictly above them is below p.

    logits: (B, V).  Returns (B, V) bool.  Sorts: for filters that need the whole set, not one draw.
    """
    probabilities = logits.softmax(dim=-1)
    return probabilities >= _edge(probabilities, top_p)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The distribution that `sample_nucleus` draws from, ties at the edge inside.  (..., V) float32, as are logits."""
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        probabilities *= probabilities >= _edge(probabilities, top_p)
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def _edge(probabilities: Tensor, top_p: float) -> Tensor:
    """The least probability inside the top-p nucleus, so that equal ones are inside with it.  (..., V) -> (..., 1)."""
    ordered = _descending(probabilities)
    inside = (ordered.cumsum(dim=-1) - ordered < top_p).sum(dim=-1, keepdim=True)  # the first ones, as sums only grow
    return ordered.gather(-1, inside - 1)


def _descending(x: Tensor) -> Tensor:
    """Sorted along the last axis; on a CPU by NumPy, whose vectorised sort is many times as quick (docs/SPEED.md)."""
    if x.device.type != "cpu":
        return x.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(x.numpy(), axis=-1)).flip(-1)
