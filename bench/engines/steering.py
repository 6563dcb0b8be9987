"""Activation addition in a transformers model: a vector added to one layer's output at every position.

The vector is the layer's mean output over the tokens of one text, less its mean over another's (Turner et al. 2023,
with all positions steered as Rimsky et al. 2024 do).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.schema import UserError


def layers_of(model: Any) -> nn.ModuleList:
    """A language model's layers in order.  Raises UserError where they are in no list of their own."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UserError(f"activations: {type(model).__name__} keeps its {count} layers in no list that can be steered")


@torch.inference_mode()
def steering_vector(model: Any, layer: int, add: Sequence[int], subtract: Sequence[int]) -> Tensor:
    """mean h(add) - mean h(subtract), (h,), h the layer's outputs; token ids behind an end-of-text token."""
    found = [_mean_output(model, layers_of(model)[layer], ids) for ids in (add, subtract)]
    return found[0] - found[1]


def _mean_output(model: Any, layer: nn.Module, ids: Sequence[int]) -> Tensor:
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(_hidden(output)))
    try:
        model.base_model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        handle.remove()
    return seen[0][0, 1:].mean(dim=0)  # what the end-of-text token is turned into says nothing of the text


def steer(model: Any, layer: int, vector: Tensor) -> Any:
    """Add a vector (h,) to the layer's output from now on; the handle's `remove` ends it."""

    def added(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector, *output[1:])
        return output + vector

    return layers_of(model)[layer].register_forward_hook(added)


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
