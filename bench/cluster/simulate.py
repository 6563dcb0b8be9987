"""Pure: how long a run takes on so many workers, by the agenda's own decisions on given costs.  No model, no Ray."""

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cluster.agenda import Agenda
from bench.run.units import Judge, Serve, Unit


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
    missing: dict[int, int] = {}
    for unit in serving:
        missing[unit.position] = missing.get(unit.position, 0) + 1
    agenda = Agenda(serving.items())
    held: list[deque[Unit]] = [deque() for _ in range(workers)]
    running: list[tuple[float, int]] = []  # (when its unit ends, worker)
    idle = set(range(workers))
    writer_free = now = start_s

    def hand_out() -> None:
        for worker, unit in agenda.hand_out([len(queue) for queue in held]):
            held[worker].append(unit)
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
        if isinstance(done, Serve):
            missing[done.position] -= 1
            for judge, _ in judging.get(done.position, ()) if not missing[done.position] else ():
                agenda.add(judge)
        hand_out()
    spent = sum(seconds.values())
    return Simulation(workers, len(seconds), now, spent / (workers * now) if now else 1.0)
