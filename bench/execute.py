"""The stages of a run: generate, probe, evaluate.  Each point's work is stored as it is finished, so a run resumes.

What is stored already is found by its content key and never made again, whichever suite asked for it.
"""

import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench import plan
from bench.checkpoints import Checkpoint, digests, require_mixable
from bench.engines import require_supported
from bench.experts import given_checkpoints, plan_experts, require_no_leak, trained
from bench.prompts import load_prompts
from bench.registry import Registry
from bench.schema import Estimate, Point, Prompt, Recipe, Suite, UserError
from bench.serving import Advance, Engine, ServedModel, silent
from bench.stats import RatioStatistic, Summary
from bench.store import Store
from evaluators.base import (
    CheckpointEvaluator,
    ContrastEvaluator,
    Evaluator,
    Judgement,
    ProbeEvaluator,
    Samples,
    TextEvaluator,
)
from evaluators.judges import Judges

Stage = Literal["generate", "probe", "evaluate"]
ALL_STAGES: tuple[Stage, ...] = ("generate", "probe", "evaluate")
EngineFactory = Callable[[], Engine]


class Reporter(Protocol):
    """Shows progress; `task` yields the function that is told how much was done."""

    def task(self, title: str, total: int) -> AbstractContextManager[Advance]: ...


class SilentReporter:
    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        yield silent


@dataclass(frozen=True)
class NamedEvaluator:
    """An evaluator as the suite names it, with the digests of what its verdict depends on."""

    name: str
    evaluator: Evaluator
    data: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        return self.evaluator.model_dump(mode="json")

    @property
    def foreign(self) -> bool:
        """Whether it comes with a plugin."""
        return type(self.evaluator).__module__.partition(".")[0] != "evaluators"

    def key(self, subject: str) -> str:
        return plan.evaluation_key(subject, self.name, self.evaluator.version, self.options, self.data)


@dataclass(frozen=True)
class PlannedPoint:
    """A point with the content keys of its work."""

    point: Point
    mixture: str
    generation: str
    checkpoints: str
    first: bool  # of its suite: a verdict on the checkpoints stands there, and at no other point

    def subject(self, evaluator: Evaluator) -> str:
        """The key of what an evaluator looks at: the completions, the mixture, or all checkpoints."""
        if isinstance(evaluator, TextEvaluator):
            return self.generation
        return self.checkpoints if isinstance(evaluator, CheckpointEvaluator) else self.mixture

    def judged_by(self, evaluator: Evaluator) -> bool:
        return self.first or not isinstance(evaluator, CheckpointEvaluator)


@dataclass(frozen=True)
class Work:
    """A suite with everything that its work depends on found and checked: no surprise is left for the run."""

    suite: Suite
    engine: str
    engine_version: int
    checkpoints: Mapping[str, Checkpoint]
    prompts: Sequence[Prompt]
    evaluators: Sequence[NamedEvaluator]
    points: Sequence[Point]
    whole: Sequence[Point]  # of the suite, chosen or not
    complete: bool  # whether these are all points of the suite

    @cached_property
    def planned(self) -> list[PlannedPoint]:
        return [self._planned(point, first=point == self.whole[0]) for point in self.points]

    def _planned(self, point: Point, first: bool) -> PlannedPoint:
        mixture = self.mixture_key(point.recipe)
        generation = plan.generation_key(mixture, self.prompts, self.suite.sampling)
        return PlannedPoint(point, mixture, generation, plan.key_of("checkpoints", digests(self.checkpoints)), first)

    def mixture_key(self, recipe: Recipe) -> str:
        found = digests(self.checkpoints)
        return plan.mixture_key(self.engine, self.engine_version, self.suite.dtype, recipe, found)

    @property
    def completions_per_point(self) -> int:
        return len(self.prompts) * self.suite.sampling.samples


def prepare(
    suite: Suite,
    methods: Registry[Any],
    evaluators: Registry[Evaluator],
    engine: str,
    engine_version: int,
    only: Sequence[str] = (),
    limit_prompts: int | None = None,
) -> Work:
    """Plan, find and check.  Raises UserError for anything that would fail later."""
    points = plan.plan_points(suite, methods, only)
    whole = plan.plan_points(suite, methods) if only else points
    prompts = load_prompts(suite.prompts, limit_prompts)
    checkpoints = given_checkpoints(suite)
    experts = plan_experts(suite, checkpoints)
    checkpoints |= trained(suite, experts)
    require_mixable(checkpoints)
    require_supported(engine, checkpoints)
    require_room(prompts, checkpoints, suite)
    named = [_named(spec.name, evaluators.create(spec.name, spec.options), suite) for spec in suite.evaluators]
    require_distinct_metrics(named)
    for item in named:
        if isinstance(item.evaluator, CheckpointEvaluator):
            item.evaluator.require(list(checkpoints))
    require_no_leak(experts, {item.name: item.evaluator.held_out() for item in named})
    if limit_prompts is not None:  # another set of prompts is another experiment: keep its results apart
        suite = suite.model_copy(update={"name": f"{suite.name}-{limit_prompts}prompts"})
    return Work(suite, engine, engine_version, checkpoints, prompts, named, points, whole, complete=not only)


