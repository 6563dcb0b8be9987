"""A second process that judges: the same rows, and none lost, whatever becomes of it."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lerpbench as lb
from bench.progress import silently
from bench.run import judging, second, stages
from bench.run.judging import Colleague, helps
from bench.run.pace import Pace
from bench.run.prepare import Work
from bench.run.second import SecondProcess, may_help
from bench.run.stages import Run
from bench.run.units import Inspect, Judge, Piece, Serve, Unit
from bench.run.worker import Worker
from bench.schema import Share, UserError
from bench.store.write import Store
from evaluators.base import Samples
from evaluators.judges import Judges
from tests.run.test_stages import CountingEngines, view
from tests.run.test_stages import run as run_alone

VIEWS = ("results", "completions")


def side_by_side(work: Work, path: Path, first_results: Any = None) -> Sequence[Share]:
    with closing(Store.open(path)) as store:
        run = Run(work, store, store.environment({}, "d"), silently)
        run.execute(CountingEngines(work), Judges("cpu"), first_results=first_results)
        return run.shares


@pytest.fixture(scope="module")
def work(tiny_suite: Path) -> Work:
    return lb.prepare(tiny_suite, "transformers")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, work: Work) -> Path:
    """The database of a run in one process."""
    path = tmp_path_factory.mktemp("alone") / "r.db"
    with closing(Store.open(path)) as store:
        run_alone(work, store)
    return path


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's six mixtures are enough to begin with two, and a second process helps."""
    monkeypatch.setattr(stages, "helps", lambda *_: True)
    monkeypatch.setattr(stages, "AHEAD", 2)
    for module in (stages, second):
        monkeypatch.setattr(module, "ENOUGH", 4)


class Waiting(Colleague):
    """Gives each point only when the one before is judged, so that a suite of moments has first results in time."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.serves = False

    def give(self, units: Any, samples: Samples | None = None) -> None:
        super().give(units, samples)
        while self.todo and self._answers.qsize() < len(self.todo) and self.second.process.poll() is None:
            time.sleep(0.01)


def test_rows_are_those_of_one_process(
    work: Work, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "Colleague", Waiting)
    early: list[list[Any]] = []
    path = tmp_path / "r.db"
    here, beside = side_by_side(work, path, lambda: early.append(view(path, "results")))
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]
    assert (here.n_generated, here.n_judged, beside.n_generated, beside.n_judged) == (6, 0, 0, 6 * 4)
    assert 0 < beside.judging_s < beside.present_s and beside.generating_s == 0
    (rows,) = early
    judged = {row[2:4] for row in rows if row[5] == "perplexity"}
    assert ("base", "{}") in judged and len(judged) < len({row[2:4] for row in view(path, "results")})


def test_what_was_generated_before_is_judged_too(work: Work, alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with closing(Store.open(path)) as store:
        run_alone(work, store, ["generate"])
    side_by_side(work, path)
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]


class Killed(Colleague):
    """Dies when it has been given the second point."""

    given = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.serves = False

    def give(self, units: Any, samples: Samples | None = None) -> None:
        super().give(units, samples)
        self.given += 1
        if self.given == 2:
            self.second.process.kill()


class JudgingIsFree(Pace):
    """So that the second process should serve whenever it may."""

    def each(self, units: Iterable[Unit]) -> list[float]:
        return [float(isinstance(unit, Serve)) for unit in units]


class Idle(Waiting):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.serves = True


class JudgingIsLong(Pace):
    """So that one point's verdicts are enough for the second process."""

    def each(self, units: Iterable[Unit]) -> list[float]:
        return [1000.0 if isinstance(unit, Judge) else 1.0 for unit in units]


@pytest.mark.parametrize("fits", [True, False])
def test_both_judge_where_all_is_served_and_there_is_room_for_the_judges(
    work: Work, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    monkeypatch.setattr(stages, "Pace", JudgingIsLong)
    if not fits:
        memory = judging.needed(work, "cpu")
        small = replace(memory, anchors=0, served=0, members=0, cache=2**10)
        monkeypatch.setattr(judging, "needed", lambda *_: small)
    path = tmp_path / "r.db"
    here, beside = side_by_side(work, path)
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]
    assert here.n_judged + beside.n_judged == 6 * 4 and (here.n_judged > 0) is fits and beside.n_judged > 0


