"""What engines are compared with: transformers' own forward pass, one text at a time, without any cache."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench.schema import Recipe


def load(folder: Path) -> Any:
    """With transformers' own eager attention: torch's leaves out Gemma 2's caps."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


class Reference:
    """A mixture of models; weights are mixed parameter by parameter."""

    def __init__(self, plain: Mapping[str, Any], recipe: Recipe) -> None:
        self.probs = recipe.space == "probs"
        self.parts = [(c, plain[name]) for name, c in recipe.coefficients.items()]
        if recipe.space == "weights":
            mixed = deepcopy(self.parts[0][1])
            with torch.no_grad():
                for name, parameter in mixed.named_parameters():
                    parameter.copy_(sum(c * model.get_parameter(name) for c, model in self.parts))
            self.parts = [(1.0, mixed)]

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> torch.Tensor:
        """(T, V) float32; V is the smallest of the members'.  Of probabilities: log sum_i c_i p_i."""
        if self.probs:
            mixed: torch.Tensor = sum(c * model(torch.tensor([ids])).logits[0].softmax(-1) for c, model in self.parts)
            return mixed.log()
        each = [c * model(torch.tensor([ids])).logits[0] for c, model in self.parts]
        return sum((z[:, : min(z.shape[1] for z in each)] for z in each), torch.zeros(()))

    def greedy(self, ids: list[int], new: int, end: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < new:
            token = int(self.logits(ids + drawn)[-1].argmax())
            if token == end:
                break
            drawn.append(token)
        return drawn

    def token_logprobs(self, ids: list[int], end: int) -> np.ndarray:
        table = self.logits([end, *ids]).log_softmax(dim=-1)
        return table[torch.arange(len(ids)), torch.tensor(ids)].numpy()
