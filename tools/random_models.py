"""Random GPT-2s and Llamas of a given shape, and prompts for them: what measures an engine without a download.

A Llama's experts are LoRA adapters, merged as a suite's are; a GPT-2's are other weights altogether.

A token is a character, so a text of n letters has n tokens and what is generated can be read as a text again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.schema import Prompt
from bench.suite.checkpoints import Checkpoint, resolve

NAMES = ("base", "expert", "antiexpert")
FIRST_CHARACTER = 0x20000  # token i is the i-th after it


@dataclass(frozen=True)
class Shape:
    """A model's kind and size, and how much is asked of it."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    dtype: str  # in which it is timed
    rows: tuple[int, ...]  # batch sizes that are timed
    new_tokens: int
    rounds: int
    kind: str = "gpt2"  # or llama


SHAPES = {
    "large": Shape(50257, 1280, 36, 20, "bfloat16", (1, 64, 1024), 30, 5),  # GPT-2 Large
    "small": Shape(50257, 768, 12, 12, "float32", (1, 4), 30, 5),  # GPT-2
    "mini": Shape(4096, 192, 4, 6, "float32", (8, 128), 30, 5),  # about the packaged models' size
    "tiny": Shape(320, 64, 2, 2, "float32", (4,), 8, 3),
    "llama": Shape(32000, 2048, 16, 32, "bfloat16", (1, 64, 1024), 30, 5, "llama"),  # a Llama of 1 billion parameters
    "tiny-llama": Shape(320, 64, 2, 2, "float32", (4,), 8, 3, "llama"),
}


def random_checkpoints(folder: Path, shape: Shape, device: str, step: float = 0.01) -> dict[str, Checkpoint]:
    """A random base and two steps from it, in bfloat16; made where they are missing.  `step`: of a parameter, sd."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    letters = [chr(FIRST_CHARACTER + i) for i in range(shape.vocabulary)]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, [], unk_token=letters[0]))
    tokenizer.decoder = decoders.Fuse()
    end = dict.fromkeys(("eos_token", "bos_token", "unk_token", "pad_token"), letters[0])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **end)
    names = NAMES if shape.kind == "gpt2" else NAMES[:1]
    for name in names:
        if not (folder / name / "tokenizer.json").exists():
            torch.manual_seed(0)
            with torch.device(device), torch.no_grad():
                model = AutoModelForCausalLM.from_config(_config(shape))
                if name != "base":
                    torch.manual_seed(NAMES.index(name))
                    for parameter in model.parameters():
                        parameter.add_(torch.randn_like(parameter), alpha=step)
            model.to(torch.bfloat16).save_pretrained(folder / name)
            fast.save_pretrained(folder / name)
    found = {name: resolve(str(folder / name)) for name in names}
    return found | {name: _adapted(found["base"], folder, shape, name) for name in NAMES[len(names) :]}


def _config(shape: Shape) -> Any:
    """Initialised wider than by default, at which a random model only repeats its last token."""
    from transformers import GPT2Config, LlamaConfig

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if shape.kind == "gpt2":
        return GPT2Config(
            vocab_size=shape.vocabulary, n_positions=128, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.1, **ends,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=shape.vocabulary, max_position_embeddings=128, hidden_size=shape.width,
        intermediate_size=4 * shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=max(1, shape.heads // 4), tie_word_embeddings=False, initializer_range=0.05, **ends,
    )  # fmt: skip


def _adapted(base: Checkpoint, folder: Path, shape: Shape, name: str) -> Checkpoint:
    """The base with a random adapter of rank 8 on its attention's queries and outputs."""
    import torch
    from safetensors.torch import save_file

    from bench.experts.adapters import densified

    adapter, rank = folder / f"{name}-adapter", 8
    adapter.mkdir(exist_ok=True)
    torch.manual_seed(NAMES.index(name))
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{half}.weight": 0.1 * torch.randn(size)
        for layer in range(shape.layers)
        for module in ("q_proj", "o_proj")
        for half, size in (("A", (rank, shape.width)), ("B", (shape.width, rank)))
    }
    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    return densified(base, str(adapter), folder)


def random_prompts(count: int, shape: Shape) -> list[Prompt]:
    """Prompts of 5 to 16 tokens, as long as the paper's."""
    random = np.random.default_rng(0)
    rows = [random.integers(1, shape.vocabulary, random.integers(5, 17)) for _ in range(count)]
    texts = ["".join(chr(FIRST_CHARACTER + token) for token in row) for row in rows]
    return [Prompt(set="random", row=i, text=text) for i, text in enumerate(texts)]
