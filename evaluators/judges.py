"""The models that judge, loaded once and kept: causal language models and sequence classifiers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.suite.checkpoints import Checkpoint, resolve
from bench.suite.heads import Head, head_of
from bench.suite.loading import load_model, load_tokenizer


@dataclass(frozen=True)
class Judge:
    """A loaded model in float32, on the device, in evaluation mode, with its tokenizer."""

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any
    packs: bool = False  # whether it may be run on packed tokens: see `evaluators.packing`
    head: Head | None = None  # of a language model

    @property
    def device(self) -> Any:
        return self.model.device


@dataclass
class Judges:
    """Loads each judge once; `device` is where torch runs it."""

    device: str = "cpu"
    _loaded: dict[tuple[str, str], Judge] = field(default_factory=dict)

    def language_model(self, source: str) -> Judge:
        """A causal language model.  Raises UserError where the source cannot be had or has an unusual head."""
        from transformers import AutoModelForCausalLM

        return self._get("language_model", source, AutoModelForCausalLM, _language_model)

    def classifier(self, source: str) -> Judge:
        """A sequence classifier.  Raises UserError where the source cannot be had."""
        from transformers import AutoModelForSequenceClassification

        return self._get("classifier", source, AutoModelForSequenceClassification, _classifier)

    def _get(self, kind: str, source: str, loader: Any, examined: Callable[[Judge], Judge]) -> Judge:
        if (kind, source) not in self._loaded:
            import torch

            checkpoint = resolve(source)
            model = load_model(loader, checkpoint, dtype=torch.float32).to(self.device)
            judge = Judge(checkpoint, model, load_tokenizer(checkpoint))
            self._loaded[kind, source] = examined(judge)
        return self._loaded[kind, source]


def _language_model(judge: Judge) -> Judge:
    from evaluators.packing import packs

    head = head_of(judge.model, judge.checkpoint)  # first: a model that packs takes nothing but packed tokens
    return replace(judge, packs=packs(judge.model), head=head)


def _classifier(judge: Judge) -> Judge:
    from evaluators.packing import packs

    judge.model.config.use_cache = False  # a causal classifier would keep keys and values that nobody reads
    return replace(judge, packs=reads_last_token(judge.model) and packs(judge.model))


def reads_last_token(model: Any) -> bool:
    """Whether a classifier's logits are its `score` of the last token's hidden state, as in causal classifiers."""
    import torch

    if not isinstance(getattr(model, "score", None), torch.nn.Module):
        return False
    ids = torch.arange(1, 5, device=model.device)[None] % model.config.vocab_size
    with torch.inference_mode():
        scored = model.score(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1])
        return bool(torch.allclose(scored, model(input_ids=ids).logits, rtol=1e-3, atol=1e-4))
