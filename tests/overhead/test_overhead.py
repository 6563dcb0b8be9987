"""The overhead ledger: an estimator that drift cannot fool, a stopwatch that finds slow methods, lines as promised."""

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import methods
from bench import cli, engines
from bench.cli.costs import ratio
from bench.engines.drafting import times_as_quick
from bench.engines.transformers import TransformersEngine
from bench.overhead.estimate import (
    Round,
    Timing,
    amortisation,
    measured,
    noise_floor,
    switch,
    time_per_output_token,
    within,
)
from bench.overhead.ledger import Ledger, records
from bench.overhead.machine import Cpu, LoadWatch
from bench.overhead.model import Rates, Shape, StepCost, step_cost
from bench.overhead.stopwatch import Stopwatch
from bench.overhead.subjects import AGAIN, Subject, choose_subjects, plain_of
from bench.progress import Advance, silent
from bench.registry import Registry
from bench.schema import (
    MethodSpec,
    OverheadRecord,
    OverheadSpec,
    Point,
    Prompt,
    PromptSource,
    Recipe,
    Sampling,
    Suite,
    UserError,
)
from bench.store.write import Store
from bench.suite.checkpoints import resolve
from bench.suite.points import plan_points
from methods.base import Method, weights

PROMPTS = [Prompt(set="n", row=i, text=text) for i, text in enumerate(["one", "two words"])]
BASE_STEP_S, SLOW_STEP_S = 0.020, 0.050
per_token = time_per_output_token(2)


@pytest.fixture(scope="module", autouse=True)
def libraries_out_of_the_collector() -> Iterator[None]:
    """Every fresh engine collects garbage, which takes 0.1 s where it looks at all that torch and transformers made."""
    gc.freeze()
    yield
    gc.unfreeze()


# ---------------------------------------------------------------------------------------------- made-up time


class Slow(Method):
    """A plugin that costs 2.5 times the base: `Sleeper` takes longer for this recipe."""

    def recipe(self) -> Recipe:
        return weights(expert=1)


REGISTRY: Registry[Method] = Registry("method", Method, {**methods.TABLE, "slow": f"{__name__}:Slow"}, "none.such")


