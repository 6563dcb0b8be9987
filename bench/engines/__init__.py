"""Engines by name, imported only when one is opened.

`auto` takes vLLM where a CUDA device and vLLM are, else transformers.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench import environment
from bench.collector import paused
from bench.engines import vllm_support
from bench.registry import suggest
from bench.schema import Recipe, UserError
from bench.serving import Engine
from bench.suite.architecture import architecture
from bench.suite.checkpoints import Checkpoint

TABLE = {
    "transformers": "bench.engines.transformers:TransformersEngine",
    "vllm": "bench.engines.vllm:VllmEngine",
}
VERSIONS = {"transformers": 1, "vllm": 4}  # raised when the same request would give other completions
QUICK = ("transformers",)  # engines that open in the time that their checkpoints take to load


def choose(name: str) -> str:
    """The engine's name for `name`, which may be `auto`.  Raises UserError where it cannot run here."""
    if name == "auto":
        return "vllm" if why_not_vllm() is None else "transformers"
    if name not in TABLE:
        raise UserError(f"unknown engine {name!r}{suggest(name, [*TABLE, 'auto'])}")
    if name == "vllm" and (reason := vllm_support.why_not(device())) is not None:
        raise UserError(f"engine vllm: {reason}")
    return name


def why_not_vllm() -> str | None:
    """Why `auto` does not take vLLM here; None where it does."""
    found = device()
    if (reason := vllm_support.why_not(found)) is not None:
        return reason
    return None if found == "cuda" else "torch sees no CUDA device, and on a CPU the transformers engine is the faster"


def require_supported(name: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Raise UserError where the engine cannot serve a checkpoint's architecture."""
    if name == "vllm":
        for checkpoint in checkpoints.values():
            vllm_support.require_supported(checkpoint, device())


def require_servable(name: str, recipes: Iterable[Recipe], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Raise UserError where the engine cannot serve a recipe of these checkpoints."""
    for recipe in recipes:
        if recipe.steering is not None and recipe.steering.layer >= (
            layers := architecture(checkpoints["base"]).layers
        ):
            raise UserError(f"activations: layer {recipe.steering.layer} is to be steered; base has 0 to {layers - 1}")
        if name == "vllm" and (reason := vllm_support.unservable(recipe)) is not None:
            raise UserError(f"engine vllm: {reason}; use --engine transformers")


def device() -> str:
    """Where torch runs: `cuda` where it sees one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> dict[str, Any]:
    """What this process runs with: packages, processor, memory, device, threads, commit; stored with every run."""
    import torch

    name = torch.cuda.get_device_name() if device() == "cuda" else device()
    return environment.describe(name, torch.get_num_threads())


def engine_class(name: str) -> Callable[[Mapping[str, Checkpoint], str, str], Engine]:
    module, _, attribute = TABLE[name].partition(":")
    with paused():
        loaded: Any = getattr(importlib.import_module(module), attribute)
    cls: Callable[[Mapping[str, Checkpoint], str, str], Engine] = loaded
    return cls


def engine_version(name: str) -> int:
    """The version in an engine's content keys, without importing the engine's packages."""
    return VERSIONS[name]


def shard_prompts(name: str) -> int | None:
    """How many prompts are a unit of their seed; None for an engine whose completions do not depend on each other."""
    return vllm_support.SHARD_PROMPTS if name == "vllm" else None


def quick_to_open(name: str) -> bool:
    """Whether opening the engine once more costs a run little, as judging before all is generated does."""
    return name in QUICK
