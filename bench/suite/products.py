"""A model's matrix products on a CPU in float32, by oneDNN.

torch hands float32 products to MKL, which leaves AVX-512 unused on processors of other makers: there oneDNN is twice as
quick at hundreds of rows, and up to four times at a few (docs/SPEED.md).  Weights stay where they are, so a model that
is mixed in place stays one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

WORTH = 2**19  # multiplications from which on oneDNN makes up for what a call into it costs


def by_onednn(model: Any) -> None:
    """Let every linear layer of a model (`nn.Linear`, GPT-2's `Conv1D`) multiply by `product`."""
    if hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in model.modules():
            if type(module) in KINDS:
                module.__class__ = KINDS[type(module)]


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K) times weight (N, K) transposed, plus bias (N,): (..., N)."""
    worth = x.numel() * weight.shape[0] >= WORTH
    suited = worth and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not suited:
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled():
        found: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return _onednn(x, weight, bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class _Product(torch.autograd.Function):
    """`_onednn` with its derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_x, to_weight, to_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            _onednn(gradient, weight.t(), None) if to_x else None,
            _onednn(flat.t(), x.reshape(-1, x.shape[-1]).t(), None) if to_weight else None,
            flat.sum(dim=0) if to_bias else None,
        )


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return product(input, self.weight, self.bias)


class _Conv1D(Conv1D):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight.t(), self.bias)


KINDS: dict[type, type] = {nn.Linear: _Linear, Conv1D: _Conv1D}
