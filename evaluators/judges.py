"""The models that judge, loaded once and kept: causal language models and sequence classifiers."""

from dataclasses import dataclass, field
from typing import Any

from bench.checkpoints import Checkpoint, resolve
from bench.schema import UserError


@dataclass(frozen=True)
class Judge:
    """A loaded model in float32, on the device, in evaluation mode, with its tokenizer."""

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any


@dataclass
class Judges:
    """Loads each judge once; `device` is where torch runs it."""

    device: str = "cpu"
    _loaded: dict[tuple[str, str], Judge] = field(default_factory=dict)

    def language_model(self, source: str) -> Judge:
        """A causal language model.  Raises UserError where the source cannot be had or has an unusual head."""
        from transformers import AutoModelForCausalLM

        known = ("language_model", source) in self._loaded
        judge = self._get("language_model", source, AutoModelForCausalLM)
        if not known:
            require_linear_head(judge)
        return judge

    def classifier(self, source: str) -> Judge:
        """A sequence classifier.  Raises UserError where the source cannot be had."""
        from transformers import AutoModelForSequenceClassification

        judge = self._get("classifier", source, AutoModelForSequenceClassification)
        judge.model.config.use_cache = False  # a causal classifier would keep keys and values that nobody reads
        return judge

    def _get(self, kind: str, source: str, loader: Any) -> Judge:
        if (kind, source) not in self._loaded:
            import torch
            from transformers import AutoTokenizer

            checkpoint = resolve(source)
            model = loader.from_pretrained(checkpoint.path, dtype=torch.float32).to(self.device).eval()
            fuse_gelu(model)
            self._loaded[kind, source] = Judge(checkpoint, model, AutoTokenizer.from_pretrained(checkpoint.path))
        return self._loaded[kind, source]


def require_linear_head(judge: Judge) -> None:
    """Raise UserError where the logits are not the head's map of the last hidden states (scaled, soft-capped, ...)."""
    import torch

    model = judge.model
    ids = torch.arange(1, 5, device=model.device)[None] % model.config.vocab_size
    with torch.inference_mode():
        mapped = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        same = torch.allclose(mapped, model(input_ids=ids, use_cache=False).logits, rtol=1e-3, atol=1e-3)
    if not same:
        source, kind = judge.checkpoint.source, model.config.model_type
        raise UserError(f"judge {source}: {kind} changes its logits behind the head, which scoring does not know")


def fuse_gelu(model: Any) -> None:
    """Replace GPT-2's GELU, written as eight tensor operations, by torch's kernel for the same formula."""
    from torch import nn
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