def _named(name: str, evaluator: Evaluator, suite: Suite) -> NamedEvaluator:
    try:
        return NamedEvaluator(name, evaluator, tuple(evaluator.data_digests()))
    except UserError as error:
        raise UserError(f"evaluators.{name}: {error}") from error


def require_distinct_metrics(named: Sequence[NamedEvaluator]) -> None:
    seen: dict[str, str] = {}
    for item in named:
        for metric in item.evaluator.metrics():
            if metric.name in seen:
                raise UserError(
                    f"evaluators: {seen[metric.name]} and {item.name} both report {metric.name!r}; "
                    "give one of them a suffix"
                )
            seen[metric.name] = item.name


def require_room(prompts: Sequence[Prompt], checkpoints: Mapping[str, Checkpoint], suite: Suite) -> None:
    """Raise UserError for a prompt that leaves no room for its completion in the model's context."""
    from transformers import AutoTokenizer

    first = next(iter(checkpoints.values()))
    context = first.config.get("n_positions") or first.config.get("max_position_embeddings")
    if context is None:
        return
    encoded = AutoTokenizer.from_pretrained(first.path)([p.text for p in prompts], verbose=False)["input_ids"]
    room = int(context) - suite.sampling.max_new_tokens
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) > room:
            raise UserError(
                f"prompts {prompt.set}: row {prompt.row} has {len(ids)} tokens; with "
                f"{suite.sampling.max_new_tokens} new ones it exceeds the model's context of {context}; "
                "shorten it or lower sampling.max_new_tokens"
            )
        if not ids:
            raise UserError(f"prompts {prompt.set}: row {prompt.row} has no tokens; a prompt needs at least one")


@dataclass(frozen=True)
class Status:
    """What is stored of a suite's work, counted by distinct work rather than by point."""

    points: int
    generations: int
    generations_stored: int
    evaluations: int
    evaluations_stored: int
    completions_per_point: int

    @property
    def finished(self) -> bool:
        return self.generations == self.generations_stored and self.evaluations == self.evaluations_stored


def status(work: Work, store: Store | None) -> Status:
    generations = {planned.generation for planned in work.planned}
    evaluations = {
        item.key(p.subject(item.evaluator))
        for p in work.planned
        for item in work.evaluators
        if p.judged_by(item.evaluator)
    }
    stored_generations = sum(store is not None and store.generation_id(key) is not None for key in generations)
    stored_evaluations = sum(store is not None and store.evaluation_id(key) is not None for key in evaluations)
    return Status(
        points=len(work.planned),
        generations=len(generations),
        generations_stored=stored_generations,
        evaluations=len(evaluations),
        evaluations_stored=stored_evaluations,
        completions_per_point=work.completions_per_point,
    )


