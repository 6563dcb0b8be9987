"""How much a suite asks for: points, completions, room and time, and what of it is stored; nothing is written."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import methods
from bench import engines
from bench.cluster.simulate import seconds_on
from bench.engines.vllm import free_and_total_bytes
from bench.experts.plan import PlannedExpert, training_s
from bench.run import forecast, judging, second
from bench.run.memory import Memory, needed, trained_bytes
from bench.run.prepare import Status, Work, status
from bench.schema import Point, Suite, UserError, canonical_json
from bench.store.read import Reader
from bench.suite.points import plan_points


@dataclass(frozen=True)
class Extent:
    """What a run would do.  Where models or prompts are not here, `missing` says so, and the rest is what is known."""

    suite: str
    points: Sequence[Point]
    mixtures: int
    samples: int
    prompts: int | None  # at most so many where something is missing; None where that is unknown
    to_do: int | None  # completions
    room_bytes: float | None  # that they take at most, with three scores each
    free_bytes: int  # where the database is
    stored: Status | None = None
    seconds: float | None = None  # at the rates of this suite's runs in the database; None: there are none
    workers: int = 1  # that share the time
    model_tokens_per_s: float | None = None
    missing: UserError | None = None
    memory: Memory | None = None  # that the models take; None where some are not here
    device_bytes: int = 0  # of memory that the device has
    unmade: Sequence[PlannedExpert] = ()  # experts that the run makes first
    training_s: float | None = None  # that this takes at the pace of their finished trials; None: there are none
    training_bytes: int = 0  # of memory, activations apart

    @property
    def completions_per_mixture(self) -> int | None:
        return None if self.prompts is None else self.prompts * self.samples


def measured(
    suite: Suite,
    db: Path,
    prepare: Callable[[Suite], Work],
    only: Sequence[str],
    limit: int | None,
    workers: int = 1,
) -> Extent:
    """The extent of a suite, also where its models or prompts are not here."""
    points = plan_points(suite, methods.registry(), only)
    folder = db.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{db}: the folder {folder} does not exist")
    free = shutil.disk_usage(folder).free
    try:
        work = prepare(suite)
    except UserError as error:
        return _declared(suite, points, limit, free, error)
    with closing(Reader.open(db)) if db.exists() else nullcontext() as store:
        return _prepared(work, suite.name, store, free, workers)


def _declared(suite: Suite, points: Sequence[Point], limit: int | None, free: int, missing: UserError) -> Extent:
    """By what the suite says itself."""
    mixtures = len({canonical_json(point.recipe.model_dump(mode="json")) for point in points})
    prompts = forecast.declared_prompts(list(suite.prompts.values()), limit)
    to_do = None if prompts is None else prompts * suite.sampling.samples * mixtures
    room = None if to_do is None else forecast.bytes_to_do(to_do, suite.sampling)
    return Extent(suite.name, points, mixtures, suite.sampling.samples, prompts, to_do, room, free, missing=missing)


def _prepared(work: Work, name: str, store: Reader | None, free: int, workers: int) -> Extent:
    found = status(work, store)
    places = {planned.generation: i for i, planned in enumerate(work.planned)}
    left = [i for key, i in places.items() if store is None or store.generation_id(key) is None]
    to_do = len(left) * work.completions_per_point
    asked = [
        (item.name, canonical_json(item.options)) for item in work.evaluators
        if item.evaluator.looks_at != "checkpoints"
    ]  # fmt: skip
    rates = None if store is None else forecast.measured_rates(store, name, work.engine, asked)
    return Extent(
        suite=work.suite.name,
        points=work.points,
        mixtures=len(places),
        samples=work.suite.sampling.samples,
        prompts=len(work.prompts),
        to_do=to_do,
        room_bytes=forecast.bytes_to_do(to_do, work.suite.sampling),
        free_bytes=free,
        stored=found,
        seconds=None if rates is None else _seconds(workers, work, left, rates),
        workers=workers,
        model_tokens_per_s=None if rates is None else rates.model_tokens_per_s,
        memory=needed(work, engines.device()),
        device_bytes=free_and_total_bytes(engines.device())[1],
        unmade=work.unmade,
        training_s=training_s(work.experts, workers),
        training_bytes=max(map(trained_bytes, work.unmade), default=0),
    )


def _seconds(workers: int, work: Work, left: Sequence[int], rates: forecast.Rates) -> float:
    """Where a run judges in a second process: that one's, or half of all where it can serve, too, and else waits."""
    if workers > 1 or len(left) < second.ENOUGH or not judging.helps(work, engines.device()):
        return seconds_on(workers, work, left, rates)
    recipes = [work.points[i].recipe for i in left]
    serving = forecast.seconds_to_serve(recipes, work.completions_per_point, rates)
    judging_s = forecast.seconds_to_judge(len(left), work.completions_per_point, rates)
    return max(judging_s, (serving + judging_s) / 2 if judging.has_room(work, 2) else serving)
