"""Runs of a suite for the tests of this room, and a Ray that needs no processes."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import evaluators
import methods
from bench.cluster.agenda import pieces
from bench.cluster.crew import Crew, Share
from bench.cluster.nodes import Places
from bench.engines.transformers import TransformersEngine
from bench.progress import Task, silently
from bench.run.prepare import Work, prepare
from bench.run.stages import Run
from bench.run.units import Serve
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
    watch: Callable[[Crew], None] = lambda crew: None,
) -> tuple[Run, list[Share]]:  # fmt: skip
    """A run on so many workers, every point cut in `n_pieces`; `watch` is shown the crew before it starts."""

    def cut(_: Work, units: Sequence[Serve], __: int) -> list[Serve]:
        return [piece for unit in units for piece in pieces(unit, n_pieces)]

    store = Store.open(path)
    run = Run(work, store, store.environment({}, "d"), task)
    crew = Crew(ray, run, Places(workers, cpus=1, gpus=0, threads=1), cut)
    watch(crew)
    try:
        return run, crew.execute()
    finally:
        store.close()


class RayHere:
    """What a crew asks of Ray, in this process: a call is made when its answer is asked for.

    `dies(worker, call)` says whether a worker, counted from 0, is lost in its n-th call.
    """

    def __init__(self, dies: Callable[[int, int], bool] = lambda worker, call: False) -> None:
        self.dies = dies
        self.hired = 0

    def put(self, value: Any) -> Any:
        return value

    def remote(self, cls: type) -> "RayHere":
        self.cls = cls
        return self

    def options(self, **_: Any) -> "_Actors":
        return _Actors(self)

    def wait(self, refs: list["_Call"]) -> tuple[list["_Call"], list["_Call"]]:
        return refs[:1], refs[1:]

    def get(self, ref: "_Call") -> Any:
        return ref.answer()

    def kill(self, handle: "_Actor") -> None: ...


class _Actors:
    def __init__(self, ray: RayHere) -> None:
        self.ray = ray

    def remote(self, *arguments: Any) -> "_Actor":
        self.ray.hired += 1
        return _Actor(self.ray, self.ray.hired - 1, self.ray.cls(*arguments))


class _Actor:
    def __init__(self, ray: RayHere, number: int, inside: Any) -> None:
        self.ray, self.number, self.inside = ray, number, inside
        self.calls = 0

    def __getattr__(self, method: str) -> "_Method":
        return _Method(self, method)


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *arguments: Any) -> "_Call":
        return _Call(self.actor, partial(getattr(self.actor.inside, self.name), *arguments))


class _Call:
    def __init__(self, actor: _Actor, made: Callable[[], Any]) -> None:
        self.actor, self.made = actor, made

    def answer(self) -> Any:
        from ray.exceptions import RayActorError

        self.actor.calls += 1
        if self.actor.ray.dies(self.actor.number, self.actor.calls - 1):
            raise RayActorError(error_msg="The actor is dead because it was told so.")
        return self.made()
