"""Decoding at fixed places gives what decoding with growing caches gives.

On a CPU the same kernels run that a CUDA graph holds on a GPU; `tools.gpu_check` compares graphs with them.
"""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from bench.engines import static, static_speculative
from bench.engines.static import bucket
from bench.engines.transformers import TransformersEngine
from bench.schema import Completion, Draft, Prefixed, Prompt, Recipe, Sampling, Steering, UserError
from bench.serving import NotFiniteError
from bench.suite.checkpoints import resolve

TEXTS = ["The movie", "A story of the man", "The", "The actors are great and the film is long", "The movie"]
PROMPTS = [Prompt(set="s", row=row, text=text) for row, text in enumerate(TEXTS)]
SAMPLED = Sampling(samples=7, max_new_tokens=16, top_p=0.9, seed=5)
TRIO = {"base": 1.0, "expert": 0.8, "antiexpert": -0.8}
RECIPES = {
    "weights": Recipe(space="weights", coefficients=TRIO),
    "logits": Recipe(space="logits", coefficients=TRIO),
    "probs": Recipe(space="probs", coefficients={"base": 0.25, "expert": 0.75}),
    "nucleus of the base": Recipe(space="logits", coefficients=TRIO, filter_p=0.9),
    "plausible": Recipe(space="logits", coefficients={"expert": 1.5, "antiexpert": -0.5}, plausible=0.1),
    "behind prefixes": Recipe(
        space="logits", coefficients={"base": 1, "with": 0.5},
        prefixes={"with": Prefixed(checkpoint="base", text="A good film: ")},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def growing(tiny_trio: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu")


@pytest.fixture(scope="module")
def fixed(tiny_trio: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu", static=True)


def drawn(engine: TransformersEngine, recipe: Recipe, sampling: Sampling) -> list[Completion]:
    return engine.serve(recipe).generate(PROMPTS, sampling)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.7])
@pytest.mark.parametrize("name", RECIPES)
def test_texts_are_those_of_growing_caches(
    growing: TransformersEngine, fixed: TransformersEngine, name: str, temperature: float
) -> None:
    sampling = SAMPLED.model_copy(update={"temperature": temperature})
    found = drawn(fixed, RECIPES[name], sampling)
    assert found == drawn(growing, RECIPES[name], sampling)
    assert temperature == 0 or len({c.text for c in found}) > len(TEXTS)


def test_the_whole_distribution_and_rows_that_end(growing: TransformersEngine, fixed: TransformersEngine) -> None:
    sampling = Sampling(samples=40, max_new_tokens=40, top_p=1.0, seed=1, temperature=2.0)
    found = drawn(fixed, RECIPES["logits"], sampling)
    assert found == drawn(growing, RECIPES["logits"], sampling)
    assert {c.finish_reason for c in found} == {"stop", "length"}


def test_a_loop_stops_where_all_rows_have_ended(fixed: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end token is made of each row's first one, so that one step more is all there is."""
    steps, real = [], static.Loop._advance

    def counted(loop: static.Loop) -> object:
        steps.append(loop)
        return real(loop)

    monkeypatch.setattr(static.Loop, "_advance", counted)
    served = fixed.serve(RECIPES["weights"])
    greedy = Sampling(samples=3, max_new_tokens=16, temperature=0)
    first = served._decode([[5, 6]], torch.zeros(3, dtype=torch.int64), greedy, end=-1)[0][0][1]
    steps.clear()
    rows = served._decode([[5, 6]], torch.zeros(3, dtype=torch.int64), greedy, end=first)
    assert all(stopped and len(tokens) == 1 for tokens, stopped in rows)
    assert len(steps) == 2


def test_a_sweep_is_each_mixture_alone(growing: TransformersEngine, fixed: TransformersEngine) -> None:
    recipes = [
        Recipe(space="logits", coefficients={"base": 1, "expert": a, "antiexpert": -a}) for a in (-0.5, 0.25, 1, 1.5)
    ]
    found = fixed.sweep(recipes, PROMPTS, SAMPLED)
    assert found == [drawn(growing, recipe, SAMPLED) for recipe in recipes]


def test_one_loop_serves_all_mixtures_of_the_same_models(tiny_trio: dict[str, Path]) -> None:
    engine = TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu", static=True)
    for alpha in (0.5, 1.0):
        for space in ("weights", "logits"):
            drawn(engine, Recipe(space=space, coefficients={"base": 1, "expert": alpha}), SAMPLED)
    assert len(engine.loops._kept) == 2
    engine.close()
    assert not engine.loops._kept


def test_a_loop_serves_fewer_tokens_and_is_made_anew_for_more(
    growing: TransformersEngine, tiny_trio: dict[str, Path]
) -> None:
    engine = TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu", static=True)
    kept = []
    for new in (20, 4, 40, 20):
        sampling = SAMPLED.model_copy(update={"max_new_tokens": new, "temperature": 1.7})
        assert drawn(engine, RECIPES["logits"], sampling) == drawn(growing, RECIPES["logits"], sampling)
        (loop,) = engine.loops._kept.values()
        kept.append(loop)
    assert kept[0] is kept[1] is not kept[2] is kept[3]
    assert [loop.shape.steps for loop in kept] == [20, 20, 40, 40]


@pytest.mark.parametrize("drafted", [False, True])
def test_what_ran_before_the_capture_leaves_nothing(
    growing: TransformersEngine, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch, drafted: bool
) -> None:
    """A GPU runs the kernels once, for its libraries, before any prompt is there."""
    kind = static_speculative.Blocks if drafted else static.Loop
    real, ran = kind.start, []

    def after_a_run(loop: Any, *arguments: Any) -> None:
        if loop not in ran:
            loop._kernels()
            ran.append(loop)
        real(loop, *arguments)

    monkeypatch.setattr(kind, "start", after_a_run)
    draft = Draft(coefficients=TRIO, k=3) if drafted else None
    recipe = Recipe(space="logits", coefficients=TRIO, draft=draft)
    engine = TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu", static=True)
    assert drawn(engine, recipe, SAMPLED) == drawn(growing, recipe, SAMPLED)
    assert ran


def test_spare_rows_change_nothing(growing: TransformersEngine, fixed: TransformersEngine) -> None:
    """Five prompts of one sample each are decoded by a loop of eight rows."""
    sampling = SAMPLED.model_copy(update={"samples": 1})
    assert drawn(fixed, RECIPES["logits"], sampling) == drawn(growing, RECIPES["logits"], sampling)
    assert [bucket(n) for n in (1, 2, 3, 5, 64, 100, 128, 129, 1000, 1024)] == [
        1, 2, 4, 8, 64, 128, 128, 256, 1024, 1024,
    ]  # fmt: skip


def test_numbers_that_are_none_fail_the_point(fixed: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the first token, whose draw looks for itself."""
    real = static.Loop.start

    def broken(loop: static.Loop, *arguments: Any) -> None:
        real(loop, *arguments)
        loop.coefficients.fill_(torch.nan)

    monkeypatch.setattr(static.Loop, "start", broken)
    with pytest.raises(NotFiniteError):
        drawn(fixed, RECIPES["logits"], SAMPLED)


def test_a_steered_model_decodes_with_growing_caches(fixed: TransformersEngine, growing: TransformersEngine) -> None:
    steering = Steering(layer=1, add="good", subtract="bad")
    steered = Recipe(space="activations", coefficients={"base": 1, "steering": 2}, steering=steering)
    before = len(fixed.loops._kept)
    assert drawn(fixed, steered, SAMPLED) == drawn(growing, steered, SAMPLED)
    assert len(fixed.loops._kept) == before


def test_a_step_that_no_graph_holds_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    for name in ("Stream", "CUDAGraph", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", refused)
    with pytest.raises(UserError, match=r"stream is capturing more.*LERPBENCH_CUDA_GRAPHS=0"):
        static.captured(lambda: None)


def test_graphs_can_be_turned_off(tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = {"base": resolve(str(tiny_trio["base"]))}
    assert TransformersEngine(checkpoints, "float32", "cuda").static
    monkeypatch.setenv("LERPBENCH_CUDA_GRAPHS", "0")
    assert not TransformersEngine(checkpoints, "float32", "cuda").static
