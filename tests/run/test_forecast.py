"""Forecasts by hand: room from constants, time from what earlier runs took."""

from pathlib import Path

import pytest

from bench.progress import about
from bench.run import forecast
from bench.run.forecast import Rates
from bench.schema import Completion, Point, Prompt, PromptSource, Recipe, Sampling, Suite
from bench.store.write import Store

ONE = Recipe(space="weights", coefficients={"expert": 0.5, "antiexpert": 0.5})
THREE = Recipe(space="logits", coefficients={"base": 1, "expert": 1, "antiexpert": -1})
PROMPTS = [Prompt(set="n", row=row, text="The") for row in range(2)]
COMPLETIONS = [Completion(p, s, " film", 2, "length") for p in range(2) for s in range(2)]  # 4 of 2 tokens


def run(store: Store, suite: str, name: str, recipe: Recipe, duration_s: float, judged_s: dict[str, float]) -> None:
    """One stored point: its completions, its judges, and one probe of twice its duration."""
    suite_id = store.suite(
        Suite(name=suite, checkpoints={"base": "x"}, prompts={"n": PromptSource(source="x")}, methods=())
    )
    environment = store.environment({}, "d")
    mixture = store.mixture(name, "transformers", "float32", recipe, {})
    point = store.place(suite_id, "transformers", 0, Point(method=name, params={}, recipe=recipe), mixture)
    generation = store.add_generation(name, mixture, {}, PROMPTS, COMPLETIONS, duration_s, environment)
    for judge, seconds, subject in [
        *((j, s, generation) for j, s in judged_s.items()),
        ("nll", 2 * duration_s, None),
    ]:
        store.add_evaluation(
            f"{name} {judge}", judge, 1, {}, mixture, subject, seconds, environment,
            metrics=[], scores={}, statistics=[], items=[], estimates=[],
        )  # fmt: skip
    store.link(point, generation, [])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "r.db")
    run(store, "s", "one", ONE, 2.0, {"a": 0.4, "b": 0.8})
    run(store, "s-2prompts", "three", THREE, 4.0, {"a": 0.4})
    run(store, "s-other", "foreign", ONE, 100.0, {"a": 100.0})
    return store


def test_rates_come_from_the_suites_own_runs_and_its_shortened_ones(store: Store) -> None:
    """(8 tokens x 1 model + 8 x 3) / (2 s + 4 s) = 16/3; 16 tokens / 8 completions = 2.

    Judge a: 0.8 s / 8 completions = 0.1; b: 0.8 s / 4 = 0.2; together 0.3.  The probe: (4 s + 8 s) / 2 mixtures = 6.
    """
    asked = [(evaluator, "{}") for evaluator in ("a", "b", "nll")]
    found = forecast.measured_rates(store, "s", "transformers", asked)
    assert found is not None
    assert found.model_tokens_per_s == pytest.approx(16 / 3)
    assert found.tokens_per_completion == 2
    assert found.judging_s_per_completion == pytest.approx(0.3)
    assert found.probing_s_per_mixture == pytest.approx(6)
    only_a = forecast.measured_rates(store, "s", "transformers", [("a", "{}"), ("b", '{"other": 1}')])
    assert only_a is not None
    assert (only_a.judging_s_per_completion, only_a.probing_s_per_mixture) == (pytest.approx(0.1), 0)


def test_nothing_run_is_unknown_not_zero(store: Store) -> None:
    assert forecast.measured_rates(store, "s", "vllm", []) is None
    assert forecast.measured_rates(store, "absent", "transformers", []) is None


def test_time_by_hand() -> None:
    """20 tokens x (1 + 3 models) / 4 a second = 20 s and 2 x 5 s; 2 x 10 completions x 0.3 s = 6 s."""
    rates = Rates(4, 2, 0.3, 5)
    assert forecast.seconds_to_serve([ONE, THREE], 10, rates) == pytest.approx(30)
    assert forecast.seconds_to_judge(2, 10, rates) == pytest.approx(6)
    assert forecast.seconds_to_serve([], 10, rates) == 0


def test_room_by_hand() -> None:
    """250,000 x (85 + 4.5 x 30) = 55 MB."""
    assert forecast.bytes_to_do(250_000, Sampling()) == 55e6


def test_prompts_are_counted_by_their_declared_limits() -> None:
    limited = PromptSource(source="absent", limit=5000)
    assert forecast.declared_prompts([limited, limited], None) == 10_000
    assert forecast.declared_prompts([limited, limited], 100) == 200
    assert forecast.declared_prompts([limited, PromptSource(source="absent")], None) is None
    assert forecast.declared_prompts([PromptSource(source="absent")], 3) == 3


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (119, "119 s"), (150, "2.5 min"), (36_000, "10 h"), (900_000, "10 days")]
)
def test_durations_are_said_in_a_readers_unit(seconds: float, words: str) -> None:
    assert about(seconds) == words
