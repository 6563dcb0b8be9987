"""Scoring against the straightforward ways, in one run: 25 completions for each of 80 prompts by the packaged models.

Two kinds of text: the base's completions, which nearly all use their 30 tokens, and the expert's, of which most end
before.  What is asserted leaves room for noise; docs/SPEED.md has the measurements and the targets they meet or miss.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe, Sampling
from bench.suite.checkpoints import resolve
from bench.suite.prompts import load_prompts
from evaluators.judges import Judges
from evaluators.perplexity import measure
from evaluators.scoring import classify

SETS = {name: PromptSource(source=f"mini:prompts/{name}") for name in ("neutral", "positive", "negative")}
WRITERS = ["base", "expert"]
Texts = list[tuple[str, str]]


@pytest.fixture(scope="module")
def written() -> dict[str, Texts]:
    """Writer -> 2,000 (prompt, completion)."""
    prompts = load_prompts(SETS)[:80]
    engine = TransformersEngine({name: resolve(f"mini:{name}") for name in WRITERS}, "float32", "cpu")
    texts = {}
    for name in WRITERS:
        model = engine.serve(Recipe(space="weights", coefficients={name: 1}))
        completions = model.generate(prompts, Sampling(samples=25, max_new_tokens=30))
        texts[name] = [(prompts[c.prompt].text, c.text) for c in completions]
    return texts


@torch.inference_mode()
def straightforward(model: Any, tokenizer: Any, texts: Texts) -> np.ndarray:
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
    """The least time of each, s; they take turns, so that a machine that is busy for a while is busy for all."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


@pytest.mark.parametrize(("writer", "float32", "bfloat16"), [("base", 1.2, 2.2), ("expert", 1.9, 3)])
def test_perplexity_scoring(
    benchmark: BenchmarkFixture, written: dict[str, Texts], writer: str, float32: float, bfloat16: float
) -> None:
    """Target: 3x.  The loop sums the NLL of whole texts; ours also gives the completions' own, from the same pass."""
    texts = written[writer]
    folder = resolve("mini:judge").path
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    judge = Judges().language_model("mini:judge")
    expected = straightforward(plain, tokenizer, texts)
    found = np.array([m.full.nats for m in measure(judge, texts)])
    assert found == pytest.approx(expected, rel=1e-5)
    rounded = np.array([m.full.nats for m in measure(judge, texts, "bfloat16")])
    slow, fast, faster = best_of(
        3,
        lambda: straightforward(plain, tokenizer, texts),
        lambda: measure(judge, texts),
        lambda: measure(judge, texts, "bfloat16"),
    )
    ratios = {
        "s": slow,
        "float32": slow / fast,
        "bfloat16": slow / faster,
        "bfloat16_error_of_a_text": float(np.abs(rounded / expected - 1).max()),
        "bfloat16_error_of_all": abs(rounded.sum() / expected.sum() - 1),
    }
    report(benchmark, f"perplexity of the {writer}'s texts", ratios)
    benchmark.pedantic(measure, args=(judge, texts), rounds=1)
    assert ratios["bfloat16_error_of_a_text"] < 0.01
    assert ratios["float32"] > float32
    if fast_bfloat16():
        assert ratios["bfloat16"] > bfloat16


@pytest.mark.parametrize(("writer", "floor"), [("base", 1.05), ("expert", 1.75)])
def test_classifier_scoring(benchmark: BenchmarkFixture, written: dict[str, Texts], writer: str, floor: float) -> None:
    """Target: twice as fast as transformers' pipeline at its best batch size, both in float32."""
    whole = [prompt + completion for prompt, completion in written[writer]]
    judge = Judges().classifier("mini:sentiment")
    folder = str(resolve("mini:sentiment").path)
    pipe = pipeline("text-classification", model=folder, device="cpu", top_k=None, dtype=torch.float32)
    labels = [judge.model.config.id2label[i] for i in range(3)]
    expected = [{entry["label"]: entry["score"] for entry in scores} for scores in pipe(whole[:100])]
    probabilities, reasons = classify(judge, whole)
    assert not reasons
    for row, scores in enumerate(expected):
        assert probabilities[row] == pytest.approx([scores[label] for label in labels], abs=1e-5)
    sizes = (8, 16, 32, 64, 128)
    times = best_of(1, *(lambda size=size: pipe(whole, batch_size=size) for size in sizes))
    size = sizes[int(np.argmin(times))]
    slow, fast = best_of(3, lambda: pipe(whole, batch_size=size), lambda: classify(judge, whole))
    report(benchmark, f"classifier on the {writer}'s texts", {"float32": slow / fast, "pipeline_batch": size})
    benchmark.pedantic(classify, args=(judge, whole), rounds=1)
    assert slow / fast > floor


XL = """
import sys, torch
from transformers import GPT2Config, GPT2LMHeadModel
from bench.suite.checkpoints import resolve
from bench.suite.heads import Head
from evaluators.judges import Judge
from evaluators.packing import packs
from evaluators.scoring import token_nlls

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

torch.manual_seed(0)
layers = int(sys.argv[1])
with torch.device("meta"):
    model = GPT2LMHeadModel(GPT2Config(n_embd=1600, n_head=25, n_layer=layers, n_positions=1024))
model = model.to_empty(device="cpu").eval()
for parameter in model.parameters():
    torch.nn.init.uniform_(parameter, -0.02, 0.02)
model.tie_weights()
judge = Judge(resolve("mini:judge"), model, None, packs(model), Head(model.get_output_embeddings()))
assert judge.packs
prompts = torch.randint(1, 50000, (2, 8)).tolist()
texts = [prompt + torch.randint(1, 50000, (30,)).tolist() for prompt in prompts for _ in range(25)]
token_nlls(judge, texts[:2])
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
before = status("VmRSS")
token_nlls(judge, texts)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark from /proc")
def test_memory_beside_the_weights_of_a_judge_as_wide_as_gpt2_xl() -> None:
    """Two and six layers of GPT-2 XL's width and vocabulary: what scoring needs does not grow with their number.

    Four more layers that kept their queries, keys, values and widest activation would take 4 x 1,024 x 11,200 floats:
    175 MiB.
    """
    two, six = (
        float(subprocess.run([sys.executable, "-c", XL, str(n)], check=True, capture_output=True, text=True).stdout)
        for n in (2, 6)
    )
    print(f"\nMiB beside the weights: two layers {two:.0f}, six layers {six:.0f}")
    assert max(two, six) < 350


def report(benchmark: BenchmarkFixture, what: str, ratios: dict[str, float]) -> None:
    benchmark.extra_info.update(ratios)
    print(f"\n{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in ratios.items()))