class Sleeper:
    """An engine that only takes time: `wait` for every step, longer for Slow's recipe, and for logits by member."""

    def __init__(self, wait: Callable[[float], None], switch_s: float = 0.0, luck: float = 0.0) -> None:
        self.wait = wait
        self.switch_s = switch_s
        self.step_s = BASE_STEP_S
        self.luck = luck
        self.served: list[Recipe] = []
        self.drawn: list[tuple[int, int]] = []  # rows x tokens, seed

    def serve(self, recipe: Recipe) -> "Sleeper":
        self.served.append(recipe)
        self.wait(self.switch_s)
        members = len(recipe.coefficients) if recipe.space == "logits" else 1
        self.step_s = SLOW_STEP_S if recipe == Slow().recipe() else BASE_STEP_S * members
        return self

    def decode(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        """With `luck`, a step is longer or shorter by that much, as the random numbers fall for this recipe."""
        lucky = random.Random(f"{sampling.seed} {self.served[-1]}")
        for _ in range(sampling.max_new_tokens):
            self.wait(self.step_s * (1 + self.luck * lucky.choice((-1, 1))))
        self.drawn.append((len(prompts) * sampling.max_new_tokens, sampling.seed))
        return self.drawn[-1][0]

    def token_ids(self, text: str) -> list[int]:
        return [0] * len(text.split())

    def context_length(self) -> int:
        return 16

    def close(self) -> None: ...


class DriftingClock:
    """Time that passes ever slower for the same work: the machine slows down by `drift` a second of its own."""

    def __init__(self, drift: float, noise: float = 0.0) -> None:
        self.now, self.drift, self.noise = 0.0, drift, noise
        self.rng = np.random.default_rng(0)

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * (1 + self.drift * self.now) * math.exp(self.noise * self.rng.standard_normal())


class NoMachine:
    exact = nullcontext

    def synchronize(self) -> None: ...
    def reset_peak(self) -> None: ...
    def memory_bytes(self) -> int | None: ...
    def peak_bytes(self) -> int | None: ...


@contextmanager
def quiet(_: str, __: int) -> Iterator[Advance]:
    yield silent


def suite_of(*specs: MethodSpec, names: Sequence[str] = ("base", "expert", "antiexpert")) -> Suite:
    return Suite(name="s", checkpoints=dict.fromkeys(names, "x"), prompts={"n": PromptSource(source="x")},
                 methods=specs)  # fmt: skip


def timed(
    engine: Sleeper,
    clock: Callable[[], float],
    spec: OverheadSpec,
    *specs: MethodSpec,
    machine: type[NoMachine] = NoMachine,
) -> Ledger:
    points = plan_points(suite_of(*specs), REGISTRY)
    subjects = choose_subjects(points, REGISTRY, ("base", "expert", "antiexpert"))
    make: Any = lambda: engine  # noqa: E731
    return Stopwatch(make, subjects, PROMPTS, Sampling(), spec, machine(), clock).record(quiet)


SLOW, DEXPERTS = MethodSpec(name="slow"), MethodSpec(name="dexperts", params={"alpha": (1.0,)})


# ---------------------------------------------------------------------------------------------- the estimator


def test_the_base_is_interpolated_within_a_round() -> None:
    """Base 1 s a token at 0 s and 2 s at 10 s; a subject of 3 s at 5 s costs 3 / 1.5 = 2 bases; at 10 s, 3 / 2."""

    def timing(at_s: float, step_s: float) -> Timing:
        return Timing(at_s, 0.0, 0.25, 0.25 + step_s)

    one = Round(timing(0, 1), {"middle": timing(5, 3), "late": timing(10, 3)}, timing(10, 2))
    found = measured([one], "middle", per_token)
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (2, 2, 2)
    assert found.median.value == 3
    assert measured([one], "late", per_token).ratio.value == 1.5
    assert measured([one], None, per_token).median.value == 1.5


def test_a_machine_that_slows_down_does_not_change_the_ratios() -> None:
    """By the end everything takes several times as long; the ratios stay, where simpler estimators fail."""
    clock = DriftingClock(drift=0.05)
    spec = OverheadSpec(batch_sizes=(1,), new_tokens=(4,), rounds=20, precision=1e-9, budget_s=1e9)
    rounds = timed(Sleeper(clock.work), clock, spec, SLOW, DEXPERTS).rounds[1, 4]
    quantity = time_per_output_token(4)
    assert quantity(rounds[-1].opening) > 3 * quantity(rounds[0].opening)
    for name, truth in (("slow", 2.5), ("dexperts", 3.0), (AGAIN, 1.0), ("ensemble of 2", 2.0)):
        assert measured(rounds, name, quantity).ratio.value == pytest.approx(truth, rel=2e-3)
    over_opening = [quantity(r.subjects["slow"]) / quantity(r.opening) for r in rounds]
    assert np.median(over_opening) > 2.5 * 1.02
    one_after_the_other = quantity(rounds[-1].subjects["slow"]) / quantity(rounds[0].opening)
    assert one_after_the_other > 2.5 * 3


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Noise of 5 % on every timing, 200 experiments of 10 rounds: near 95 % of the intervals hold the ratio 2."""
    rng = np.random.default_rng(1)

    def timing(at_s: float, step_s: float) -> Timing:
        return Timing(at_s, 0.0, 0.0, step_s * float(np.exp(0.05 * rng.standard_normal())))

    held = []
    for _ in range(200):
        rounds = [Round(timing(0, 1), {"x": timing(1, 2)}, timing(2, 1)) for _ in range(10)]
        found = measured(rounds, "x", per_token).ratio
        held.append(found.low <= 2 <= found.high)
    assert 0.88 <= np.mean(held) <= 1.0


def test_the_noise_floor_by_hand() -> None:
    """|log ratio| is 0.1 in every round but an outlier: f = 1.96 * 1.4826 * 0.1 = 0.29059."""
    floor = noise_floor([math.exp(0.1), math.exp(-0.1), math.exp(0.1), 50.0, math.exp(-0.1)])
    assert floor == pytest.approx((math.exp(-0.29059), math.exp(0.29059)), rel=1e-5)
    rounds = [Round(Timing(0, 0, 0, 1), {"x": Timing(1, 0, 0, x)}, Timing(2, 0, 0, 1)) for x in (1.02, 1.01, 1.03)]
    assert within(measured(rounds, "x", per_token).ratio, (0.9, 1.1))
    assert not within(measured(rounds, "x", per_token).ratio, (0.98, 1.025))


def test_amortisation_by_hand() -> None:
    """Mixing takes 3 s more and saves 0.3 - 0.1 s a step of 2 rows, 0.1 s a token: 30 tokens; never the other way."""
    mixing, ensemble = Timing(1, 3.5, 0.0, 0.1), Timing(2, 0.5, 0.0, 0.3)
    rounds = [Round(mixing, {"g2": mixing, "dexperts": ensemble}, mixing)] * 5
    found = amortisation(rounds, "g2", "dexperts", 2, 2)
    assert (found.value, found.low, found.high) == pytest.approx((30, 30, 30))
    never = amortisation(rounds, "dexperts", "g2", 2, 2)
    assert never.value is None and never.reason == "g2 is not slower than dexperts here"


def test_the_simple_model_by_hand() -> None:
    """10 parameters, 1 layer of width 2, 4 bytes; 3 members, 2 rows, 5 positions.

    A row: 2 * 10 + 4 * 2 * 5 = 60 FLOPs and 2 * 2 * 5 = 20 cached values.
    All: 3 * 2 * 60 FLOPs, 3 * 4 * (10 + 2 * 20) bytes.
    """
    cost = step_cost(Shape(10, 1, 2, 4, 4), 3, 2, 5)
    assert cost == StepCost(flops=360, bytes=600)
    assert cost.least_s(Rates(flops_per_s=360, bytes_per_s=300)) == 2
    assert cost.least_s(Rates(flops_per_s=36, bytes_per_s=300)) == 10


# ---------------------------------------------------------------------------------------------- what is timed


def test_representatives_and_controls_of_a_suite() -> None:
    g1 = MethodSpec(name="g1", params={"alpha": (0.0, 0.75, 1.0, 1.5)})
    g2 = MethodSpec(name="g2", params={"alpha": (-1.0, 0.5, 1.0, 2.0)})
    g3 = MethodSpec(name="g3", params={"alpha": (0.0, 1.0), "beta": (0.0, -0.5)})
    dexperts = MethodSpec(name="dexperts", params={"alpha": (0.5, 1.5, 1.0)})
    filtered = MethodSpec(name="dexperts", params={"alpha": (1.0,), "filter_p": (0.9,)})
    points = plan_points(suite_of(MethodSpec(name="base"), g1, g2, g3, dexperts, filtered), REGISTRY)
    subjects = {s.name: s for s in choose_subjects(points, REGISTRY, ("base", "expert", "antiexpert"))}
    assert list(subjects) == [
        "base", AGAIN, "g1", "g2", "g3", "dexperts", "dexperts(alpha=1, filter_p=0.9)", "g2(alpha=0)",
        "dexperts(alpha=0)", "ensemble of 2", "ensemble of 3",
    ]  # fmt: skip
    assert subjects["g1"].params == {"alpha": 0.75}  # alpha 1 is the expert alone
    assert subjects["g2"].params == subjects["dexperts"].params == {"alpha": 1.0}
    assert subjects["g3"].params == {"alpha": 1.0, "beta": -0.5}  # the only one that mixes all three
    assert [subjects[name].recipe.models_per_token for name in ("g3", "dexperts", "ensemble of 2")] == [1, 3, 2]
    assert subjects["g2(alpha=0)"].recipe == subjects["base"].recipe
    assert subjects["dexperts(alpha=0)"].recipe.coefficients == {"base": 1}


def test_a_method_with_a_draft_is_timed_at_every_strength_and_without() -> None:
    drafted = MethodSpec(name="dexperts", params={"alpha": (0.0, 0.5, 1.0), "draft": ("g2",), "k": (2,)})
    checkpoints = ("base", "expert", "antiexpert")

    def chosen(*specs: MethodSpec) -> list[Subject]:
        return choose_subjects(plan_points(suite_of(*specs), REGISTRY), REGISTRY, checkpoints)

    alone, beside = chosen(drafted), chosen(drafted, DEXPERTS)
    roles = {s.name: s.role for s in alone if s.role not in ("base", "again", "ensemble")}
    assert roles == {
        "dexperts(alpha=1, draft=g2, k=2)": "method", "dexperts(alpha=0.5, draft=g2, k=2)": "strength",
        "dexperts without its draft": "strength", "dexperts(alpha=0)": "control",
    }  # fmt: skip
    assert [plain.name for s in alone if s.recipe.draft and (plain := plain_of(s, alone))] == [
        "dexperts without its draft"
    ] * 2
    assert {plain.name for s in beside if s.recipe.draft and (plain := plain_of(s, beside))} == {"dexperts"}


def test_a_suite_without_a_base_cannot_be_timed() -> None:
    with pytest.raises(UserError, match="times are compared with the base's"):
        choose_subjects([Point(method="expert", params={}, recipe=weights(expert=1))], REGISTRY, ["expert"])


# ---------------------------------------------------------------------------------------------- the stopwatch


def test_a_method_that_sleeps_is_found_with_its_ratio() -> None:
    """Real time: 50 ms a step against the base's 20."""
    spec = OverheadSpec(batch_sizes=(2,), new_tokens=(3,), rounds=5, precision=1.0, budget_s=60)
    ledger = timed(Sleeper(time.sleep), time.perf_counter, spec, SLOW)
    found = {r.method: r for r in records(ledger, Shape(10, 1, 2, 4, 4), Rates(1e9, 1e9)) if r.metric == MAIN}
    slow = found["slow"]
    assert slow.ratio_to_base == pytest.approx(SLOW_STEP_S / BASE_STEP_S, rel=0.2)
    assert slow.details["within_floor"] is False and slow.n_rounds == 5
    assert slow.ratio_low is not None and slow.ratio_low > 1.5
    assert slow.value == pytest.approx(SLOW_STEP_S, rel=0.2)
    assert len(slow.details["samples"]) == len(slow.details["ratios"]) == 5


MAIN = "time_per_output_token_s"


def test_rounds_stop_when_ratios_are_narrow_or_the_budget_is_spent() -> None:
    def count(noise: float, **changes: Any) -> int:
        clock = DriftingClock(0.0, noise)
        spec = OverheadSpec(batch_sizes=(1,), new_tokens=(8,), **{"rounds": 6, "budget_s": 1e9, **changes})
        return len(timed(Sleeper(clock.work), clock, spec, SLOW).rounds[1, 8])

    assert count(noise=0.001) == 6
    assert 6 < count(noise=0.05) < 30
    assert count(noise=0.5) == 30  # five times what was asked for
    assert count(noise=0.5, budget_s=0.1) == 3


def test_luck_is_in_the_noise_floor_and_not_in_the_ratio() -> None:
    """A step takes 30 % more or less as the random numbers fall for a recipe; on average g2 costs what the base costs.

    With the same random numbers in every round, base against base would always be 1, and g2 a constant beside it.
    """
    clock = DriftingClock(0.0)
    spec = OverheadSpec(batch_sizes=(2,), new_tokens=(8,), rounds=30, precision=9, budget_s=1e9)
    engine = Sleeper(clock.work, luck=0.3)
    ledger = timed(engine, clock, spec, MethodSpec(name="g2", params={"alpha": (1.0,)}))
    found = {r.method: r for r in records(ledger, Shape(10, 1, 2, 4, 4), Rates(1e9, 1e9)) if r.metric == MAIN}
    low, high = found["g2"].details["floor"]
    assert low < 0.85 and high > 1.15  # 1.96 * 0.3 / sqrt(7) = 0.22 for a timing, more for a ratio
    assert found["g2"].details["within_floor"] is True
    assert found["g2"].ratio_low < 1 < found["g2"].ratio_high  # type: ignore[operator]
    timings = [engine.drawn[i : i + 3] for i in range(len(engine.drawn) - 3 * 30 * 4, len(engine.drawn), 3)]
    assert {tuple(tokens for tokens, _ in one) for one in timings} == {(8, 2, 16)}  # warm-up, first token, all
    assert all(len({seed for _, seed in one}) == 1 for one in timings)
    assert len({one[0][1] for one in timings}) == len(timings)


def test_every_subject_follows_every_other() -> None:
    clock = DriftingClock(0.0)
    spec = OverheadSpec(batch_sizes=(1,), new_tokens=(2,), rounds=30, precision=9, budget_s=1e9)
    engine = Sleeper(clock.work)
    ledger = timed(engine, clock, spec, SLOW, DEXPERTS)
    others = [s.recipe for s in ledger.subjects[1:]]
    length = len(others) + 2
    rounds = [
        engine.served[i : i + length] for i in range(len(engine.served) - 30 * length, len(engine.served), length)
    ]
    assert all(r[0] == r[-1] == ledger.subjects[0].recipe for r in rounds)  # A ... A
    assert all(sorted(map(str, r[1:-1])) == sorted(map(str, others)) for r in rounds)  # each once
    firsts = {str(r[1]) for r in rounds}
    assert firsts == set(map(str, others))
    slow = {str(before) for r in rounds for before, one in itertools.pairwise(r) if one == Slow().recipe()}
    assert slow == {str(recipe) for recipe in others if recipe != Slow().recipe()}


def test_a_spent_budget_is_shared_by_all_cells() -> None:
    """Rounds of 1 and of 16 tokens a row take turns, so neither has more than one round more than the other."""
    clock = DriftingClock(0.0, noise=0.5)
    spec = OverheadSpec(batch_sizes=(1, 2), new_tokens=(2, 8), rounds=30, budget_s=30)
    rounds = timed(Sleeper(clock.work), clock, spec, SLOW).rounds
    counts = [len(found) for found in rounds.values()]
    assert 3 < min(counts) < 30 and max(counts) - min(counts) <= 1


def test_amortisation_and_switching_are_in_the_ledger() -> None:
    """Switching takes 1 s for all, so mixing has paid off at once; without it the switch's ratio is 1."""
    clock = DriftingClock(0.0)
    spec = OverheadSpec(batch_sizes=(2,), new_tokens=(4,), rounds=3, budget_s=1e9)
    g2 = MethodSpec(name="g2", params={"alpha": (1.0,)})
    ledger = timed(Sleeper(clock.work, switch_s=1.0), clock, spec, g2, DEXPERTS)
    found = {(r.method, r.metric): r for r in records(ledger, Shape(10, 1, 2, 4, 4), Rates(1e9, 1e9))}
    assert found["g2", "amortisation_tokens"].value == pytest.approx(0, abs=1e-9)
    assert found["g2", "amortisation_tokens"].details["against"] == "dexperts"
    assert found["g2", "switch_s"].value == pytest.approx(1) and found["g2", "switch_s"].batch_size == 0
    assert found["g2", MAIN].ratio_to_base == pytest.approx(1)
    assert found["dexperts", MAIN].ratio_to_base == pytest.approx(3)
    assert found["dexperts", "tokens_per_s"].value == pytest.approx(2 / (3 * BASE_STEP_S))
    assert found["dexperts", "roofline_s_per_token"].ratio_to_base == pytest.approx(3)
    assert found["dexperts", "start_up_s"].value == pytest.approx(1 + 3 * BASE_STEP_S)
    assert found["g2", "peak_memory_bytes"].value is None
    assert found["g2", "peak_memory_bytes"].details["reason"] == "unknown on this machine"


def test_a_switch_lasts_until_the_device_has_finished() -> None:
    """`serve` only puts 2 s of work into a queue, which `synchronize` waits for."""
    clock = DriftingClock(0.0)
    queue: list[float] = []

    class Queueing(Sleeper):
        def serve(self, recipe: Recipe) -> Sleeper:
            queue.append(2.0)
            return super().serve(recipe)

    class Device(NoMachine):
        def synchronize(self) -> None:
            while queue:
                clock.work(queue.pop())

    spec = OverheadSpec(batch_sizes=(1,), new_tokens=(2,), rounds=3, budget_s=1e9)
    rounds = timed(Queueing(clock.work), clock, spec, SLOW, machine=Device).rounds[1, 2]
    assert measured(rounds, "slow", switch).median.value == pytest.approx(2)


def test_a_length_without_room_is_refused() -> None:
    clock = DriftingClock(0.0)
    with pytest.raises(UserError, match="2 tokens and 15 new ones exceed the model's context of 16"):
        timed(Sleeper(clock.work), clock, OverheadSpec(batch_sizes=(2,), new_tokens=(15,)), SLOW)


def test_peak_memory_sees_what_came_and_went() -> None:
    machine = Cpu()
    with machine.exact():
        before = machine.memory_bytes()
        machine.reset_peak()
        blocks = [np.ones(2**20, np.uint8) for _ in range(64)]
        del blocks
        peak, after = machine.peak_bytes(), machine.memory_bytes()
    if before is None or peak is None or after is None:
        pytest.skip("no /proc here")
    assert 60 * 2**20 < peak - before < 80 * 2**20
    assert after - before < 8 * 2**20


def test_a_busy_machine_is_noted() -> None:
    """By what others took; by the load before, which may be our own, only where that cannot be known."""
    watch = LoadWatch()
    watch.cores, watch.load_average = 2, 2.5
    for others, busy in ((None, True), (0.05, False), (0.5, True)):
        watch.others_cores = lambda others=others: others  # type: ignore[method-assign]
        assert watch.facts()["busy"] is busy
    watch.load_average = 0.1
    for others, busy in ((None, False), (0.5, True)):
        watch.others_cores = lambda others=others: others  # type: ignore[method-assign]
        assert watch.facts()["busy"] is busy


# ---------------------------------------------------------------------------------------------- real engines


def test_decode_goes_on_after_the_end_token(tiny_trio: dict[str, Path]) -> None:
    """Greedy: what comes first is made the end token, so generate() stops at once and decode() does not."""
    checkpoints = {name: resolve(str(tiny_trio[name])) for name in ("base", "expert")}
    engine = TransformersEngine(checkpoints, "float32", "cpu")
    model = engine.serve(Recipe(space="logits", coefficients={"base": 1, "expert": 0.5}))
    prompts = [Prompt(set="n", row=i, text="The movie") for i in range(3)]
    sampling = Sampling(samples=1, max_new_tokens=5, temperature=0)
    model.end = int(model.next_token_logprobs(["The movie"])[0].argmax())
    assert [(c.n_tokens, c.finish_reason) for c in model.generate(prompts, sampling)] == [(0, "stop")] * 3
    assert model.decode(prompts, sampling) == 15


def test_drafts_are_counted_beside_their_prediction(tiny_trio: dict[str, Path]) -> None:
    checkpoints = {name: resolve(str(folder)) for name, folder in tiny_trio.items()}
    drafted = MethodSpec(name="dexperts", params={"alpha": (0.5, 1.0, 4.0), "draft": ("g2",), "k": ("auto",)})
    subjects = choose_subjects(plan_points(suite_of(drafted), REGISTRY), REGISTRY, list(checkpoints))
    spec = OverheadSpec(batch_sizes=(3,), new_tokens=(12,), rounds=3, budget_s=0.01)
    make = partial(TransformersEngine, checkpoints, "float32", "cpu")
    ledger = Stopwatch(make, subjects, PROMPTS, Sampling(), spec, Cpu(), time.perf_counter).record(quiet)
    found = {(r.method, r.metric): r for r in records(ledger, Shape(1, 1, 1, 4, 1), Rates(1, 1))}
    near, far, none = (
        found[f"dexperts(alpha={alpha}, draft=g2, k=auto)", "draft_acceptance"] for alpha in ("0.5", "1", "4")
    )
    assert none.value is None and none.details["reason"] == "no number of drafted tokens pays"
    assert near.value is not None and far.value is not None and 0 < far.value < near.value <= 1
    assert near.details["predicted"] > far.details["predicted"] and near.details["k"] >= far.details["k"] > 0
    quick = found["dexperts(alpha=0.5, draft=g2, k=auto)", "draft_speed_up"]
    assert quick.value and quick.low and quick.high and quick.low <= quick.value <= quick.high
    predicted, k = near.details["predicted"], near.details["k"]
    alone = found["dexperts without its draft", "time_per_output_token_s"].ratio_to_base
    assert quick.details["predicted"] == times_as_quick(predicted, k, alone)
    assert quick.details["against"] == "dexperts without its draft"


@pytest.fixture
def suite(tiny_suite: Path, tmp_path: Path) -> Path:
    """The tiny suite without judges, which asks for a short ledger."""
    text = tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/")
    path = tmp_path / "timed.yaml"
    short = "overhead: {batch_sizes: [1, 2], new_tokens: [3], rounds: 3, precision: 9, budget_s: 99}\n"
    path.write_text(text[: text.index("evaluators:")] + short)
    return path


def lerpbench(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_run_times_a_suite_once_and_never_beside_other_work(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Any] = []
    most: list[int] = []

    class Counted(TransformersEngine):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            alive.append(self)
            most.append(len(alive))

        def close(self) -> None:
            super().close()
            alive.remove(self)

    monkeypatch.setattr(engines, "engine_class", lambda _: Counted)
    arguments = ("run", suite, "--db", tmp_path / "r.db", "--site", tmp_path / "site", "--engine", "transformers")
    assert "over base" in lerpbench(*arguments)
    assert set(most) == {1} and len(most) > 2 and not alive
    opened = len(most)
    lerpbench(*arguments)
    assert len(most) == opened

    store = Store.open(tmp_path / "r.db")
    names = [c[0] for c in store.db.execute("SELECT * FROM overhead").description]
    found = [dict(zip(names, row, strict=True)) for row in store.db.execute("SELECT * FROM overhead")]
    methods_found = {row["method"] for row in found}
    assert methods_found == {
        "base", AGAIN, "g1", "g3", "dexperts", "g3(alpha=0)", "dexperts(alpha=0)", "ensemble of 2", "ensemble of 3",
    }  # fmt: skip
    for batch_size in (1, 2):
        for metric in (MAIN, "time_to_first_token_s", "tokens_per_s", "roofline_s_per_token", "peak_memory_bytes"):
            rows = [row for row in found if row["batch_size"] == batch_size and row["metric"] == metric]
            assert {row["method"] for row in rows} == methods_found, metric
    assert {row["metric"] for row in found if row["batch_size"] == 0} == {
        "start_up_s", "switch_s", "switch_memory_bytes",
    }  # fmt: skip
    details = store.overhead_records(1, "transformers")[-1].details
    assert {"load_average", "busy", "cores", "samples", "floor", "recipe"} <= details.keys()

    before = len(found)
    lerpbench("overhead", suite, "--db", tmp_path / "r.db", "--engine", "transformers", "--batch-size", 2)
    (after,) = store.db.execute("SELECT count(*) FROM overhead").fetchone()
    assert after == before


def test_a_ratio_inside_the_floor_is_shown_as_such() -> None:
    line: dict[str, Any] = {"method": "g2", "role": "method", "members": 1, "batch_size": 1,
                            "new_tokens": 2, "metric": MAIN, "value": 1.0,
                            "n_rounds": 10, "ratio_to_base": 1.004, "ratio_low": 0.99, "ratio_high": 1.01}  # fmt: skip
    assert ratio(OverheadRecord(**line, details={"within_floor": True})) == "1.004 (0.990 to 1.010) = base"
    assert ratio(OverheadRecord(**line, details={"within_floor": False})) == "1.004 (0.990 to 1.010)"
