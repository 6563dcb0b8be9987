"""The stages of a run: generate, probe, evaluate.  Each point's work is stored as it is finished, so a run resumes.

What is stored already is found by its content key and never made again, whichever suite asked for it.  `Run` knows
what is to do and keeps what comes of it; a `Worker` does it, here in this process, in `bench.cluster` in many.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pickle import PicklingError
from typing import Literal

from bench.progress import Advance, Task, line
from bench.run.division import Division
from bench.run.judging import Colleague, helps, judged_by_either
from bench.run.pace import Pace
from bench.run.prepare import NamedEvaluator, Work
from bench.run.second import AHEAD, ENOUGH, SecondProcess
from bench.run.tracking import Told, untold
from bench.run.units import Broken, Completed, Event, Failed, Inspect, Judge, Piece, Serve, Survived, Unit, Verdict
from bench.run.worker import EngineFactory, Worker
from bench.schema import Completion, Share, UserError
from bench.store.write import Store
from bench.suite.checkpoints import digests
from evaluators.base import Samples
from evaluators.judges import Judges

Stage = Literal["generate", "probe", "evaluate"]
ALL_STAGES: tuple[Stage, ...] = ("generate", "probe", "evaluate")


@dataclass(eq=False)
class Run:
    """One run of a suite into a store: the effects.  Nothing is written before it is `recorded`."""

    work: Work
    store: Store
    environment_id: int
    task: Task
    command: str = ""
    told: Told = untold  # of each verdict that is stored
    broken: dict[str, list[str]] = field(default_factory=dict)  # a plugin's evaluator -> what broke, point by point
    failed: dict[str, str] = field(default_factory=dict)  # a point's label -> why its mixture cannot be used
    shares: Sequence[Share] = ()  # who did what, as far as it is done
    _order: list[int] | None = None
    _done: dict[Unit, float] = field(default_factory=dict)  # in this process, and the seconds that each took
    _pieces: dict[str, dict[int, Completed]] = field(default_factory=dict)  # of generations that are not whole yet

    def execute(
        self,
        engine_factory: EngineFactory,
        judges: Judges,
        stages: Collection[Stage] = ALL_STAGES,
        first_results: Callable[[], None] | None = None,
        second: SecondProcess | None = None,
    ) -> None:
        """Do what the stages ask for and the store lacks, on this machine.

        With `first_results`, some mixtures of the whole range are served and judged before the others, and it is called
        when that is stored; not where there are too few for that to come much before the end.  Where there is enough to
        pay for its start, and a second process helps, that one judges while this one serves; in the `second`, if it is
        there.
        """
        with self.recorded(), closing(Worker(self.work, engine_factory, judges)) as worker, self._alone(judges.device):
            serving, judged = self.serving(stages), frozenset[Judge]()
            if len(serving) >= ENOUGH:
                in_order = sorted(serving, key=lambda unit: unit.position)
                ahead = spread(in_order, AHEAD) if first_results is not None else []
                serving = [*ahead, *(unit for unit in serving if unit not in ahead)]
                colleague = self._colleague(stages, judges.device, second)
                if colleague is not None:
                    judged = self._side_by_side(serving, worker, colleague, stages, first_results)
                    serving = []
                elif first_results is not None:
                    self._do(f"First points with {self.work.engine}", ahead, worker)
                    first = {unit.position for unit in ahead}
                    judging = [unit for unit in self.judging(stages) if unit.position in first]
                    self._do("Judging the first points", judging, worker)
                    first_results()
                    serving = serving[AHEAD:]
            self._do(f"Generating with {self.work.engine}", serving, worker)
            for place, item in enumerate(self.work.evaluators):
                left = [unit for unit in self.judging(stages) if unit.evaluator == place and unit not in judged]
                self._do(f"Judging {item.name}", left, worker)
            for inspection in self.inspecting(stages):
                name = self.work.evaluators[inspection.evaluator].name
                self._do(f"Comparing checkpoints: {name}", [inspection], worker)

    def _do(self, title: str, units: Sequence[Unit], worker: Worker) -> None:
        if not units:
            return
        worker.expect(units)
        with self.task(title, sum(map(self.size, units))) as advance:
            for unit in units:
                self._do_one(unit, worker, advance)

    def _do_one(self, unit: Unit, worker: Worker, advance: Advance) -> None:
        started = time.perf_counter()
        samples = self.samples_of(unit) if isinstance(unit, Judge) else None
        for event in worker.do(unit, samples, advance):
            self.keep(unit, event)
        self._done[unit] = time.perf_counter() - started

    # ------------------------------------------------------------------------------------------ a second process

    def _colleague(self, stages: Collection[Stage], device: str, second: SecondProcess | None) -> Colleague | None:
        """Where there will be something to judge, and a process starts that can be sent the evaluators."""
        to_judge = {"generate", "evaluate"} <= set(stages) and self.work.looking_at("completions")
        if not to_judge or not helps(self.work, device):
            return None
        with suppress(AttributeError, TypeError, PicklingError, OSError):
            return Colleague(self.work, second)
        return None

    def _side_by_side(
        self,
        serving: Sequence[Serve],
        worker: Worker,
        colleague: Colleague,
        stages: Collection[Stage],
        first_results: Callable[[], None] | None,
    ) -> frozenset[Judge]:
        """Serve here and have each point judged there as soon as it is stored; where one would wait, it takes of what
        is the other's, so that both end together (`Division`).  Returns what was judged.
        """
        worker.expect(serving)
        ahead = serving[:AHEAD]
        pace = Pace(self.work, self._done, colleague.done)
        division = Division(serving, self.judging(stages), pace, judged_by_either(self.work))
        n_to_come = len(self.work.looking_at("completions")) * sum(unit.piece is not None for unit in serving)
        n_judging = (len(division.to_judge) + n_to_come) * self.work.completions_per_point
        title = f"Generating with {self.work.engine}, judging beside"
        with self._present(colleague), self.task(title, sum(map(self.size, serving)) + n_judging) as advance:
            lent: list[Serve] = []
            while True:
                lent += self._give(division, worker, colleague)
                unit = division.next_here()
                if unit is not None:
                    with colleague.room():
                        self._do_one(unit, worker, advance)
                    division.to_judge += self._completed_by(unit, stages)
                elif colleague.todo:
                    worker.close()
                    colleague.take_over()
                else:
                    break
                for done in self._take(colleague, advance, wait=unit is None):
                    division.to_judge += self._completed_by(done, stages)
                if first_results is not None and self._are_judged(ahead, division, colleague):
                    first_results()
                    first_results = None
            for unit in lent:
                if unit not in colleague.done:  # it was lost with that process
                    self._do_one(unit, worker, advance)
        return frozenset(unit for unit in (*self._done, *colleague.done) if isinstance(unit, Judge))

    def _give(self, division: Division, worker: Worker, colleague: Colleague) -> list[Serve]:
        """Keep the second process busy for as long as this one's next unit takes.  Returns what it is to serve."""
        lent: list[Serve] = []
        while not colleague.is_lost:
            todo = list(colleague.todo)
            busy_s = division.pace.left_of(todo, colleague.under_way_s) if todo else None
            units = division.next_beside(busy_s, worker.does_alone if colleague.serves else lambda _: False)
            if not units:
                break
            judging = [unit for unit in units if isinstance(unit, Judge)]
            lent += [unit for unit in units if isinstance(unit, Serve)]
            colleague.give(units, self.samples_of(judging[0]) if judging else None)
        return lent

    @contextmanager
    def _present(self, colleague: Colleague) -> Iterator[None]:
        """The second process is ended whatever happens, and what it did stands on record."""
        with closing(colleague):
            try:
                yield
            finally:
                self.shares = [colleague.share()]

    def _completed_by(self, unit: Unit, stages: Collection[Stage]) -> list[Judge]:
        """The verdicts that can be had since a unit is done."""
        return self.judging(stages, unit.position) if isinstance(unit, Serve) and unit.piece is not None else []

    def _take(self, colleague: Colleague, advance: Advance, wait: bool) -> list[Unit]:
        """Keep what the second process found, at least one unit's with `wait`.  Returns what it did."""
        done: list[Unit] = []
        for did in colleague.did(wait):
            for event in did.events:
                self.keep(did.unit, event)
            advance(self.size(did.unit))
            done.append(did.unit)
        line(advance, "judging", colleague.state)
        return done

    def _are_judged(self, served: Sequence[Serve], division: Division, colleague: Colleague) -> bool:
        """Whether nothing of these points is still to be done."""
        waiting = {unit.position for unit in (*division.to_serve, *division.to_judge, *colleague.todo)}
        return not waiting & {unit.position for unit in served}

    @contextmanager
    def _alone(self, device: str) -> Iterator[None]:
        """This process is the one worker."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = self._done.items()
            serving, others = ([s for u, s in took if isinstance(u, Serve) is serves] for serves in (True, False))
            share = Share(
                name="this process", node="node 1", device=device, n_generated=len(serving), n_judged=len(others),
                generating_s=sum(serving), judging_s=sum(others), present_s=time.perf_counter() - started,
            )  # fmt: skip
            self.shares = [*([share] if self._done else []), *self.shares]

    def size(self, unit: Unit) -> int:
        """What a unit advances: completions, or 1."""
        whole = isinstance(unit, Judge) or (isinstance(unit, Serve) and unit.piece is not None)
        return self.work.completions_per_point if whole else 1

    # ------------------------------------------------------------------------------------------ places

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """The run stands in `runs` with its command, and its points at their places."""
        run_id = self.store.start_run(self.suite_id, self.work.engine, self.environment_id, self.command)
        with self.store.together():
            for position in self._placed:
                self._link(position)
        try:
            yield
        except BaseException:
            with suppress(UserError):  # what stopped the run is what is told
                self.store.put_shares(run_id, self.shares)
            raise
        self.store.put_shares(run_id, self.shares)
        self.store.finish_run(run_id)

    @cached_property
    def suite_id(self) -> int:
        return self.store.suite(self.work.suite)

    @cached_property
    def _placed(self) -> dict[int, tuple[int, int]]:
        """Put every point on the views.  Position -> (point id, mixture id)."""
        placed = {}
        order = {point.key: i for i, point in enumerate(self.work.whole)}
        for position, planned in enumerate(self.work.planned):
            members = digests(self.work.checkpoints, sorted(set(planned.point.recipe.checkpoints.values())))
            mixture_id = self.store.mixture(
                planned.mixture, self.work.engine, self.work.suite.dtype, planned.point.recipe, members
            )
            point_id = self.store.place(
                self.suite_id, self.work.engine, order[planned.point.key], planned.point, mixture_id
            )
            placed[position] = point_id, mixture_id
        if self.work.complete:
            self.store.keep_points(self.suite_id, self.work.engine, [point_id for point_id, _ in placed.values()])
        return placed

    def _link(self, position: int) -> None:
        """Let a point stand for the work that is stored for it."""
        planned = self.work.planned[position]
        judging = [item for item in self.work.evaluators if planned.judged_by(item.evaluator)]
        keys = [item.key(planned.subject(item.evaluator)) for item in judging]
        found = [self.store.evaluation_id(key) for key in keys]
        generation = self.store.generation_id(planned.generation)
        self.store.link(self._placed[position][0], generation, [i for i in found if i is not None])

    def _stored(self, subject: str) -> None:
        """What is stored of a mixture or a generation stands at once at every point that shares it; a verdict on the
        checkpoints at the first."""
        for position in self._sharing(subject):
            self._link(position)

    def _sharing(self, subject: str) -> list[int]:
        return [
            position
            for position, planned in enumerate(self.work.planned)
            if subject in (planned.mixture, planned.generation, planned.checkpoints if planned.first else None)
        ]

    # ------------------------------------------------------------------------------------------ what is to do

    def serving(self, stages: Collection[Stage]) -> list[Serve]:
        """Each mixture that lacks completions or probes, once; mixtures of weights last.

        An engine then builds what a space needs once, and the short units come where two processes are to end together.
        """
        asking = [place for place, item in enumerate(self.work.evaluators) if item.evaluator.looks_at == "mixture"]
        todo: dict[str, Serve] = {}
        for position, planned in enumerate(self.work.planned):
            generate = "generate" in stages and self.store.generation_id(planned.generation) is None
            probes = [place for place in asking if "probe" in stages and self._lacks(place, planned.mixture)]
            if generate or probes:
                todo.setdefault(planned.mixture, Serve(position, Piece() if generate else None, tuple(probes)))
        return sorted(todo.values(), key=lambda unit: self.work.planned[unit.position].point.recipe.space == "weights")

    def judging(self, stages: Collection[Stage], position: int | None = None) -> list[Judge]:
        """The verdicts that stored completions lack, each once: of one point, or of all."""
        positions = range(len(self.work.planned)) if position is None else [position]
        first: dict[str, int] = {}
        for i in positions:
            first.setdefault(self.work.planned[i].generation, i)
        return [
            unit
            for generation, i in first.items()
            if "evaluate" in stages and self.store.generation_id(generation) is not None
            for unit in self._verdicts_on(i)
            if self._lacks(unit.evaluator, generation)
        ]

    def _verdicts_on(self, position: int) -> list[Judge]:
        """All that judges a point's completions."""
        evaluators = enumerate(self.work.evaluators)
        return [Judge(position, place) for place, item in evaluators if item.evaluator.looks_at == "completions"]

    def inspecting(self, stages: Collection[Stage]) -> list[Inspect]:
        """The verdicts on the checkpoints, in a run that has the suite's first point: they stand there."""
        planned = self.work.planned[0]
        return [
            Inspect(place)
            for place, item in enumerate(self.work.evaluators)
            if "evaluate" in stages and planned.first and item.evaluator.looks_at == "checkpoints"
            if self._lacks(place, planned.checkpoints)
        ]

    def samples_of(self, unit: Judge) -> Samples:
        """The stored completions that a unit judges."""
        return Samples(*self.store.generated(self._generation_id(unit.position)))

    def order_of(self, unit: Judge) -> list[int]:
        """The places of the work's prompts in the order in which the store has those of a generation."""
        if self._order is None:
            places = {(p.set, p.row, p.text): i for i, p in enumerate(self.work.prompts)}
            stored = self.store.prompts_of(self._generation_id(unit.position))
            self._order = [places[p.set, p.row, p.text] for _, p, _ in stored]
        return self._order

    def _lacks(self, place: int, subject: str) -> bool:
        return self.store.evaluation_id(self.work.evaluators[place].key(subject)) is None

    def _generation_id(self, position: int) -> int:
        found = self.store.generation_id(self.work.planned[position].generation)
        if found is None:
            raise LookupError(f"no completions are stored for {self.work.planned[position].point.label}")
        return found

    # ------------------------------------------------------------------------------------------ what comes of it

    def keep(self, unit: Unit, event: Event, environment_id: int | None = None) -> None:
        """Store what a worker found, where it stands at once at every point that shares it.

        `environment_id`: what the worker runs with, where that is not this process.
        """
        made_with = self.environment_id if environment_id is None else environment_id
        planned = self.work.planned[unit.position]
        with self.store.together():
            match event:
                case Survived():
                    self.store.set_survived_update(self._placed[unit.position][1], event.share)
                case Completed() if isinstance(unit, Serve) and unit.piece is not None:
                    self._keep_piece(unit.position, unit.piece, event, made_with)
                case Verdict():
                    self._keep_verdict(unit, event, made_with)
                case Broken():
                    told = self.broken.setdefault(self.work.evaluators[event.evaluator].name, [])
                    told.append(f"{planned.point.label}: {event.what}")
                case Failed():
                    for position, other in enumerate(self.work.planned):
                        if other.mixture == planned.mixture:
                            self.failed[other.point.label] = event.why
                            self.store.fail(self._placed[position][0], event.why)
                case _:
                    raise ValueError(f"{event} of {unit}")
        if isinstance(event, Verdict):
            for position in self._sharing(planned.subject(self.work.evaluators[event.evaluator].evaluator)):
                self.told(self.work.planned[position].point, event.estimates)

    def _keep_piece(self, position: int, piece: Piece, found: Completed, environment_id: int) -> None:
        """Completions are stored when all pieces of their point are here."""
        key = self.work.planned[position].generation
        pieces = self._pieces.setdefault(key, {})
        pieces[piece.index] = found
        if len(pieces) < piece.of:
            return
        del self._pieces[key]
        completions: list[Completion] = [c for one in pieces.values() for c in one.completions]
        completions.sort(key=lambda c: (c.prompt, c.sample))
        self.store.add_generation(
            key, self._placed[position][1], self.work.suite.sampling.model_dump(mode="json"), self.work.prompts,
            completions, sum(one.duration_s for one in pieces.values()), environment_id,
        )  # fmt: skip
        self._stored(key)

    def _keep_verdict(self, unit: Unit, found: Verdict, environment_id: int) -> None:
        item: NamedEvaluator = self.work.evaluators[found.evaluator]
        subject = self.work.planned[unit.position].subject(item.evaluator)
        generation_id = self._generation_id(unit.position) if isinstance(unit, Judge) else None
        self.store.add_evaluation(
            item.key(subject), item.name, item.evaluator.version, item.options, self._placed[unit.position][1],
            generation_id, found.duration_s, environment_id,
            metrics=found.metrics,
            scores=found.scores,
            statistics=found.statistics,
            items=found.items,
            estimates=found.estimates,
            distances=found.distances,
            data=item.data,
        )  # fmt: skip
        self._stored(subject)


def spread(units: Sequence[Serve], n: int) -> list[Serve]:
    """n >= 2 units from the first to the last at equal steps, so of every kind of mixture; at least n are given."""
    return [units[i * (len(units) - 1) // (n - 1)] for i in range(n)]
