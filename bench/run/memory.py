"""How much memory the models of a suite take, from the files' headers alone, before anything starts.

Weight space: every checkpoint that is mixed by weight in its own dtype ("anchors"), and the served model.  Other
spaces: every member.  The key-value cache: for the rows that an engine decodes together.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from bench.engines.vllm_support import VllmSettings
from bench.experts.plan import PlannedExpert
from bench.run.prepare import Work
from bench.schema import Recipe
from bench.suite.architecture import architecture, rows_at_once
from bench.suite.checkpoints import Checkpoint, header, weight_files
from bench.suite.loading import load_tokenizer

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on the device, judges apart."""

    anchors: int
    served: int
    members: int
    cache: int

    @property
    def total(self) -> int:
        return self.anchors + self.served + self.members + self.cache


def needed(work: Work, device: str) -> Memory:
    """What a suite's engine holds once all its recipes were served."""
    recipes = [point.recipe for point in work.points]
    checkpoints, dtype = work.checkpoints, work.suite.dtype
    size = BYTES[dtype]
    mixed = {name for recipe in recipes if recipe.space == "weights" for name in recipe.coefficients}
    apart = {source for recipe in recipes if recipe.space != "weights" for source in recipe.checkpoints.values()}
    per_token = {name: architecture(checkpoint).kv_values_per_token for name, checkpoint in checkpoints.items()}
    in_cache = max((_cache_values(recipe, per_token) for recipe in recipes), default=0) * size
    if work.engine == "vllm":
        settings = VllmSettings.from_environment(device, os.environ)
        contexts = [found for c in checkpoints.values() if (found := architecture(c).context) is not None]
        cache = settings.kv_bytes(in_cache, min([settings.max_model_len, *contexts]))
    else:
        longest = max((prompt.text for prompt in work.prompts), key=len)
        prompt_tokens = len(load_tokenizer(next(iter(checkpoints.values())))(longest, verbose=False)["input_ids"])
        cache = rows_at_once(device) * (prompt_tokens + work.suite.sampling.max_new_tokens) * in_cache
    return Memory(
        anchors=sum(file_bytes(checkpoints[name].path) for name in mixed),
        served=max((parameters(checkpoints[name]) * size for name in mixed), default=0),
        members=sum(parameters(checkpoints[name]) * size for name in apart),
        cache=cache,
    )


def trained_bytes(expert: PlannedExpert) -> int:
    """Of an expert's training, activations apart: float32 weights, and with them gradients and AdamW's two moments.

    A LoRA adapter's own are too few to count.
    """
    lora = all(trial.lora is not None for trial in expert.settings)
    return (1 if lora else 4) * BYTES["float32"] * parameters(expert.base)


def file_bytes(folder: Path) -> int:
    """Of a checkpoint's weights as they are stored."""
    return sum(path.stat().st_size for path in weight_files(folder))


def parameters(checkpoint: Checkpoint) -> int:
    return sum(prod(shape) for shape in header(checkpoint).values())


def _cache_values(recipe: Recipe, per_token: Mapping[str, int]) -> int:
    """Numbers that a recipe keeps for a token: one model's in weight space, every member's in others."""
    sources = list(recipe.checkpoints.values())
    used = sources[:1] if recipe.space == "weights" else sources
    return sum(per_token[name] for name in used)
