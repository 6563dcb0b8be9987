"""Units on many seats: Ray places the seats, the agenda the units, and what comes of them goes to this process.

A seat holds two units at most, and answers are taken one by one, so memory is bounded by the seats and not by the work.
The units of a seat that is lost go elsewhere.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.cluster import seats
from bench.cluster.agenda import TRIES, Agenda, Held, Role, kind_of
from bench.cluster.hand import Done, Hello
from bench.cluster.nodes import Places
from bench.cluster.seats import Inside
from bench.cluster.weights import Sent, packed
from bench.progress import Advance, line, silent
from bench.schema import Share, UserError


class Job(Protocol):
    """What a crew is there for."""

    def given(self, unit: Any) -> Sequence[Any]:
        """What an actor is told beside a unit: values, or references into the object store."""
        ...

    def lost(self, unit: Any) -> None:
        """What was given is in the object store no longer."""
        ...

    def label(self, unit: Any) -> str:
        """What whoever does it is at, in words."""
        ...


@dataclass(frozen=True)
class Finished:
    """A unit with what came of it; or, after three tries, with why nothing did."""

    unit: Any
    done: Done | None
    why: str
    hello: Hello | None
    ref: Any  # the answer, in the object store
    actor: Any  # which gave it


@dataclass
class Seat:
    """A worker as the driver knows it: its place, its actors, and what they are at."""

    name: str
    place: Any
    actors: dict[Role, Any] = field(default_factory=dict)
    greetings: dict[Any, Role] = field(default_factory=dict)  # that are awaited
    hellos: dict[Role, Hello] = field(default_factory=dict)
    units: deque[tuple[Any, Any]] = field(default_factory=deque)
    kind: Role | None = None  # of its units, or of the last
    n_done: dict[Role, int] = field(default_factory=lambda: {"serve": 0, "judge": 0})
    spent_s: dict[Role, float] = field(default_factory=lambda: {"serve": 0.0, "judge": 0.0})
    node: str = ""
    since: float = 0.0

    @property
    def is_ready(self) -> bool:
        return len(self.hellos) == len(self.actors) and not self.greetings

    @property
    def awaited(self) -> list[Any]:
        return [*self.greetings, *([self.units[0][1]] if self.units else [])]

    @property
    def pids(self) -> list[int]:
        return [hello.pid for hello in self.hellos.values()]

    def share(self) -> Share:
        hello = next(iter(self.hellos.values()), None)
        return Share(
            name=self.name,
            node=self.node,
            device=str(hello.machine.get("device", "")) if hello else "",
            n_generated=self.n_done["serve"],
            n_judged=self.n_done["judge"],
            generating_s=self.spent_s["serve"],
            judging_s=self.spent_s["judge"],
            present_s=time.perf_counter() - self.since if self.since else 0.0,
        )


class Crew:
    """The workers of a job: a seat each, with an actor for each kind of unit that there is."""

    def __init__(
        self, ray: Any, places: Places, job: Job, actor: type, arguments: Sequence[Any], sent: Mapping[str, Sent],
        environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.ray = ray
        self.places = places
        self.job = job
        self.actor = actor
        self.arguments = arguments
        self.sent = sent
        self.environment = dict(environment)
        self.seats: list[Seat] = []
        self.lost: list[Share] = []  # of seats that are no more
        self._roles: Sequence[Role] = ()
        self._weights: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}  # host -> how it is called on record, where no host is named
        self._stillborn = 0
        self._hired = 0

    def work(self, agenda: Agenda, roles: Sequence[Role], advance: Advance = silent) -> Iterator[Finished]:
        """Each unit when something came of it, until nothing waits; `advance` shows what each worker is at.

        Raises what an actor raises, and UserError where none starts.
        """
        self._roles = roles
        try:
            self.seats = [self._taken() for _ in range(self.places.workers)]
            while len(agenda) or any(seat.units for seat in self.seats):
                self._hand_out(agenda)
                self._show(advance)
                awaited = {ref: seat for seat in self.seats for ref in seat.awaited}
                ready, _ = self.ray.wait(list(awaited))
                for ref in ready:
                    if awaited[ref] in self.seats:  # not lost just now
                        yield from self._answered(awaited[ref], ref, agenda)
        finally:
            self.lost += [share for seat in self.seats if (share := seat.share()).present_s]
            for seat in self.seats:
                seats.leave(self.ray, seat.place)
            self.seats = []

    @property
    def shares(self) -> list[Share]:
        """What each worker did, once the work is over."""
        return self.lost

    def _show(self, advance: Advance) -> None:
        for seat in self.seats:
            at = self.job.label(seat.units[0][0]) if seat.units else "waits" if seat.is_ready else "starts"
            line(advance, f"{seat.name} on {seat.node}" if seat.node else seat.name, f"{at}; {seat.share().told}")

    def _hand_out(self, agenda: Agenda) -> None:
        free = [seat for seat in self.seats if seat.is_ready]
        for i, unit in agenda.hand_out([Held(len(seat.units), seat.kind) for seat in free]):
            seat, kind = free[i], kind_of(unit)
            seat.kind = kind
            seat.units.append((unit, seat.actors[kind].do.remote(unit, *self.job.given(unit))))

    def _answered(self, seat: Seat, ref: Any, agenda: Agenda) -> Iterator[Finished]:
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = self.ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, RayError):  # what it was to judge went with its node
                unit, _ = seat.units.popleft()
                self.job.lost(unit)
                agenda.put_back(unit)
                return
            raise (error.cause or error) from error  # raised by our code in the worker
        except RayError as error:
            yield from self._lose(seat, reason(error), agenda)
            return
        if isinstance(answer, Hello):
            self._greeted(seat, seat.greetings.pop(ref), answer)
            return
        unit, _ = seat.units.popleft()
        kind = kind_of(unit)
        seat.n_done[kind] += 1
        seat.spent_s[kind] += answer.duration_s
        agenda.done(unit)
        yield Finished(unit, answer, "", seat.hellos[kind], ref, seat.actors[kind])

    def _greeted(self, seat: Seat, role: Role, hello: Hello) -> None:
        actor = seat.actors[role]
        if hello.lacking:
            for name in hello.lacking:
                actor.receive.remote(name, self._weights_of(name))
            seat.greetings[actor.hello.remote()] = role
            return
        seat.hellos[role] = hello
        if len(seat.actors) < len(self._roles):
            self._hire(seat, "judge", {"CUDA_VISIBLE_DEVICES": hello.gpus[0]} if hello.gpus else {})
        elif seat.is_ready:
            self._stillborn = 0
            seat.node = self._nodes.setdefault(hello.host, f"node {len(self._nodes) + 1}")
            seat.since = time.perf_counter()

    def _lose(self, seat: Seat, why: str, agenda: Agenda) -> Iterator[Finished]:
        """Put a lost seat's units back and take another; only the unit it was at has used up a try."""
        self.seats.remove(seat)
        seats.leave(self.ray, seat.place)
        self.lost += [seat.share()] if sum(seat.n_done.values()) else []
        for unit, _ in reversed(list(seat.units)[1:]):
            agenda.put_back(unit)
        if not seat.since:
            self._stillborn += 1
            if self._stillborn > TRIES * self.places.workers:
                raise UserError(f"the workers do not start: {why}")
        self.seats.append(self._taken())
        for unit, _ in list(seat.units)[:1]:
            if not agenda.failed(unit):
                agenda.done(unit)
                told = f"its worker was lost {TRIES} times, the last time so: {why}"
                yield Finished(unit, None, told, None, None, None)

    def _taken(self) -> Seat:
        self._hired += 1
        seat = Seat(f"worker {self._hired}", seats.reserve(self.ray, self.places))
        together = self._roles if self.places.gpus <= 1 else self._roles[:1]  # others look for its first GPU
        for role in together:
            self._hire(seat, role, {})
        return seat

    def _hire(self, seat: Seat, role: Role, environment: Mapping[str, str]) -> None:
        inside = Inside(self.places.threads, {**self.environment, **environment})
        needs = seats.part(self.places, role, len(self._roles))
        actor = seats.hired(self.ray, seat.place, self.actor, needs, *self.arguments, self.sent, inside)
        seat.actors[role] = actor
        seat.greetings[actor.hello.remote()] = role

    def _weights_of(self, name: str) -> Any:
        if name not in self._weights:
            self._weights[name] = self.ray.put(packed(self.sent[name]))
        return self._weights[name]


def reason(error: BaseException) -> str:
    """What Ray says of a loss, in one line."""
    told = str(error)
    _, found, detail = told.partition("The actor is dead because ")
    line = " ".join((detail if found else told).split())
    return f"{type(error).__name__}: {line}"[:300]
