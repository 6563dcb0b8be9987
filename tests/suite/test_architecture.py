"""Sizes under one name, whatever a config calls them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.suite.architecture import architecture
from bench.suite.checkpoints import Checkpoint


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (dict(model_type="gpt2", vocab_size=300, n_embd=64, n_head=2, n_layer=3, n_positions=64),
         dict(vocabulary=300, layers=3, width=64, heads=2, kv_heads=2, head_size=32, context=64)),
        (dict(model_type="llama", vocab_size=300, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
              num_hidden_layers=3, max_position_embeddings=128),
         dict(vocabulary=300, layers=3, width=64, heads=4, kv_heads=2, head_size=16, context=128)),
        (dict(model_type="qwen3", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=32),
         dict(heads=4, kv_heads=2, head_size=32)),
        (dict(model_type="bloom", vocab_size=300, hidden_size=64, n_head=4, n_layer=3),
         dict(layers=3, width=64, head_size=16, context=None)),
        (dict(model_type="mpt", vocab_size=300, d_model=64, n_heads=4, n_layers=3, max_seq_len=96),
         dict(layers=3, width=64, head_size=16, context=96)),
    ],
    ids=lambda value: value.get("model_type", ""),
)  # fmt: skip
def test_sizes(tmp_path: Path, config: dict[str, Any], sizes: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = architecture(Checkpoint(source="mine", path=tmp_path, digest="0"))
    assert {name: getattr(found, name) for name in sizes} == sizes


def test_the_cache_of_a_token_by_hand(tmp_path: Path) -> None:
    config = dict(model_type="llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = architecture(Checkpoint(source="mine", path=tmp_path, digest="0"))
    assert found.kv_values_per_token == 2 * 3 * 2 * 16  # keys and values, layers, heads, size
