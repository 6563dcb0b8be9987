"""A model's matrix products on a CPU in float32, by oneDNN.

torch hands float32 products to MKL, which leaves AVX-512 unused on processors of other makers: there oneDNN is twice as
quick at hundreds of rows, and up to four times at a few (docs/SPEED.md).  Weights stay where they are, so a model that
is mixed in place stays one.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from bench.suite.activations import BlockedGELU

WORTH_HALVING = 2**17  # weights from which on a product in bfloat16 makes up for turning numbers into it
WORTH = 2**19  # multiplications from which on oneDNN makes up for what a call into it costs


def by_onednn(model: Any) -> None:
    """Let every linear layer of a model (`nn.Linear`, GPT-2's `Conv1D`) multiply by `product`.

    Where `block_gelus` was before, GPT-2's activation becomes a part of the product before it.
    """
    if hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in model.modules():
            if type(module) in KINDS:
                module.__class__ = KINDS[type(module)]
            elif type(module) is GPT2MLP and isinstance(module.act, BlockedGELU):
                module.__class__ = _MLP


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K) times weight (N, K) transposed, plus bias (N,): (..., N)."""
    if not _suited(x, weight):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled():
        found: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return _onednn(x, weight, bias)


def _suited(x: Tensor, weight: Tensor) -> bool:
    worth = x.numel() * weight.shape[0] >= WORTH
    return worth and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, *behind: str) -> Tensor:
    """`behind`: an elementwise function of the product, applied while it is in registers, and its algorithm."""
    name, algorithm = behind or ("none", "")
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)
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


class _HalfLinear(nn.Linear):
    rounded: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _half(input, self.rounded, self.bias)


class _HalfConv1D(Conv1D):  # type: ignore[misc]
    rounded: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return _half(x, self.rounded, self.bias)


def _half(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A product in bfloat16 of float32 numbers (..., K) and a weight (N, K), which may be laid out for oneDNN."""
    multiplied = _onednn if weight.is_mkldnn else nn.functional.linear
    found = multiplied(x.bfloat16(), weight, None).float()
    return found if bias is None else found.add_(bias)


class _MLP(GPT2MLP):  # type: ignore[misc]
    """GPT-2's block of two layers, with the activation between them inside the first product."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        first, x = self.c_fc, hidden_states
        weight = first.weight.t()
        if type(first) is not _Conv1D or torch.is_grad_enabled() or not _suited(x, weight):
            found: Tensor = super().forward(x)
            return found
        found = self.dropout(self.c_proj(_onednn(x, weight, first.bias, "gelu", "tanh")))
        return found


KINDS: dict[type, type] = {nn.Linear: _Linear, Conv1D: _Conv1D}
HALVES: dict[type, type] = {_Linear: _HalfLinear, _Conv1D: _HalfConv1D}


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself: then such products take a third of float32's time."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def halved(model: Any) -> Any:
    """A model whose large products, by weights as they are now, are in bfloat16; all else is shared with the given one.

    For a model of float32 on a CPU: worth it where that `has_bfloat16`.  Smaller layers stay in float32.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if type(module) in HALVES and module.weight.numel() >= WORTH_HALVING:
            weight = module.weight.t() if type(module) is _Conv1D else module.weight
            half = weight.detach().bfloat16().contiguous()
            module.__class__ = HALVES[type(module)]
            module.rounded = torch.ops.mkldnn._reorder_linear_weight(half, None) if has_bfloat16() else half
    return twin
