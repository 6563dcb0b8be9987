"""Commands that generate and judge: run, generate, evaluate, and plan before them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bench.cli.common import LiveOption, SiteOption, on_suite, out, say, this_command
from bench.progress import Tracker

if TYPE_CHECKING:
    from bench.run.memory import Memory
    from lerpbench.api import Outcome
    from lerpbench.extent import Extent


@on_suite
def run(
    site: SiteOption = Path("site"),
    live: LiveOption = True,
    log: Annotated[Tracker | None, typer.Option("--log", help="tell trackio or wandb each point's numbers")] = None,
    **job: Any,
) -> None:
    """Generate, judge and render a suite; what is stored already is not made again.

    Experts that the suite's `finetune` section asks for are made first, where they are missing. A run that was stopped
    goes on where it was: give the same command again. `lerpbench plan` says before how long it takes;
    `--limit-prompts 4` is a quick first look. Exits with 1 where some points failed, and lists them.
    """
    import lerpbench
    from bench.cli.timing import show_overhead

    outcome = lerpbench.run(**job, site=site, live=live, log=log, command=this_command())
    say(*outcome.shares, f"results: {outcome.db}")
    if outcome.overhead:
        show_overhead(outcome.overhead, f"suite {outcome.suite} on {outcome.engine}")
    say(f"leaderboard: {site / 'index.html'}")
    report(outcome)


@on_suite
def generate(**job: Any) -> None:
    """Generate the completions that are not stored yet, and judge nothing: the first half of `run`."""
    import lerpbench

    outcome = lerpbench.run(**job, stages=["generate"], command=this_command())
    say(*outcome.shares, f"results: {outcome.db}")
    report(outcome)


@on_suite
def evaluate(**job: Any) -> None:
    """Judge the stored completions and probe the mixtures, with the evaluators that the suite has now.

    Nothing is generated: add an evaluator to a suite, and this asks it about every text there is.
    """
    import lerpbench

    outcome = lerpbench.run(**job, stages=["probe", "evaluate"], command=this_command())
    say(*outcome.shares, f"results: {outcome.db}")
    report(outcome)


@on_suite
def plan(**job: Any) -> None:
    """What a run would do: points, completions, time and room, and what is stored already.  Writes nothing."""
    import lerpbench

    extent = lerpbench.plan(**job)
    table = Table("method", "points", title=f"suite {extent.suite}", title_justify="left")
    for name in dict.fromkeys(point.method for point in extent.points):
        table.add_row(name, str(sum(point.method == name for point in extent.points)))
    out.print(table)
    say(*described(extent, job["db"]))
    if extent.missing is not None:
        raise extent.missing


def described(extent: "Extent", db: Path) -> list[str]:
    """A plan in words."""
    from bench.progress import about
    from bench.run.forecast import megabytes

    lines = [f"{len(extent.points)} points, {extent.mixtures} distinct mixtures", *to_be_made(extent)]
    each, stored = extent.completions_per_mixture, extent.stored
    if each is None or extent.to_do is None or extent.room_bytes is None:
        return [*lines, "completions: unknown until the prompts are here, or their sets say a limit"]
    at_most = "at most " if extent.missing else ""
    lines.append(f"{at_most}{extent.prompts:,} prompts x {extent.samples} samples = {each:,} completions a mixture, "
                 f"{extent.mixtures * each:,} in all")  # fmt: skip
    if stored is not None:
        lines.append(f"stored: {stored.generations_stored} of {stored.generations} mixtures' completions, "
                     f"{stored.evaluations_stored} of {stored.evaluations} evaluations")  # fmt: skip
        if not extent.to_do:
            return [*lines, "nothing to generate"]
        lines.append(f"to do: {extent.to_do:,} completions")
    lines.append(f"room: at most {megabytes(extent.room_bytes)} with three scores each; "
                 f"{megabytes(extent.free_bytes)} are free where {db} is")  # fmt: skip
    if extent.memory is not None:
        lines += in_memory(extent.memory, extent.device_bytes)
    if extent.room_bytes > extent.free_bytes:
        lines.append("WARNING: that does not fit; choose another disk with --db")
    if extent.seconds is not None:
        crew = f" on {extent.workers} workers" if extent.workers > 1 else ""
        return [*lines, f"time: about {about(extent.seconds)}{crew} at the rates of this suite's runs in {db} "
                        f"({extent.model_tokens_per_s:,.0f} model tokens/s)"]  # fmt: skip
    if extent.missing:
        return [*lines, "time: unknown until what is missing is here and a part of it was run"]
    return [*lines, "time: unknown until a part was run; `lerpbench run` with --limit-prompts 4 --only METHOD makes it "
                    "known"]  # fmt: skip


def to_be_made(extent: "Extent") -> list[str]:
    """The experts that a run makes before all else, and what that takes."""
    from bench.progress import about
    from bench.run.forecast import megabytes

    if not extent.unmade:
        return []
    told = ", ".join(f"{e.name} ({len(e.records())} of {len(e.trials)} trials done)" for e in extent.unmade)
    time = "unknown until a trial is finished"
    if extent.training_s is not None:
        time = f"about {about(extent.training_s)} at the finished trials' pace"
    return [f"experts that the run makes first: {told}; time: {time}; memory: {megabytes(extent.training_bytes)} and "
            "activations"]  # fmt: skip


def in_memory(memory: "Memory", device_bytes: int) -> list[str]:
    """What the models take, and whether it fits."""
    from bench.run.forecast import megabytes

    parts = {
        "checkpoints to mix": memory.anchors,
        "their mixture": memory.served,
        "members": memory.members,
        "key-value cache": memory.cache,
    }
    told = ", ".join(f"{megabytes(n_bytes)} {name}" for name, n_bytes in parts.items() if n_bytes)
    lines = [
        f"memory: about {megabytes(memory.total)} ({told}); judges apart; the device has {megabytes(device_bytes)}"
    ]
    if memory.total > device_bytes:
        lines.append("WARNING: that does not fit; checkpoints to mix go to the host's memory, the rest must fit")
    return lines


def report(outcome: "Outcome") -> None:
    """List what went wrong while all else was stored, and exit with 1; nothing where nothing did."""
    if outcome.problems:
        say(*(f"lerpbench: {problem}" for problem in outcome.problems), file=sys.stderr)
        say("lerpbench: all else is stored; the same command tries these again", file=sys.stderr)
        raise typer.Exit(1)
