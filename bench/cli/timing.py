"""Commands about the machinery: what a method costs, and whether two engines agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    DbOption,
    EngineOption,
    LimitOption,
    OnlyOption,
    SuiteArgument,
    out,
    say,
    this_command,
)

if TYPE_CHECKING:
    from bench.schema import OverheadRecord


def overhead(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="rows decoded together; may be repeated")] = None,
    new_tokens: Annotated[list[int] | None, typer.Option(min=2, help="tokens drawn a row; may be repeated")] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="rounds at least, where the budget allows")] = None,
    budget_s: Annotated[float | None, typer.Option(min=1, help="seconds that all rounds may take")] = None,
) -> None:
    """Time what each method costs over the base: seconds a token, memory, switching.

    On a quiet machine: other programs are noticed and said. docs/OVERHEAD.md explains the columns.
    """
    import lerpbench

    timed = lerpbench.load(suite)
    asked = {"batch_sizes": batch_size, "new_tokens": new_tokens, "rounds": rounds, "budget_s": budget_s}
    changes = {key: value for key, value in asked.items() if value}
    spec = lerpbench.OverheadSpec(**{**(timed.overhead.model_dump() if timed.overhead else {}), **changes})
    records = lerpbench.overhead(timed, db, engine=engine, spec=spec, command=this_command())
    show_overhead(records, f"suite {timed.name}")
    say(f"results: {db}")


def parity(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Do the transformers and the vLLM engine agree on a suite's points?  Exits with 1 where they do not.

    Compared are greedy texts, log-probabilities of given texts, and the metrics of sampled ones.
    """
    import lerpbench

    report = lerpbench.parity(suite, db, only=only, limit_prompts=limit_prompts)
    say(*report.markdown().splitlines())
    if not report.passed:
        raise typer.Exit(1)


def show_overhead(records: "Sequence[OverheadRecord]", title: str) -> None:
    from bench.cli.costs import cost_table, remarks

    cells = sorted({(r.new_tokens, r.batch_size) for r in records if r.batch_size})
    for new_tokens, batch_size in cells:
        out.print(cost_table(records, batch_size, new_tokens, f"{title}, batch {batch_size}, {new_tokens} new tokens"))
    say(*remarks(records))
