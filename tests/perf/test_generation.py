"""Speed of generation, as ratios within one run: against transformers' `generate()`, and of DExperts against the base.

make bench        (600 rows x 30 tokens of the mini base; a quiet machine)
"""

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe, Sampling
from bench.suite.checkpoints import resolve
from bench.suite.products import has_bfloat16
from bench.suite.prompts import load_set

PROMPTS = load_set("neutral", PromptSource(source="mini:prompts/neutral"), limit=24)
SAMPLING = Sampling(samples=25, max_new_tokens=30)  # 600 rows
ROUNDS = 5
PRODUCTS = ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm")  # of weights
ALL_PRODUCTS = (*PRODUCTS, "aten::bmm")  # attention's with prompts, too


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    checkpoints = {name: resolve(f"mini:{name}") for name in ("base", "expert", "antiexpert")}
    return TransformersEngine(checkpoints, "float32", "cpu")


def interleaved(*runs: Callable[[], int], rounds: int = ROUNDS) -> list[list[float]]:
    """Tokens/s of each run in each round, after one warm-up; rounds go A B C A B C."""
    for run in runs:
        run()
    rates: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for found, run in zip(rates, runs, strict=True):
            started = time.perf_counter()
            tokens = run()
            found.append(tokens / (time.perf_counter() - started))
    return rates


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_generation_is_five_times_as_fast_as_generate(benchmark: BenchmarkFixture, dtype: str) -> None:
    if dtype == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16 instructions")
    engine = TransformersEngine({"base": resolve("mini:base")}, dtype, "cpu")
    model = engine.serve(Recipe(space="weights", coefficients={"base": 1}))
    folder = resolve("mini:base").path
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    rows = [prompt.text for prompt in PROMPTS for _ in range(SAMPLING.samples)]
    encoded = tokenizer(rows, return_tensors="pt", padding=True)

    def ours() -> int:
        return sum(c.n_tokens for c in model.generate(PROMPTS, SAMPLING))

    @torch.inference_mode()
    def theirs() -> int:
        out = reference.generate(**encoded, do_sample=True, top_p=0.9, top_k=0, max_new_tokens=SAMPLING.max_new_tokens)
        return int((out[:, encoded.input_ids.shape[1] :] != tokenizer.eos_token_id).sum())

    fast, slow = interleaved(ours, theirs)
    ratio = median([a / b for a, b in zip(fast, slow, strict=True)])
    print(f"\n{dtype}: ours {median(fast):,.0f} tokens/s, generate() {median(slow):,.0f}, ratio {ratio:.2f}")
    benchmark.extra_info |= {"generate_tokens_per_s": median(slow), "times_generate": ratio}
    benchmark.pedantic(ours, rounds=3)
    assert ratio >= 5


def test_a_single_row_is_a_third_faster_than_generate(benchmark: BenchmarkFixture, engine: TransformersEngine) -> None:
    model = engine.serve(Recipe(space="weights", coefficients={"base": 1}))
    folder = resolve("mini:base").path
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoded = AutoTokenizer.from_pretrained(folder)([PROMPTS[0].text], return_tensors="pt")
    new = SAMPLING.max_new_tokens

    @torch.inference_mode()
    def theirs() -> int:
        out = reference.generate(**encoded, do_sample=True, top_p=0.9, top_k=0, max_new_tokens=new, min_new_tokens=new)
        return int(out.shape[1] - encoded.input_ids.shape[1])

    alone = SAMPLING.model_copy(update={"samples": 1})
    fast, slow = interleaved(lambda: model.decode(PROMPTS[:1], alone), theirs, rounds=25)
    ratio = median([a / b for a, b in zip(fast, slow, strict=True)])
    print(f"\n1 row: ours {median(fast):,.0f} tokens/s, generate() {median(slow):,.0f}, ratio {ratio:.2f}")
    benchmark.pedantic(lambda: model.decode(PROMPTS[:1], alone), rounds=3)
    assert ratio >= 1.33


def test_dexperts_costs_at_most_three_bases_and_a_tenth(
    benchmark: BenchmarkFixture, engine: TransformersEngine
) -> None:
    base = engine.serve(Recipe(space="weights", coefficients={"base": 1}))
    dexperts = engine.serve(Recipe(space="logits", coefficients={"base": 1, "expert": 0.01, "antiexpert": -0.01}))

    def run(model: object) -> Callable[[], int]:
        return lambda: sum(c.n_tokens for c in model.generate(PROMPTS, SAMPLING))  # type: ignore[attr-defined]

    one, three = interleaved(run(base), run(dexperts))
    ratio = median([a / b for a, b in zip(one, three, strict=True)])
    print(f"\nbase {median(one):,.0f} tokens/s, DExperts {median(three):,.0f}, time ratio {ratio:.2f}")
    benchmark.pedantic(run(dexperts), rounds=3)
    assert ratio <= 3.3


@pytest.mark.parametrize(("samples", "target"), [(1, 2.0), (4, 1.0)])
def test_a_sweep_of_fifteen_in_one_batch(
    benchmark: BenchmarkFixture, engine: TransformersEngine, samples: int, target: float
) -> None:
    prompts, sampling = PROMPTS[:20], SAMPLING.model_copy(update={"samples": samples})
    alphas = [0.1 * i for i in range(1, 16)]
    recipes = [Recipe(space="logits", coefficients={"base": 1, "expert": a, "antiexpert": -a}) for a in alphas]
    at_once = engine.mixtures_per_batch(prompts, sampling)

    def together() -> int:
        parts = [recipes[i : i + at_once] for i in range(0, len(recipes), at_once)]
        return sum(c.n_tokens for part in parts for drawn in engine.sweep(part, prompts, sampling) for c in drawn)

    def alone() -> int:
        return sum(c.n_tokens for recipe in recipes for c in engine.serve(recipe).generate(prompts, sampling))

    fast, slow = interleaved(together, alone)
    ratio = median([a / b for a, b in zip(fast, slow, strict=True)])
    print(
        f"\n15 x 20 prompts x {samples}: {median(fast):,.0f} tokens/s together, {median(slow):,.0f} alone, {ratio:.2f}"
    )
    benchmark.pedantic(together, rounds=1)
    assert ratio >= target


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(space="weights", coefficients={"base": 1}),
        Recipe(space="logits", coefficients={"base": 1, "expert": 0.5, "antiexpert": -0.5}),
    ],
    ids=lambda recipe: str(recipe.space),
)
def test_a_batch_takes_at_most_three_times_its_products(
    engine: TransformersEngine, recipe: Recipe, threads: int
) -> None:
    """The clock's time of a batch over what its matrix products take in the next one, by torch's profiler."""
    model, before = engine.serve(recipe), torch.get_num_threads()
    torch.set_num_threads(threads)
    ratios: list[list[float]] = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        model.decode(PROMPTS, SAMPLING)
        taken = time.perf_counter() - started
        with torch.profiler.profile() as profile:
            model.decode(PROMPTS, SAMPLING)
        times = {op.key: op.self_cpu_time_total * 1e-6 for op in profile.key_averages()}
        ratios.append([taken / sum(times.get(op, 0) for op in ops) for ops in (PRODUCTS, ALL_PRODUCTS)])
    torch.set_num_threads(before)
    of_weights, of_all = map(median, zip(*ratios[1:], strict=True))
    print(f"\n{recipe.space}, {threads} threads: a batch takes {of_all:.2f} times its products, {of_weights:.2f} times "
          "those of weights alone")  # fmt: skip
    assert of_weights <= 3
