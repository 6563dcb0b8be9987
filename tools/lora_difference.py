"""How far PEFT's `linear` combination with weights [1, -1] is from the difference of two LoRA adapters.

    python -m tools.lora_difference BASE ADAPTER ADAPTER

Both are updates of the base's weights; the distance is |linear - difference| / |difference| over all tensors.
"""

import argparse
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

from bench.experts.adapters import merged, read_adapter
from bench.suite.checkpoints import Checkpoint, resolve
from bench.suite.loading import load_model


def parameters(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for _, parameter in sorted(model.named_parameters())])


def linear(base: Checkpoint, first: Path, second: Path, weights: list[float]) -> torch.Tensor:
    """The parameters under PEFT's own combination."""
    model = peft.PeftModel.from_pretrained(load_model(AutoModelForCausalLM, base, dtype=torch.float32), first, "a")
    model.load_adapter(second, "b")
    model.add_weighted_adapter(["a", "b"], weights, "both", combination_type="linear")
    model.set_adapter("both")
    return parameters(model.merge_and_unload())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("adapters", nargs=2, type=Path)
    chosen = parser.parse_args()
    base = resolve(chosen.base)
    first, second = (parameters(merged(base, read_adapter(path, str(path)))) for path in chosen.adapters)
    start = parameters(load_model(AutoModelForCausalLM, base, dtype=torch.float32))
    difference = first - second
    theirs = linear(base, chosen.adapters[0], chosen.adapters[1], [1.0, -1.0]) - start
    cosine = torch.nn.functional.cosine_similarity(theirs, difference, dim=0)
    print(f"|difference| {difference.norm():.4f}, |linear| {theirs.norm():.4f}")
    print(f"|linear - difference| / |difference| {(theirs - difference).norm() / difference.norm():.3f}")
    print(f"cosine between them {cosine:.3f}")


if __name__ == "__main__":
    main()
