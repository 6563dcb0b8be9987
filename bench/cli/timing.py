"""Commands about the machinery: what a method costs, and whether two engines agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import methods as method_table
from bench import engines
from bench.cli.common import (
    DbOption,
    EngineOption,
    LimitOption,
    OnlyOption,
    SuiteArgument,
    loaded,
    opened,
    opener,
    out,
    prepared,
    this_command,
    this_environment,
)
from bench.schema import Suite

if TYPE_CHECKING:
    from bench.run.prepare import Work
    from bench.schema import OverheadRecord, OverheadSpec


def overhead(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="rows decoded together; may be repeated")] = None,
    new_tokens: Annotated[list[int] | None, typer.Option(min=2, help="tokens drawn a row; may be repeated")] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="rounds at least, where the budget allows")] = None,
    budget_s: Annotated[float | None, typer.Option(min=1, help="seconds that all rounds may take")] = None,
) -> None:
    """Time what each method costs over the base, on a quiet machine; see docs/OVERHEAD.md."""
    from bench.schema import OverheadSpec

    timed = loaded(suite)
    asked = {"batch_sizes": batch_size, "new_tokens": new_tokens, "rounds": rounds, "budget_s": budget_s}
    changes = {key: value for key, value in asked.items() if value is not None}
    spec = OverheadSpec(**{**(timed.overhead or OverheadSpec()).model_dump(), **changes})
    work = prepared(timed.model_copy(update={"evaluators": ()}), engine)  # timing needs no judge
    time_overhead(work, timed, db, spec, again=True)


def parity(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Do the transformers and the vLLM engine agree on a suite's points?  Exits with 1 where they do not."""
    from bench.progress import on_terminal
    from bench.run.parity import judged_by
    from bench.run.parity import parity as compared_engines
    from evaluators.judges import Judges

    work = prepared(loaded(suite), "vllm", only, limit_prompts)
    device = engines.device()
    found = [item.evaluator for item in work.looking_at("completions")]
    with opened(db) as store, on_terminal("Comparing engines", 2 * len(work.points)) as advance:
        report = compared_engines(
            work.suite, work.points, work.prompts, opener("transformers", work, device), opener("vllm", work, device),
            judged_by(found, Judges(device)), device, advance,
        )  # fmt: skip
        values = report.model_dump(mode="json")
        store.add_parity(
            store.suite(work.suite), ("transformers", "vllm"), report.passed, values, this_environment(store, device)
        )
    out.print(report.markdown(), highlight=False)
    if not report.passed:
        raise typer.Exit(1)


def time_overhead(work: "Work", suite: Suite, db: Path, spec: "OverheadSpec", *, again: bool) -> None:
    """Time the suite's methods into the database; without `again`, only where it was not done yet."""
    from bench.overhead.stopwatch import is_timed, time_suite
    from bench.progress import on_terminal

    with opened(db) as store:
        suite_id, device = store.suite(suite), engines.device()
        if not again and is_timed(store, suite_id, work.engine):
            return
        environment_id = this_environment(store, device)
        run_id = store.start_run(suite_id, work.engine, environment_id, this_command())
        records = time_suite(
            suite, spec, work.points, method_table.registry(), work.prompts, work.checkpoints,
            opener(work.engine, work, device), device, on_terminal,
        )  # fmt: skip
        store.add_overhead(suite_id, work.engine, records, environment_id, replace=True)
        store.finish_run(run_id)
    show_overhead(records, f"suite {suite.name} on {work.engine}")
    out.print(f"results: {db}")


def show_overhead(records: "Sequence[OverheadRecord]", title: str) -> None:
    from bench.cli.costs import cost_table, remarks

    cells = sorted({(r.new_tokens, r.batch_size) for r in records if r.batch_size})
    for new_tokens, batch_size in cells:
        out.print(cost_table(records, batch_size, new_tokens, f"{title}, batch {batch_size}, {new_tokens} new tokens"))
    for line in remarks(records):
        out.print(line, highlight=False)
