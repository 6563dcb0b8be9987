"""Commands that generate and judge: run, generate, evaluate, and plan before them."""

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
from bench.schema import UserError
from bench.store import Store

if TYPE_CHECKING:
    from bench.execute import Stage, Work


def run(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    site: SiteOption = Path("site"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Generate, judge and render a suite; what is stored already is not made again."""
    require_folder(site)
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
    """What a run would do: points, completions, and what is stored already."""
    from bench.execute import status
    from bench.plan import plan_points

    found_suite = loaded(suite)
    points = plan_points(found_suite, method_table.registry(), only or ())  # shown even where models cannot be had
    table = Table("method", "points", title=f"suite {found_suite.name}", title_justify="left")
    for name in dict.fromkeys(point.method for point in points):
        table.add_row(name, str(sum(point.method == name for point in points)))
    out.print(table)
    work = prepared(found_suite, engine, only, limit_prompts)
    with closing(Store.read(db)) if db.exists() else nullcontext() as store:
        found = status(work, store)
    todo = found.generations - found.generations_stored
    out.print(f"{found.points} points, {found.generations} distinct mixtures")
    samples = work.suite.sampling.samples
    out.print(
        f"{len(work.prompts):,} prompts x {samples} samples = {found.completions_per_point:,} completions a mixture, "
        f"{found.generations * found.completions_per_point:,} in all"
    )
    out.print(f"stored: {found.generations_stored} of {found.generations} mixtures' completions, "
              f"{found.evaluations_stored} of {found.evaluations} evaluations")  # fmt: skip
    out.print(f"to do: {todo * found.completions_per_point:,} completions" if todo else "nothing to generate")


def execute(work: "Work", db: Path, stages: Sequence["Stage"]) -> Mapping[str, Sequence[str]]:
    """Run stages into the database, with the environment on record.  Returns which plugin's evaluators broke, where."""
    from bench.execute import Run
    from bench.progress import TerminalReporter
    from evaluators.judges import Judges

    with opened(db) as store:
        device = engines.device()
        environment_id = this_environment(store, device)
        one_run = Run(work, store, environment_id, TerminalReporter())
        run_id = store.start_run(one_run.suite_id, work.engine, environment_id, this_command())

        one_run.execute(opener(work.engine, work, device), Judges(device), stages)
        store.finish_run(run_id)
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
