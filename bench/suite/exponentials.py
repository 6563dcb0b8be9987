"""Exponentials of logits and their sums, quick on a CPU.

As powers of 2: torch's `exp` is MKL's, which takes four times as long as its `exp2` on processors of other makers
(docs/SPEED.md).
"""

import math

import torch
from torch import Tensor

LOG2_E = math.log2(math.e)


def exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - c), in place, and c (..., 1) float64, within rounding the highest of each row.

    logits: (..., V) float32.
    """
    shift = logits.amax(dim=-1, keepdim=True) * LOG2_E
    powers = torch.add(-shift, logits, alpha=LOG2_E, out=logits).exp2_()
    return powers, shift.double() / LOG2_E


def log_totals(logits: Tensor) -> Tensor:
    """log sum exp of each row, (...,) float64; overwrites the logits (..., V) float32."""
    powers, shift = exponentials(logits)
    return powers.sum(dim=-1).double().log() + shift[..., 0]
