"""The fast engine: vLLM with mixtures of its own models, one live `LLM` per space for all points of a sweep.

`serve` changes the mixture inside the running engine (`bench.engines.vllm_model`): no restart, no checkpoint on disk,
CUDA graphs kept.  Keys and values depend on the weights but not on logit coefficients, so the prefix cache is emptied
after a change of weights, and not after a change of alpha in logit space.
"""

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.engines.vllm_support import (
    ARCHITECTURE,
    OWN,
    SHARD_PROMPTS,
    WORKER,
    VllmSettings,
    attention_config,
    prompt_seed,
    require_supported,
    set_environment,
    why_not,
)
from bench.progress import Advance, silent
from bench.schema import Completion, FinishReason, Prompt, Recipe, Sampling, Space, UserError
from bench.suite.architecture import architecture
from bench.suite.checkpoints import Checkpoint, digests, unlike
from bench.suite.loading import end_of_text, load_tokenizer

__all__ = ["VllmEngine", "VllmModel", "require_supported", "why_not"]

TRIO = ("base", "expert", "antiexpert")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NEVER = -1  # an end-of-text token that no completion draws
LARGEST_SHARE = 0.45  # of the free memory that one engine's KV cache may take: two engines live side by side


class VllmEngine:
    """Serves mixtures of checkpoints of any architecture that vLLM has; see `bench.serving.Engine`.

    Raises UserError at once where vLLM cannot run on the device or cannot serve a checkpoint.
    """

    name: ClassVar[str] = "vllm"
    version: ClassVar[int] = 4

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        dtype: str,
        device: str,
        settings: VllmSettings | None = None,
    ) -> None:
        if (reason := why_not(device)) is not None:
            raise UserError(f"engine vllm: {reason}")
        for checkpoint in checkpoints.values():
            require_supported(checkpoint, device)
        self.checkpoints = dict(checkpoints)
        self.dtype = dtype
        self.device = device
        self.settings = settings or VllmSettings.from_environment(device, os.environ)
        self.architectures = {name: architecture(checkpoint) for name, checkpoint in self.checkpoints.items()}
        self._live: dict[Space, Live] = {}
        self._served: Recipe | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(next(iter(self.checkpoints.values())))

    def serve(self, recipe: Recipe) -> "VllmModel":
        live = self._engine_for(recipe)
        with self.guarded(recipe):
            if recipe.space == "weights":
                live.call("lerpbench_mix_weights", recipe.model_dump_json())
                live.forget_prefixes()
            else:
                live.mix(recipe, masked=False)
        self._served = recipe
        return VllmModel(self, live, recipe)

    def sweep(
        self, recipes: Sequence[Recipe], prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent
    ) -> list[list[Completion]]:
        return self.serve(recipes[0]).generate_each(recipes, prompts, sampling, advance)

    def mixtures_per_batch(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        return max(1, self.settings.max_num_seqs // (len(prompts) * sampling.samples))

    def survived_update(self) -> float | None:
        recipe = self._served
        if recipe is None or recipe.space != "weights":
            return None
        live = self._live["weights"]
        if "base" not in live.names:
            return None
        share: float | None = live.call("lerpbench_survived", recipe.model_dump_json(), self.dtype)
        return share

    def batches(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """Shards: a completion may change with the other prompts of a call, so each call has the same ones."""
        size = SHARD_PROMPTS
        return [list(range(start, min(start + size, len(prompts)))) for start in range(0, len(prompts), size)]

    def context_length(self) -> int:
        known = [found.context for found in self.architectures.values() if found.context is not None]
        return min([self.settings.max_model_len, *known])

    def close(self) -> None:
        """Stop the engines of both spaces: inside one process, vLLM's shutdown takes what they share with it."""
        stopped, self._live = list(self._live.values()), {}
        for live in stopped:
            live.stop()

    # ------------------------------------------------------------------------------------------ live engines

    def _engine_for(self, recipe: Recipe) -> "Live":
        """The space's live engine, started at its first use and again only where it lacks a checkpoint.

        Probabilities are mixed by the engine that mixes logits.
        """
        space: Space = "weights" if recipe.space == "weights" else "logits"
        live = self._live.get(space)
        if live is not None and live.works() and set(recipe.coefficients) <= set(live.names):
            return live
        names = self._member_names(recipe, first=live is None)
        if live is not None:
            self.close()
        with self.guarded(recipe):
            self._live[space] = live = Live(self._start(space, names), names, self.settings.tensor_parallel == 1)
            if space == "weights":
                held = {name: self.checkpoints[name] for name in names}
                live.call("lerpbench_open", {name: str(c.path) for name, c in held.items()}, digests(held))
        return live

    def _member_names(self, recipe: Recipe, first: bool) -> tuple[str, ...]:
        """The checkpoints that a new engine holds, in the suite's order.

        Weight space: all that can be mixed with the recipe's, since anchors cost memory but no time.  Logit space:
        every member costs time, so the trio where that is enough, and all only when a recipe asks for more.
        """
        used = list(recipe.coefficients)
        if recipe.space != "weights":
            enough = TRIO if first and set(used) <= set(TRIO) else tuple(self.checkpoints)
            return tuple(name for name in self.checkpoints if name in enough)
        some = self.checkpoints[used[0]]
        return tuple(name for name, other in self.checkpoints.items() if unlike(some, other) is None)

    def _start(self, space: Space, names: Sequence[str]) -> Any:
        import torch

        set_environment()
        llm_class, model_class = import_vllm()
        register_class(model_class)
        set_num_threads = torch.set_num_threads
        try:
            with transformers_classes([self.checkpoints[name].path for name in names]):
                return llm_class(**self.arguments(space, names))
        finally:
            torch.set_num_threads = set_num_threads  # vLLM's CPU worker replaces it by a warning

    def arguments(self, space: Space, names: Sequence[str]) -> dict[str, Any]:
        """What `vllm.LLM` is given; docs/VLLM.md explains each."""
        paths = [str(self.checkpoints[name].path) for name in names]
        settings = self.settings
        longest = self.context_length() + 1  # the last token of a text of full length is drawn, and never read
        overrides: dict[str, Any] = {}
        if space == "logits":
            vocabulary = min(self.architectures[name].vocabulary for name in names)
            overrides = {"architectures": [ARCHITECTURE], "members": paths, "vocab_size": vocabulary}
        if self.dtype != "float32":
            overrides["head_dtype"] = "float32"
        arguments: dict[str, Any] = {
            "model": paths[0],
            "skip_tokenizer_init": True,  # prompts go in, and completions come out, as token ids
            "hf_overrides": overrides,
            "worker_extension_cls": WORKER,
            "dtype": self.dtype,  # "auto" would turn float32 checkpoints into bfloat16
            "seed": 0,
            "generation_config": "vllm",  # ignore the checkpoint's own sampling defaults
            "max_model_len": longest,
            "tensor_parallel_size": settings.tensor_parallel,
            # In a worker of a cluster vLLM would hand its GPUs to Ray once more.
            "distributed_executor_backend": "mp" if settings.tensor_parallel > 1 else None,
            "max_num_seqs": settings.max_num_seqs,
            "max_num_batched_tokens": max(settings.max_num_batched_tokens, longest),
            "max_logprobs": -1,  # whole next-token distributions may be asked for
            "enable_prefix_caching": True,
            "enforce_eager": settings.eager,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "kv_cache_memory_bytes": self._kv_bytes(names if space == "logits" else names[:1]),
            "gpu_memory_utilization": self._utilization(),
        }
        if self.device == "cpu":
            arguments["block_size"] = 32  # the default, 128, would round every short completion up
        else:
            if space == "logits":
                arguments["attention_config"] = attention_config([self.architectures[name] for name in names])
            if not settings.eager:
                arguments["compilation_config"] = settings.compilation()
        return arguments

    def _kv_bytes(self, members: Sequence[str]) -> int:
        values = sum(self.architectures[name].kv_values_per_token for name in members)
        wanted = self.settings.kv_bytes(values * BYTES[self.dtype], self.context_length())
        if self.settings.kv_gib > 0:
            return wanted
        return min(wanted, int(LARGEST_SHARE * free_and_total_bytes(self.device)[0]))

    def _utilization(self) -> float:
        """The share of memory that vLLM looks for before it starts; it reserves nothing, KV cache is set in bytes."""
        free, total = free_and_total_bytes(self.device)
        return max(0.01, round(0.9 * free / total, 3))

    @contextmanager
    def guarded(self, recipe: Recipe) -> Iterator[None]:
        """A failure inside vLLM becomes one line that names the mixture and what to change; the engine is dropped."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, (AssertionError, TypeError, AttributeError, NameError)):
                raise  # a bug of ours or vLLM's: its traceback is what helps
            self._discard()
            raise UserError(f"engine vllm failed at {describe(recipe)}: {explain(error)}") from error

    def _discard(self) -> None:
        with suppress(Exception):  # the engine is broken already; what made it so is reported
            self.close()


@dataclass
class Live:
    """A running `vllm.LLM` and the checkpoints it holds, in their order."""

    llm: Any
    names: tuple[str, ...]
    inside: bool  # whether it runs in this process; several GPUs take a process each

    def vector(self, recipe: Recipe) -> list[float]:
        """The recipe's coefficients in the order of the names."""
        return [recipe.coefficients.get(name, 0.0) for name in self.names]

    def mix(self, recipe: Recipe, masked: bool) -> None:
        """Mix next-token distributions from now on; with the recipe's mask, or without."""
        mask: tuple[str | None, int, float] = (None, 0, 1.0)
        if masked and recipe.filter_p is not None:
            mask = ("nucleus", self.names.index("base"), recipe.filter_p)
        elif masked and recipe.plausible is not None:
            mask = ("plausible", self.names.index("expert"), recipe.plausible)
        self.call("lerpbench_mix_logits", self.vector(recipe), recipe.space == "probs", *mask)

    def call(self, method: str, *values: Any) -> Any:
        """A method of the worker by name, with plain values.  Returns the first worker's answer."""
        return self.llm.collective_rpc(method, args=values)[0]

    def forget_prefixes(self) -> None:
        """Empty the prefix cache: its keys and values belong to other weights.  Raises RuntimeError if vLLM refuses."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its prefix cache, so stale keys and values could be used")

    def works(self) -> bool:
        """Whether the process groups that all engines of this process share are still there."""
        if not self.inside:
            return True
        from vllm.distributed.parallel_state import model_parallel_is_initialized

        return bool(model_parallel_is_initialized())

    def stop(self) -> None:
        """Shut the engine down and free its memory."""
        import torch

        self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        gc.collect()
        if torch.cuda.is_available():
            from vllm.platforms import current_platform

            type(current_platform)._global_graph_pool = None  # its graphs are gone: the next engine has a pool anew
            torch.cuda.empty_cache()


class VllmModel:
    """A served mixture; see `bench.serving.ServedModel`."""

    def __init__(self, engine: VllmEngine, live: Live, recipe: Recipe) -> None:
        self.engine = engine
        self.live = live
        self.recipe = recipe
        self.end = end_of_text(engine.tokenizer)

    def token_ids(self, text: str) -> list[int]:
        return list(self.engine.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def context_length(self) -> int:
        return self.engine.context_length()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent) -> list[Completion]:
        return self.generate_each([self.recipe], prompts, sampling, advance)[0]

    def generate_each(
        self, recipes: Sequence[Recipe], prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent
    ) -> list[list[Completion]]:
        """The completions of recipes of one `sweep_of`, of which this is the first.

        Each prompt has random numbers of its own, so that completions hang on others of their call by rounding alone;
        on the same machine and settings a shard of SHARD_PROMPTS prompts gives the same ones to the last bit.
        """
        rows: list[list[tuple[list[int], FinishReason]]] = [[] for _ in recipes]
        for shard in self.engine.batches(prompts, sampling):
            drawn = self.draw(recipes, [prompts[i] for i in shard], sampling, advance)
            for own, found in zip(rows, drawn, strict=True):
                own.extend(found)
        places = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(sampling.samples)]
        return [self._completions(places, own) for own in rows]

    def _completions(
        self, places: Sequence[tuple[int, int]], rows: Sequence[tuple[list[int], FinishReason]]
    ) -> list[Completion]:
        texts = self.engine.tokenizer.batch_decode(
            [tokens for tokens, _ in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [
            Completion(prompt, sample, text, len(tokens), reason)
            for (prompt, sample), text, (tokens, reason) in zip(places, texts, rows, strict=True)
        ]

    def decode(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        return sum(len(tokens) for tokens, _ in self.draw([self.recipe], prompts, sampling, end=NEVER)[0])

    def draw(
        self,
        recipes: Sequence[Recipe],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        advance: Advance = silent,
        end: int | None = None,
    ) -> list[list[tuple[list[int], FinishReason]]]:
        """Of each recipe, each completion's tokens without the end token, and why it ended; by prompt, then sample.

        `end` replaces the end-of-text token; with NEVER every completion has its full length.
        """
        end = self.end if end is None else end
        ids = [self.token_ids(prompt.text) for prompt in prompts]
        self._require_room(prompts, ids, sampling.max_new_tokens)
        limits: dict[str, Any] = {"ignore_eos": True} if end == NEVER else {"stop_token_ids": [end]}
        limits |= {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
        if sampling.temperature > 0:  # else vLLM draws a completion once; its copies are the same
            # With filter_p the candidates are the base's nucleus, and nothing is cut after mixing.
            limits |= {"n": sampling.samples, "top_p": sampling.top_p if self.recipe.filter_p is None else 1.0}
        each = []
        for recipe in recipes:
            own = {"extra_args": {OWN: self.live.vector(recipe)}} if len(recipes) > 1 else {}
            each += [limits | own | {"seed": prompt_seed(sampling.seed, prompt)} for prompt in prompts]
        with self._candidates(), self._own_coefficients(len(recipes) > 1):
            with self.engine.guarded(self.recipe):
                self.live.forget_prefixes()  # so that the schedule does not hang on earlier calls
            copies = 1 if sampling.temperature > 0 else sampling.samples
            outputs = self._run(ids * len(recipes), advance, copies, each)
        rows = [[finished(o, end) for o in in_order(request) for _ in range(copies)] for request in outputs]
        parts = [rows[start : start + len(prompts)] for start in range(0, len(rows), len(prompts))]
        return [[row for request in part for row in request] for part in parts]

    def token_logprobs(self, texts: Sequence[str], advance: Advance = silent) -> list[NDArray[np.float32]]:
        """The mixture's own probabilities: `filter_p` and `plausible` narrow generation, not these."""
        ids = [self.token_ids(text) for text in texts]
        for text, row in zip(texts, ids, strict=True):
            if len(row) > self.engine.context_length():
                raise UserError(self._too_long(f"the text {text[:40]!r}", len(row)))
        scored = [i for i, row in enumerate(ids) if row]
        full = [len(ids[i]) == self.engine.context_length() for i in scored]  # no room for the last token in a prompt
        outputs = self._run(
            [[self.end, *(ids[i][:-1] if whole else ids[i])] for i, whole in zip(scored, full, strict=True)],
            advance, 1, dict(temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True),
        )  # fmt: skip
        found = [np.zeros(0, np.float32) for _ in texts]
        for i, whole, output in zip(scored, full, outputs, strict=True):
            logprobs = list(output.prompt_logprobs.logprobs)
            if whole:
                logprobs.append(self._next([[self.end, *ids[i][:-1]]])[0, ids[i][-1]])
            found[i] = np.array(logprobs, dtype=np.float32)
            assert found[i].shape == (len(ids[i]),)
        return found

    def next_token_logprobs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._next([self.token_ids(text) for text in texts])

    # ------------------------------------------------------------------------------------------ inside

    def _next(self, ids: list[list[int]]) -> NDArray[np.float32]:
        """log P(next token | tokens), (N, V) float32."""
        outputs = self._run(ids, silent, 1, dict(temperature=0, max_tokens=1, logprobs=-1, flat_logprobs=True))
        vocabulary = min(self.engine.architectures[name].vocabulary for name in self.live.names)
        table = np.full((len(ids), vocabulary), np.nan, np.float32)
        for row, request in zip(table, outputs, strict=True):
            flat = request.outputs[0].logprobs
            row[flat.token_ids] = flat.logprobs
        assert not np.isnan(table).any()
        return table

    def _run(
        self,
        ids: list[list[int]],
        advance: Advance,
        per_row: int,
        sampling: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    ) -> list[Any]:
        """One request per row of token ids; their outputs in order.  sampling: of all, or of each."""
        if not ids:
            return []
        from vllm import SamplingParams

        def progress(rows: Any = None, **_: Any) -> Any:  # vLLM asks for two bars: rows going in, rows coming out
            return Progress(advance, per_row) if rows is None else rows

        each = [sampling] * len(ids) if isinstance(sampling, Mapping) else sampling
        params = [SamplingParams(detokenize=False, **one) for one in each]
        with self.engine.guarded(self.recipe):
            outputs: list[Any] = self.live.llm.generate(
                [{"prompt_token_ids": row} for row in ids], params, use_tqdm=progress
            )
        return outputs

    @contextmanager
    def _own_coefficients(self, own: bool) -> Iterator[None]:
        """Meanwhile each request is mixed by what it brings, where that is asked for."""
        if not own:
            yield
            return
        self.live.call("lerpbench_own_coefficients", True)
        try:
            yield
        finally:
            if self.live.llm is not None:
                self.live.call("lerpbench_own_coefficients", False)

    @contextmanager
    def _candidates(self) -> Iterator[None]:
        """While tokens are drawn, keep to what the recipe's mask leaves."""
        if self.recipe.filter_p is None and self.recipe.plausible is None:
            yield
            return
        self.live.mix(self.recipe, masked=True)
        try:
            yield
        finally:
            if self.live.llm is not None:  # None: the engine broke meanwhile
                self.live.mix(self.recipe, masked=False)

    def _require_room(self, prompts: Sequence[Prompt], ids: list[list[int]], new_tokens: int) -> None:
        for prompt, row in zip(prompts, ids, strict=True):
            if not row:
                raise UserError(f"prompt {prompt.set}[{prompt.row}] has no tokens")
            if len(row) + new_tokens > self.engine.context_length():
                what = f"prompt {prompt.set}[{prompt.row}] with {new_tokens} new tokens"
                raise UserError(self._too_long(what, len(row) + new_tokens))

    def _too_long(self, what: str, length: int) -> str:
        return f"{what} takes {length} tokens; the engine takes {self.engine.context_length()}"


@dataclass
class Progress:
    """The part of tqdm's face that vLLM uses; passes finished rows on."""

    advance: Advance
    per_row: int
    n: int = 0
    postfix: str = ""
    format_dict: Mapping[str, float] = field(default_factory=lambda: {"elapsed": 1.0})

    def update(self, n: int = 1) -> None:
        self.n += n
        self.advance(n * self.per_row)

    def refresh(self) -> None: ...

    def close(self) -> None: ...


DECORATED: dict[type, Any] = {}  # a class of transformers' -> its `__init__` as vLLM decorated it


@contextmanager
def transformers_classes(folders: Sequence[Path]) -> Iterator[None]:
    """Keep transformers' own classes usable in this process, by judges and by the transformers engine.

    vLLM serves some architectures by transformers' class, which it decorates for good: instances of others' then fail.
    """
    from transformers import MODEL_MAPPING, AutoConfig

    classes = {MODEL_MAPPING[type(AutoConfig.from_pretrained(folder))] for folder in folders}
    plain = {cls: cls.__init__ for cls in classes}
    for cls in classes & DECORATED.keys():
        cls.__init__ = DECORATED[cls]
    try:
        yield
    finally:
        for cls, init in plain.items():
            if cls.__init__ is not init or cls in DECORATED:
                DECORATED[cls], cls.__init__ = cls.__init__, init
                cls.do_not_compile = True  # vLLM's own instances say otherwise themselves


def import_vllm() -> tuple[Any, Any]:
    """(vllm.LLM, our model class).  Raises UserError with the usual cause and cure."""
    try:
        from vllm import LLM

        from bench.engines.vllm_model import LogitMixture
    except Exception as error:
        cure = "see docs/VLLM.md"
        if "torchvision" in str(error) or "torchaudio" in str(error) or "torchcodec" in str(error):
            cure = "run `pip uninstall -y torchvision torchaudio torchcodec`: they do not fit torch's CPU build"
        raise UserError(f"engine vllm: `import vllm` failed: {first_line(error)}; {cure}") from error
    return LLM, LogitMixture


def register_class(model_class: Any) -> None:
    """Register the class itself where no plugin registered its name: vLLM then needs no process to inspect it."""
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, model_class)


def free_and_total_bytes(device: str) -> tuple[int, int]:
    """Memory of the device."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    pages = {key: os.sysconf(key) for key in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")}
    size = os.sysconf("SC_PAGE_SIZE")
    return pages["SC_AVPHYS_PAGES"] * size, pages["SC_PHYS_PAGES"] * size


def in_order(request: Any) -> list[Any]:
    return sorted(request.outputs, key=lambda output: output.index)


def finished(output: Any, end: int) -> tuple[list[int], FinishReason]:
    """A completion's tokens without the end token, and why it ended."""
    tokens = list(output.token_ids)
    if tokens and tokens[-1] == end:
        return tokens[:-1], "stop"
    return tokens, "length"


def describe(recipe: Recipe) -> str:
    inside = ", ".join(f"{name}={value:g}" for name, value in recipe.coefficients.items())
    return f"{recipe.space}({inside})"


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else '(no message)'}"


def explain(error: Exception) -> str:
    """What went wrong and which setting to change."""
    text = f"{type(error).__name__} {error}".lower()
    if "memory" in text or "kv cache" in text:
        advice = "it ran out of memory: lower LERPBENCH_VLLM_MAX_NUM_SEQS or LERPBENCH_VLLM_KV_GIB"
    elif "compil" in text or "inductor" in text or "triton" in text or "graph" in text:
        advice = "set LERPBENCH_VLLM_EAGER=1 to run without compiled code and CUDA graphs"
    else:
        advice = "set LERPBENCH_VLLM_EAGER=1, or choose --engine transformers"
    return f"{first_line(error)}; {advice}; finished points are stored, the next run goes on from them"
