"""Money and joules by hand, counters by forged readings: RAPL's files, NVML's calls, a clock of our own."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_overhead import BASE_STEP_S, DEXPERTS, PROMPTS, REGISTRY, DriftingClock, NoMachine, Sleeper, quiet, suite_of

from bench.cli.costs import cost_table, remarks
from bench.overhead import energy
from bench.overhead.energy import Meter, Unwound, find_meter, rapl, tick
from bench.overhead.estimate import Timing, joules_per_million_tokens, money_per_million_tokens
from bench.overhead.ledger import JOULES, MONEY, records
from bench.overhead.model import Rates, Shape
from bench.overhead.stopwatch import Stopwatch
from bench.overhead.subjects import choose_subjects
from bench.schema import OverheadRecord, OverheadSpec, Price, Sampling
from bench.suite.points import plan_points

POWER_W = 40.0


def test_money_and_joules_by_hand() -> None:
    """100 tokens in 0.5 s at 7.20 an hour: 0.5 / 3600 * 7.2 = 0.001, 0.00001 a token; 3 J: 0.03 J a token."""
    timing = Timing(0, 0, 0, 0.5, joules=3)
    assert money_per_million_tokens(100, 7.2)(timing) == pytest.approx(10)
    assert joules_per_million_tokens(100)(timing) == pytest.approx(30_000)
    with pytest.raises(ValueError, match="not known"):
        joules_per_million_tokens(100)(Timing(0, 0, 0, 0.5))


def ledger(spec: OverheadSpec, meter: Callable[[DriftingClock], Meter]) -> list[OverheadRecord]:
    clock = DriftingClock(0.0)
    subjects = choose_subjects(plan_points(suite_of(DEXPERTS), REGISTRY), REGISTRY, ("base", "expert", "antiexpert"))
    make: Any = lambda: Sleeper(clock.work)  # noqa: E731
    watch = Stopwatch(make, subjects, PROMPTS, Sampling(), spec, NoMachine(), clock, meter(clock))
    return records(watch.record(quiet), Shape(10, 1, 2, 4, 4), Rates(1e9, 1e9))


def test_a_ledger_has_money_and_joules_beside_the_noise_floor() -> None:
    """2 rows x 4 tokens take the base 4 * 0.02 = 0.08 s and DExperts' three members thrice that.

    At 9 an hour 0.08 s cost 0.0002, 25 a million tokens; at 40 W they take 3.2 J, 400,000 J a million tokens.
    """
    spec = OverheadSpec(batch_sizes=(2,), new_tokens=(4,), rounds=3, price=Price(per_hour=9, currency="EUR"))
    made = ledger(spec, lambda clock: Meter("a meter", lambda: POWER_W * clock.now, tick_s=0.001))
    found = {(r.method, r.metric): r for r in made}
    assert found["base", MONEY].value == pytest.approx(0.08 / 3600 * 9 / 8 * 1e6) == pytest.approx(25)
    assert found["base", JOULES].value == pytest.approx(400_000)
    for metric in (MONEY, JOULES):
        line = found["dexperts", metric]
        assert line.ratio_to_base == pytest.approx(3) and line.details["within_floor"] is False
        assert line.details["floor"] == pytest.approx([1, 1])
    assert found["dexperts", MONEY].details["currency"] == "EUR"
    assert found["dexperts", JOULES].details["power"] == "a meter"
    heads = [column.header for column in cost_table(made, 2, 4, "").columns]
    assert heads[-2:] == ["J / M tokens", "EUR / M tokens"]


def test_what_is_not_known_is_said_and_not_made_up() -> None:
    spec = OverheadSpec(batch_sizes=(2,), new_tokens=(4,), rounds=3)
    for meter, why in (
        (Meter(reason="no power reading: NVML: Not Supported"), "no power reading: NVML: Not Supported"),
        (Meter("NVML, 1 GPU", lambda: 0.0, tick_s=BASE_STEP_S), "a call takes less than 10 ticks of NVML, 1 GPU, which "
                                                               "moves every 20 ms"),
    ):  # fmt: skip
        made = ledger(spec, lambda _, meter=meter: meter)
        joules = [r for r in made if r.metric == JOULES]
        assert joules and {(r.value, r.ratio_to_base, r.details["reason"]) for r in joules} == {(None, None, why)}
        assert not [r for r in made if r.metric == MONEY]
        assert f"no joules: {why}" in remarks(made)


def test_a_tick_is_the_time_between_two_moves() -> None:
    """The clock goes on by 1 ms a reading, the counter moves every 7 ms."""
    now = iter(range(10**6))
    state = {"s": 0.0}

    def clock() -> float:
        state["s"] = next(now) / 1000
        return state["s"]

    assert tick(lambda: int(state["s"] * 1000) // 7, clock) == pytest.approx(0.007, abs=0.001)
    with pytest.raises(LookupError, match="does not move"):
        tick(lambda: 1.0, clock)


def zone(root: Path, name: str, microjoules: int, top: int = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{top}\n")
    return folder


def test_rapl_adds_packages_and_goes_on_where_a_counter_starts_over(tmp_path: Path) -> None:
    """900 + 100 microjoules; then the first has passed 1000 to 50: 1050 + 300.  A package's parts are not added."""
    first, second = zone(tmp_path, "intel-rapl:0", 900), zone(tmp_path, "intel-rapl:1", 100)
    zone(tmp_path, "intel-rapl:0:0", 777)
    source, joules = rapl(tmp_path)
    assert source == "RAPL, 2 packages" and joules() == pytest.approx(1000e-6)
    (first / "energy_uj").write_text("50\n")
    (second / "energy_uj").write_text("300\n")
    assert joules() == pytest.approx(1350e-6)
    counter = Unwound(first / "energy_uj", 1000)
    assert [counter(), counter()] == [50, 50]


def test_a_machine_without_counters_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "rapl", lambda: rapl(tmp_path))
    meter = find_meter("cpu")
    assert meter.read() is None and meter.why_not == f"no power reading: no RAPL counters in {tmp_path}"
    zone(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert find_meter("cpu").why_not.endswith("intel-rapl:0/energy_uj: No such file or directory")


class Nvml(SimpleNamespace):
    """As much of pynvml as is asked; each GPU has drawn 2,000 mJ more at each reading."""

    class NVMLError(Exception): ...

    def __init__(self, supported: bool = True) -> None:
        super().__init__(drawn={}, supported=supported)

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.supported:
            raise self.NVMLError("Not Supported")
        self.drawn[handle] = self.drawn.get(handle, 0) + 2000
        return int(self.drawn[handle])


def test_nvml_adds_gpus_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"u{i}"))
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())  # type: ignore[arg-type]
    source, joules = energy.nvml(2)
    assert source == "NVML, 2 GPUs" and joules() == 8.0 and joules() == 12.0
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(supported=False))  # type: ignore[arg-type]
    assert find_meter("cuda").why_not == "no power reading: NVML: Not Supported"
    monkeypatch.setitem(sys.modules, "pynvml", None)  # type: ignore[arg-type]
    assert 'pip install "lerpbench[energy]"' in find_meter("cuda").why_not
