"""The laws of the methods' recipes (arXiv 2211.12092, equations 1, 3 and 4)."""

import inspect
import math
from typing import Any

import pytest
from pydantic import ValidationError

import methods
from bench.schema import Recipe, Rule, UserError
from methods.activations import ActivationAddition
from methods.arithmetic import Expo, RewardedSoups, TaskArithmetic
from methods.breadcrumbs import Breadcrumbs
from methods.dare import Dare
from methods.decoding import Contrastive, Dera, Mod, Probs, ProxyTuning
from methods.della import Della
from methods.ensembling import DExperts, LogitG3
from methods.interpolation import G1, G2, G3
from methods.mixture import Mixture
from methods.prompting import Cfg, Preadd, Prompt
from methods.references import Antiexpert, Base, Expert
from methods.slerp import Slerp
from methods.ties import Ties

ALPHAS = (-1.5, -0.3, 0.0, 0.1, 0.7, 1.0, 2.2)


def test_g1_runs_from_the_antiexpert_to_the_expert() -> None:
    assert G1(alpha=0).recipe() == Antiexpert().recipe()
    assert G1(alpha=1).recipe() == Expert().recipe()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_g2_is_g3_on_the_antidiagonal(alpha: float) -> None:
    assert G2(alpha=alpha).recipe() == G3(alpha=alpha, beta=-alpha).recipe()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_g3_where_alpha_and_beta_sum_to_one_is_g1(alpha: float) -> None:
    assert G3(alpha=alpha, beta=1 - alpha).recipe() == G1(alpha=alpha).recipe()


def test_g3_vertices() -> None:
    assert G3(alpha=0, beta=0).recipe() == Base().recipe()
    assert G3(alpha=1, beta=0).recipe() == Expert().recipe()  # equation 4, not section 4.3's text
    assert G3(alpha=0, beta=1).recipe() == Antiexpert().recipe()


def test_g1_by_hand() -> None:
    assert G1(alpha=0.25).recipe() == Recipe(space="weights", coefficients={"expert": 0.25, "antiexpert": 0.75})


@pytest.mark.parametrize("alpha", ALPHAS)
def test_dexperts_is_logit_g3_on_the_antidiagonal(alpha: float) -> None:
    assert DExperts(alpha=alpha).recipe() == LogitG3(alpha=alpha, beta=-alpha).recipe()


def test_dexperts_at_zero_is_the_base_in_logit_space() -> None:
    assert DExperts(alpha=0).recipe().coefficients == Base().recipe().coefficients
    assert DExperts(alpha=0).recipe().space == "logits"


@pytest.mark.parametrize("alpha", ALPHAS)
def test_coefficients_of_every_method_sum_to_one(alpha: float) -> None:
    for method in (G1(alpha=alpha), G2(alpha=alpha), G3(alpha=alpha, beta=0.4), DExperts(alpha=alpha)):
        assert math.isclose(sum(method.recipe().coefficients.values()), 1)


def test_equal_mixtures_are_equal_recipes_despite_rounding() -> None:
    assert Recipe(space="weights", coefficients={"a": 0.1 + 0.2}) == Recipe(space="weights", coefficients={"a": 0.3})


@pytest.mark.parametrize("alpha", [math.inf, math.nan, "high", None])
def test_a_parameter_must_be_a_finite_number(alpha: object) -> None:
    with pytest.raises(ValidationError):
        G1(alpha=alpha)  # type: ignore[arg-type]


def test_filter_p_is_a_share_and_reaches_the_recipe() -> None:
    assert DExperts(alpha=1, filter_p=0.9).recipe().filter_p == 0.9
    with pytest.raises(ValidationError):
        DExperts(alpha=1, filter_p=1.5)


def test_every_registered_method_loads_and_documents_itself() -> None:
    registry = methods.registry()
    for name in methods.TABLE:
        assert registry.get(name).__doc__
        assert registry.get(name).source
        assert registry.get(name).formula
        assert registry.get(name).model_fields.keys() <= {*PARAMETERS, "space"}


