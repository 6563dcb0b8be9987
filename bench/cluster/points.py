"""A run on many workers: they serve and judge, and this process alone holds the database.

Completions stay in the object store until their verdicts are there: this process keeps them in the database, and their
judges get them from where they were made.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

from bench.cluster.agenda import Agenda, Role, cost, cut, kind_of
from bench.cluster.crew import Crew, Finished
from bench.cluster.hand import Hand, Hello
from bench.cluster.nodes import Places, Workers, connected, most_threads, nodes, places
from bench.cluster.packing import PackedSamples
from bench.cluster.seats import settings
from bench.cluster.weights import sent
from bench.engines.vllm_support import VllmSettings
from bench.environment import digest
from bench.experts.plan import cache_folder
from bench.run.prepare import Work
from bench.run.stages import ALL_STAGES, Run, Stage
from bench.run.units import Broken, Failed, Judge, Serve, Unit
from bench.schema import Share

Cut = Callable[[Work, list[Serve], int], list[Serve]]


def execute(
    run: Run, workers: Workers, address: str | None = None, stages: Collection[Stage] = ALL_STAGES
) -> Sequence[Share]:
    """A run on this machine's cores or GPUs, or on those of a Ray cluster.  Returns who did what."""
    with connected(address) as ray:
        several = VllmSettings.from_environment("cuda", os.environ).tensor_parallel if run.work.engine == "vllm" else 1
        return Sweep(ray, run, places(nodes(ray), workers, most_threads(), several)).execute(stages)


class Sweep:
    """The points of a run on a crew."""

    def __init__(self, ray: Any, run: Run, places: Places, cut: Cut = cut) -> None:
        self.ray = ray
        self.run = run
        self.cut = cut
        told = {name: sent(one, cache_folder()) for name, one in run.work.checkpoints.items()}
        self.crew = Crew(ray, places, self, Hand, [ray.put(run.work)], told, settings(os.environ))
        self._drawn: dict[int, dict[int, Any]] = defaultdict(dict)  # position -> its pieces, in the object store
        self._stored: dict[int, Any] = {}  # position -> what the database has, in the object store
        self._verdicts: dict[int, int] = {}  # position -> how many are to come
        self._environments: dict[str, int] = {}  # digest -> id

    def execute(self, stages: Collection[Stage] = ALL_STAGES) -> Sequence[Share]:
        """Do what the stages ask for and the store lacks.  Returns who did what.

        Raises what a worker raises.  Interrupted at any moment, what was stored stays, and a next run goes on from it.
        """
        with self.run.recorded():
            workers = self.crew.places.workers
            serving = self.cut(self.run.work, self.run.serving(stages), workers)
            judging = self.run.judging(stages)
            units: list[Unit] = [*serving, *judging, *self.run.inspecting(stages)]
            if not units:
                return []
            for unit in judging:
                self._verdicts[unit.position] = self._verdicts.get(unit.position, 0) + 1
            agenda = Agenda(((unit, cost(self.run.work, unit)) for unit in units), workers)
            judges = len(self.run.work.looking_at("completions")) if "evaluate" in stages else 0
            generations = sum(unit.piece is not None and unit.piece.index == 0 for unit in serving)
            kinds: dict[Role, None] = dict.fromkeys(map(kind_of, units))
            if judges and generations:
                kinds["judge"] = None
            try:
                with self.run.task(f"{workers} workers with {self.run.work.engine}",
                                   len(agenda) + generations * judges) as advance:  # fmt: skip
                    for finished in self.crew.work(agenda, list(kinds), advance):
                        self._keep(finished)
                        advance(1)
                        for judge in self._to_judge(finished.unit, stages):
                            agenda.add(judge)
            finally:
                self.run.shares = self.crew.shares
            return self.crew.shares

    def _keep(self, finished: Finished) -> None:
        unit = finished.unit
        if finished.done is None:
            failed = Failed(finished.why) if isinstance(unit, Serve) else Broken(unit.evaluator, finished.why)
            self.run.keep(unit, failed)
        else:
            assert finished.hello is not None
            made_with = self._environment(finished.hello)
            for event in finished.done.events():
                self.run.keep(unit, event, made_with)
            if isinstance(unit, Serve) and unit.piece is not None:
                self._drawn[unit.position][unit.piece.index] = finished.ref
        if isinstance(unit, Judge):
            self._judged(unit.position)

    def _environment(self, hello: Hello) -> int:
        """The id of what an actor runs with, stored when it is first met."""
        known = digest(hello.machine)
        if known not in self._environments:
            self._environments[known] = self.run.store.environment(hello.machine, known)
        return self._environments[known]

    def _to_judge(self, unit: Unit, stages: Collection[Stage]) -> list[Judge]:
        """The verdicts that can be had now that this unit is kept."""
        if not isinstance(unit, Serve) or unit.piece is None:
            return []
        found = self.run.judging(stages, unit.position)
        if found:
            self._verdicts[unit.position] = len(found)
        elif len(self._drawn[unit.position]) == unit.piece.of:
            del self._drawn[unit.position]
        return found

    def _judged(self, position: int) -> None:
        """One verdict less is to come; after the last, nobody needs the completions."""
        self._verdicts[position] -= 1
        if not self._verdicts[position]:
            self._drawn.pop(position, None)
            self._stored.pop(position, None)

    # ------------------------------------------------------------------------------------------ what judges are given

    def given(self, unit: Unit) -> Sequence[Any]:
        """Of a verdict, the completions: as they were drawn, else from the database."""
        if not isinstance(unit, Judge):
            return []
        drawn = self._drawn.get(unit.position)
        if drawn:
            return [self.run.order_of(unit), *drawn.values()]
        if unit.position not in self._stored:
            self._stored[unit.position] = self.ray.put(PackedSamples.of(self.run.samples_of(unit)))
        return [(), self._stored[unit.position]]

    def lost(self, unit: Unit) -> None:
        self._drawn.pop(unit.position, None)
        self._stored.pop(unit.position, None)

    def label(self, unit: Unit) -> str:
        work = self.run.work
        if isinstance(unit, Serve):
            part = f", part {unit.piece.index + 1} of {unit.piece.of}" if unit.piece and unit.piece.of > 1 else ""
            return f"generates {work.points[unit.position].label}{part}"
        name = work.evaluators[unit.evaluator].name
        return f"{name} of {work.points[unit.position].label}" if isinstance(unit, Judge) else f"{name} of checkpoints"
