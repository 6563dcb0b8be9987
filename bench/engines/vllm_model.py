"""GPT-2 mixtures inside vLLM: one model class for both spaces, changed in place while the engine lives.

Members: m GPT-2s side by side as one *wide* GPT-2 with m times the attention heads, so that vLLM sees an ordinary
decoder with one key-value cache per member.  Logit space has the suite's checkpoints as members and mixes
z = sum_i c_i z_i in the head, as one matrix product.  Weight space has one member, whose parameters are views of one
flat buffer, and keeps every checkpoint ("anchor") as a flat float32 buffer beside it: theta = sum_i c_i theta_i, in
float32, rounded once.
Both write where the old values were, so CUDA graphs and compiled code stay valid.

This module is imported inside vLLM's processes only; `bench.engines.vllm` is the engine around it.  No
`from __future__ import annotations` here: vLLM's compiler reads the annotations of `forward`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.sequence import IntermediateTensors

from bench.engines.sampling import nucleus_mask
from bench.engines.vllm_support import ACTIVATIONS, SPARE_POSITIONS

PAD_VOCABULARY_TO = 64  # rows of the head: aligned for tensor cores
CHUNK = 1 << 23  # elements mixed at a time: 32 MiB of float32, so that the running sum stays in the GPU's cache


class Parameters(nn.Module):
    """Named tensors that are loaded, never trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape), requires_grad=False))