PARAMETERS = {
    "alpha": 0.5, "beta": 0.25, "density": 0.5, "epsilon": 0.2, "bottom": 0.3, "top": 0.1, "seed": 0, "filter_p": 0.9,
    "trim": "global", "consensus": "elect", "plausible": 0.1, "text": "Good: ", "layer": 1, "add": "x", "subtract": "y",
    "draft": None, "k": None,
}  # fmt: skip


def recipe_of(name: str) -> Recipe:
    """One mixture of a method."""
    cls = methods.registry().get(name)
    given = {"expert": 0.5, "antiexpert": 0.25} if name == "mixture" else {}
    return cls(**given, **{field: PARAMETERS[field] for field in cls.model_fields if field != "space"}).recipe()


@pytest.mark.parametrize("name", [name for name in methods.TABLE if name != "mixture"])
def test_what_a_method_says_of_its_space_and_cost_is_so(name: str) -> None:
    cls = methods.registry().get(name)
    recipe = recipe_of(name)
    assert recipe.space == cls.mixes
    assert str(recipe.models_per_token) == cls.models_per_token


@pytest.mark.parametrize("name", methods.TABLE)
def test_a_method_is_a_class_of_few_lines(name: str) -> None:
    source = inspect.getsource(methods.registry().get(name))
    assert len([line for line in source.splitlines() if line.strip()]) <= 20


def test_a_draft_is_g2_and_one_model_needs_none() -> None:
    recipe = DExperts(alpha=0.5, draft="g2").recipe()
    assert recipe.draft is not None and (recipe.draft.recipe, recipe.draft.k) == (G2(alpha=0.5).recipe(), 4)
    assert recipe.models_per_token == 4
    assert DExperts(alpha=0, draft="g2").recipe() == DExperts(alpha=0).recipe()
    with pytest.raises(UserError, match="give draft: g2"):
        DExperts(alpha=0.5, k=8).recipe()
    with pytest.raises(ValidationError, match="a draft needs a logits recipe without filter_p"):
        DExperts(alpha=0.5, draft="g2", filter_p=0.9).recipe()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_named_sums_are_points_of_the_plane(alpha: float) -> None:
    assert TaskArithmetic(alpha=alpha).recipe() == G3(alpha=alpha, beta=0).recipe()
    assert TaskArithmetic(alpha=alpha, beta=alpha).recipe() == G2(alpha=alpha).recipe()
    assert Expo(alpha=alpha).recipe() == G3(alpha=1 + alpha, beta=0).recipe()


def test_rewarded_soups_lie_between_the_experts() -> None:
    assert RewardedSoups(alpha=0.25).recipe() == G1(alpha=0.25).recipe()
    with pytest.raises(ValidationError):
        RewardedSoups(alpha=1.1)


def test_rules_end_at_whole_checkpoints() -> None:
    assert Slerp(alpha=0).recipe() == Antiexpert().recipe()
    assert Slerp(alpha=1).recipe() == Expert().recipe()
    for method in (Ties, Dare, Della, Breadcrumbs):
        assert method(alpha=0).recipe() == Base().recipe()


def test_a_rules_parameters_reach_the_recipe_by_hand() -> None:
    found = Dare(alpha=0.5, density=0.25, seed=7).recipe()
    assert found.coefficients == {"base": 1, "expert": 0.5, "antiexpert": -0.5}
    assert found.rule == Rule(name="dare", params={"density": 0.25, "consensus": "sum"}, seed=7)


def test_dellas_odds_stay_odds() -> None:
    assert Della(alpha=1, density=0.95, epsilon=0.1).recipe().rule
    with pytest.raises(UserError, match="leaves 0 to 1"):
        Della(alpha=1, density=0.95, epsilon=0.2).recipe()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beta", ALPHAS)
def test_a_mixture_of_two_checkpoints_is_g3_in_weights_and_its_twin_in_logits(alpha: float, beta: float) -> None:
    both = {"expert": alpha, "antiexpert": beta}
    assert Mixture(space="weights", **both).recipe() == G3(alpha=alpha, beta=beta).recipe()
    assert Mixture(space="logits", **both).recipe() == LogitG3(alpha=alpha, beta=beta).recipe()


