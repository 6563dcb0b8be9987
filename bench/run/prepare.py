"""A suite -> its work: everything that a run depends on found and checked, before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.engines import require_servable, require_supported, shard_prompts
from bench.experts.leaks import require_no_leak
from bench.experts.plan import PlannedExpert, given_checkpoints, learned, plan_experts
from bench.registry import Registry
from bench.schema import Point, Prompt, Recipe, Suite, UserError
from bench.suite import keys
from bench.suite.architecture import architecture
from bench.suite.chat import rendered
from bench.suite.checkpoints import Checkpoint, digests, require_mixable
from bench.suite.loading import load_tokenizer
from bench.suite.points import canonical, plan_points
from bench.suite.prompts import load_prompts
from evaluators.base import Evaluator, Subject

if TYPE_CHECKING:
    from bench.store.read import Reader


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
        return keys.evaluation_key(subject, self.name, self.evaluator.version, self.options, self.data)


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
        keys = {"completions": self.generation, "mixture": self.mixture, "checkpoints": self.checkpoints}
        return keys[evaluator.looks_at]

    def judged_by(self, evaluator: Evaluator) -> bool:
        return self.first or evaluator.looks_at != "checkpoints"


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
    experts: Sequence[PlannedExpert] = ()  # that the suite asks for

    @cached_property
    def planned(self) -> list[PlannedPoint]:
        return [self._planned(point, first=point == self.whole[0]) for point in self.points]

    def _planned(self, point: Point, first: bool) -> PlannedPoint:
        mixture = self.mixture_key(point.recipe)
        generation = keys.generation_key(mixture, self.prompts, self.suite.sampling, shard_prompts(self.engine))
        return PlannedPoint(point, mixture, generation, keys.key_of("checkpoints", digests(self.checkpoints)), first)

    def mixture_key(self, recipe: Recipe) -> str:
        found = digests(self.checkpoints)
        return keys.mixture_key(self.engine, self.engine_version, self.suite.dtype, recipe, found)

    @property
    def unmade(self) -> list[PlannedExpert]:
        """The experts that are to be made before anything is served; until then the base stands in their place."""
        return [expert for expert in self.experts if not expert.is_made]

    def looking_at(self, subject: Subject) -> list[NamedEvaluator]:
        return [item for item in self.evaluators if item.evaluator.looks_at == subject]

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
    suite = canonical(suite, methods)
    points = plan_points(suite, methods, only)
    whole = plan_points(suite, methods) if only else points
    prompts = load_prompts(suite.prompts, limit_prompts)
    checkpoints = given_checkpoints(suite)
    experts = plan_experts(suite, checkpoints)
    checkpoints |= {expert.name: expert.checkpoint for expert in experts}
    if suite.chat:
        prompts = rendered(prompts, next(iter(checkpoints.values())), suite.system)
    require_mixable(checkpoints, points)
    require_supported(engine, checkpoints)
    recipes = [point.recipe for point in whole]
    require_servable(engine, recipes, checkpoints)
    require_room(prompts, checkpoints, suite, recipes)
    named = [_named(spec.name, evaluators.create(spec.name, spec.options), suite) for spec in suite.evaluators]
    require_distinct_metrics(named)
    for item in named:
        item.evaluator.require(list(checkpoints))
    require_no_leak(learned(experts), {item.name: item.evaluator.held_out() for item in named})
    if limit_prompts is not None:  # another set of prompts is another experiment: keep its results apart
        suite = suite.model_copy(update={"name": f"{suite.name}-{limit_prompts}prompts"})
    return Work(suite, engine, engine_version, checkpoints, prompts, named, points, whole, not only, experts)


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


def require_room(
    prompts: Sequence[Prompt], checkpoints: Mapping[str, Checkpoint], suite: Suite, recipes: Sequence[Recipe]
) -> None:
    """Raise UserError for a prompt that, with a member's prefix and the completion, exceeds the model's context."""
    first = next(iter(checkpoints.values()))
    known = [found for c in checkpoints.values() if (found := architecture(c).context) is not None]
    if not known:
        return
    context = min(known)
    tokenizer = load_tokenizer(first)
    encoded = tokenizer([p.text for p in prompts], verbose=False)["input_ids"]
    prefixes = {prefixed.text for recipe in recipes for prefixed in recipe.prefixes.values()}
    longest = max((len(tokenizer(text, verbose=False)["input_ids"]) for text in prefixes), default=0)
    room = context - suite.sampling.max_new_tokens - longest
    behind = f" and a method's prefix of {longest}" if longest else ""
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) > room:
            raise UserError(
                f"prompts {prompt.set}: row {prompt.row} has {len(ids)} tokens; with "
                f"{suite.sampling.max_new_tokens} new ones{behind} it exceeds the model's context of {context}; "
                "shorten it or lower sampling.max_new_tokens"
            )
        if not ids:
            raise UserError(f"prompts {prompt.set}: row {prompt.row} has no tokens; a prompt needs at least one")


@dataclass(frozen=True)
class Status:
    """What is stored of a suite's work, counted by distinct work rather than by point."""

    generations: int
    generations_stored: int
    evaluations: int
    evaluations_stored: int


def status(work: Work, store: "Reader | None") -> Status:
    generations = {planned.generation for planned in work.planned}
    evaluations = {
        item.key(p.subject(item.evaluator))
        for p in work.planned
        for item in work.evaluators
        if p.judged_by(item.evaluator)
    }
    return Status(
        generations=len(generations),
        generations_stored=sum(store is not None and store.generation_id(key) is not None for key in generations),
        evaluations=len(evaluations),
        evaluations_stored=sum(store is not None and store.evaluation_id(key) is not None for key in evaluations),
    )