class KilledServing(Idle):
    """Dies when it has been given the second mixture to serve."""

    served = 0

    def give(self, units: Any, samples: Samples | None = None) -> None:
        self.served += samples is None
        if self.served == 2:
            self.second.process.kill()
        super().give(units, samples)


@pytest.mark.parametrize(("kind", "least", "most"), [(Idle, 2, 5), (KilledServing, 0, 1)])
def test_a_second_process_without_work_serves_and_costs_no_row_where_it_is_lost(
    work: Work, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, least: int, most: int
) -> None:
    monkeypatch.setattr(stages, "Colleague", kind)
    monkeypatch.setattr(stages, "Pace", JudgingIsFree)
    path = tmp_path / "r.db"
    here, beside = side_by_side(work, path)
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]
    assert here.n_generated + beside.n_generated == 6 and here.n_judged + beside.n_judged == 6 * 4
    assert least <= beside.n_generated <= most and (beside.generating_s > 0) is (beside.n_generated > 0)


def test_it_serves_nothing_where_two_engines_fill_the_memory(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = judging.needed(work, "cpu").total
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(judging, "memory_bytes", lambda: 3 * needed)
    assert helps(work, "cpu") and not judging.has_room(work, 2)


def test_what_is_completed_together_stays_together(work: Work) -> None:
    """The suite's rows are few, so that its points in logit space share a batch."""
    worker = Worker(work, CountingEngines(work), Judges("cpu"))
    units = [Serve(position, Piece(), ()) for position in range(len(work.points))]
    worker.expect(units)
    logits = [u for u in units if work.points[u.position].recipe.space == "logits"]
    assert len(logits) > 1
    assert [u for u in units if not worker.does_alone(u)] == logits
    with closing(worker):
        list(worker.do(logits[0]))
        assert not worker.does_alone(logits[1])


def test_a_second_process_that_is_lost_costs_no_row(
    work: Work, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "Colleague", Killed)
    path = tmp_path / "r.db"
    here, beside = side_by_side(work, path)
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]
    assert here.n_judged + beside.n_judged == 6 * 4 and here.n_judged > 0


@pytest.mark.parametrize(
    ("what", "error"),
    [("pickle.dumps", AttributeError("Can't pickle local object")), ("SecondProcess", OSError("no process left"))],
)
def test_where_none_starts_judges_are_here(
    work: Work, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(f"bench.run.judging.{what}", refused)
    path = tmp_path / "r.db"
    (here,) = side_by_side(work, path)
    assert here.n_judged == 6 * 4
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]


