"""Plans and content keys: equal work has equal keys, different work different ones."""

from typing import Any

import pytest

import methods
from bench.schema import (
    MethodSpec,
    Prefixed,
    Prompt,
    PromptSource,
    Recipe,
    Rule,
    Sampling,
    Steering,
    Suite,
    UserError,
    canonical_json,
)
from bench.suite import keys
from bench.suite.points import plan_points

DIGESTS = {"base": "b", "expert": "e", "antiexpert": "a"}
PLAIN = "062545a5e0b0f4c15a5372695c7824ac4eaeb80f701eb53567401d78f29f59be"
MIXED = "b94131910ba33d489d30a3e056e4b975604ddf9b22fcebbf950d7becefd62bb7"


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
    assert [canonical_json(p.params) for p in points[:2]] == ['{"alpha":1.0}', '{"alpha":0.0}']


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


def test_a_plain_sums_key_is_what_it_always_was() -> None:
    """Stored work is found by these keys: they may not change."""
    plain = Recipe(space="weights", coefficients={"base": 0.5, "expert": 0.5})
    mixed = Recipe(space="logits", coefficients={"base": 1, "expert": 1, "antiexpert": -1}, filter_p=0.9)
    found = [keys.mixture_key("transformers", 1, "float32", recipe, DIGESTS) for recipe in (plain, mixed)]
    assert found == [PLAIN, MIXED]


def ruled(rule: str, seed: int | None = None, **params: float) -> Recipe:
    both = {"base": 1.0, "expert": 0.5, "antiexpert": -0.5}
    return Recipe(space="weights", coefficients=both, rule=Rule(name=rule, params=params, seed=seed))


def key_of(recipe: Recipe, digests: dict[str, str] = DIGESTS) -> str:
    return keys.mixture_key("transformers", 1, "float32", recipe, digests)


def test_a_rule_its_parameters_its_seed_and_its_base_are_in_the_key() -> None:
    plain = Recipe(space="weights", coefficients={"base": 1, "expert": 0.5, "antiexpert": -0.5})
    rules = [ruled("dare", 0, density=0.5), ruled("dare", 1, density=0.5), ruled("dare", 0, density=0.4),
             ruled("ties", 0, density=0.5)]  # fmt: skip
    assert len({key_of(recipe) for recipe in (plain, *rules)}) == 5
    assert key_of(rules[0]) == key_of(ruled("dare", 0, density=0.5))
    turned = Recipe(space="weights", coefficients={"base": 1, "expert": 1}, rule=Rule(name="dare"))
    swapped = DIGESTS | {"base": DIGESTS["expert"], "expert": DIGESTS["base"]}
    assert key_of(turned) != key_of(turned, swapped)  # the same two checkpoints, another one of them the base


def test_masks_prefixes_and_steering_are_in_the_key() -> None:
    both = {"base": 0.5, "prompted": 0.5}

    def prefixed(text: str, checkpoint: str = "base") -> Recipe:
        prefixes = {"prompted": Prefixed(checkpoint=checkpoint, text=text)}
        return Recipe(space="logits", coefficients=both, prefixes=prefixes)

    def steered(layer: int, strength: float) -> Recipe:
        steering = Steering(layer=layer, add="good", subtract="bad")
        return Recipe(space="activations", coefficients={"base": 1, "steering": strength}, steering=steering)

    pair = {"expert": 0.5, "antiexpert": 0.5}
    recipes = [
        prefixed("Good: "), prefixed("Bad: "), prefixed("Good: ", "expert"),
        steered(1, 1), steered(1, 2), steered(0, 1),
        *(Recipe(space="logits", coefficients=pair, plausible=share) for share in (None, 0.1, 0.2)),
        Recipe(space="probs", coefficients=pair),
    ]  # fmt: skip
    assert len({key_of(recipe) for recipe in recipes}) == len(recipes)
    swapped = DIGESTS | {"expert": DIGESTS["antiexpert"], "antiexpert": DIGESTS["expert"]}
    assert key_of(recipes[6]) == key_of(recipes[6], swapped)
    assert key_of(recipes[7]) != key_of(recipes[7], swapped)  # what is plausible to the other one


def test_a_rule_over_one_checkpoint_is_that_checkpoint() -> None:
    alone = Recipe(space="weights", coefficients={"base": 1, "expert": 0}, rule=Rule(name="ties"))
    assert alone == Recipe(space="weights", coefficients={"base": 1})


def test_generation_keys_follow_rows_texts_and_sampling() -> None:
    prompts = [Prompt(set="n", row=0, text="a"), Prompt(set="n", row=1, text="a")]
    key = keys.generation_key("m", prompts, Sampling())
    assert key != keys.generation_key("m", prompts[::-1], Sampling())
    assert key != keys.generation_key("m", prompts, Sampling(seed=1))
    assert key != keys.generation_key("m", prompts[:1], Sampling())
    assert key == keys.generation_key("m", list(prompts), Sampling())
