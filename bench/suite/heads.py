"""What a decoder does behind its last hidden states: the head, and whatever its own forward does to the logits after.

Most apply a linear head and nothing else; some scale what it gives (Cohere, Granite) or cap it (Gemma 2).
"""

import copy
from dataclasses import dataclass
from typing import Any

from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint

APART = 64  # numbers


@dataclass(frozen=True)
class Head:
    """Logits (..., V) of last hidden states (..., h), as the model's own forward makes them."""

    linear: Any
    behind: Any = None  # the model without its body, where more than the linear map is done

    @property
    def out_features(self) -> int:
        """V"""
        return int(self.linear.weight.shape[0])

    def __call__(self, hidden: Any) -> Any:
        if self.behind is None:
            return _wide(self.linear, hidden) if hidden.is_cuda else self.linear(hidden)
        logits = self.behind(inputs_embeds=hidden.reshape(1, -1, hidden.shape[-1]), use_cache=False).logits
        return logits.view(*hidden.shape[:-1], -1)


def head_of(model: Any, checkpoint: Checkpoint) -> Head:
    """Follows later changes of the weights.  Raises UserError where the head reads more than the last hidden states."""
    import torch

    ids = torch.arange(1, 5, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits
        slack = 1e-3 if logits.dtype == torch.float32 else 5e-2
        linear = Head(model.get_output_embeddings())
        if torch.allclose(linear(states), logits, rtol=slack, atol=slack):
            return linear
        whole = Head(linear.linear, _without_body(model))
        try:
            alike = torch.allclose(whole(states), logits, rtol=slack, atol=slack)
        except Exception:  # a forward of an unusual kind
            alike = False
    if not alike:
        source, kind = checkpoint.source, model.config.model_type
        raise UserError(f"checkpoint {source}: {kind} makes its logits of more than its last hidden states")
    return whole


def _wide(linear: Any, hidden: Any) -> Any:
    """The linear map with float32 answers on a GPU: logits near -100 have steps of 0.5 in bfloat16.

    Rows start a multiple of `APART` numbers apart: products and passes over rows that do not are several times as slow.
    """
    import torch

    weight, flat = linear.weight, hidden.reshape(-1, hidden.shape[-1])
    apart = -(-len(weight) // APART) * APART
    logits = torch.empty(len(flat), apart, dtype=torch.float32, device=flat.device)[:, : len(weight)]
    if flat.dtype == torch.float32:
        torch.mm(flat, weight.t(), out=logits)
    else:
        torch.mm(flat, weight.t(), out_dtype=torch.float32, out=logits)
    if getattr(linear, "bias", None) is not None:
        logits += linear.bias
    return logits.view(*hidden.shape[:-1], -1)


def _without_body(model: Any) -> Any:
    """The model with what it is given in the place of its body's answer; its head stays the model's own."""
    from torch import nn

    class Body(nn.Module):
        def forward(self, *_: Any, inputs_embeds: Any, **__: Any) -> States:
            return States([inputs_embeds])

    bare = copy.copy(model)
    bare.__dict__["_modules"] = {**model._modules, model.base_model_prefix: Body()}
    return bare


class States(list[Any]):
    """A body's answer: last hidden states, and nothing else of what a forward may ask for."""

    @property
    def last_hidden_state(self) -> Any:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
