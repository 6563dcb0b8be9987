"""PEFT's combinations of LoRA adapters beside what has their name here; a part of `tools.conformance`.

The adapters are made, not trained: each packaged expert's task vector, in every linear layer cut to RANK by its
singular values.  There `add_weighted_adapter` combines them and PEFT merges the result; here each adapter becomes a
checkpoint by `bench.experts.adapters`, and `bench.engines.mixing` mixes these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

from bench.experts.adapters import densified
from bench.schema import Recipe
from bench.suite.checkpoints import Checkpoint
from bench.suite.loading import load_model, load_tokenizer
from methods.base import merged
from methods.interpolation import G1

RANK = 8
FULL = 160  # the packaged models' width: no product has a higher rank, so that PEFT's own SVD loses nothing
DENSITY = 0.5
BOTH = {"base": 1.0, "expert": 1.0, "antiexpert": 1.0}


@dataclass(frozen=True)
class Combination:
    """PEFT's combination_type with the weights of expert and antiexpert, and our recipe of that name."""

    type: str
    recipe: Recipe
    weights: tuple[float, float] = (1.0, 1.0)
    drawn: bool = False


TIES = merged("ties", of=BOTH, density=DENSITY, trim="tensor")
PRUNE = merged("breadcrumbs", of=BOTH, bottom=1 - DENSITY, top=0.0)
COMBINATIONS = (
    Combination("cat", G1(alpha=0.7).recipe(), (0.7, 0.3)),
    Combination("linear", G1(alpha=0.7).recipe(), (0.7, 0.3)),
    Combination("magnitude_prune_svd", PRUNE),
    Combination("magnitude_prune", PRUNE),
    Combination("ties_svd", TIES),
    Combination("ties", TIES),
    Combination("dare_linear", merged("dare", 0, of=BOTH, density=DENSITY, consensus="sum"), drawn=True),
    Combination("dare_ties", merged("dare", 0, of=BOTH, density=DENSITY, consensus="elect"), drawn=True),
)


def adapters(checkpoints: Mapping[str, Checkpoint], folder: Path) -> dict[str, Path]:
    """The experts' task vectors as PEFT's folders."""
    base = causal(checkpoints["base"])
    found = {}
    for name in ("expert", "antiexpert"):
        expert = causal(checkpoints[name])
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(causal(checkpoints["base"]), config)
        for path, module in model.base_model.model.named_modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                delta = (expert.get_submodule(path).weight - base.get_submodule(path).weight).detach().T  # (out, in)
                u, s, v = torch.linalg.svd(delta, full_matrices=False)
                root = s[:RANK].sqrt()
                module.lora_A["default"].weight.data = root[:, None] * v[:RANK]
                module.lora_B["default"].weight.data = u[:, :RANK] * root
        found[name] = folder / f"adapter-{name}"
        model.save_pretrained(found[name])
    return found


def causal(checkpoint: Checkpoint) -> Any:
    return load_model(AutoModelForCausalLM, checkpoint, dtype=torch.float32)


def as_checkpoints(base: Checkpoint, found: Mapping[str, Path], cache: Path) -> dict[str, Checkpoint]:
    """Base and adapters, each a checkpoint of its own."""
    return {"base": base, **{name: densified(base, str(path), cache) for name, path in found.items()}}


def combined(case: Combination, base: Checkpoint, found: Mapping[str, Path], folder: Path) -> Path:
    """Let PEFT combine and merge.  Returns the merged model's folder."""
    model = peft.PeftModel.from_pretrained(causal(base), found["expert"], "expert")
    model.load_adapter(found["antiexpert"], "antiexpert")
    torch.manual_seed(0)
    pruned = {} if case.type in ("cat", "linear") else {"density": DENSITY}
    svd = {"svd_rank": FULL} if case.type.endswith("svd") else {}
    both = (["expert", "antiexpert"], list(case.weights), "both")
    model.add_weighted_adapter(*both, combination_type=case.type, **pruned, **svd)
    model.set_adapter("both")
    target = folder / f"peft-{case.type}"
    model.merge_and_unload().save_pretrained(target)
    load_tokenizer(base).save_pretrained(target)
    return target
