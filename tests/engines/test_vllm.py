"""The vLLM engine, run for real on the CPU build, against plain transformers: no code of ours but the engine itself."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.engines import vllm
from bench.engines.transformers import TransformersEngine
from bench.engines.vllm import VllmEngine, VllmModel
from bench.engines.vllm_support import VllmSettings, prompt_seed, why_not
from bench.run.parity import parity
from bench.schema import Completion, Point, Prompt, PromptSource, Recipe, Sampling, Suite, UserError
from bench.stats import RatioStatistic, ratio_statistic
from bench.suite.checkpoints import Checkpoint, resolve
from evaluators.linearity import Linearity
from tests.engines.reference import Reference, load

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(why_not("cpu") is not None, reason=f"vLLM's CPU build cannot run: {why_not('cpu')}"),
]

TEXTS = [
    "The movie was",
    "A man",
    "The film is bad and long. A story of a man in the city, and the actors are great. The movie was good. The film",
]
PROMPTS = [Prompt(set="tiny", row=i, text=text) for i, text in enumerate(TEXTS)]
GREEDY = Sampling(samples=1, max_new_tokens=10, temperature=0)
SETTINGS = VllmSettings(max_num_seqs=64, eager=True)


def weights(**coefficients: float) -> Recipe:
    return Recipe(space="weights", coefficients=coefficients)


def logits(**coefficients: float) -> Recipe:
    return Recipe(space="logits", coefficients=coefficients)


@pytest.fixture(scope="module")
def checkpoints(tiny_trio: dict[str, Path]) -> dict[str, Checkpoint]:
    return {name: resolve(str(tiny_trio[name])) for name in ("base", "expert", "antiexpert")}


@pytest.fixture(scope="module")
def engine(checkpoints: dict[str, Checkpoint]) -> Iterator[VllmEngine]:
    engine = VllmEngine(checkpoints, "float32", "cpu", SETTINGS)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(checkpoints: dict[str, Checkpoint]) -> dict[str, Any]:
    return {name: load(checkpoint.path) for name, checkpoint in checkpoints.items()}


@pytest.mark.parametrize(
    "recipe",
    [
        weights(base=1),
        weights(base=1, expert=0.7, antiexpert=-0.7),
        weights(base=-0.5, expert=1.25, antiexpert=0.25),
        logits(base=1, expert=0.7, antiexpert=-0.7),
        logits(base=-0.5, expert=1.25, antiexpert=0.25),
        Recipe(space="probs", coefficients={"expert": 0.3, "antiexpert": 0.7}),
    ],
    ids=str,
)
def test_parity_with_plain_transformers(engine: VllmEngine, plain: dict[str, Any], recipe: Recipe) -> None:
    model, reference = engine.serve(recipe), Reference(plain, recipe)
    drawn = model.generate(PROMPTS, GREEDY)
    expected = [reference.greedy(model.token_ids(text), GREEDY.max_new_tokens, model.end) for text in TEXTS]
    assert [c.text for c in drawn] == engine.tokenizer.batch_decode(expected)
    assert [c.n_tokens for c in drawn] == [len(tokens) for tokens in expected]
    for text, found in zip(TEXTS, model.token_logprobs(TEXTS), strict=True):
        assert np.abs(found - reference.token_logprobs(model.token_ids(text), model.end)).max() < 1e-4
    after = reference.logits(model.token_ids(TEXTS[0]))[-1].log_softmax(dim=-1).numpy()
    assert np.abs(model.next_token_logprobs(TEXTS)[0] - after).max() < 1e-4


@pytest.mark.parametrize("name", ["base", "expert", "antiexpert"])
def test_both_spaces_agree_at_a_vertex(engine: VllmEngine, name: str) -> None:
    one = engine.serve(weights(**{name: 1})).token_logprobs(TEXTS)
    other = engine.serve(logits(**{name: 1})).token_logprobs(TEXTS)
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-5


@pytest.mark.parametrize("space", ["weights", "logits"])
def test_no_drift_after_fifty_random_changes(engine: VllmEngine, space: Any) -> None:
    start = Recipe(space=space, coefficients={"base": 1, "expert": 0.3, "antiexpert": -0.2})
    before = engine.serve(start)
    scored, greedy = before.token_logprobs(TEXTS), before.generate(PROMPTS, GREEDY)
    random = np.random.default_rng(0)
    for alpha, beta in random.normal(size=(50, 2)):
        coefficients = {"base": 1 - alpha - beta, "expert": alpha, "antiexpert": beta}
        engine.serve(Recipe(space=space, coefficients=coefficients))
    after = engine.serve(start)
    assert all(np.array_equal(a, b) for a, b in zip(scored, after.token_logprobs(TEXTS), strict=True))
    assert greedy == after.generate(PROMPTS, GREEDY)


def test_linearity_agrees_with_the_reference(
    engine: VllmEngine, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """The members are asked one by one in the engine of the weights: no second engine starts for the logits."""
    (tmp_path / "contexts.txt").write_text("\n".join(TEXTS))
    evaluator = Linearity(contexts={"tiny": PromptSource(source=str(tmp_path / "contexts.txt"))})
    recipe = weights(base=1, expert=2, antiexpert=-2)
    verdicts = []
    for served in (engine, TransformersEngine(checkpoints, "float32", "cpu")):
        beside = [evaluator.answer(served.serve(other)) for other in evaluator.beside(recipe)]
        verdicts.append(evaluator.compare(recipe, evaluator.answer(served.serve(recipe)), beside).summaries)
    for mine, reference in zip(*verdicts, strict=True):
        assert isinstance(mine, RatioStatistic) and isinstance(reference, RatioStatistic)
        np.testing.assert_allclose(mine.numerators, reference.numerators, atol=1e-4)
        assert (mine.numerators > 1e-3).all()


def test_weights_stay_at_their_address(engine: VllmEngine) -> None:
    engine.serve(weights(base=1))
    live = engine._live["weights"]
    address = live.call("lerpbench_addresses")
    engine.serve(weights(expert=1))
    assert live.call("lerpbench_addresses") == address
    assert engine._live["weights"] is live


def test_prefixes_are_forgotten_after_weights_not_after_alpha(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for space, emptied in (("weights", 1), ("logits", 0)):
        engine.serve(Recipe(space=space, coefficients={"base": 1}))  # type: ignore[arg-type]
        llm, calls = engine._live[space].llm, []  # type: ignore[index]
        reset = llm.reset_prefix_cache
        monkeypatch.setattr(llm, "reset_prefix_cache", lambda reset=reset, calls=calls: calls.append(0) or reset())
        engine.serve(Recipe(space=space, coefficients={"expert": 1}))  # type: ignore[arg-type]
        assert len(calls) == emptied


def test_a_cached_prefix_serves_every_alpha(engine: VllmEngine, plain: dict[str, Any]) -> None:
    long = TEXTS[2]  # more than one block of 32 tokens
    model = engine.serve(logits(base=1))
    assert len(model.token_ids(long)) > 32
    model.next_token_logprobs([long])  # fills the cache
    recipe = logits(base=1, expert=1.5, antiexpert=-1.5)
    found = engine.serve(recipe).next_token_logprobs([long])[0]
    expected = Reference(plain, recipe).logits(model.token_ids(long))[-1].log_softmax(dim=-1).numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_sampling_is_reproducible_and_ordered(engine: VllmEngine) -> None:
    model = engine.serve(logits(base=1, expert=0.5, antiexpert=-0.5))
    sampling = Sampling(samples=4, max_new_tokens=8, seed=3)
    done: list[int] = []
    first = model.generate(PROMPTS, sampling, done.append)
    assert [(c.prompt, c.sample) for c in first] == [(p, s) for p in range(3) for s in range(4)]
    assert sum(done) == 12
    model.token_logprobs(TEXTS)  # leaves the random numbers and the cache in another state
    assert model.generate(PROMPTS, sampling) == first
    assert model.generate(PROMPTS, Sampling(samples=4, max_new_tokens=8, seed=4)) != first


def test_a_shard_is_a_unit_of_its_seed(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three prompts in shards of two: whoever completes the second alone, or first, draws what is drawn in one call."""
    monkeypatch.setattr(vllm, "SHARD_PROMPTS", 2)
    sampling = Sampling(samples=4, max_new_tokens=8, seed=3)
    assert engine.batches(PROMPTS, sampling) == [[0, 1], [2]]
    model = engine.serve(weights(expert=1))
    whole = model.generate(PROMPTS, sampling)
    second = model.generate(PROMPTS[2:], sampling)
    first = model.generate(PROMPTS[:2], sampling)
    assert [*first, *(replace(c, prompt=2) for c in second)] == whole


