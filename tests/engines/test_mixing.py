"""Rules by hand on 2x2 tensors, and their laws."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.engines.mixing import kth_largest, mix_tensors, stock_ratio, uniforms
from bench.schema import Recipe, Rule, UserError

BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
PLUS = torch.tensor([[0.4, -0.1], [0.3, 0.2]])  # tau+
MINUS = torch.tensor([[0.1, 0.4], [-0.3, 0.2]])  # tau-
TENSORS = {"base": {"w": BASE}, "expert": {"w": BASE + PLUS}, "antiexpert": {"w": BASE + MINUS}}
DIGESTS = {"base": "b", "expert": "e", "antiexpert": "a"}
TASK = {"base": 1.0, "expert": 1.0, "antiexpert": -1.0}


def mixed(
    rule: str,
    coefficients: Mapping[str, float] = TASK,
    tensors: Mapping[str, Mapping[str, Tensor]] = TENSORS,
    seed: int | None = None,
    **params: Any,
) -> dict[str, Tensor]:
    recipe = Recipe(space="weights", coefficients=dict(coefficients), rule=Rule(name=rule, params=params, seed=seed))
    names = list(tensors["base"])
    return dict(mix_tensors(recipe, DIGESTS, names, lambda checkpoint, name: tensors[checkpoint][name].clone()))


def update(rule: str, **options: Any) -> Tensor:
    return mixed(rule, **options)["w"] - BASE


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------ SLERP


def test_slerp_by_hand() -> None:
    """Between [[1, 0], [0, 0]] and [[0, 2], [0, 0]] are 90 degrees: half way, sin 45 / sin 90 = 0.70711 each."""
    a, b = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    tensors = {"base": {"w": a}, "antiexpert": {"w": a}, "expert": {"w": b}}
    close(mixed("slerp", {"antiexpert": 0.5, "expert": 0.5}, tensors)["w"], [[0.70711, 1.41421], [0.0, 0.0]])
    # A third of the way: sin 60 / sin 90 = 0.86603 and sin 30 / sin 90 = 0.5.
    close(mixed("slerp", {"antiexpert": 2 / 3, "expert": 1 / 3}, tensors)["w"], [[0.86603, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize("t", [1e-9, 1 - 1e-9])
def test_slerp_ends_at_its_members(t: float) -> None:
    found = mixed("slerp", {"antiexpert": 1 - t, "expert": t})["w"]
    close(found, TENSORS["expert" if t > 0.5 else "antiexpert"]["w"])


def test_slerp_keeps_the_norm_that_a_straight_line_loses() -> None:
    a, b = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    tensors = {"base": {"w": a}, "antiexpert": {"w": a}, "expert": {"w": b}}
    for t in (0.1, 0.5, 0.8):
        assert float(mixed("slerp", {"antiexpert": 1 - t, "expert": t}, tensors)["w"].norm()) == pytest.approx(3)


def test_slerp_of_parallel_tensors_is_the_straight_line() -> None:
    tensors = {"base": {"w": BASE}, "antiexpert": {"w": BASE}, "expert": {"w": 3 * BASE}}
    close(mixed("slerp", {"antiexpert": 0.25, "expert": 0.75}, tensors)["w"], 2.5 * BASE)
    zero = {"base": {"w": 0 * BASE}, "antiexpert": {"w": 0 * BASE}, "expert": {"w": BASE}}
    close(mixed("slerp", {"antiexpert": 0.25, "expert": 0.75}, zero)["w"], 0.75 * BASE)


def test_slerp_refuses_what_is_no_arc_between_two() -> None:
    with pytest.raises(UserError, match="two checkpoints by coefficients that sum to 1"):
        mixed("slerp", {"antiexpert": 0.5, "expert": 0.7})


# ------------------------------------------------------------------------------------------ TIES


def test_ties_by_hand() -> None:
    """Half of each is kept: tau+ 0.4, 0.3; -tau- -0.4 (of 0.4) and 0.3.

    w[0,0]: 0.4 alone.  w[0,1]: -0.4 alone.  w[1,0]: 0.3 and 0.3, mean 0.3.  w[1,1]: nothing is left.
    """
    close(update("ties", density=0.5, trim="tensor"), [[0.4, -0.4], [0.3, 0.0]])


def test_ties_leaves_out_the_sign_that_lost() -> None:
    """All is kept: w[0,0]: 0.4 - 0.1 > 0, so 0.4 alone.  w[0,1]: -0.1, -0.4: -0.25.  w[1,1]: 0.2 - 0.2 is a draw: 0."""
    close(update("ties", density=1.0, trim="tensor"), [[0.4, -0.25], [0.3, 0.0]])


def test_ties_of_one_expert_is_its_trimmed_task_vector() -> None:
    one = {"base": 1.0, "expert": 0.5}
    close(update("ties", coefficients=one, density=0.5, trim="tensor"), [[0.2, 0.0], [0.15, 0.0]])
    close(update("ties", coefficients=one, density=1.0, trim="tensor"), 0.5 * PLUS)


@pytest.mark.parametrize("rule", ["ties", "breadcrumbs", "dare", "della", "model_stock"])
def test_rules_are_odd_and_homogeneous_in_the_coefficients(rule: str) -> None:
    """alpha scales the update: -2 times the coefficients is -2 times the update."""
    options: dict[str, Any] = {"density": 0.5, "trim": "tensor", "bottom": 0.25, "top": 0.25, "epsilon": 0.2, "seed": 3}
    once = update(rule, **options)
    twice = update(rule, coefficients={"base": 1.0, "expert": -2.0, "antiexpert": 2.0}, **options)
    close(twice, -2 * once)


def test_ties_trims_each_tensor_or_all_together() -> None:
    """tau = [1, 2] and [3, 4], half kept: by tensor 2 and 4; together 3 and 4."""
    tensors = {
        "base": {"v": torch.zeros(2), "w": torch.zeros(2)},
        "expert": {"v": torch.tensor([1.0, 2.0]), "w": torch.tensor([3.0, 4.0])},
    }
    one = {"base": 1.0, "expert": 1.0}
    each = mixed("ties", one, tensors, density=0.5, trim="tensor")
    together = mixed("ties", one, tensors, density=0.5, trim="global")
    assert (each["v"].tolist(), each["w"].tolist()) == ([0, 2], [0, 4])
    assert (together["v"].tolist(), together["w"].tolist()) == ([0, 0], [3, 4])


def test_the_kth_largest_magnitude_is_that_of_a_sort() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(300), torch.zeros(5), torch.randn(40, 10) * 1e-6, torch.randn(7) * 1e4]
    ordered = torch.cat([part.abs().flatten() for part in parts]).sort(descending=True).values
    for k in (1, 2, 7, 150, 307, 700, len(ordered)):
        assert kth_largest(lambda: parts, k) == float(ordered[k - 1])


# ------------------------------------------------------------------------------------------ DARE, DELLA


def test_dare_keeps_elements_whole_or_not_at_all() -> None:
    found = update("dare", coefficients={"base": 1.0, "expert": 1.0}, density=0.25, consensus="sum", seed=1)
    kept = found.abs() > 1e-6
    close(found, torch.where(kept, 4 * PLUS, 0.0))


def test_dare_of_density_one_is_task_arithmetic() -> None:
    close(update("dare", density=1.0, consensus="sum", seed=1), PLUS - MINUS)


@pytest.mark.parametrize(("rule", "options"), [("dare", {"consensus": "sum"}), ("della", {"epsilon": 0.4})])
def test_the_mean_over_seeds_is_the_whole_task_vector(rule: str, options: dict[str, Any]) -> None:
    """An element kept with probability p has standard deviation |tau| sqrt((1 - p) / p) <= 0.4 sqrt(2.4) = 0.62;
    the mean of 4000 has 0.0098, and five of these are 0.049."""
    one = {"base": 1.0, "expert": 1.0}
    drawn = [update(rule, coefficients=one, density=0.5, seed=seed, **options) for seed in range(4000)]
    assert float((torch.stack(drawn).mean(0) - PLUS).abs().max()) < 0.049


def test_a_members_mask_depends_on_its_bytes_its_tensor_and_the_seed_alone() -> None:
    ones = {"base": {"v": torch.zeros(1000), "w": torch.zeros(1000)}, **{
        name: {"v": torch.ones(1000), "w": torch.ones(1000)} for name in ("expert", "antiexpert")
    }}  # fmt: skip
    options: dict[str, Any] = {"tensors": ones, "density": 0.5, "consensus": "sum"}
    alone = mixed("dare", {"base": 1.0, "expert": 1.0}, seed=0, **options)
    other = mixed("dare", {"base": 1.0, "antiexpert": 1.0}, seed=0, **options)
    both = mixed("dare", {"base": 1.0, "expert": 1.0, "antiexpert": 1.0}, seed=0, **options)
    close(both["w"], alone["w"] + other["w"])
    again = mixed("dare", {"base": 1.0, "expert": 1.0}, seed=1, **options)
    for one, two in ((alone["v"], alone["w"]), (alone["w"], other["w"]), (alone["w"], again["w"])):
        assert 400 < int((one == two).sum()) < 600


def test_uniforms_are_uniform_and_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = uniforms(100_000, 7)
    assert float(drawn.min()) >= 0 and float(drawn.max()) < 1
    counts = torch.histc(drawn, 10, 0, 1)
    assert float((counts - 10_000).square().sum() / 10_000) < 27.9  # chi-square of 9 degrees, 0.999
    monkeypatch.setattr("bench.engines.mixing.CHUNK", 333)
    assert torch.equal(uniforms(1000, 7), drawn[:1000])


def test_della_keeps_large_elements_more_often() -> None:
    """Row [4, 1, 3, 2], density 0.5, epsilon 0.4: ranks 0, 3, 1, 2 give 0.7 - 0.1 rank = 0.7, 0.4, 0.6, 0.5."""
    tau = torch.tensor([[4.0, 1.0, -3.0, 2.0]])
    tensors = {"base": {"w": torch.zeros(1, 4)}, "expert": {"w": tau}}
    one = {"base": 1.0, "expert": 1.0}
    drawn = torch.stack(
        [mixed("della", one, tensors, density=0.5, epsilon=0.4, seed=seed)["w"][0] for seed in range(3000)]
    )
    torch.testing.assert_close((drawn != 0).float().mean(0), torch.tensor([0.7, 0.4, 0.6, 0.5]), atol=0.045, rtol=0)
    kept = drawn.abs().amax(0)
    close(kept, [4 / 0.7, 1 / 0.4, 3 / 0.6, 2 / 0.5])


# ------------------------------------------------------------------------------------------ breadcrumbs, Model Stock


def test_breadcrumbs_by_hand() -> None:
    """tau+ by size 0.1, 0.2, 0.3, 0.4: without a quarter at each end 0.3 and 0.2."""
    one = {"base": 1.0, "expert": 2.0}
    close(update("breadcrumbs", coefficients=one, bottom=0.25, top=0.25), [[0.0, 0.0], [0.6, 0.4]])
    close(update("breadcrumbs", coefficients=one, bottom=0.0, top=0.0), 2 * PLUS)


def test_model_stock_by_hand() -> None:
    """tau = [[1, 0], [0, 0]] and [[1, 1], [0, 0]]: cos 45 = 0.70711, t = 1.41421 / 1.70711 = 0.82843."""
    tensors = {
        "base": {"w": BASE},
        "expert": {"w": BASE + torch.tensor([[1.0, 0.0], [0.0, 0.0]])},
        "antiexpert": {"w": BASE + torch.tensor([[1.0, 1.0], [0.0, 0.0]])},
    }
    half = {"base": 1.0, "expert": 0.5, "antiexpert": 0.5}
    close(mixed("model_stock", half, tensors)["w"] - BASE, [[0.82843, 0.41421], [0.0, 0.0]])


def test_model_stock_at_its_extremes() -> None:
    """One direction: the average.  A right angle: the base.  Three that agree: the average again."""
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert stock_ratio([x, 2 * x]) == pytest.approx(1)
    assert stock_ratio([x, y]) == 0
    assert stock_ratio([x, x, x]) == pytest.approx(1)
    assert stock_ratio([x, 0 * x]) == 0
    assert stock_ratio([x]) == 1
    assert stock_ratio([x, x, y]) == pytest.approx(3 * (1 / 3) / (1 + 2 / 3))  # pairs: 1, 0, 0


# ------------------------------------------------------------------------------------------ all


def test_a_plain_sum_is_a_plain_sum() -> None:
    recipe = Recipe(space="weights", coefficients={"base": 0.5, "expert": 1.5})
    ((name, found),) = mix_tensors(recipe, DIGESTS, ["w"], lambda c, n: TENSORS[c][n].clone())
    assert name == "w"
    close(found, 2 * BASE + 1.5 * PLUS)


def test_an_unknown_rule_and_a_missing_base_are_refused() -> None:
    with pytest.raises(UserError, match=r"rule 'tie'.*slerp, ties, dare"):
        mixed("tie")
    with pytest.raises(UserError, match="coefficient 1 on base"):
        mixed("ties", {"expert": 1.0, "antiexpert": 1.0}, density=0.5)


def test_one_tensor_of_each_member_is_read_at_a_time() -> None:
    read: list[tuple[str, str]] = []

    def reading(checkpoint: str, name: str) -> Tensor:
        read.append((checkpoint, name))
        return torch.tensor([math.e]) if checkpoint == "base" else torch.tensor([1.0])

    recipe = Recipe(space="weights", coefficients=TASK, rule=Rule(name="ties", params={"density": 1.0}))
    stream = mix_tensors(recipe, DIGESTS, ["v", "w"], reading)
    next(stream)
    assert {name for _, name in read} == {"v"}