@pytest.mark.parametrize("space", ["weights", "logits"])
def test_a_mixture_by_hand(space: str) -> None:
    """base takes 1 - (0.5 + 0.75 - 0.5) = 0.25; where base is given, nothing is added."""
    found = Mixture(space=space, positive=0.5, formal=0.75, long=-0.5).recipe()
    assert found == Recipe(space=space, coefficients={"base": 0.25, "positive": 0.5, "formal": 0.75, "long": -0.5})
    assert Mixture(space=space, base=1, positive=0.5).recipe().coefficients == {"base": 1, "positive": 0.5}
    assert Mixture(space=space).recipe() == Recipe(space=space, coefficients={"base": 1})


def test_a_mixture_takes_finite_coefficients_only() -> None:
    for wrong in ("much", math.inf, None):
        with pytest.raises(ValidationError):
            Mixture(expert=wrong)


# ------------------------------------------------------------------------------------------ other spaces


def test_dera_mod_and_probs_run_between_two_members() -> None:
    assert Dera(alpha=0).recipe().coefficients == {"base": 1}
    assert Dera(alpha=1).recipe().coefficients == {"expert": 1}
    assert Dera(alpha=1.5).recipe() == Mixture(space="logits", expert=1.5).recipe()
    assert Mod(alpha=0.25).recipe().coefficients == G1(alpha=0.25).recipe().coefficients
    assert Probs(alpha=1).recipe() == Recipe(space="probs", coefficients={"expert": 1})
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValidationError):
            Probs(alpha=wrong)


def test_guidance_at_one_is_the_prompt_and_at_zero_the_base() -> None:
    assert Cfg(alpha=1, text="Good: ").recipe() == Prompt(text="Good: ").recipe()
    assert Cfg(alpha=0, text="Good: ").recipe() == DExperts(alpha=0).recipe()
    assert Cfg(alpha=1.5, text="Good: ").recipe().coefficients == {"base": -0.5, "prompted": 1.5}
    assert Preadd(alpha=0.5, text="Bad: ").recipe() == Cfg(alpha=-0.5, text="Bad: ").recipe()


def test_what_a_recipe_runs_is_known_by_its_checkpoints() -> None:
    assert Cfg(alpha=2, text="x").recipe().checkpoints == {"base": "base", "prompted": "base"}
    steered = ActivationAddition(alpha=2, layer=1, add="x", subtract="y").recipe()
    assert steered.checkpoints == {"base": "base"}
    assert steered.models_per_token == 1
    assert ActivationAddition(alpha=0, layer=1, add="x", subtract="y").recipe().steering is None
    assert ProxyTuning(alpha=1).recipe().coefficients == {"target": 1, "expert": 1, "base": -1}


def test_contrastive_by_hand() -> None:
    found = Contrastive(alpha=0.5).recipe()
    assert (found.coefficients, found.plausible) == ({"expert": 1.5, "antiexpert": -0.5}, 0.1)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (dict(space="probs", coefficients={"expert": 1.5, "base": -0.5}), "above 0 that sum to 1"),
        (dict(space="probs", coefficients={"expert": 0.5}), "above 0 that sum to 1"),
        (dict(space="logits", coefficients={"base": 1}, plausible=0.1), "a checkpoint named expert"),
        (dict(space="logits", coefficients={"base": 1, "expert": 1}, rule={"name": "ties"}), "weights recipe"),
        (dict(space="weights", coefficients={"a": 1}, prefixes={"a": {"checkpoint": "b", "text": "x"}}), "prefixes"),
        (dict(space="activations", coefficients={"expert": 1}), "base with coefficient 1"),
        (dict(space="activations", coefficients={"base": 1, "steering": 1}), "need each other"),
    ],
)
def test_a_recipe_refuses_what_its_space_does_not_know(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Recipe(**wrong)
