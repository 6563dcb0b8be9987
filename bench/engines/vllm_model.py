"""What runs inside vLLM: mixtures of its own models, changed while the engine lives.

Weight space: vLLM's own model of the architecture; a mixture goes through vLLM's own reloading of weights, which writes
where the old values were, so CUDA graphs and compiled code stay valid.  Logit space: m of vLLM's own models behind one,
each with its own layers in the key-value cache, and z = sum_i c_i z_i, or p = sum_i c_i p_i.

This module is imported inside vLLM's processes only; `bench.engines.vllm` is the engine around it.  No
`from __future__ import annotations` here: vLLM's compiler reads the annotations of `forward`.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from vllm.compilation.backends import set_model_tag
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.sequence import IntermediateTensors

from bench.engines.anchors import Anchors
from bench.engines.mixing import mix_probs, plausible
from bench.engines.sampling import nucleus_mask
from bench.engines.vllm_support import OWN
from bench.schema import Recipe

MASKS: dict[str, Callable[[Tensor, float], Tensor]] = {"nucleus": nucleus_mask, "plausible": plausible}


class LogitMixture(nn.Module):
    """Several of vLLM's models, `hf_config.members`, that read the same tokens; logits or probabilities add up."""

    coefficients: Tensor  # (m,) float32
    members: Any

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        paths = self.config.members
        configs = [AutoConfig.from_pretrained(path) for path in paths]
        self.members = nn.ModuleList(member(vllm_config, config, i) for i, config in enumerate(configs))
        texts = [config.get_text_config() for config in configs]
        self.widths = [int(text.hidden_size) for text in texts]
        self.vocabulary = min(int(text.vocab_size) for text in texts)  # some pad the same vocabulary further
        self.probs = False
        self.own: Callable[[], list[list[float]]] | None = None  # where requests bring coefficients: see below
        self.mask: tuple[str, int, float] | None = None  # (name, member, share): which tokens a member leaves
        first = torch.zeros(len(paths), dtype=torch.float32)
        first[0] = 1
        self.register_buffer("coefficients", first, persistent=False)
        self.secondary_weights = [  # read by vLLM's loader after `model`, which is paths[0]
            DefaultModelLoader.Source(path, revision=None, prefix=f"{i}:") for i, path in enumerate(paths[1:], 1)
        ]

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return torch.cat([member.embed_input_ids(input_ids) for member in self.members], dim=-1)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids, positions: (T,) int64.  Returns the members' hidden states side by side, (T, sum_i h_i)."""
        first: Tensor = self.members[0](input_ids, positions)
        hidden = first.new_empty(len(first), sum(self.widths))
        # Each is copied at once: a CUDA graph's answer lies where the next graph, another member's, may write.
        parts = torch.split(hidden, self.widths, dim=-1)
        parts[0].copy_(first)
        for member, part in zip(self.members[1:], parts[1:], strict=True):
            part.copy_(member(input_ids, positions))
        return hidden

    def compute_logits(self, hidden: Tensor) -> Tensor | None:
        """sum_i c_i z_i, or log sum_i c_i p_i.  hidden: (T, sum_i h_i).  Returns (T, V) float32, on the first rank."""
        parts = torch.split(hidden, self.widths, dim=-1)
        logits = [member.compute_logits(part.contiguous()) for member, part in zip(self.members, parts, strict=True)]
        if any(z is None for z in logits):
            return None
        alike = [z[..., : self.vocabulary].float() for z in logits]
        mixed = mix_probs(self.coefficients.tolist(), alike) if self.probs else self._sum(alike, self._of_rows(hidden))
        if self.mask is not None:
            name, i, share = self.mask
            mixed.masked_fill_(~MASKS[name](alike[i], share), float("-inf"))
        return mixed

    def _of_rows(self, hidden: Tensor) -> Tensor:
        """The coefficients of all rows (m, 1), or each one's own, (m, T, 1)."""
        if self.own is None:
            return self.coefficients[:, None]
        own = torch.tensor(self.own(), device=hidden.device)
        if len(own) != len(hidden):
            raise RuntimeError(f"{len(hidden)} rows to mix, and requests brought coefficients for {len(own)}")
        return own.t()[..., None]

    @staticmethod
    def _sum(logits: Sequence[Tensor], coefficients: Tensor) -> Tensor:
        mixed: Tensor = logits[0] * coefficients[0]
        for coefficient, z in zip(coefficients[1:], logits[1:], strict=True):
            mixed += coefficient * z
        return mixed

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take `NAME` of the first checkpoint and `i:NAME` of the i-th.  Returns the names of what was loaded."""
        loaded: set[str] = set()
        for i, part in groupby(weights, key=lambda item: int(item[0].rpartition(":")[0] or 0)):
            mine = self.members[i]
            found = mine.load_weights((name.rpartition(":")[2], tensor) for name, tensor in part)
            names = [name for name, _ in mine.named_parameters()] if found is None else found
            loaded |= {f"members.{i}.{name}" for name in names}
        return loaded

    def mix(self, coefficients: Sequence[float], probs: bool, mask: tuple[str, int, float] | None) -> None:
        """z = sum_i c_i z_i, or p = sum_i c_i p_i, from now on; with a mask, only among the tokens that it leaves."""
        self.coefficients.copy_(torch.tensor(coefficients, dtype=torch.float32))
        self.probs, self.mask = probs, mask


def member(vllm_config: VllmConfig, config: Any, i: int) -> nn.Module:
    """vLLM's own model of a config.  Its layers' names hold one whole number, as vLLM wants: the layer's."""
    prefix = f"member_{i}"
    config.head_dtype = getattr(vllm_config.model_config.hf_config, "head_dtype", "model")
    own = vllm_config.with_hf_config(config)
    own.model_config.hf_text_config = config.get_text_config()
    own.additional_config = {"member": prefix}  # hashed: vLLM loads code compiled ahead of time by the config's hash
    with set_model_tag(prefix):  # code compiled just in time is kept apart by tag
        model: nn.Module = initialize_model(vllm_config=own, prefix=prefix)
    prefix_attention(vllm_config.compilation_config.static_forward_context, prefix)
    return model


