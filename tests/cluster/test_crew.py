"""Runs on several workers are the run in this process, row by row, whatever happens to the workers."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import RayHere, prepared, run_in_process, run_on, view
from ray.exceptions import OutOfMemoryError

from bench.cluster import agenda as deciding
from bench.cluster.points import Sweep
from bench.progress import Advance
from bench.schema import UserError
from bench.store.read import Reader

JUDGES = 6 * 2
UNITS = 6 * 3 + JUDGES  # six mixtures in three pieces, two judges each


def equal(path: Path, finished: Path) -> bool:
    return all(view(path, name) == view(finished, name) for name in ("results", "completions"))


@pytest.mark.parametrize(("workers", "n_pieces"), [(1, 1), (5, 3), (2, 7)])
def test_any_number_of_workers_and_pieces_gives_what_one_process_gives(
    finished: Path, wide_suite: Path, tmp_path: Path, workers: int, n_pieces: int
) -> None:
    run, shares = run_on(RayHere(), prepared(wide_suite), tmp_path / "r.db", workers, n_pieces)
    assert equal(tmp_path / "r.db", finished)
    assert sum(share.n_generated for share in shares) == 6 * n_pieces
    assert sum(share.n_judged for share in shares) == JUDGES
    with closing(Reader.open(tmp_path / "r.db")) as store:
        assert store.runs(1, "transformers")[0].workers == tuple(shares)
    assert not run.failed and not run.broken


def test_units_of_lost_workers_go_elsewhere(finished: Path, wide_suite: Path, tmp_path: Path) -> None:
    """The first six seats are lost: greeting, or in their first, second, ... unit."""
    ray = RayHere(lambda seat, unit: seat < 6 and unit == seat)
    run, shares = run_on(ray, prepared(wide_suite), tmp_path / "r.db")
    assert len(ray.seats) == 2 + 6 and sorted(ray.left) == [*range(8)]
    assert equal(tmp_path / "r.db", finished) and not run.failed
    assert sum(share.units for share in shares) == UNITS


def test_a_unit_that_loses_three_workers_fails_its_point_and_no_other(wide_suite: Path, tmp_path: Path) -> None:
    """With one worker at a time, each of the first three is lost in its first unit: the dearest one, of logits."""
    ray = RayHere(lambda seat, unit: seat < 3 and unit == 1)
    run, _ = run_on(ray, prepared(wide_suite), tmp_path / "r.db", workers=1, n_pieces=1)
    assert list(run.failed) == ["dexperts(alpha=1)"]
    assert run.failed["dexperts(alpha=1)"].startswith("its worker was lost 3 times, the last time so: RayActorError")
    places = {row[2:4] for row in view(tmp_path / "r.db", "completions")}
    assert len(places) == 7 and ("dexperts", '{"alpha":1}') not in places


def test_a_kill_for_want_of_memory_is_told_as_the_reason(wide_suite: Path, tmp_path: Path) -> None:
    ray = RayHere(lambda seat, unit: seat < 3 and unit == 1)
    ray.loss = OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory used: 60.1 GB")
    run, _ = run_on(ray, prepared(wide_suite, ["base"]), tmp_path / "r.db", workers=1, n_pieces=1)
    told = "OutOfMemoryError: Task was killed due to the node running low on memory. Memory used: 60.1 GB"
    assert run.failed == {"base": f"its worker was lost 3 times, the last time so: {told}"}
    with closing(Reader.open(tmp_path / "r.db")) as store:
        assert told in str(store.points(1, "transformers")[0].failed)


def test_a_verdict_that_loses_three_workers_is_missing_and_no_other(wide_suite: Path, tmp_path: Path) -> None:
    """The first worker is lost in its second unit, after serving the base; so are two more in their first."""
    ray = RayHere(lambda seat, unit: (seat, unit) in ((0, 2), (1, 1), (2, 1)))
    run, _ = run_on(ray, prepared(wide_suite, ["base"]), tmp_path / "r.db", workers=1, n_pieces=1)
    assert not run.failed and list(run.broken) == ["perplexity"]
    assert run.broken["perplexity"][0].startswith("base: its worker was lost 3 times")
    found = {row[5] for row in view(tmp_path / "r.db", "results")}
    assert "distinct_1" in found and "perplexity" not in found


def test_completions_that_went_with_their_node_come_from_the_database(
    finished: Path, wide_suite: Path, tmp_path: Path
) -> None:
    """No judge gets what the engines gave; nobody's try is used up by that."""
    ray = RayHere(forgets=lambda ref: True)
    run, shares = run_on(ray, prepared(wide_suite), tmp_path / "r.db")
    assert equal(tmp_path / "r.db", finished) and not run.failed and not run.broken
    assert len(ray.seats) == 2 and sum(share.units for share in shares) == UNITS


