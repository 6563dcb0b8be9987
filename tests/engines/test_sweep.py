"""A sweep in one batch gives what one mixture after another gives."""

from pathlib import Path

import pytest

from bench.engines.transformers import TransformersEngine
from bench.progress import silent
from bench.schema import Draft, Prompt, Recipe, Sampling
from bench.serving import sweep_of
from bench.suite.checkpoints import resolve

PROMPTS = [Prompt(set="s", row=i, text=t) for i, t in enumerate(["The movie", "A story of the man", "The"])]
ALPHAS = (-0.5, 0.25, 1.0, 1.5)


def dexperts(alpha: float, **more: object) -> Recipe:
    return Recipe(space="logits", coefficients={"base": 1, "expert": alpha, "antiexpert": -alpha}, **more)


@pytest.fixture(scope="module")
def engine(tiny_trio: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine({name: resolve(str(f)) for name, f in tiny_trio.items()}, "float32", "cpu")


@pytest.mark.parametrize("filter_p", [None, 0.9])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_those_of_each_mixture_alone(
    engine: TransformersEngine, filter_p: float | None, temperature: float
) -> None:
    sampling = Sampling(samples=5, max_new_tokens=14, top_p=0.9, temperature=temperature, seed=3)
    recipes = [dexperts(alpha, filter_p=filter_p) for alpha in ALPHAS]
    alone = [engine.serve(recipe).generate(PROMPTS, sampling) for recipe in recipes]
    assert engine.sweep(recipes, PROMPTS, sampling) == alone
    assert len({tuple(c.text for c in drawn) for drawn in alone}) == len(ALPHAS)  # each mixture has its own


def test_rows_that_end_leave_the_others_their_mixture(tiny_trio: dict[str, Path]) -> None:
    """Small batches, and long texts of which many end: rows are dropped on the way."""
    checkpoints = {name: resolve(str(f)) for name, f in tiny_trio.items()}
    small = TransformersEngine(checkpoints, "float32", "cpu", batch_rows=20)
    sampling = Sampling(samples=4, max_new_tokens=40, top_p=1.0, seed=1, temperature=2.0)
    recipes = [dexperts(alpha) for alpha in ALPHAS]
    alone = [small.serve(recipe).generate(PROMPTS, sampling) for recipe in recipes]
    assert any(c.finish_reason == "stop" for drawn in alone for c in drawn)
    assert small.sweep(recipes, PROMPTS, sampling) == alone


def test_a_batch_holds_as_many_mixtures_as_its_rows_allow(engine: TransformersEngine) -> None:
    assert engine.mixtures_per_batch(PROMPTS, Sampling(samples=25)) == 640 // 75
    assert engine.mixtures_per_batch(PROMPTS, Sampling(samples=400)) == 1


def test_only_coefficients_differ_within_a_sweep() -> None:
    assert sweep_of(dexperts(0.5)) == sweep_of(dexperts(1.5)) is not None
    assert sweep_of(dexperts(0.5)) != sweep_of(dexperts(0.5, filter_p=0.9))
    assert sweep_of(dexperts(0.5)) != sweep_of(Recipe(space="logits", coefficients={"base": 1, "expert": 0.5}))
    assert sweep_of(Recipe(space="weights", coefficients={"base": 1, "expert": 0.5})) is None
    assert sweep_of(dexperts(0.5, draft=Draft(coefficients={"base": 1, "expert": 0.5}, k=2))) is None


def test_progress_counts_every_completion(engine: TransformersEngine) -> None:
    told: list[int] = []
    engine.sweep([dexperts(0.5), dexperts(1.0)], PROMPTS, Sampling(samples=5, max_new_tokens=2), told.append)
    assert sum(told) == 2 * 3 * 5
    assert engine.sweep([dexperts(0.5)], PROMPTS[:1], Sampling(samples=1, max_new_tokens=1), silent)[0][0].n_tokens <= 1
