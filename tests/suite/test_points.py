"""Plans and content keys: equal work has equal keys, different work different ones."""

from typing import Any

import pytest

import methods
from bench.schema import MethodSpec, Prompt, PromptSource, Recipe, Sampling, Suite, UserError, canonical_json
from bench.suite import keys
from bench.suite.points import plan_points

DIGESTS = {"base": "b", "expert": "e", "antiexpert": "a"}


def suite(*specs: MethodSpec, checkpoints: tuple[str, ...] = ("base", "expert", "antiexpert")) -> Suite:
    return Suite(
        name="s",
        checkpoints={name: name for name in checkpoints},
        prompts={"n": PromptSource(source="x")},
        methods=specs,
    )


def test_a_sweep_is_the_product_of_its_parameters_in_order() -> None:
    points = plan_points(suite(MethodSpec(name="g3", params={"alpha": (0, 1), "beta": (2, 3)})), methods.registry())
    assert [(p.params["alpha"], p.params["beta"]) for p in points] == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_a_point_named_twice_is_planned_once() -> None:
    twice = MethodSpec(name="g1", params={"alpha": (0.5, 0.5)})
    assert len(plan_points(suite(twice), methods.registry())) == 1


def test_equal_numbers_are_one_point_whichever_way_they_are_written() -> None:
    values = (1, 1.0, 0, -0.0, 0.3, 0.1 + 0.2, 1e20)
    points = plan_points(suite(MethodSpec(name="g1", params={"alpha": values})), methods.registry())
    assert [p.params["alpha"] for p in points] == [1, 0, 0.3, 1e20]
    assert [canonical_json(p.params) for p in points[:2]] == ['{"alpha":1}', '{"alpha":0}']


def test_only_keeps_the_named_methods_and_refuses_absent_ones() -> None:
    both = suite(MethodSpec(name="base"), MethodSpec(name="g1", params={"alpha": (0,)}))
    assert [p.method for p in plan_points(both, methods.registry(), ["g1"])] == ["g1"]
    with pytest.raises(UserError, match="--only g2: suite s has the methods base, g1"):
        plan_points(both, methods.registry(), ["g2"])


def test_a_recipe_may_only_name_checkpoints_of_the_suite() -> None:
    with pytest.raises(UserError, match="mixes checkpoint 'expert'"):
        plan_points(suite(MethodSpec(name="expert"), checkpoints=("base",)), methods.registry())


def test_a_mixture_sweeps_any_checkpoints_by_name_in_both_spaces() -> None:
    names = ("base", "positive", "formal")
    sweep = MethodSpec(name="mixture", params={"space": ("weights", "logits"), "positive": (0.5, 1), "formal": (0.25,)})
    points = plan_points(suite(sweep, checkpoints=names), methods.registry())
    assert [(p.recipe.space, p.recipe.coefficients) for p in points] == [
        ("weights", {"base": 0.25, "formal": 0.25, "positive": 0.5}),
        ("weights", {"base": -0.25, "formal": 0.25, "positive": 1}),
        ("logits", {"base": 0.25, "formal": 0.25, "positive": 0.5}),
        ("logits", {"base": -0.25, "formal": 0.25, "positive": 1}),
    ]
    assert points[0].label == "mixture(space=weights, positive=0.5, formal=0.25)"
    with pytest.raises(UserError, match="mixes checkpoint 'formal', which checkpoints lacks; it has base, positive"):
        plan_points(suite(sweep, checkpoints=names[:2]), methods.registry())


def test_keys_follow_bytes_not_names() -> None:
    recipe = Recipe(space="weights", coefficients={"base": 0.5, "expert": 0.5})
    renamed = Recipe(space="weights", coefficients={"left": 0.5, "right": 0.5})
    one = keys.mixture_key("e", 1, "float32", recipe, DIGESTS)
    assert one == keys.mixture_key("e", 1, "float32", renamed, {"left": "b", "right": "e"})
    assert one != keys.mixture_key("e", 1, "float32", recipe, DIGESTS | {"expert": "other bytes"})


@pytest.mark.parametrize(
    "changed",
    [
        dict(engine="vllm"),
        dict(version=2),
        dict(dtype="bfloat16"),
        dict(recipe=Recipe(space="logits", coefficients={"base": 1})),
        dict(recipe=Recipe(space="logits", coefficients={"base": 1}, filter_p=0.9)),
    ],
)
def test_what_changes_the_mixture_changes_its_key(changed: dict[str, Any]) -> None:
    same: dict[str, Any] = dict(
        engine="transformers", version=1, dtype="float32", recipe=Recipe(space="weights", coefficients={"base": 1}),
        digests=DIGESTS,
    )  # fmt: skip
    assert keys.mixture_key(**same) != keys.mixture_key(**(same | changed))


def test_generation_keys_follow_rows_texts_and_sampling() -> None:
    prompts = [Prompt(set="n", row=0, text="a"), Prompt(set="n", row=1, text="a")]
    key = keys.generation_key("m", prompts, Sampling())
    assert key != keys.generation_key("m", prompts[::-1], Sampling())
    assert key != keys.generation_key("m", prompts, Sampling(seed=1))
    assert key != keys.generation_key("m", prompts[:1], Sampling())
    assert key == keys.generation_key("m", list(prompts), Sampling())