class Linear(Parameters):
    """x (m, T, i) -> (m, T, o), each member by its own weight (i, o): the layout of transformers' Conv1D."""

    def __init__(self, m: int, inputs: int, outputs: int) -> None:
        super().__init__(weight=(m, inputs, outputs), bias=(m, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.weight) == 1:  # one member: the library's matrix product adds the bias itself
            return torch.addmm(self.bias[0, 0], x[0], self.weight[0])[None]
        return torch.bmm(x, self.weight) + self.bias  # compiled, the sum joins the next element-wise step


class Norm(Parameters):
    """Layer normalisation of x (m, T, h) with each member's own scale and shift."""

    def __init__(self, m: int, width: int, epsilon: float) -> None:
        super().__init__(weight=(m, 1, width), bias=(m, 1, width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=self.epsilon) * self.weight + self.bias


class Block(nn.Module):
    """One layer of all members; its attention is one vLLM layer with m times the heads."""

    def __init__(self, config: Any, m: int, cache_config: Any, prefix: str) -> None:
        super().__init__()
        width, head_size = config.n_embd // m, config.n_embd // config.n_head
        self.ln_1 = Norm(m, width, config.layer_norm_epsilon)
        self.ln_2 = Norm(m, width, config.layer_norm_epsilon)
        self.attn = nn.ModuleDict({"c_attn": Linear(m, width, 3 * width), "c_proj": Linear(m, width, width)})
        self.mlp = nn.ModuleDict({"c_fc": Linear(m, width, config.n_inner), "c_proj": Linear(m, config.n_inner, width)})
        self.activation = activation(config.activation_function)
        self.core = Attention(
            config.n_head, head_size, scale=head_size**-0.5, cache_config=cache_config, prefix=f"{prefix}.attn"
        )

    def forward(self, x: Tensor) -> Tensor:
        m, length, width = x.shape
        together = self.attn["c_attn"](self.ln_1(x)).transpose(0, 1)  # (T, m, 3h)
        queries, keys, values = (part.reshape(length, m * width) for part in together.chunk(3, -1))
        attended = self.core(queries, keys, values).view(length, m, width).transpose(0, 1).contiguous()
        x = x + self.attn["c_proj"](attended)
        hidden: Tensor = x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))
        return hidden


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of a name in `ACTIVATIONS`; plain torch, which the compiler fuses."""
    approximate = ACTIVATIONS[name]
    if approximate is None:
        return F.relu
    return lambda x: F.gelu(x, approximate=approximate)


@support_torch_compile
class Transformer(nn.Module):
    """Embeddings, layers and last norm of all members.  wte is (V, m, h): flattened, the head [W_1 ... W_m]."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        m = len(config.members)
        width = config.n_embd // m
        rows = -(-config.vocab_size // PAD_VOCABULARY_TO) * PAD_VOCABULARY_TO
        self.wte = Parameters(weight=(rows, m, width))
        self.wpe = Parameters(weight=(config.n_positions, m, width))
        self.h = nn.ModuleList(
            Block(config, m, vllm_config.cache_config, f"{prefix}.h.{i}") for i in range(config.n_layer)
        )
        self.ln_f = Norm(m, width, config.layer_norm_epsilon)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids, positions: (T,) int64.  Returns hidden states (T, m * h)."""
        x = (self.wte.weight[input_ids] + self.wpe.weight[positions]).transpose(0, 1).contiguous()  # (m, T, h)
        for block in self.h:
            x = block(x)
        hidden: Tensor = self.ln_f(x)
        return hidden.transpose(0, 1).flatten(1)


class FlatLayout:
    """All parameters of a model laid end to end in one vector."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.starts: dict[str, int] = {}
        self.size = 0
        for name, shape in shapes.items():
            self.starts[name] = self.size
            self.size += -(-torch.Size(shape).numel() // 64) * 64  # every tensor begins on a cache line

    def view(self, flat: Tensor, name: str) -> Tensor:
        shape = self.shapes[name]
        start = self.starts[name]
        return flat[start : start + torch.Size(shape).numel()].view(shape)


class MixtureGPT2(nn.Module):
    """A mixture of GPT-2s: hf_config.members are the checkpoints side by side, hf_config.anchors those of weight space.

    With anchors there is one member, the mixture; the first anchor is also vLLM's own `model` argument.
    """

    coefficients: Tensor  # (m,) float32

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = config = vllm_config.model_config.hf_config
        self.m = len(config.members)
        self.anchors: list[Tensor] = []  # flat float32, (N,) each
        self.served: Tensor | None = None  # flat, the parameters are views of it
        self.filter: tuple[int, float] | None = None  # (member, p): candidates are that member's nucleus
        self.transformer = Transformer(vllm_config=vllm_config, prefix="transformer")
        first = torch.zeros(self.m, dtype=torch.float32)
        first[0] = 1
        self.register_buffer("coefficients", first, persistent=False)
        sources = config.anchors or config.members
        self.secondary_weights = [  # read by vLLM's loader after `model`, which is sources[0]
            DefaultModelLoader.Source(path, revision=None, prefix=f"{i}:") for i, path in enumerate(sources[1:], 1)
        ]
        self.n_sources = len(sources)
        self.float32_head = False

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return self.transformer.wte.weight[input_ids].flatten(1)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        hidden: Tensor = self.transformer(input_ids, positions, intermediate_tensors, inputs_embeds)
        return hidden

    # ------------------------------------------------------------------------------------------ logits

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """sum_i c_i W_i h_i as one product.  hidden: (T, m * h).  Returns (T, V)."""
        weight = self.transformer.wte.weight  # (V, m, h)
        if self.m == 1:
            return self._head(hidden, weight[:, 0])
        members = hidden.view(len(hidden), self.m, -1)  # (T, m, h)
        scaled = (members * self.coefficients[:, None]).to(hidden.dtype)  # the product is float32, rounded once
        logits = self._head(scaled.flatten(1), weight.flatten(1))
        if self.filter is not None:
            member, p = self.filter
            alone = self._head(members[:, member], weight[:, member]).float()
            logits = logits.masked_fill(~nucleus_mask(alone, p), float("-inf"))
        return logits

    def _head(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """hidden (T, i) times weight (V, i).  In float32 where the device can: GPT-2's logits lie near -100, where
        bfloat16 knows only steps of a half.  Returns (T, V) without the padding."""
        if self.float32_head:
            logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
        else:
            logits = F.linear(hidden, weight)
        return logits[..., : self.config.vocab_size]

    # ------------------------------------------------------------------------------------------ loading

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take `NAME` of the first checkpoint and `i:NAME` of the i-th, as transformers' GPT-2 names them.

        Raises ValueError naming the checkpoint and the parameters that it lacks.
        """
        names = dict(self.named_parameters())
        seen: list[set[str]] = [set() for _ in range(self.n_sources)]
        self._prepare_buffers(names)
        for full_name, tensor in weights:
            index, _, name = full_name.rpartition(":")
            i = int(index or 0)
            name = name if name.startswith("transformer.") else f"transformer.{name}"
            if name in names:  # attention masks and a tied lm_head are not
                self._slot(name, i).copy_(tensor.reshape(self._slot(name, i).shape))
                seen[i].add(name)
        self._require_all(names, seen)
        if self.anchors:
            self.mix_weights([1.0] + [0.0] * (self.n_sources - 1))
        self.float32_head = has_float32_product(self.transformer.wte.weight)
        return set(names)

    def _prepare_buffers(self, names: dict[str, nn.Parameter]) -> None:
        if not self.config.anchors:
            return
        self.layout = FlatLayout({name: tuple(p.shape) for name, p in names.items()})
        some = next(iter(names.values()))
        self.served = torch.zeros(self.layout.size, dtype=some.dtype, device=some.device)
        self.anchors = [
            torch.zeros(self.layout.size, dtype=torch.float32, device=some.device) for _ in range(self.n_sources)
        ]
        for name, parameter in names.items():
            parameter.data = self.layout.view(self.served, name)

    def _slot(self, name: str, i: int) -> Tensor:
        """Where source i's parameter lives: in its anchor, or at its place among the members."""
        if self.anchors:
            whole, member = self.layout.view(self.anchors[i], name), 0
        else:
            whole, member = self.get_parameter(name).data, i
        if name == "transformer.wte.weight":
            return whole[: self.config.vocab_size, member]
        if name == "transformer.wpe.weight":
            return whole[: self.config.n_positions - SPARE_POSITIONS, member]
        return whole[member]

    def _require_all(self, names: Iterable[str], seen: Sequence[set[str]]) -> None:
        sources = self.config.anchors or self.config.members
        for path, found in zip(sources, seen, strict=True):
            if missing := sorted(set(names) - found):
                raise ValueError(f"{path} lacks {missing[0]} (and {len(missing) - 1} more)")

    # ------------------------------------------------------------------------------------------ mixing

    def mix_weights(self, coefficients: Sequence[float]) -> None:
        """theta = sum_i c_i theta_i: from the anchors, in float32, rounded once, where the old theta was."""
        assert self.served is not None
        for chunk in self._chunks():
            self.served[chunk] = self._mixed(chunk, coefficients)

    def mix_logits(self, coefficients: Sequence[float], filter_member: int | None, filter_p: float | None) -> None:
        """z = sum_i c_i z_i from now on; with a filter, only tokens in one member's nucleus stay possible."""
        self.coefficients.copy_(torch.tensor(coefficients, dtype=torch.float32))
        self.filter = None if filter_member is None or filter_p is None else (filter_member, filter_p)

    def share_that_survived(self, coefficients: Sequence[float], base: int) -> float | None:
        """<served - rounded base, mixed - base> / |mixed - base|^2: 1 where rounding lost nothing of the update.

        None where the mixture is the base, or where that is not an anchor.
        """
        assert self.served is not None
        kept = torch.zeros((), dtype=torch.float64, device=self.served.device)
        norm = torch.zeros_like(kept)
        for chunk in self._chunks():
            origin, served = self.anchors[base][chunk], self.served[chunk]
            update = self._mixed(chunk, coefficients) - origin
            left = served.float() - origin.to(served.dtype).float()
            kept += (left * update).sum(dtype=torch.float64)
            norm += update.square().sum(dtype=torch.float64)
        return float(kept / norm) if float(norm) else None

    def _mixed(self, chunk: slice, coefficients: Sequence[float]) -> Tensor:
        """sum_i c_i theta_i over the anchors whose coefficient is not zero, float32."""
        used = [(c, anchor) for c, anchor in zip(coefficients, self.anchors, strict=True) if c != 0]
        (c, anchor), *rest = used
        mixed = anchor[chunk] * c
        for c, anchor in rest:
            mixed.add_(anchor[chunk], alpha=c)
        return mixed

    def _chunks(self) -> Iterable[slice]:
        return (slice(start, start + CHUNK) for start in range(0, self.layout.size, CHUNK))


def has_float32_product(weight: Tensor) -> bool:
    """Whether this device multiplies this dtype into a float32 result; CUDA does, for half-precision dtypes."""
    if weight.dtype == torch.float32:
        return False
    few = weight.flatten(1)[:16, :16].contiguous()
    try:
        torch.mm(few, few.t(), out_dtype=torch.float32)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


class MixtureWorker:
    """vLLM's `worker_extension_cls`: what the engine may ask of a worker, by name and with plain numbers.

    A method name that vLLM's worker has too would be refused, hence the prefix.  `__init__` would never run.
    """

    get_model: Callable[[], Any]

    @torch.inference_mode()
    def lerpbench_mix_weights(self, coefficients: list[float]) -> None:
        self.get_model().mix_weights(coefficients)

    @torch.inference_mode()
    def lerpbench_mix_logits(
        self, coefficients: list[float], filter_member: int | None, filter_p: float | None
    ) -> None:
        self.get_model().mix_logits(coefficients, filter_member, filter_p)

    @torch.inference_mode()
    def lerpbench_survived(self, coefficients: list[float], base: int) -> float | None:
        share: float | None = self.get_model().share_that_survived(coefficients, base)
        return share

    def lerpbench_seed(self, seed: int) -> None:
        """Start all random numbers anew: torch's (model runner V1), numpy's (V2 draws request seeds from it)."""
        from vllm.utils.torch_utils import set_random_seed

        set_random_seed(seed)

    def lerpbench_address(self) -> int:
        """Where the served weights lie: mixing in place never moves them."""
        address: int = self.get_model().transformer.wte.weight.data_ptr()
        return address
