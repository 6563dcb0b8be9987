"""Engines by name, imported only when one is opened.

`auto` takes vLLM where a CUDA device and vLLM are, else transformers.
"""

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from bench.checkpoints import Checkpoint
from bench.registry import suggest
from bench.schema import UserError
from bench.serving import Engine

TABLE = {
    "transformers": "bench.engines.transformers:TransformersEngine",
    "vllm": "bench.engines.vllm:VllmEngine",
}


def choose(name: str) -> str:
    """The engine's name for `name`, which may be `auto`.  Raises UserError."""
    if name == "auto":
        return "vllm" if why_not_vllm() is None else "transformers"
    if name not in TABLE:
        raise UserError(f"unknown engine {name!r}{suggest(name, [*TABLE, 'auto'])}")
    if name == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "engine vllm: vLLM is not installed; pip install 'lerpbench[vllm]', or use --engine transformers"
        )
    return name


def why_not_vllm() -> str | None:
    """Why `auto` does not take vLLM here; None where it does."""
    if find_spec("vllm") is None:
        return "vLLM is not installed (pip install 'lerpbench[vllm]')"
    if device() != "cuda":
        return "torch sees no CUDA device (on a CPU vLLM works, but the transformers engine is the default)"
    return None


def device() -> str:
    """Where torch runs: `cuda` where it sees one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def engine_class(name: str) -> Callable[[Mapping[str, Checkpoint], str, str], Engine]:
    module, _, attribute = TABLE[name].partition(":")
    loaded: Any = getattr(importlib.import_module(module), attribute)
    cls: Callable[[Mapping[str, Checkpoint], str, str], Engine] = loaded
    return cls


def engine_version(name: str) -> int:
    """The version in an engine's content keys, without importing the engine's packages."""
    return VERSIONS[name]


VERSIONS = {"transformers": 1, "vllm": 1}  # raised when the same request would give other completions
