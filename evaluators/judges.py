"""The models that judge, loaded once and kept: causal language models and sequence classifiers."""

from dataclasses import dataclass, field
from typing import Any

from bench.checkpoints import Checkpoint, resolve


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
        """A causal language model.  Raises UserError where the source cannot be had."""
        from transformers import AutoModelForCausalLM

        return self._get("language_model", source, AutoModelForCausalLM)

    def classifier(self, source: str) -> Judge:
        """A sequence classifier.  Raises UserError where the source cannot be had."""
        from transformers import AutoModelForSequenceClassification

        return self._get("classifier", source, AutoModelForSequenceClassification)

    def _get(self, kind: str, source: str, loader: Any) -> Judge:
        if (kind, source) not in self._loaded:
            import torch
            from transformers import AutoTokenizer

            checkpoint = resolve(source)
            model = loader.from_pretrained(checkpoint.path, dtype=torch.float32).to(self.device).eval()
            self._loaded[kind, source] = Judge(checkpoint, model, AutoTokenizer.from_pretrained(checkpoint.path))
        return self._loaded[kind, source]