def test_completions_do_not_pile_up(
    finished: Path, wide_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one generation may wait for its verdicts, two seats have three at most: each may be at one more."""
    monkeypatch.setattr(deciding, "OPEN_PER_SEAT", 0.5)
    seen: list[Sweep] = []
    at_hand: list[int] = []

    @contextmanager
    def watching(title: str, total: int) -> Iterator[Advance]:
        yield lambda _: at_hand.append(sum(len(drawn) == 3 for drawn in seen[0]._drawn.values()))

    run_on(RayHere(), prepared(wide_suite), tmp_path / "r.db", task=watching, watch=seen.append)
    assert equal(tmp_path / "r.db", finished)
    assert 1 <= max(at_hand) <= 3 and not seen[0]._drawn and not seen[0]._stored


def test_workers_that_do_not_start_end_the_run(wide_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the workers do not start: .*it was told so"):
        run_on(RayHere(lambda seat, unit: True), prepared(wide_suite, ["base"]), tmp_path / "r.db")


@pytest.mark.parametrize("after", [5, 24])
def test_an_interrupted_run_goes_on_with_any_number_of_workers(
    finished: Path, wide_suite: Path, tmp_path: Path, after: int
) -> None:
    @contextmanager
    def stopping(title: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done == after:
                raise KeyboardInterrupt

        yield advance

    path = tmp_path / "r.db"
    with pytest.raises(KeyboardInterrupt):
        run_on(RayHere(), prepared(wide_suite), path, workers=3, task=stopping)
    _, shares = run_on(RayHere(), prepared(wide_suite), path, workers=2, n_pieces=1)
    assert equal(path, finished)
    assert sum(share.units for share in shares) < 6 + JUDGES  # whole points are not made again
    assert not run_on(RayHere(), prepared(wide_suite), path)[1]


def test_a_run_that_workers_began_goes_on_in_this_process(finished: Path, wide_suite: Path, tmp_path: Path) -> None:
    run_on(RayHere(), prepared(wide_suite, only=["dexperts"]), tmp_path / "r.db")
    run_in_process(prepared(wide_suite), tmp_path / "r.db")
    assert equal(tmp_path / "r.db", finished)


def test_killed_processes_change_nothing(ray: Any, finished: Path, wide_suite: Path, tmp_path: Path) -> None:
    """kill -9 of a worker on real Ray when 3 and 22 units are done: once while serving, once while judging."""
    seen: list[Sweep] = []
    killed: list[int] = []

    @contextmanager
    def killing(title: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done in (3, 22):
                busy = [pid for seat in seen[0].crew.seats if seat.units for pid in seat.pids]
                killed.append(random.choice(busy))
                os.kill(killed[-1], signal.SIGKILL)

        assert total == UNITS
        yield advance

    run, shares = run_on(ray, prepared(wide_suite), tmp_path / "r.db", task=killing, watch=seen.append)
    assert len(set(killed)) == 2 and len(shares) >= 2
    assert equal(tmp_path / "r.db", finished) and not run.failed
    assert sum(share.units for share in shares) == UNITS