class Answers:
    """What the mixtures beside the points answered; each is served and asked once."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self.engine = engine
        self.work = work
        self._kept: dict[str, NDArray[np.float32]] = {}

    def beside(self, item: NamedEvaluator, recipe: Recipe) -> list[NDArray[np.float32]]:
        """For a contrast evaluator, the answers of `beside(recipe)`.  Serves in place: ask before serving `recipe`."""
        if not isinstance(item.evaluator, ContrastEvaluator):
            return []
        return [self._answer(item, item.evaluator, other) for other in item.evaluator.beside(recipe)]

    def _answer(self, item: NamedEvaluator, evaluator: ContrastEvaluator, recipe: Recipe) -> NDArray[np.float32]:
        key = item.key(self.work.mixture_key(recipe))
        if key not in self._kept:
            self._kept[key] = evaluator.answer(self.engine.serve(recipe))
        return self._kept[key]


class Run:
    """One run of a suite into a store: the effects."""

    def __init__(self, work: Work, store: Store, environment_id: int, reporter: Reporter) -> None:
        self.work = work
        self.store = store
        self.environment_id = environment_id
        self.reporter = reporter
        self.suite_id = store.suite(work.suite)
        self.broken: dict[str, list[str]] = {}  # a plugin's evaluator -> what broke, point by point
        self._placed = self._place()

    def execute(self, engine_factory: EngineFactory, judges: Judges, stages: Collection[Stage] = ALL_STAGES) -> None:
        """Do what the stages ask for and the store lacks."""
        self._serve_points(engine_factory, stages)
        if "evaluate" in stages:
            for item in self.work.evaluators:
                if isinstance(item.evaluator, TextEvaluator):
                    self._judge(item, item.evaluator, judges)
                elif isinstance(item.evaluator, CheckpointEvaluator):
                    self._compare(item, item.evaluator)
        self._link()

    # ------------------------------------------------------------------------------------------ places

    def _place(self) -> dict[int, tuple[int, int]]:
        """Put every point on the views.  Returns position -> (point id, mixture id)."""
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
        self._link(placed)
        return placed

    def _link(self, placed: Mapping[int, tuple[int, int]] | None = None) -> None:
        """Let every point stand for the work that is stored for it."""
        for position, (point_id, _) in (self._placed if placed is None else placed).items():
            planned = self.work.planned[position]
            judging = [item for item in self.work.evaluators if planned.judged_by(item.evaluator)]
            keys = [item.key(planned.subject(item.evaluator)) for item in judging]
            found = [self.store.evaluation_id(key) for key in keys]
            self.store.link(point_id, self.store.generation_id(planned.generation), [i for i in found if i is not None])

    # ------------------------------------------------------------------------------------------ served mixtures

    def _serve_points(self, engine_factory: EngineFactory, stages: Collection[Stage]) -> None:
        """Serve each mixture that lacks completions or probes, once; store point by point."""
        asking = [i for i in self.work.evaluators if isinstance(i.evaluator, ProbeEvaluator | ContrastEvaluator)]
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
            with self.reporter.task(f"Generating with {self.work.engine}", total) as advance:
                # Logit mixtures last: an engine then builds what a space needs once.
                for position, generate, probes in sorted(todo.values(), key=lambda t: self._order(t[0])):
                    self._serve(engine, answers, position, generate, probes, advance if generate else silent)
                    if not generate:
                        advance(1)
        finally:
            engine.close()

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
        share = engine.survived_update() if recipe.space == "weights" else None
        if share is not None:
            self.store.set_survived_update(mixture_id, share)
        if generate:
            self._generate(model, planned, mixture_id, advance)
        for item, beside in asking:
            with self._apart(item, planned.point):
                started = time.perf_counter()
                judgement = probed(item.evaluator, model, recipe, beside)
                self._save(item, planned.mixture, mixture_id, None, judgement, (), time.perf_counter() - started)

    def _generate(self, model: ServedModel, planned: PlannedPoint, mixture_id: int, advance: Advance) -> None:
        started = time.perf_counter()
        completions = model.generate(self.work.prompts, self.work.suite.sampling, advance)
        sampling = self.work.suite.sampling.model_dump(mode="json")
        self.store.add_generation(
            planned.generation, mixture_id, sampling, self.work.prompts, completions, time.perf_counter() - started,
            self.environment_id,
        )  # fmt: skip

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

    def _judge(self, item: NamedEvaluator, evaluator: TextEvaluator, judges: Judges) -> None:
        """Let one evaluator judge every stored generation of the suite that it has not judged."""
        todo: dict[str, tuple[int, int]] = {}
        for position, planned in enumerate(self.work.planned):
            generation_id = self.store.generation_id(planned.generation)
            if generation_id is not None and self.store.evaluation_id(item.key(planned.generation)) is None:
                todo.setdefault(planned.generation, (position, generation_id))
        if not todo:
            return
        with self.reporter.task(f"Judging {item.name}", len(todo) * self.work.completions_per_point) as advance:
            for generation, (position, generation_id) in todo.items():
                samples = Samples(*self.store.generated(generation_id))
                mixture_id = self._placed[position][1]
                with self._apart(item, self.work.planned[position].point):
                    started = time.perf_counter()
                    judgement = evaluator.judge(samples, judges, advance)
                    duration = time.perf_counter() - started
                    self._save(item, generation, mixture_id, generation_id, judgement, samples.prompts, duration)

    def _compare(self, item: NamedEvaluator, evaluator: CheckpointEvaluator) -> None:
        """Compare the checkpoints once, in a run that has the suite's first point: the verdict stands there."""
        planned = self.work.planned[0]
        if not planned.first or self.store.evaluation_id(item.key(planned.checkpoints)) is not None:
            return
        with self.reporter.task(f"Comparing checkpoints: {item.name}", 1) as advance:
            with self._apart(item, planned.point):
                started = time.perf_counter()
                judgement = evaluator.compare(self.work.checkpoints)
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


def probed(
    evaluator: Evaluator, model: ServedModel, recipe: Recipe, beside: Sequence[NDArray[np.float32]]
) -> Judgement:
    """The verdict of either kind that looks at a served mixture."""
    if isinstance(evaluator, ContrastEvaluator):
        return evaluator.compare(recipe, evaluator.answer(model), beside)
    assert isinstance(evaluator, ProbeEvaluator)
    return evaluator.probe(model)


def estimates(summaries: Sequence[Summary], items: Sequence[Prompt], sets: Sequence[str]) -> list[Estimate]:
    """Every summary over all items (prompts None) and over each named set."""
    owner = np.array([item.set for item in items])
    everywhere = np.ones(len(items), dtype=bool)
    found = [summary.estimate(everywhere, None) for summary in summaries]
    return found + [summary.estimate(owner == name, name) for name in sets for summary in summaries]
