"""A run on many workers: Ray places them, the agenda places units, this process alone holds the database.

A worker holds two units at most, and results are stored one by one as they come, so memory is bounded by the workers
and not by the suite.  The units of a worker that is lost go elsewhere.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.cluster.agenda import TRIES, Agenda, cost, cut
from bench.cluster.hand import Done, Hand, Hello
from bench.cluster.nodes import Places, Workers, connected, most_threads, nodes, places
from bench.cluster.packing import PackedSamples
from bench.cluster.weights import packed
from bench.environment import digest
from bench.run.prepare import Work
from bench.run.stages import ALL_STAGES, Run, Stage
from bench.run.units import Broken, Failed, Judge, Serve, Unit
from bench.schema import UserError

Cut = Callable[[Work, list[Serve], int], list[Serve]]
OPEN_GENERATIONS = 4  # whose completions wait in the object store for further judges


@dataclass(frozen=True)
class Share:
    """What one worker did of a run."""

    node: str
    pid: int
    device: str
    units: int
    busy_s: float
    present_s: float

    def __str__(self) -> str:
        busy = self.busy_s / self.present_s if self.present_s else 0.0
        return f"{self.node}, process {self.pid} ({self.device}): {self.units} units, {busy:.0%} busy"


@dataclass
class Member:
    """A worker as the driver knows it."""

    handle: Any
    awaited: Any  # what it answers next: its greeting, a checkpoint's receipt, or the first of its units
    hello: Hello | None = None
    environment_id: int | None = None
    units: deque[tuple[Unit, Any]] = field(default_factory=deque)
    n_done: int = 0
    busy_s: float = 0.0
    since: float = 0.0


def execute(
    run: Run, workers: Workers, address: str | None = None, stages: Collection[Stage] = ALL_STAGES
) -> list[Share]:
    """A run on this machine's cores or GPUs, or on those of a Ray cluster.  Returns who did what."""
    with connected(address) as ray:
        return Crew(ray, run, places(nodes(ray), workers, most_threads())).execute(stages)


