"""Runs of a suite for the tests of this room, and a Ray that needs no processes."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

import evaluators
import methods
from bench.cluster.agenda import pieces
from bench.cluster.nodes import Places
from bench.cluster.points import Sweep
from bench.engines.transformers import TransformersEngine
from bench.progress import Task, silently
from bench.run.prepare import Work, prepare
from bench.run.stages import Run
from bench.run.units import Serve
from bench.schema import Share
from bench.store.write import Store
from bench.suite.load import load_suite
from evaluators.judges import Judges


def prepared(suite: Path, only: Sequence[str] = ()) -> Work:
    registries = methods.registry(), evaluators.registry()
    return prepare(load_suite(str(suite), *registries), *registries, "transformers", 1, only)


def view(path: Path, name: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)


def run_in_process(work: Work, path: Path) -> None:
    store = Store.open(path)
    opened = partial(TransformersEngine, work.checkpoints, "float32", "cpu")
    Run(work, store, store.environment({}, "d"), silently).execute(opened, Judges("cpu"))
    store.close()


def run_on(
    ray: Any, work: Work, path: Path, workers: int = 2, n_pieces: int = 3, task: Task = silently,
    watch: Callable[[Sweep], None] = lambda sweep: None, gpus: int = 0,
) -> tuple[Run, Sequence[Share]]:  # fmt: skip
    """A run on so many workers, every point cut in `n_pieces`; `watch` is shown the sweep before it starts."""

    def cut(_: Work, units: Sequence[Serve], __: int) -> list[Serve]:
        return [piece for unit in units for piece in pieces(unit, n_pieces)]

    store = Store.open(path)
    run = Run(work, store, store.environment({}, "d"), task)
    sweep = Sweep(ray, run, Places(workers, cpus=1, gpus=gpus, threads=1), cut)
    watch(sweep)
    try:
        return run, sweep.execute()
    finally:
        store.close()


class RayHere:
    """What a crew asks of Ray, in this process: a call is made when its answer is asked for.

    `dies(seat, unit)` says whether a seat, counted from 0, is lost in its n-th unit, counted from 1; 0: greeting.
    `forgets(ref)` says whether an answer that is asked for as an argument is in the object store no longer.
    """

    def __init__(
        self,
        dies: Callable[[int, int], bool] = lambda seat, unit: False,
        forgets: Callable[[Any], bool] = lambda ref: False,
    ) -> None:
        self.dies = dies
        self.loss: Exception = RayActorError(error_msg="The actor is dead because it was told so.")
        self.forgets = forgets
        self.util = self
        self.seats: list[dict[str, float]] = []  # what was reserved, in order
        self.left: list[int] = []
        self.asked: list[dict[str, float]] = []  # by the actors, in order
        self.done: Counter[int] = Counter()  # seat -> units

    def put(self, value: Any) -> Any:
        return value

    def placement_group(self, bundles: list[dict[str, float]], strategy: str) -> int:
        assert strategy == "STRICT_PACK"
        (bundle,) = bundles
        self.seats.append(bundle)
        return len(self.seats) - 1

    def remove_placement_group(self, seat: int) -> None:
        self.left.append(seat)

    def remote(self, cls: type) -> "RayHere":
        self.cls = cls
        return self

    def options(self, *, num_cpus: float, num_gpus: float, scheduling_strategy: Any, **_: Any) -> "_Actors":
        self.asked.append({"CPU": num_cpus, "GPU": num_gpus})
        return _Actors(self, scheduling_strategy.placement_group)

    def wait(self, refs: list["_Call"]) -> tuple[list["_Call"], list["_Call"]]:
        return refs[:1], refs[1:]

    def get(self, ref: "_Call") -> Any:
        return ref.answer()


class _Actors:
    def __init__(self, ray: RayHere, seat: int) -> None:
        self.ray, self.seat = ray, seat

    def remote(self, *arguments: Any) -> "_Actor":
        return _Actor(self.ray, self.seat, self.ray.cls(*arguments))


class _Actor:
    def __init__(self, ray: RayHere, seat: int, inside: Any) -> None:
        self.ray, self.seat, self.inside = ray, seat, inside

    def __getattr__(self, method: str) -> "_Method":
        return _Method(self, method)


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *arguments: Any) -> "_Call":
        return _Call(self.actor, self.name, arguments)


class _Call:
    """An actor's answer; it is worked out once, and can be an argument then."""

    def __init__(self, actor: _Actor, name: str, arguments: Sequence[Any]) -> None:
        self.actor, self.name, self.arguments = actor, name, arguments
        self.found: Any = None

    def answer(self) -> Any:
        if self.found is not None:
            return self.found
        ray, seat = self.actor.ray, self.actor.seat
        if self.name == "do":
            ray.done[seat] += 1
        if ray.dies(seat, ray.done[seat]):
            raise ray.loss
        if any(isinstance(one, _Call) and ray.forgets(one) for one in self.arguments):
            raise RayTaskError("do", "lost", ObjectLostError("00" * 28, None, ""))
        given = [one.found if isinstance(one, _Call) else one for one in self.arguments]
        self.found = getattr(self.actor.inside, self.name)(*given)
        return self.found
