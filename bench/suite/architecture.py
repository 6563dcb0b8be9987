"""What a checkpoint's config says about its size, whatever the architecture calls it."""

from dataclasses import dataclass
from typing import Any

from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint

CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder; `context` is None where positions have no limit."""

    kind: str
    vocabulary: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    context: int | None

    @property
    def kv_values_per_token(self) -> int:
        """Numbers in the key-value cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_size


def rows_at_once(device: str) -> int:
    """How many completions the transformers engine decodes together, for which it holds keys and values."""
    return 640 if device == "cpu" else 1024


def architecture(checkpoint: Checkpoint) -> Architecture:
    """Raises UserError for a model that transformers does not know as a causal language model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        whole: Any = AutoConfig.from_pretrained(checkpoint.path)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {checkpoint.source}: transformers does not know its config: {reason}") from error
    config = whole.get_text_config(decoder=True)
    kind = str(whole.model_type)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or getattr(whole, "is_encoder_decoder", False):
        raise UserError(f"checkpoint {checkpoint.source}: {kind} is not a decoder that continues a text")
    heads, width = int(config.num_attention_heads), int(config.hidden_size)
    return Architecture(
        kind=kind,
        vocabulary=int(config.vocab_size),
        layers=int(config.num_hidden_layers),
        width=width,
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or width // heads),
        context=next((int(found) for name in CONTEXTS if (found := getattr(config, name, None))), None),
    )
