"""What lies between a model's matrix products, quick on a CPU: GPT-2's activation, and dropouts.

The activation is gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), in pieces that stay in cache.
1 + tanh(u) is 2 sigmoid(2 u), which torch computes eight times as quickly on a CPU (docs/SPEED.md).  Its own kernel of
the formula takes most of its time in the tanh; transformers' `NewGELUActivation` walks through the tensor eight times.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUTanh, NewGELUActivation

PIECE = 2**17  # float32 numbers: 512 KiB
SLOPE = math.sqrt(2 / math.pi)
SMALL = 2**12  # numbers up to which one slow kernel beats eight calls


class BlockedGELU(nn.Module):
    """GELU with tanh in float32.  On a CPU it overwrites its input, the projection before it, but not in training."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled() or x.numel() <= SMALL:
            return nn.functional.gelu(x, approximate="tanh")
        flat = x.reshape(-1)
        for piece in torch.split(flat, PIECE):
            wide = piece.float()
            inner = (wide * wide).mul_(2 * SLOPE * 0.044715).add_(2 * SLOPE).mul_(wide)
            piece.copy_(wide.mul_(inner.sigmoid_()))
        return flat.view(x.shape)


def block_gelus(model: Any) -> None:
    """Replace every activation of this formula in a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | GELUTanh):
                setattr(module, name, BlockedGELU())


class _Dropout(nn.Dropout):
    """Outside training nothing but its argument: a model has dozens, and a call of a module costs microseconds."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) if self.training else x


def skip_dropouts(model: Any) -> None:
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = _Dropout
