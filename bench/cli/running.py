"""Commands that generate and judge: run, generate, evaluate, and plan before them."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import methods as method_table
from bench import engines
from bench.cli.common import (
    DbOption,
    EngineOption,
    LimitOption,
    OnlyOption,
    SiteOption,
    SuiteArgument,
    loaded,
    opened,
    opener,
    out,
    prepared,
    require_folder,
    this_command,
    this_environment,
)
from bench.cli.publishing import render
from bench.cli.timing import time_overhead
from bench.schema import Point, Suite, UserError, canonical_json
from bench.store.read import Reader

if TYPE_CHECKING:
    from bench.run.prepare import Work
from bench.run.stages import Stage


def run(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    site: SiteOption = Path("site"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Generate, judge and render a suite; what is stored already is not made again."""
    require_folder(site, "--site")
    work = prepared(loaded(suite), engine, only, limit_prompts)
    broken = execute(work, db, ("generate", "probe", "evaluate"))
    if work.suite.overhead is not None and work.complete:
        time_overhead(work, work.suite, db, work.suite.overhead, again=False)
    render([db], site)
    report(broken)


def generate(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Generate the completions that are not stored yet."""
    execute(prepared(loaded(suite), engine, only, limit_prompts), db, ("generate",))


def evaluate(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Judge the stored completions and probe the mixtures; generates nothing."""
    report(execute(prepared(loaded(suite), engine, only, limit_prompts), db, ("probe", "evaluate")))


def plan(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """What a run would do: points, completions, time and room, and what is stored already."""
    from bench.suite.points import plan_points

    found_suite = loaded(suite)
    points = plan_points(found_suite, method_table.registry(), only or ())  # shown even where models cannot be had
    table = Table("method", "points", title=f"suite {found_suite.name}", title_justify="left")
    for name in dict.fromkeys(point.method for point in points):
        table.add_row(name, str(sum(point.method == name for point in points)))
    out.print(table)
    try:
        work = prepared(found_suite, engine, only, limit_prompts)
    except UserError:  # said last, after what can be known without
        show_extent(found_suite, points, limit_prompts, db)
        raise
    with closing(Reader.open(db)) if db.exists() else nullcontext() as store:
        show_plan(work, found_suite.name, store, db)


def show_extent(suite: Suite, points: Sequence[Point], limit: int | None, db: Path) -> None:
    """The size of a suite whose models or prompts are not here, from what it says itself."""
    from bench.run import forecast

    recipes = {canonical_json(point.recipe.model_dump(mode="json")): point.recipe for point in points}
    out.print(f"{len(points)} points, {len(recipes)} distinct mixtures")
    n_prompts = forecast.declared_prompts(list(suite.prompts.values()), limit)
    if n_prompts is None:
        out.print("completions: unknown until the prompts are here, or their sets say a limit")
        return
    each = n_prompts * suite.sampling.samples
    total = each * len(recipes)
    out.print(f"at most {n_prompts:,} prompts x {suite.sampling.samples} samples = {each:,} completions a mixture, "
              f"{total:,} in all")  # fmt: skip
    show_room(forecast.bytes_to_do(total, suite.sampling), db)
    out.print("time: unknown until what is missing is here and a part of it was run")


def show_plan(work: "Work", name: str, store: Reader | None, db: Path) -> None:
    """A prepared suite: what is stored, what is to do, and what that will take."""
    from bench.progress import about
    from bench.run import forecast
    from bench.run.prepare import status

    found = status(work, store)
    recipes = {planned.generation: planned.point.recipe for planned in work.planned}
    todo = [r for key, r in recipes.items() if store is None or store.generation_id(key) is None]
    each, samples = found.completions_per_point, work.suite.sampling.samples
    out.print(f"{found.points} points, {found.generations} distinct mixtures")
    out.print(f"{len(work.prompts):,} prompts x {samples} samples = {each:,} completions a mixture, "
              f"{found.generations * each:,} in all")  # fmt: skip
    out.print(f"stored: {found.generations_stored} of {found.generations} mixtures' completions, "
              f"{found.evaluations_stored} of {found.evaluations} evaluations")  # fmt: skip
    if not todo:
        out.print("nothing to generate")
        return
    out.print(f"to do: {len(todo) * each:,} completions")
    show_room(forecast.bytes_to_do(len(todo) * each, work.suite.sampling), db)
    asked = [
        (item.name, canonical_json(item.options))
        for item in work.evaluators
        if item.evaluator.looks_at != "checkpoints"
    ]
    rates = None if store is None else forecast.measured_rates(store, name, work.engine, asked)
    if rates is None:
        out.print(
            "time: unknown until a part was run; `lerpbench run` with --limit-prompts 4 --only METHOD makes it known"
        )
    else:
        seconds = forecast.seconds_to_do(todo, each, rates)
        out.print(f"time: about {about(seconds)} at the rates of this suite's runs in {db} "
                  f"({rates.model_tokens_per_s:,.0f} model tokens/s)")  # fmt: skip


def show_room(n_bytes: float, db: Path) -> None:
    """The room that completions will take in a database, against what its disk has."""
    from bench.run import forecast

    folder = db.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{db}: the folder {folder} does not exist")
    free = shutil.disk_usage(folder).free
    out.print(f"room: at most {forecast.megabytes(n_bytes)} with three scores each; "
              f"{forecast.megabytes(free)} are free where {db} is")  # fmt: skip
    if n_bytes > free:
        out.print("WARNING: that does not fit; choose another disk with --db", style="bold red", highlight=False)


def execute(work: "Work", db: Path, stages: Sequence["Stage"]) -> Mapping[str, Sequence[str]]:
    """Run stages into the database, with the environment on record.  Returns which plugin's evaluators broke, where."""
    from bench.progress import on_terminal
    from bench.run.stages import Run
    from evaluators.judges import Judges

    with opened(db) as store:
        device = engines.device()
        environment_id = this_environment(store, device)
        one_run = Run(work, store, environment_id, on_terminal, this_command())
        one_run.execute(opener(work.engine, work, device), Judges(device), stages)
        out.print(f"results: {db}")
    return one_run.broken


def report(broken: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError if a plugin's evaluator broke, when all else is done."""
    told = [
        f"evaluator {name!r} broke at {places[0]}" + (f", and at {len(places) - 1} more" if len(places) > 1 else "")
        for name, places in broken.items()
    ]
    if told:
        raise UserError("; ".join(told) + "; all else is stored")
