"""Packed tokens against the same model on each sequence alone, over architectures; and who may be packed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from bench.suite.heads import Head
from evaluators import scoring
from evaluators.judges import Judge, Judges, reads_last_token
from evaluators.packing import common_start, pack, packs
from evaluators.scoring import classify, token_nlls

SIZES: dict[str, Any] = dict(
    vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, initializer_range=0.2,
)  # fmt: skip
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SIZES)),  # rotary, keys for two heads each
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(num_key_value_heads=4, sliding_window=6, **SIZES)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2)
    ),
}
PACKED = ["gpt2", "llama", "gpt_neox"]
PADDED = ["sliding", "bloom"]  # what a token sees depends on more than the tokens before it and its position


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    """Four prompts, one of them the beginning of another, with five continuations each; one is the prompt itself."""
    generator = torch.Generator().manual_seed(0)

    def some(n: int) -> list[int]:
        return [int(token) for token in torch.randint(1, 200, (n,), generator=generator)]

    prompts = [some(2), some(5), some(9)]
    prompts.append(prompts[1][:3])
    return [prompt + some(n) for prompt in prompts for n in (0, 1, 4, 13, 30)]


def judge_of(name: str, plain: Judge) -> Judge:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    return Judge(plain.checkpoint, model, plain.tokenizer, packs(model), Head(model.get_output_embeddings()))


@torch.no_grad()
def alone(judge: Judge, ids: list[int]) -> np.ndarray:
    tokens = torch.tensor([ids])
    logprobs = judge.model(tokens).logits[0, :-1].double().log_softmax(-1)
    return -logprobs.gather(1, tokens[0, 1:, None])[:, 0].numpy()


def test_a_stream_by_hand() -> None:
    packing = pack([[1, 2, 3], [1, 2, 3, 5], [1, 2, 4], [6]], torch.device("cpu"))
    assert packing.ids.tolist() == [[1, 2, 3, 5, 4, 6]]
    assert packing.positions.tolist() == [[0, 1, 2, 3, 2, 0]]
    assert [places.tolist() for places in packing.places] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [5]]


def test_common_start() -> None:
    assert common_start([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_start([1, 2], [1, 2, 3]) == 2
    assert common_start([1, 2], [3, 2]) == 0
    assert common_start([], [1]) == 0


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_every_architecture_equals_each_sequence_alone(
    name: str, sequences: list[list[int]], tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judge_of(name, Judges().language_model(str(tiny_trio["base"])))
    assert judge.packs == (name in PACKED)
    expected = [alone(judge, ids) for ids in sequences]
    for budget in (1, 40, 10_000):
        monkeypatch.setitem(scoring.TOKENS_PER_BATCH, "cpu", budget)
        found = token_nlls(judge, sequences)
        assert [len(nll) for nll in found] == [len(ids) - 1 for ids in sequences]
        assert np.concatenate(found) == pytest.approx(np.concatenate(expected), rel=1e-4, abs=1e-5)


def test_the_judges_model_is_left_as_it_was(sequences: list[list[int]], tiny_trio: dict[str, Path]) -> None:
    judge = Judges().language_model(str(tiny_trio["base"]))
    before = alone(judge, sequences[-1])
    token_nlls(judge, sequences)
    assert judge.packs
    assert (alone(judge, sequences[-1]) == before).all()


def test_causal_classifiers_are_packed_and_agree_with_padded_ones(tiny_classifier: Path) -> None:
    judge = Judges().classifier(str(tiny_classifier))
    assert judge.packs
    texts = ["The movie was good.", "The movie was bad and long", "A film", "The movie was good.", ""]
    packed, reasons = classify(judge, texts)
    padded, same = classify(replace(judge, packs=False), texts)
    assert reasons == same == {4: "empty text"}
    assert packed == pytest.approx(padded, abs=1e-6, nan_ok=True)


def test_a_classifier_that_reads_both_ways_is_not_packed() -> None:
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(RobertaConfig(num_labels=3, **SIZES)).eval()
    assert not reads_last_token(model)
    assert not packs(model)
