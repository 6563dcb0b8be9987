"""Scoring against the straightforward ways, in one run: 25 completions for each of 80 prompts, judges of the mini size.

The ratios are printed and kept in the benchmark's extra_info; docs/EVALUATORS.md says which targets they meet.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
    PreTrainedTokenizerFast,
    pipeline,
)

from evaluators.judges import Judge, Judges
from evaluators.perplexity import measure
from evaluators.scoring import classify

END = "<|endoftext|>"
VOCABULARY = 4096
PROMPTS, COMPLETIONS, NEW_TOKENS = 80, 25, 30


@pytest.fixture(scope="module")
def words() -> list[str]:
    """Made-up words, frequent ones first."""
    rng = random.Random(0)
    syllables = [
        "ka",
        "lo",
        "mi",
        "ren",
        "sta",
        "tur",
        "vel",
        "pos",
        "ing",
        "er",
        "an",
        "du",
        "shi",
        "bro",
        "qua",
        "fe",
    ]
    return list(dict.fromkeys("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6000)))


@pytest.fixture(scope="module")
def tokenizer(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(words)] * 3, vocab_size=VOCABULARY, special_tokens=[END])
    path = tmp_path_factory.mktemp("bpe") / "bpe.json"
    bpe.save(str(path))
    return GPT2TokenizerFast(
        tokenizer_file=str(path), bos_token=END, eos_token=END, unk_token=END, pad_token=END, model_max_length=128
    )


@pytest.fixture(scope="module")
def texts(tokenizer: PreTrainedTokenizerFast, words: list[str]) -> list[tuple[str, str]]:
    """(prompt, completion): prompts of 4 to 10 words; three completions of ten end before their 30 tokens are used."""
    rng = random.Random(1)
    weights = [1 / (rank + 10) for rank in range(len(words))]

    def sentence(n: int) -> str:
        return " ".join(rng.choices(words, weights, k=n))

    pairs = []
    for _ in range(PROMPTS):
        prompt = sentence(rng.randint(4, 10))
        for _ in range(COMPLETIONS):
            length = NEW_TOKENS if rng.random() < 0.7 else rng.randint(5, NEW_TOKENS)
            ids = tokenizer(" " + sentence(NEW_TOKENS))["input_ids"][:length]
            pairs.append((prompt, tokenizer.decode(ids)))
    return pairs


def saved(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def shape(tokenizer: PreTrainedTokenizerFast, width: int, layers: int, **changes: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=width, n_layer=layers, n_head=4, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, **changes,
    )  # fmt: skip


@torch.inference_mode()
def straightforward(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> np.ndarray:
    """Summed NLL of each text: padded batches of 32 in the given order, the prompt computed again for each."""
    sums = []
    for start in range(0, len(texts), 32):
        batch = tokenizer([p + c for p, c in texts[start : start + 32]], padding=True, return_tensors="pt")
        logits = model(**batch).logits[:, :-1].float()
        targets, real = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
        logprobs = logits.log_softmax(-1).gather(2, targets[..., None])[..., 0]
        sums.append(-(logprobs * real).sum(-1))
    return torch.cat(sums).double().numpy()


def best_of(rounds: int, *functions: Callable[[], Any]) -> list[float]:
    """The least processor time of each, s, which other work on the machine hardly changes; they take turns."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            best[i] = min(best[i], time.process_time() - start)
    return best


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def test_perplexity_scoring(
    benchmark: Any, tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Target 3x, which float32 does not reach: matrix products of the completions' own tokens alone take about 0.35 of
    the straightforward time.  Asserted is what was measured, with room for noise."""
    torch.manual_seed(0)
    plain = GPT2LMHeadModel(shape(tokenizer, 256, 4)).eval()
    judge = Judges().language_model(saved(plain, tokenizer, tmp_path / "judge"))
    expected = straightforward(plain, tokenizer, texts)
    found = np.array([m.full.nats for m in measure(judge, texts)])
    assert found == pytest.approx(expected, rel=1e-5)
    rounded = np.array([m.full.nats for m in measure(judge, texts, "bfloat16")])
    error = float(np.abs(rounded / expected - 1).max())
    slow, fast, faster = best_of(
        3,
        lambda: straightforward(plain, tokenizer, texts),
        lambda: measure(judge, texts),
        lambda: measure(judge, texts, "bfloat16"),
    )
    report(
        benchmark, "perplexity", {"s": slow, "float32": slow / fast, "bfloat16": slow / faster, "bfloat16_error": error}
    )
    benchmark.pedantic(measure, args=(judge, texts), rounds=1)
    assert error < 0.005
    assert slow / fast > 1.4
    if fast_bfloat16():
        assert slow / faster > 2


def test_classifier_scoring(
    benchmark: Any, tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Target: twice as fast as transformers' pipeline at its best batch size; asserted with room for noise."""
    torch.manual_seed(0)
    config = shape(tokenizer, 128, 2, num_labels=3)
    judge: Judge = Judges().classifier(saved(GPT2ForSequenceClassification(config), tokenizer, tmp_path / "classifier"))
    whole = [prompt + completion for prompt, completion in texts]
    pipe = pipeline("text-classification", model=str(tmp_path / "classifier"), device="cpu", top_k=None)
    expected = [{entry["label"]: entry["score"] for entry in scores} for scores in pipe(whole[:100])]
    probabilities, reasons = classify(judge, whole)
    assert not reasons
    for row, scores in enumerate(expected):
        assert probabilities[row] == pytest.approx([scores[f"LABEL_{i}"] for i in range(3)], abs=1e-5)
    times = best_of(1, *(lambda size=size: pipe(whole, batch_size=size) for size in (8, 32, 128)))
    size = (8, 32, 128)[int(np.argmin(times))]
    slow, fast = best_of(3, lambda: pipe(whole, batch_size=size), lambda: classify(judge, whole))
    report(benchmark, "classifier", {"float32": slow / fast, "pipeline_batch": size})
    benchmark.pedantic(classify, args=(judge, whole), rounds=1)
    assert slow / fast > 1.5


def report(benchmark: Any, what: str, ratios: dict[str, float]) -> None:
    benchmark.extra_info.update(ratios)
    print(f"\n{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in ratios.items()))
