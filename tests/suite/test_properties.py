"""Laws of suites and recipes, on whatever hypothesis thinks of."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluators
import methods
from bench.schema import MethodSpec, PromptSource, Recipe, Suite, UserError
from bench.suite import keys
from bench.suite.load import load_suite
from bench.suite.points import held, plan_points
from methods.interpolation import G1

numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False, width=32))
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
DIGESTS = {"base": "b", "expert": "e", "antiexpert": "a"}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just("base"),
            st.builds(lambda a: {"g1": {"alpha": a}}, st.lists(numbers, min_size=1, max_size=5)),
            st.builds(lambda a, b: {"g3": {"alpha": a, "beta": b}}, numbers, st.lists(numbers, min_size=1, max_size=3)),
            st.builds(lambda a: {"dexperts": {"alpha": a}}, numbers),
            anything,
        ),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["samples", "top_p", "temperature", "seed", "max_new_tokens"]), anything, max_size=3
    ),
)
def test_what_parses_plans_and_what_does_not_is_one_line(listed: list[object], sampling: dict[str, object]) -> None:
    content = {"name": "s", "checkpoints": {name: "x" for name in DIGESTS}, "prompts": {"n": {"source": "x.txt"}}}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(yaml.safe_dump({**content, "methods": listed, "sampling": sampling}), encoding="utf-8")
        try:
            suite = load_suite(str(path), methods.registry(), evaluators.registry())
        except UserError as refused:
            told = str(refused)
            assert "\n" not in told
            return
    points = plan_points(suite, methods.registry())
    assert points and len({point.key for point in points}) == len(points)


@settings(deadline=None)
@given(numbers)
def test_a_number_is_held_in_one_way(value: float) -> None:
    alpha = held(G1, "alpha", value)
    assert isinstance(alpha, float) and math.isclose(alpha, value, rel_tol=1e-12, abs_tol=1e-12)
    assert str(held(G1, "alpha", alpha)) == str(alpha) != "-0.0"


@settings(deadline=None)
@given(st.permutations(["base", "expert", "antiexpert"]), st.lists(numbers, min_size=3, max_size=3), st.data())
def test_equal_mixtures_have_one_key(order: list[str], values: list[float], data: st.DataObject) -> None:
    coefficients = dict(zip(order, values, strict=True))
    noise = data.draw(st.floats(-4e-13, 4e-13))
    try:
        one = Recipe(space="weights", coefficients=coefficients)
        shuffled = {name: held(G1, "alpha", coefficients[name]) for name in sorted(coefficients, reverse=True)}
        other = Recipe(space="weights", coefficients=shuffled)
    except ValueError:
        assert all(round(float(value), 12) == 0 for value in values)
        return
    assert one == other
    assert keys.mixture_key("e", 1, "float32", one, DIGESTS) == keys.mixture_key("e", 1, "float32", other, DIGESTS)
    moved = Recipe(space="weights", coefficients={**one.coefficients, "base": 1 + 1e-6 + noise})
    assert moved != Recipe(space="weights", coefficients={**one.coefficients, "base": 1})


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8))
def test_a_sweep_has_each_number_once(values: list[float]) -> None:
    suite = Suite(name="s", checkpoints={name: "x" for name in DIGESTS}, prompts={"n": PromptSource(source="x")},
                  methods=(MethodSpec(name="g2", params={"alpha": tuple(values)}),))  # fmt: skip
    assert len(plan_points(suite, methods.registry())) == len({round(float(value), 12) for value in values})


@pytest.mark.parametrize("name", [" ", "\x1b[31m", "neutral; DROP TABLE", "=1+1", "<b>"])
def test_odd_names_of_prompt_sets_are_names(name: str) -> None:
    suite = Suite(name="s", checkpoints={"base": "x"}, prompts={name: PromptSource(source="x")},
                  methods=(MethodSpec(name="base"),))  # fmt: skip
    assert list(Suite.model_validate_json(suite.model_dump_json()).prompts) == [name]
