"""The stages of a run: generate, probe, evaluate.  Each point's work is stored as it is finished, so a run resumes.

What is stored already is found by its content key and never made again, whichever suite asked for it.
"""

import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.progress import Advance, Task, silent
from bench.run.prepare import NamedEvaluator, PlannedPoint, Work
from bench.schema import Estimate, Point, Prompt, Recipe, UserError
from bench.serving import Engine, NotFiniteError, ServedModel
from bench.stats import RatioStatistic, Summary
from bench.store.write import Store
from bench.suite.checkpoints import digests
from evaluators.base import Judgement, Samples
from evaluators.judges import Judges

Stage = Literal["generate", "probe", "evaluate"]
ALL_STAGES: tuple[Stage, ...] = ("generate", "probe", "evaluate")
EngineFactory = Callable[[], Engine]


class Answers:
    """What the mixtures beside the points answered; each is served and asked once."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self.engine = engine
        self.work = work
        self._kept: dict[str, NDArray[np.float32]] = {}

    def beside(self, item: NamedEvaluator, recipe: Recipe) -> list[NDArray[np.float32]]:
        """The answers of `beside(recipe)`.  Serves in place: ask before serving `recipe`."""
        return [self._answer(item, other) for other in item.evaluator.beside(recipe)]

    def _answer(self, item: NamedEvaluator, recipe: Recipe) -> NDArray[np.float32]:
        key = item.key(self.work.mixture_key(recipe))
        if key not in self._kept:
            self._kept[key] = item.evaluator.answer(self.engine.serve(recipe))
        return self._kept[key]


class Run:
    """One run of a suite into a store: the effects.  Nothing is written before `execute`."""

    def __init__(self, work: Work, store: Store, environment_id: int, task: Task, command: str = "") -> None:
        self.work = work
        self.store = store
        self.environment_id = environment_id
        self.task = task
        self.command = command
        self.broken: dict[str, list[str]] = {}  # a plugin's evaluator -> what broke, point by point
        self.failed: dict[str, str] = {}  # a point's label -> why its mixture cannot be used

    def execute(self, engine_factory: EngineFactory, judges: Judges, stages: Collection[Stage] = ALL_STAGES) -> None:
        """Do what the stages ask for and the store lacks; the run stands in `runs` with its command."""
        run_id = self.store.start_run(self.suite_id, self.work.engine, self.environment_id, self.command)
        for position in self._placed:
            self._link(position)
        self._serve_points(engine_factory, stages)
        if "evaluate" in stages:
            for item in self.work.looking_at("completions"):
                self._judge(item, judges)
            for item in self.work.looking_at("checkpoints"):
                self._inspect(item)
        self.store.finish_run(run_id)

    # ------------------------------------------------------------------------------------------ places

    @cached_property
    def suite_id(self) -> int:
        return self.store.suite(self.work.suite)

    @cached_property
    def _placed(self) -> dict[int, tuple[int, int]]:
        """Put every point on the views.  Position -> (point id, mixture id)."""
        placed = {}
        order = {point.key: i for i, point in enumerate(self.work.whole)}
        for position, planned in enumerate(self.work.planned):
            members = digests(self.work.checkpoints, list(planned.point.recipe.coefficients))
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
        """What is stored for a mixture, generation or all checkpoints stands at once at every point that shares it."""
        for position, planned in enumerate(self.work.planned):
            if subject in (planned.mixture, planned.generation, planned.checkpoints):
                self._link(position)

    # ------------------------------------------------------------------------------------------ served mixtures

    def _serve_points(self, engine_factory: EngineFactory, stages: Collection[Stage]) -> None:
        """Serve each mixture that lacks completions or probes, once; store point by point."""
        asking = self.work.looking_at("mixture")
        todo: dict[str, tuple[int, bool, list[NamedEvaluator]]] = {}
        for position, planned in enumerate(self.work.planned):
            generate = "generate" in stages and self.store.generation_id(planned.generation) is None
            probes = [
                item
                for item in asking
                if "probe" in stages and self.store.evaluation_id(item.key(planned.mixture)) is None
            ]
            if generate or probes:
                todo.setdefault(planned.mixture, (position, generate, probes))
        if not todo:
            return
        per_point = self.work.completions_per_point
        total = sum(per_point if wanted else 1 for _, wanted, _ in todo.values())
        engine = engine_factory()
        answers = Answers(engine, self.work)
        try:
            with self.task(f"Generating with {self.work.engine}", total) as advance:
                # Logit mixtures last: an engine then builds what a space needs once.
                for position, generate, probes in sorted(todo.values(), key=lambda t: self._order(t[0])):
                    with self._failing(position):
                        self._serve(engine, answers, position, generate, probes, advance if generate else silent)
                    if not generate:
                        advance(1)
        finally:
            engine.close()

    @contextmanager
    def _failing(self, position: int) -> Iterator[None]:
        """A mixture that is no model fails its points and stops nothing else; the next run tries it again."""
        try:
            yield
        except NotFiniteError as error:
            mixture = self.work.planned[position].mixture
            for planned in self.work.planned:
                if planned.mixture == mixture:
                    self.failed[planned.point.label] = str(error)

    def _order(self, position: int) -> tuple[str, int]:
        space = self.work.planned[position].point.recipe.space
        return ("0" if space == "weights" else "1", position)

    def _serve(
        self,
        engine: Engine,
        answers: Answers,
        position: int,
        generate: bool,
        probes: Sequence[NamedEvaluator],
        advance: Advance,
    ) -> None:
        planned = self.work.planned[position]
        recipe = planned.point.recipe
        _, mixture_id = self._placed[position]
        asking: list[tuple[NamedEvaluator, list[NDArray[np.float32]]]] = []
        for item in probes:
            with self._apart(item, planned.point):
                asking.append((item, answers.beside(item, recipe)))
        model = engine.serve(recipe)
        if not np.isfinite(model.next_token_logprobs([self.work.prompts[0].text])).all():
            raise NotFiniteError("its probabilities are not finite")
        share = engine.survived_update() if recipe.space == "weights" else None
        if share is not None:
            self.store.set_survived_update(mixture_id, share)
        if generate:
            self._generate(model, planned, mixture_id, advance)
        for item, beside in asking:
            with self._apart(item, planned.point):
                started = time.perf_counter()
                judgement = item.evaluator.ask(model, recipe, beside)
                self._save(item, planned.mixture, mixture_id, None, judgement, (), time.perf_counter() - started)

    def _generate(self, model: ServedModel, planned: PlannedPoint, mixture_id: int, advance: Advance) -> None:
        started = time.perf_counter()
        completions = model.generate(self.work.prompts, self.work.suite.sampling, advance)
        sampling = self.work.suite.sampling.model_dump(mode="json")
        self.store.add_generation(
            planned.generation, mixture_id, sampling, self.work.prompts, completions, time.perf_counter() - started,
            self.environment_id,
        )  # fmt: skip
        self._stored(planned.generation)

    # ------------------------------------------------------------------------------------------ verdicts

    @contextmanager
    def _apart(self, item: NamedEvaluator, point: Point) -> Iterator[None]:
        """What breaks in a plugin's evaluator is kept for the end and stops nothing else; our own bugs stop the run."""
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError) or not item.foreign:
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            self.broken.setdefault(item.name, []).append(f"{point.label}: {what} ({place.filename}:{place.lineno})")

    def _judge(self, item: NamedEvaluator, judges: Judges) -> None:
        """Let one evaluator judge every stored generation of the suite that it has not judged."""
        todo: dict[str, tuple[int, int]] = {}
        for position, planned in enumerate(self.work.planned):
            generation_id = self.store.generation_id(planned.generation)
            if generation_id is not None and self.store.evaluation_id(item.key(planned.generation)) is None:
                todo.setdefault(planned.generation, (position, generation_id))
        if not todo:
            return
        with self.task(f"Judging {item.name}", len(todo) * self.work.completions_per_point) as advance:
            for generation, (position, generation_id) in todo.items():
                samples = Samples(*self.store.generated(generation_id))
                mixture_id = self._placed[position][1]
                with self._apart(item, self.work.planned[position].point):
                    started = time.perf_counter()
                    judgement = item.evaluator.judge(samples, judges, advance)
                    duration = time.perf_counter() - started
                    self._save(item, generation, mixture_id, generation_id, judgement, samples.prompts, duration)

    def _inspect(self, item: NamedEvaluator) -> None:
        """Compare the checkpoints once, in a run that has the suite's first point: the verdict stands there."""
        planned = self.work.planned[0]
        if not planned.first or self.store.evaluation_id(item.key(planned.checkpoints)) is not None:
            return
        with self.task(f"Comparing checkpoints: {item.name}", 1) as advance:
            with self._apart(item, planned.point):
                started = time.perf_counter()
                judgement = item.evaluator.inspect(self.work.checkpoints)
                _, mixture_id = self._placed[0]
                self._save(item, planned.checkpoints, mixture_id, None, judgement, (), time.perf_counter() - started)
            advance(1)

    def _save(
        self,
        item: NamedEvaluator,
        subject: str,
        mixture_id: int,
        generation_id: int | None,
        judgement: Judgement,
        prompts: Sequence[Prompt],
        duration_s: float,
    ) -> None:
        items = prompts if judgement.items is None else judgement.items
        sets = list(dict.fromkeys(prompt.set for prompt in items)) if judgement.items is None else []
        self.store.add_evaluation(
            item.key(subject), item.name, item.evaluator.version, item.options, mixture_id, generation_id, duration_s,
            self.environment_id,
            metrics=[*item.evaluator.metrics(), *judgement.metrics],
            scores=judgement.scores,
            statistics=[s for s in judgement.summaries if isinstance(s, RatioStatistic)],
            items=items,
            estimates=[*judgement.estimates, *estimates(judgement.summaries, items, sets)],
            data=item.data,
        )  # fmt: skip
        self._stored(subject)


def estimates(summaries: Sequence[Summary], items: Sequence[Prompt], sets: Sequence[str]) -> list[Estimate]:
    """Every summary over all items (prompts None) and over each named set."""
    owner = np.array([item.set for item in items])
    everywhere = np.ones(len(items), dtype=bool)
    found = [summary.estimate(everywhere, None) for summary in summaries]
    return found + [summary.estimate(owner == name, name) for name in sets for summary in summaries]
