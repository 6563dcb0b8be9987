"""Pure: how long a run takes on so many workers, by the agenda's own decisions on given costs.  No model, no Ray."""

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cluster.agenda import Agenda, Held, Role, cut, kind_of
from bench.run.forecast import Rates, seconds_to_judge, seconds_to_serve
from bench.run.prepare import Work
from bench.run.units import Judge, Piece, Serve, Unit


@dataclass(frozen=True)
class Simulation:
    """`busy` is the share of all workers' time that is spent in units."""

    workers: int
    units: int
    duration_s: float
    busy: float


def simulate(
    serving: Mapping[Serve, float],
    judging: Mapping[int, Sequence[tuple[Judge, float]]],
    workers: int,
    start_s: float = 0.0,
    keeping_s: float = 0.0,
) -> Simulation:
    """`serving`: seconds of each unit; `judging`: position -> its judges' units with seconds, which wait for all of its
    pieces.  `start_s`: what a worker needs before its first unit; `keeping_s`: what the one writer needs for a unit.
    """
    seconds: dict[Unit, float] = dict(serving.items())
    seconds |= {unit: s for found in judging.values() for unit, s in found}
    missing = Counter(unit.position for unit in serving)
    agenda = Agenda(serving.items(), workers)
    held: list[deque[Unit]] = [deque() for _ in range(workers)]
    kinds: list[Role | None] = [None] * workers
    running: list[tuple[float, int]] = []  # (when its unit ends, worker)
    idle = set(range(workers))
    writer_free = now = start_s

    def hand_out() -> None:
        for worker, unit in agenda.hand_out([Held(len(queue), kind) for queue, kind in zip(held, kinds, strict=True)]):
            held[worker].append(unit)
            kinds[worker] = kind_of(unit)
        for worker in sorted(idle):
            if held[worker]:
                heapq.heappush(running, (now + seconds[held[worker][0]], worker))
                idle.discard(worker)

    hand_out()
    while running:
        ended, worker = heapq.heappop(running)
        done = held[worker].popleft()
        if held[worker]:  # goes on at once with what it holds
            heapq.heappush(running, (ended + seconds[held[worker][0]], worker))
        else:
            idle.add(worker)
        writer_free = max(writer_free, ended) + keeping_s
        now = writer_free  # the driver hands out when it has kept
        agenda.done(done)
        if isinstance(done, Serve):
            missing[done.position] -= 1
            for judge, _ in judging.get(done.position, ()) if not missing[done.position] else ():
                agenda.add(judge)
        hand_out()
    spent = sum(seconds.values())
    return Simulation(workers, len(seconds), now, spent / (workers * now) if now else 1.0)


def seconds_on(workers: int, work: Work, positions: Sequence[int], rates: Rates) -> float:
    """To serve and judge these points' mixtures at earlier runs' rates; start-up and stragglers' luck left out."""
    units = cut(work, [Serve(position, Piece()) for position in positions], workers)
    n_pieces = Counter(unit.position for unit in units)
    n, recipes = work.completions_per_point, {i: [work.points[i].recipe] for i in positions}
    serving = {unit: seconds_to_serve(recipes[unit.position], n, rates) / n_pieces[unit.position] for unit in units}
    judging = {i: [(Judge(i, 0), seconds_to_judge(1, n, rates))] for i in positions}
    return simulate(serving, judging, workers).duration_s
