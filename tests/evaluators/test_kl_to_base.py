"""The distance from the base: by hand on two tokens, and by laws on the real engine in every space."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates

from bench.engines.transformers import TransformersEngine
from bench.schema import Estimate, Prefixed, PromptSource, Recipe, Rule, Steering, UserError
from bench.suite.checkpoints import resolve
from evaluators.kl_to_base import KlToBase

TEXTS = ("The movie", "The good film is", "A story of")
PAIR = {"expert": 0.5, "antiexpert": 0.5}


@pytest.fixture
def evaluator(tmp_path: Path) -> KlToBase:
    (tmp_path / "contexts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return KlToBase(contexts={"a": PromptSource(source=str(tmp_path / "contexts.txt"))})


@pytest.fixture(scope="module")
def engine(tiny_trio: dict[str, Path]) -> TransformersEngine:
    checkpoints = {name: resolve(str(tiny_trio[name])) for name in ("base", "expert", "antiexpert")}
    return TransformersEngine(checkpoints, "float32", "cpu")


def judged(evaluator: KlToBase, engine: TransformersEngine, recipe: Recipe) -> Mapping[str, Estimate]:
    beside = [evaluator.answer(engine.serve(other)) for other in evaluator.beside(recipe)]
    return estimates(evaluator.compare(recipe, evaluator.answer(engine.serve(recipe)), beside), len(TEXTS))


def kl(evaluator: KlToBase, engine: TransformersEngine, recipe: Recipe) -> float:
    found = judged(evaluator, engine, recipe)["kl_to_base"]
    assert found.n_scored == len(TEXTS) and found.value is not None
    return found.value


def logs(*rows: list[float]) -> np.ndarray:
    return np.log(np.array(rows, dtype=np.float32))


def test_two_tokens_by_hand(evaluator: KlToBase) -> None:
    """Mixture (3/4, 1/4), base (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812.

    Then the mixture (1/2, 1/2), base (3/4, 1/4): 1/2 ln(2/3) + 1/2 ln 2 = 0.143841; then equal ones: 0.
    """
    mixture, base = logs([0.75, 0.25], [0.5, 0.5], [0.1, 0.9]), logs([0.5, 0.5], [0.75, 0.25], [0.1, 0.9])
    verdict = evaluator.compare(Recipe(space="logits", coefficients=PAIR), mixture, [base])
    found = estimates(verdict, 3)["kl_to_base"]
    assert found.value == pytest.approx((0.130812 + 0.143841) / 3, abs=1e-6)
    assert found.low is not None and found.high is not None and 0 <= found.low <= found.value <= found.high


def test_a_mask_by_hand(evaluator: KlToBase) -> None:
    """The expert (0.6, 0.38, 0.02) finds the last token implausible, so that (1/2, 1/4, 1/4) becomes (2/3, 1/3, 0).

    Against the base (1/3, 1/3, 1/3): 2/3 ln 2 + 1/3 ln 1 = 0.462098.
    """
    recipe = Recipe(space="logits", coefficients=PAIR, plausible=0.1)
    assert [r.coefficients for r in evaluator.beside(recipe)] == [{"base": 1}, {"expert": 1}]
    mixture, base, expert = [0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.38, 0.02]
    verdict = evaluator.compare(recipe, logs(*[mixture] * 3), [logs(*[base] * 3), logs(*[expert] * 3)])
    assert estimates(verdict, 3)["kl_to_base"].value == pytest.approx(2 / 3 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("space", ["weights", "logits", "probs", "activations"])
def test_the_base_is_at_zero_in_every_space(evaluator: KlToBase, engine: TransformersEngine, space: str) -> None:
    recipe = Recipe(space=space, coefficients={"base": 1})  # type: ignore[arg-type]
    assert kl(evaluator, engine, recipe) == pytest.approx(0, abs=1e-12)


def test_it_grows_with_alpha_away_from_the_base_on_either_side(evaluator: KlToBase, engine: TransformersEngine) -> None:
    for space in ("weights", "logits"):
        for sign in (1, -1):
            steps = [{"base": 1.0, "expert": sign * a, "antiexpert": -sign * a} for a in (0.0, 0.25, 0.5, 1.0, 2.0)]
            found = [kl(evaluator, engine, Recipe(space=space, coefficients=step)) for step in steps]  # type: ignore[arg-type]
            assert all(near < far for near, far in pairwise(found)), (space, sign, found)


STEERED = Steering(layer=0, add="The film is good.", subtract="The movie is bad")


SERVED = [
    Recipe(
        space="weights",
        coefficients={"base": 1, "expert": 1, "antiexpert": -1},
        rule=Rule(name="ties", params={"density": 0.5, "trim": "tensor"}),
    ),
    Recipe(space="probs", coefficients=PAIR),
    Recipe(
        space="logits",
        coefficients={"base": -1, "prompted": 2},
        prefixes={"prompted": Prefixed(checkpoint="base", text="The film is")},
    ),
    Recipe(space="activations", coefficients={"base": 1, "steering": 2}, steering=STEERED),
]


@pytest.mark.parametrize("recipe", SERVED, ids=lambda recipe: recipe.space)
def test_it_is_torchs_divergence_of_what_is_served(
    evaluator: KlToBase, engine: TransformersEngine, recipe: Recipe
) -> None:
    mixture, base = (
        torch.from_numpy(engine.serve(r).next_token_logprobs(TEXTS))
        for r in (recipe, Recipe(space="weights", coefficients={"base": 1}))
    )
    expected = torch.nn.functional.kl_div(base, mixture, log_target=True, reduction="batchmean")
    assert kl(evaluator, engine, recipe) == pytest.approx(float(expected), rel=1e-3)
    assert expected > 1e-3


def test_a_context_without_room_is_not_scored_and_a_base_is_needed(
    evaluator: KlToBase, engine: TransformersEngine, tmp_path: Path
) -> None:
    (tmp_path / "contexts.txt").write_text("The movie\nThe film\n" + "The movie was good. " * 40 + "\n")
    found = judged(KlToBase(contexts=evaluator.contexts), engine, Recipe(space="weights", coefficients=PAIR))
    assert (found["kl_to_base"].n_scored, found["kl_to_base"].n_total) == (2, 3)
    with pytest.raises(UserError, match="no checkpoint is called base; the suite has expert"):
        evaluator.require(["expert"])
