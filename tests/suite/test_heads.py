"""What models do behind their last hidden states, against their own logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint
from bench.suite.heads import head_of

CHECKPOINT = Checkpoint(source="here", path=Path("."), digest="")
SIZES = dict(
    vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, initializer_range=1.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
)  # fmt: skip


def model_of(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **options)).eval()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qwen3", {}),
        ("cohere", {"logit_scale": 0.1}),
        ("granite", {"logits_scaling": 7.0}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("mixtral", {"num_local_experts": 2}),
    ],
)
def test_the_head_gives_the_models_own_logits_whatever_the_shape(kind: str, options: dict[str, Any]) -> None:
    model = model_of(kind, **options)
    head = head_of(model, CHECKPOINT)
    ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    for _ in range(2):
        with torch.inference_mode():
            states, logits = model.base_model(input_ids=ids).last_hidden_state, model(input_ids=ids).logits
            assert torch.allclose(head(states), logits, atol=1e-5)
            assert torch.allclose(head(states[:, -1]), logits[:, -1], atol=1e-5)
        with torch.no_grad():  # and it follows when the weights change
            model.get_output_embeddings().weight.mul_(0.5)
    assert head.out_features == 50


def test_logits_of_more_than_the_last_states_are_refused() -> None:
    class Remembering(Qwen3ForCausalLM):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **more: Any) -> Any:
            found = super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **more)
            if input_ids is not None:
                found.logits = found.logits + input_ids[..., None]
            return found

    with pytest.raises(UserError, match="here: qwen3 makes its logits of more than its last hidden states"):
        head_of(Remembering(Qwen3Config(**SIZES)).eval(), CHECKPOINT)