class Crew:
    """The workers of one run."""

    def __init__(self, ray: Any, run: Run, places: Places, cut: Cut = cut) -> None:
        self.ray = ray
        self.run = run
        self.places = places
        self.cut = cut
        self.members: list[Member] = []
        self.lost: list[Share] = []  # shares of workers that are no more
        self._work = ray.put(run.work)
        self._weights: dict[str, Any] = {}
        self._samples: OrderedDict[int, Any] = OrderedDict()
        self._stillborn = 0

    def execute(self, stages: Collection[Stage] = ALL_STAGES) -> list[Share]:
        """Do what the stages ask for and the store lacks.  Returns who did what.

        Raises what a worker raises.  Interrupted at any moment, what was stored stays, and a next run goes on from it.
        """
        with self.run.recorded():
            serving = self.cut(self.run.work, self.run.serving(stages), self.places.workers)
            units: list[Unit] = [*serving, *self.run.judging(stages), *self.run.inspecting(stages)]
            agenda = Agenda((unit, cost(self.run.work, unit)) for unit in units)
            if not agenda:
                return []
            generations = sum(unit.piece is not None and unit.piece.index == 0 for unit in serving)
            judges = len(self.run.work.looking_at("completions")) if "evaluate" in stages else 0
            title = f"{self.places.workers} workers with {self.run.work.engine}"
            try:
                self.members = [self._hired() for _ in range(self.places.workers)]
                with self.run.task(title, len(agenda) + generations * judges) as advance:
                    for unit in self._finished(agenda):
                        advance(1)
                        if isinstance(unit, Serve) and unit.piece is not None:
                            for judge in self.run.judging(stages, unit.position):
                                agenda.add(judge)
                return [*self.lost, *map(share, self.members)]
            finally:
                for member in self.members:
                    self.ray.kill(member.handle)

    def _finished(self, agenda: Agenda) -> Iterator[Unit]:
        """Each unit when what came of it is kept."""
        while agenda or any(member.units for member in self.members):
            self._hand_out(agenda)
            awaited = {member.awaited: member for member in self.members if member.awaited is not None}
            ready, _ = self.ray.wait(list(awaited))
            for ref in ready:
                yield from self._answered(awaited[ref], agenda)

    def _hand_out(self, agenda: Agenda) -> None:
        free = [member for member in self.members if member.hello is not None]
        for i, unit in agenda.hand_out([len(member.units) for member in free]):
            member = free[i]
            given = (unit, self._samples_of(unit)) if isinstance(unit, Judge) else (unit,)
            member.units.append((unit, member.handle.do.remote(*given)))
            member.awaited = member.units[0][1]

    def _answered(self, member: Member, agenda: Agenda) -> Iterator[Unit]:
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = self.ray.get(member.awaited)
        except RayTaskError as error:  # raised by our code in the worker
            raise (error.cause or error) from error
        except RayError as error:
            yield from self._lose(member, reason(error), agenda)
            return
        if isinstance(answer, Done):
            unit, _ = member.units.popleft()
            member.awaited = member.units[0][1] if member.units else None
            member.n_done += 1
            member.busy_s += answer.duration_s
            for event in answer.events():
                self.run.keep(unit, event, member.environment_id)
            yield unit
        elif isinstance(answer, Hello) and not answer.lacking:
            self._stillborn = 0
            member.hello, member.since, member.awaited = answer, time.perf_counter(), None
            member.environment_id = self.run.store.environment(answer.machine, digest(answer.machine))
        elif isinstance(answer, Hello):
            for name in answer.lacking:
                member.handle.receive.remote(name, self._weights_of(name))
            member.awaited = member.handle.hello.remote()

    def _lose(self, member: Member, why: str, agenda: Agenda) -> Iterator[Unit]:
        """Put a lost worker's units back and hire another; only the unit it was doing has used up a try."""
        self.members.remove(member)
        self.lost += [share(member)] if member.n_done else []
        for unit, _ in reversed(list(member.units)[1:]):
            agenda.put_back(unit)
        if member.hello is None:
            self._stillborn += 1
            if self._stillborn > TRIES * self.places.workers:
                raise UserError(f"the workers do not start: {why}")
        self.members.append(self._hired())
        for unit, _ in list(member.units)[:1]:
            if not agenda.failed(unit):
                told = f"its worker was lost {TRIES} times, the last time so: {why}"
                self.run.keep(unit, Failed(told) if isinstance(unit, Serve) else Broken(unit.evaluator, told))
                yield unit

    def _hired(self) -> Member:
        options = {"num_cpus": self.places.cpus, "num_gpus": self.places.gpus, "max_restarts": 0}
        handle = self.ray.remote(Hand).options(**options).remote(self._work, self.places.threads)
        return Member(handle, handle.hello.remote())

    def _weights_of(self, name: str) -> Any:
        if name not in self._weights:
            self._weights[name] = self.ray.put(packed(self.run.work.checkpoints[name]))
        return self._weights[name]

    def _samples_of(self, unit: Judge) -> Any:
        """A generation's completions in the object store, read once for the judges that follow each other."""
        if unit.position not in self._samples:
            self._samples[unit.position] = self.ray.put(PackedSamples.of(self.run.samples_of(unit)))
        self._samples.move_to_end(unit.position)
        if len(self._samples) > OPEN_GENERATIONS:
            self._samples.popitem(last=False)
        return self._samples[unit.position]


def share(member: Member) -> Share:
    hello = member.hello
    node, pid, machine = (hello.node, hello.pid, hello.machine) if hello else ("", 0, {})
    present = time.perf_counter() - member.since if hello else 0.0
    return Share(node, pid, str(machine.get("device", "")), member.n_done, member.busy_s, present)


def reason(error: BaseException) -> str:
    """What Ray says of a loss, in one line."""
    told = str(error)
    _, found, detail = told.partition("The actor is dead because ")
    line = " ".join((detail if found else told).split())
    return f"{type(error).__name__}: {line}"[:300]
