"""The weights mixture against its logits twin: by hand on three tokens, and by laws on the real engine."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluator_samples import estimates

from bench.engines.transformers import TransformersEngine
from bench.schema import Estimate, PromptSource, Recipe
from bench.suite.checkpoints import resolve
from evaluators.linearity import Linearity, nucleus

TEXTS = ("The movie", "The good film is", "A story of")


def weights(**coefficients: float) -> Recipe:
    return Recipe(space="weights", coefficients=coefficients)


def logs(*rows: list[float]) -> np.ndarray:
    return np.log(np.array(rows, dtype=np.float32))


@pytest.fixture
def evaluator(tmp_path: Path) -> Linearity:
    (tmp_path / "contexts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return Linearity(contexts={"a": PromptSource(source=str(tmp_path / "contexts.txt"))})


@pytest.fixture(scope="module")
def engine(tiny_trio: dict[str, Path]) -> TransformersEngine:
    checkpoints = {name: resolve(str(tiny_trio[name])) for name in ("base", "expert", "antiexpert")}
    return TransformersEngine(checkpoints, "float32", "cpu")


def judged(evaluator: Linearity, engine: TransformersEngine, recipe: Recipe) -> Mapping[str, Estimate]:
    beside = [evaluator.answer(engine.serve(other)) for other in evaluator.beside(recipe)]
    return estimates(evaluator.compare(recipe, evaluator.answer(engine.serve(recipe)), beside), len(TEXTS))


def test_both_metrics_by_hand(evaluator: Linearity) -> None:
    """Half of each of two members; three tokens; the weights mixture W is given.

    First context: a = (1/2, 1/4, 1/4), b = (1/8, 1/4, 5/8): sqrt(a b) = (1/4, 1/4, sqrt(5/32) = 0.395285), which sum to
    0.895285, so L = (0.279241, 0.279241, 0.441519).  W = (1/2, 1/4, 1/4):
    KL = 1/2 ln(0.5 / 0.279241) + 1/4 ln(0.25 / 0.279241) + 1/4 ln(0.25 / 0.441519)
       = 1/2 0.582532 - 1/4 0.110614 - 1/4 0.568744 = 0.121426.
    Nuclei of 0.6: W' = (1/2, 1/4, 1/4) (1/2 is not enough, and 1/4 comes twice), L' likewise has all three (0.441519 is
    not enough, 0.279241 comes twice).  Overlap: 0.279241 + 0.25 + 0.25 = 0.779241.
    Second and third: a = b = W, so L = W: 0 and 1.  Means: 0.121426 / 3 and 2.779241 / 3.
    """
    evaluator = evaluator.model_copy(update={"top_p": 0.6})
    a, b = [0.5, 0.25, 0.25], [0.125, 0.25, 0.625]
    verdict = evaluator.compare(weights(base=0.5, expert=0.5), logs(a, a, b), [logs(a, a, b), logs(b, a, b)])
    found = estimates(verdict, 3)
    assert found["kl_weights_logits"].value == pytest.approx(0.121426 / 3, abs=1e-6)
    assert found["nucleus_overlap"].value == pytest.approx(2.779241 / 3, abs=1e-6)
    assert verdict.items is not None and [item.text for item in verdict.items] == list(TEXTS)


def test_disjoint_nuclei_share_nothing(evaluator: Linearity) -> None:
    one, other = [0.95, 0.03, 0.02], [0.02, 0.03, 0.95]
    verdict = evaluator.compare(weights(expert=1), logs(one, one, one), [logs(other, other, other)])
    assert estimates(verdict, 3)["nucleus_overlap"].value == 0
    # KL = 0.95 ln(0.95 / 0.02) + 0 + 0.02 ln(0.02 / 0.95) = 0.93 ln 47.5
    assert estimates(verdict, 3)["kl_weights_logits"].value == pytest.approx(0.93 * math.log(47.5), rel=1e-5)


def test_the_nucleus_is_the_fewest_likeliest_tokens_with_the_mass() -> None:
    """0.5 + 0.3 = 0.8 < 0.85, so three tokens of mass 0.95; at 0.5 one is enough; at 1 all; ties at the edge go in."""
    p = np.array([[0.3, 0.15, 0.5, 0.05]])
    assert nucleus(p, 0.85)[0] == pytest.approx(np.array([0.3, 0.15, 0.5, 0]) / 0.95)
    assert nucleus(p, 0.5)[0].tolist() == [0, 0, 1, 0]
    assert nucleus(p, 1.0)[0] == pytest.approx(p[0])
    assert nucleus(np.array([[0.4, 0.2, 0.2, 0.2]]), 0.5)[0] == pytest.approx([0.4, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("name", ["base", "expert", "antiexpert"])
def test_a_single_checkpoint_is_its_own_twin(evaluator: Linearity, engine: TransformersEngine, name: str) -> None:
    found = judged(evaluator, engine, weights(**{name: 1}))
    assert found["kl_weights_logits"].value == pytest.approx(0, abs=1e-12)
    assert found["nucleus_overlap"].value == pytest.approx(1, abs=1e-12)


def test_the_twin_is_what_the_engine_serves_for_the_logits_recipe(
    evaluator: Linearity, engine: TransformersEngine
) -> None:
    """Against torch's KL divergence of the two served mixtures; and the further from the base, the less linear."""
    near, far = ({"base": 1.0, "expert": a, "antiexpert": -a} for a in (0.5, 2.0))
    found = judged(evaluator, engine, weights(**far))
    served = [
        torch.from_numpy(evaluator.answer(engine.serve(Recipe(space=space, coefficients=far))))
        for space in ("weights", "logits")
    ]
    direct = torch.nn.functional.kl_div(served[1], served[0], log_target=True, reduction="batchmean")
    assert found["kl_weights_logits"].value == pytest.approx(float(direct), rel=1e-3)
    assert 0 < float(judged(evaluator, engine, weights(**near))["kl_weights_logits"].value or 0) < float(direct)
    overlap = found["nucleus_overlap"]
    assert 0 < float(overlap.value or 0) < 1 and (overlap.n_scored, overlap.n_total) == (3, 3)
    assert overlap.low is not None and overlap.high is not None and overlap.low <= float(overlap.value or 0)


def test_logits_recipes_and_long_contexts_are_missing_with_a_reason(
    evaluator: Linearity, engine: TransformersEngine, tmp_path: Path
) -> None:
    recipe = Recipe(space="logits", coefficients={"base": 1, "expert": 1})
    assert not evaluator.beside(recipe)
    for estimate in judged(evaluator, engine, recipe).values():
        assert (estimate.value, estimate.n_scored, estimate.n_total) == (None, 0, 3)
        assert estimate.reason is not None and "mixture of logits" in estimate.reason
    (tmp_path / "contexts.txt").write_text("The movie\nThe film\n" + "The movie was good. " * 40 + "\n")
    found = judged(Linearity(contexts=evaluator.contexts), engine, weights(base=0.5, expert=0.5))
    assert {(e.n_scored, e.n_total) for e in found.values()} == {(2, 3)}