def test_what_judging_raises_is_raised_here_and_all_that_was_stored_stays(work: Work, tmp_path: Path) -> None:
    """A judge's files are gone when the second process looks for them."""
    gone = tmp_path / "gone"
    gone.mkdir()
    evaluators = [
        replace(item, evaluator=item.evaluator.model_copy(update={"model": str(gone)}))
        if item.name == "perplexity" else item for item in work.evaluators
    ]  # fmt: skip
    path = tmp_path / "r.db"
    with pytest.raises(UserError, match="gone"):
        side_by_side(replace(work, evaluators=evaluators), path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM generations").fetchone()[0] >= 1


@pytest.mark.parametrize(("device", "threads", "expected"), [("cpu", 2, True), ("cpu", 1, False), ("cuda", 2, False)])
def test_it_helps_on_a_cpu_with_two_threads(
    work: Work, monkeypatch: pytest.MonkeyPatch, device: str, threads: int, expected: bool
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert helps(work, device) is expected


def test_it_does_not_help_where_the_engine_fills_the_memory(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(judging, "memory_bytes", lambda: 2**16)
    assert not helps(work, "cpu")


def test_a_plan_with_a_second_process_takes_at_least_half(
    tiny_suite: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the rates of a stored run, for a suite whose seed makes all of it new."""
    again = yaml.safe_load(tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/").replace("seed: 1", "seed: 2"))
    seconds = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found = lb.plan(again, alone, "transformers").seconds
        assert found is not None
        seconds.append(found)
    assert seconds[0] / 2 <= seconds[1] < seconds[0]


def test_a_unit_takes_the_median_of_its_kind_or_of_its_class_or_of_all(work: Work) -> None:
    """By hand: weights take 2 s, the evaluator 0 takes 1 s, the other 6 s; logits are unknown, so 2 s a model."""
    logits, weights = (
        [Serve(i, Piece()) for i, point in enumerate(work.points) if point.recipe.space == space]
        for space in ("logits", "weights")
    )
    models = [work.points[unit.position].recipe.models_per_token for unit in logits]
    assert models == [1, 3]
    here: dict[Unit, float] = {weights[0]: 1.0, weights[1]: 2.0, weights[2]: 90.0}
    there: dict[Unit, float] = {Judge(0, 0): 1.0, Judge(0, 1): 6.0}
    pace = Pace(work, here, there)
    assert Pace(work).of(weights) == 0
    assert pace.of([weights[0], Judge(5, 0), Judge(5, 1)]) == 2 + 1 + 6
    assert pace.of([*logits, Inspect(0)]) == 2 + 6 + 2
    assert pace.of([Judge(0, 2)]) == 3.5
    there[logits[1]] = 21.0
    assert pace.of(logits) == 7 + 21
    assert pace.left_of([Judge(5, 1), weights[0]], 0.5) == 5.5 + 2
    assert pace.left_of([Judge(5, 1), weights[0]], 60) == 2


@pytest.mark.parametrize(
    ("engine", "n_points", "threads", "device", "expected"),
    [
        ("auto", 4, "2", "/nowhere", True),
        ("transformers", 58, None, "/nowhere", True),
        ("auto", 3, "2", "/nowhere", False),
        ("vllm", 58, "2", "/nowhere", False),
        ("nosuch", 58, "2", "/nowhere", False),
        ("auto", 58, "1", "/nowhere", False),
        ("auto", 58, "2", "/dev/null", False),
    ],
)
def test_it_is_started_early_where_a_run_may_want_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, n_points: int, threads: str | None, device: str, expected: bool
) -> None:
    monkeypatch.setattr(second, "ACCELERATORS", (device,))
    monkeypatch.setattr(second.os, "cpu_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert may_help(engine, n_points) is expected


def test_a_run_that_fails_ends_the_process_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[SecondProcess] = []

    class Known(SecondProcess):
        def __init__(self) -> None:
            super().__init__()
            began.append(self)

    monkeypatch.setattr(second, "SecondProcess", Known)
    monkeypatch.setattr(second, "may_help", lambda engine, n_points: n_points == 20)
    suite = {"name": "s", "methods": [{"g1": {"alpha": [i / 10 for i in range(20)]}}], "evaluators": ["nosuch"]}
    with pytest.raises(UserError, match="nosuch"):
        lb.run(suite, tmp_path / "r.db")
    (process,) = began
    assert process.process.returncode == -signal.SIGKILL


def test_a_run_that_gets_no_process_is_done_in_one(
    tiny_suite: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> Any:
        raise OSError("no process left")

    for module in (second, judging):
        monkeypatch.setattr(module, "SecondProcess", refused)
    monkeypatch.setattr(second, "may_help", lambda *_: True)
    lb.run(tiny_suite, tmp_path / "r.db", engine="transformers")
    assert [view(tmp_path / "r.db", name) for name in VIEWS] == [view(alone, name) for name in VIEWS]


def test_a_run_judges_in_the_process_that_it_began_with(
    tiny_suite: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[Any] = []

    class Told(Waiting):
        def __init__(self, work: Work, given: Any) -> None:
            super().__init__(work, given)
            seconds.extend([given, self.second])

    monkeypatch.setattr(stages, "Colleague", Told)
    monkeypatch.setattr(second, "may_help", lambda *_: True)
    path = tmp_path / "r.db"
    lb.run(tiny_suite, path, engine="transformers")
    assert seconds[0] is seconds[1] is not None and seconds[0].process.returncode is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT n_judged FROM workers ORDER BY n_judged").fetchall() == [(0,), (6 * 4,)]
    assert [view(path, name) for name in VIEWS] == [view(alone, name) for name in VIEWS]


PARENT = """
import sys, time
import lerpbench as lb
from bench.run.judging import Colleague
colleague = Colleague(lb.prepare(sys.argv[1], "transformers"))
print(colleague.second.process.pid, flush=True)
time.sleep(600)
"""


def test_the_second_process_ends_with_the_first(tiny_suite: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tiny_suite)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