def prefix_attention(layers: dict[str, Any], prefix: str) -> None:
    """Name the newest member's attention after it where vLLM (0.26: models of transformers' classes) has not."""
    for name in [name for name, layer in layers.items() if isinstance(layer, Attention)]:
        if not name.startswith("member_"):
            layer = layers.pop(name)
            layer.layer_name = f"{prefix}.{name}"
            layers[layer.layer_name] = layer


class MixtureWorker:
    """vLLM's `worker_extension_cls`: what the engine may ask of a worker, by name and with plain values.

    A method name that vLLM's worker has too would be refused, hence the prefix.  `__init__` would never run.
    """

    get_model: Callable[[], Any]
    model_runner: Any
    device: torch.device
    lerpbench_anchors: Anchors

    def lerpbench_open(self, folders: dict[str, str], digests: dict[str, str]) -> None:
        """Read the checkpoints that weight space mixes."""
        paths = {name: Path(folder) for name, folder in folders.items()}
        self.lerpbench_anchors = Anchors(paths, digests, torch.device(self.device))

    @torch.inference_mode()
    def lerpbench_mix_weights(self, recipe: str) -> None:
        """Write the mixture where the old weights were.  recipe: as JSON."""
        mixture = self.lerpbench_anchors.mixture(Recipe.model_validate_json(recipe))
        with set_current_vllm_config(self.model_runner.vllm_config):  # some layers ask for it when they are made ready
            self.model_runner.reload_weights(weights_iterator=mixture)
            for module in self.get_model().modules():
                if isinstance(module, VocabParallelEmbedding):
                    # On a CPU the head keeps a packed copy, which reloading (0.32) leaves stale where the head is tied.
                    module.quant_method.process_weights_after_loading(module)

    @torch.inference_mode()
    def lerpbench_mix_logits(
        self, coefficients: list[float], probs: bool, mask: str | None, member: int, share: float
    ) -> None:
        self.get_model().mix(coefficients, probs, None if mask is None else (mask, member, share))

    @torch.inference_mode()
    def lerpbench_survived(self, recipe: str, dtype: str) -> float | None:
        mixture = Recipe.model_validate_json(recipe)
        return self.lerpbench_anchors.share_that_survived(mixture, getattr(torch, dtype))

    def lerpbench_own_coefficients(self, own: bool) -> None:
        """From now on requests bring coefficients; or no longer."""
        if own:
            bring_coefficients(self.model_runner, self.get_model())
        else:
            self.get_model().own = None
            for name in WRAPPED:
                self.model_runner.__dict__.pop(name, None)

    def lerpbench_addresses(self) -> list[int]:
        """Where the model's parameters are: a change of the mixture must not move them."""
        return [parameter.data_ptr() for parameter in self.get_model().parameters()]


WRAPPED = ("add_requests", "sample")  # methods of model runner V2


def bring_coefficients(runner: Any, model: LogitMixture) -> None:
    """Let the model find the coefficients of the requests whose next tokens are drawn, in the order of its rows."""
    if not hasattr(runner, "sample"):  # model runner V1
        model.own = lambda: [
            runner.requests[name].sampling_params.extra_args[OWN] for name in runner.input_batch.req_ids
        ]
        return
    add_requests, sample = runner.add_requests, runner.sample
    brought: dict[str, list[float]] = {}

    def remember(scheduled: Any) -> Any:
        brought.update({new.req_id: new.sampling_params.extra_args[OWN] for new in scheduled.scheduled_new_reqs})
        return add_requests(scheduled)

    def sample_rows(hidden: Tensor, batch: Any, *rest: Any) -> Any:
        model.own = lambda: [brought[name] for name in batch.req_ids]
        return sample(hidden, batch, *rest)

    runner.add_requests, runner.sample = remember, sample_rows