def test_a_prompt_has_random_numbers_of_its_own(engine: VllmEngine) -> None:
    sampling = Sampling(samples=4, max_new_tokens=8, seed=3)
    model = engine.serve(weights(expert=1))
    whole = model.generate(PROMPTS, sampling)
    for i, prompt in enumerate(PROMPTS):
        assert [replace(c, prompt=i) for c in model.generate([prompt], sampling)] == whole[4 * i : 4 * i + 4]
    seeds = {prompt_seed(seed, prompt) for seed in (3, 4) for prompt in PROMPTS}
    assert len(seeds) == 6 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("filter_p", [None, 0.5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sweep_in_one_batch_is_each_mixture_alone(
    engine: VllmEngine, filter_p: float | None, temperature: float
) -> None:
    sampling = Sampling(samples=4, max_new_tokens=8, temperature=temperature)
    recipes = [
        Recipe(space="logits", coefficients={"base": 1, "expert": a, "antiexpert": -a}, filter_p=filter_p)
        for a in (0.5, 1.5, 4.0, 8.0)
    ]
    alone = [engine.serve(recipe).generate(PROMPTS, sampling) for recipe in recipes]
    done: list[int] = []
    assert engine.sweep(recipes, PROMPTS, sampling, done.append) == alone
    assert sum(done) == 4 * 3 * 4
    assert len({tuple(c.text for c in drawn) for drawn in alone}) == 4
    assert engine.serve(recipes[0]).generate(PROMPTS, sampling) == alone[0]  # requests bring nothing any longer
    assert engine.mixtures_per_batch(PROMPTS, sampling) == engine.settings.max_num_seqs // 12 > 1


def test_draws_have_the_nucleus_distribution(engine: VllmEngine) -> None:
    model = engine.serve(weights(base=1))
    probabilities = np.exp(model.next_token_logprobs([TEXTS[0]])[0].astype(np.float64))
    drawn = first_tokens(model, Sampling(samples=2000, max_new_tokens=1, top_p=0.6), len(probabilities))
    nucleus = inside_nucleus(probabilities, 0.6)
    expected = np.where(nucleus, probabilities, 0) / probabilities[nucleus].sum()
    assert drawn[~nucleus].sum() == 0
    frequencies = drawn / drawn.sum()
    assert np.abs(frequencies - expected).sum() / 2 < 0.5 * np.sqrt(nucleus.sum() / 2000)  # total variation


def test_filter_p_draws_from_the_bases_nucleus(engine: VllmEngine) -> None:
    mixture = {"base": 1.0, "expert": 8.0, "antiexpert": -8.0}
    base = np.exp(engine.serve(logits(base=1)).next_token_logprobs([TEXTS[0]])[0].astype(np.float64))
    filtered = engine.serve(Recipe(space="logits", coefficients=mixture, filter_p=0.3))
    free = engine.serve(logits(**mixture)).next_token_logprobs([TEXTS[0]])[0]
    assert np.array_equal(filtered.next_token_logprobs([TEXTS[0]])[0], free)  # probes see the whole mixture
    drawn = first_tokens(filtered, Sampling(samples=500, max_new_tokens=1, top_p=0.9), len(base))
    nucleus = inside_nucleus(base, 0.3)
    assert drawn[~nucleus].sum() == 0
    expected = np.where(nucleus, np.exp(free.astype(np.float64)), 0)
    assert np.abs(drawn / drawn.sum() - expected / expected.sum()).sum() / 2 < 0.2


def test_masks_narrow_the_greedy_choice_as_the_reference_engine_does(
    engine: VllmEngine, checkpoints: dict[str, Checkpoint]
) -> None:
    pair, trio = {"expert": 6.0, "antiexpert": -5.0}, {"base": 1.0, "expert": 9.0, "antiexpert": -9.0}
    reference = TransformersEngine(checkpoints, "float32", "cpu")
    for masked in (
        Recipe(space="logits", coefficients=pair, plausible=0.3),
        Recipe(space="probs", coefficients={"base": 0.5, "expert": 0.5}, plausible=1),
        Recipe(space="logits", coefficients=trio, filter_p=1e-9),
    ):
        free = masked.model_copy(update={"plausible": None, "filter_p": None})
        found, expected = (served.serve(masked).generate(PROMPTS, GREEDY) for served in (engine, reference))
        assert [c.text for c in found] == [c.text for c in expected]
        assert found != engine.serve(free).generate(PROMPTS, GREEDY)


def test_plausible_tokens_are_the_experts_and_top_p_cuts_them_further(engine: VllmEngine) -> None:
    expert = np.exp(engine.serve(logits(expert=1)).next_token_logprobs([TEXTS[0]])[0].astype(np.float64))
    masked = engine.serve(Recipe(space="logits", coefficients={"expert": 6, "antiexpert": -5}, plausible=0.3))
    free = np.exp(masked.next_token_logprobs([TEXTS[0]])[0].astype(np.float64))
    kept = np.where(expert >= 0.3 * expert.max(), free, 0)
    expected = np.where(inside_nucleus(kept / kept.sum(), 0.9), kept, 0)
    drawn = first_tokens(masked, Sampling(samples=500, max_new_tokens=1, top_p=0.9), len(expert))
    assert drawn[expected == 0].sum() == 0
    assert np.abs(drawn / drawn.sum() - expected / expected.sum()).sum() / 2 < 0.2


def first_tokens(model: VllmModel, sampling: Sampling, vocabulary: int) -> np.ndarray:
    """How often each token was drawn first, (V,); a completion without tokens drew the end-of-text token."""
    counts = np.zeros(vocabulary)
    for tokens, _ in model.draw([model.recipe], PROMPTS[:1], sampling)[0]:
        counts[tokens[0] if tokens else model.end] += 1
    return counts


def inside_nucleus(probabilities: np.ndarray, p: float) -> np.ndarray:
    """Tokens for which the mass strictly above them is below p."""
    above = np.array([probabilities[probabilities > q].sum() for q in probabilities])
    return above < p


def test_a_text_as_long_as_the_context_is_scored_and_longer_ones_are_refused(
    engine: VllmEngine, plain: dict[str, Any]
) -> None:
    model = engine.serve(weights(base=1))
    ids: list[int] = []
    text = ""
    while len(ids) < 64:
        text += " good" if len(ids) % 2 else " bad"
        ids = model.token_ids(text)
    text = engine.tokenizer.decode(ids[:64])
    assert len(model.token_ids(text)) == 64
    expected = Reference(plain, weights(base=1)).logits([model.end, *ids[:63]]).log_softmax(dim=-1)
    expected = expected[torch.arange(64), torch.tensor(ids[:64])].numpy()
    assert np.abs(model.token_logprobs([text, ""])[0] - expected).max() < 1e-4
    with pytest.raises(UserError, match="the engine takes 64"):
        model.token_logprobs([text + " good good"])
    with pytest.raises(UserError, match=r"prompt p\[7\] with 10 new tokens takes 74"):
        model.generate([Prompt(set="p", row=7, text=text)], GREEDY)


def test_survived_update_is_one_in_float32_and_none_elsewhere(engine: VllmEngine) -> None:
    engine.serve(weights(base=1, expert=1, antiexpert=-1))
    assert engine.survived_update() == pytest.approx(1, abs=1e-4)
    engine.serve(weights(base=1))
    assert engine.survived_update() is None
    engine.serve(logits(base=1))
    assert engine.survived_update() is None


def test_heads_without_a_kernel_are_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 24, "n_head": 2}')
    with pytest.raises(UserError, match="its attention heads have size 12"):
        VllmEngine({"base": Checkpoint(source="odd", path=tmp_path, digest="0")}, "float32", "cpu")


# Tests that open engines of their own come last: closing one stops all of the process, which costs a start.


def test_a_failure_names_the_point_and_the_setting_and_the_next_serve_starts_anew(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.serve(weights(base=1, expert=0.5, antiexpert=-0.5))
    expected = model.generate(PROMPTS, GREEDY)

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(engine._live["weights"].llm, "generate", fail)
    with pytest.raises(UserError) as caught:
        model.generate(PROMPTS, GREEDY)
    message = str(caught.value)
    assert "weights(antiexpert=-0.5, base=1, expert=0.5)" in message
    assert "LERPBENCH_VLLM_MAX_NUM_SEQS" in message and "\n" not in message
    assert engine.serve(weights(base=1, expert=0.5, antiexpert=-0.5)).generate(PROMPTS, GREEDY) == expected


def test_a_weights_vertex_is_the_checkpoint_to_the_bit(engine: VllmEngine, checkpoints: dict[str, Checkpoint]) -> None:
    vertex = engine.serve(weights(base=0, expert=1)).token_logprobs(TEXTS)
    alone = VllmEngine({"expert": checkpoints["expert"]}, "float32", "cpu", SETTINGS)
    expected = alone.serve(weights(expert=1)).token_logprobs(TEXTS)
    alone.close()
    assert all(np.array_equal(a, b) for a, b in zip(vertex, expected, strict=True))


def test_what_bfloat16_leaves_of_an_update(checkpoints: dict[str, Checkpoint], plain: dict[str, Any]) -> None:
    recipe = weights(base=0.9, expert=0.1)
    engine = VllmEngine(checkpoints, "bfloat16", "cpu", SETTINGS)
    engine.serve(recipe)
    kept = norm = 0.0
    for name, base in plain["base"].named_parameters():
        update = 0.9 * base + 0.1 * plain["expert"].get_parameter(name) - base
        left = (base + update).bfloat16().float() - base.bfloat16().float()
        kept += float((left * update).sum(dtype=torch.float64))
        norm += float(update.square().sum(dtype=torch.float64))
    assert engine.survived_update() == pytest.approx(kept / norm, rel=1e-3)
    engine.close()


def test_both_spaces_have_the_same_head_in_bfloat16(checkpoints: dict[str, Checkpoint]) -> None:
    engine = VllmEngine(checkpoints, "bfloat16", "cpu", SETTINGS)
    try:
        one = engine.serve(weights(expert=1)).token_logprobs(TEXTS)
        other = engine.serve(logits(expert=1)).token_logprobs(TEXTS)
    finally:
        engine.close()
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-5


def test_the_parity_report_on_both_engines(checkpoints: dict[str, Checkpoint]) -> None:
    recipes = {"a": weights(base=1, expert=0.7, antiexpert=-0.7), "b": logits(base=1, expert=0.7, antiexpert=-0.7)}
    points = [Point(method=name, params={}, recipe=recipe) for name, recipe in recipes.items()]
    suite = Suite(name="tiny", checkpoints={}, prompts={}, methods=(), sampling=Sampling(samples=25, max_new_tokens=8))

    def lengths(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[RatioStatistic]:
        of, values = [c.prompt for c in completions], [float(c.n_tokens) for c in completions]
        return [ratio_statistic("n_tokens", np.array(of), np.array(values), len(prompts))]

    report = parity(
        suite, points, PROMPTS,
        lambda: TransformersEngine(checkpoints, "float32", "cpu"),
        lambda: VllmEngine(checkpoints, "float32", "cpu", SETTINGS),
        lengths, "cpu",
    )  # fmt: skip
    assert (report.engine_a, report.engine_b) == ("transformers", "vllm")
    assert report.passed, report.markdown()
    assert report.greedy_equal and report.max_logprob_difference is not None and report.max_logprob_difference < 1e-4
