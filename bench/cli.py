"""The command line, and the only place where registries, store, engine and leaderboard meet.

A user's mistake prints one line and exits with 2; a bug keeps its traceback.
"""

import os
import sys

# Before torch starts its threads: wait a little for the others, then sleep.  Endless spinning makes two busy programs
# on the same cores slow each other tenfold.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import evaluators as evaluator_table
import methods as method_table
from bench import engines
from bench.schema import Suite, UserError
from bench.store import Store
from bench.suite import load_suite, packaged_suites

if TYPE_CHECKING:
    from bench.execute import EngineFactory, Stage, Work
    from bench.schema import OverheadRecord, OverheadSpec

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmark ways of combining fine-tuned language models: how well they control text, and at what cost.",
)
out = Console(markup=False, width=None if sys.stdout.isatty() else 140)

SuiteArgument = Annotated[str, typer.Argument(help="a packaged suite's name (`lerpbench suites`) or a YAML file")]
DbOption = Annotated[Path, typer.Option("--db", help="the SQLite file that keeps everything measured")]
SiteOption = Annotated[Path, typer.Option("--site", help="the folder for the leaderboard's pages")]
EngineOption = Annotated[str, typer.Option("--engine", help="auto, transformers or vllm")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="only this method of the suite; may be repeated")]
LimitOption = Annotated[int | None, typer.Option("--limit-prompts", min=1, help="only the first N prompts of each set")]


def main() -> None:
    """Entry point of the `lerpbench` command."""
    try:
        app()
    except UserError as error:
        print(f"lerpbench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nlerpbench: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------------------------------------- running


@app.command()
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
    execute(work, db, ("generate", "probe", "evaluate"))
    if work.suite.overhead is not None and work.complete:
        time_overhead(work, work.suite, db, work.suite.overhead, again=False)
    render([db], site)


@app.command()
def generate(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Generate the completions that are not stored yet."""
    execute(prepared(loaded(suite), engine, only, limit_prompts), db, ("generate",))


@app.command()
def evaluate(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Judge the stored completions and probe the mixtures; generates nothing."""
    execute(prepared(loaded(suite), engine, only, limit_prompts), db, ("probe", "evaluate"))


@app.command()
def overhead(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="rows decoded together; may be repeated")] = None,
    new_tokens: Annotated[list[int] | None, typer.Option(min=2, help="tokens drawn a row; may be repeated")] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="rounds at least, where the budget allows")] = None,
    budget_s: Annotated[float | None, typer.Option(min=1, help="seconds that all rounds may take")] = None,
    import_benchmark: Annotated[Path | None, typer.Option(help="take pytest-benchmark's JSON instead")] = None,
) -> None:
    """Time what each method costs over the base, on a quiet machine; see docs/OVERHEAD.md."""
    from bench.schema import OverheadSpec

    timed = loaded(suite)
    if import_benchmark is not None:
        import_overhead(timed, db, import_benchmark)
        return
    asked = {"batch_sizes": batch_size, "new_tokens": new_tokens, "rounds": rounds, "budget_s": budget_s}
    changes = {key: value for key, value in asked.items() if value is not None}
    spec = OverheadSpec(**{**(timed.overhead or OverheadSpec()).model_dump(), **changes})
    work = prepared(timed.model_copy(update={"evaluators": ()}), engine)  # timing needs no judge
    time_overhead(work, timed, db, spec, again=True)


@app.command()
def render(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases; default results.db")] = None,
    site: SiteOption = Path("site"),
) -> None:
    """Write the leaderboard's pages from one or several databases."""
    import leaderboard

    require_folder(site)
    leaderboard.render(databases or [Path("results.db")], site)
    out.print(f"leaderboard: {site / 'index.html'}")


@app.command()
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
    with opened(db, create=False) if db.exists() else no_store() as store:
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


def loaded(suite: str) -> Suite:
    """The checked suite of a name or path."""
    return load_suite(suite, method_table.registry(), evaluator_table.registry())


def prepared(suite: Suite, engine: str, only: Sequence[str] | None = None, limit: int | None = None) -> "Work":
    """Everything found and checked, before anything is written."""
    chosen = engines.choose(engine)
    quieten()
    from bench.execute import prepare

    registries = method_table.registry(), evaluator_table.registry()
    return prepare(suite, *registries, chosen, engines.engine_version(chosen), only or (), limit)


def execute(work: "Work", db: Path, stages: Sequence["Stage"]) -> None:
    """Run stages into the database, with the environment on record."""
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


def time_overhead(work: "Work", suite: Suite, db: Path, spec: "OverheadSpec", *, again: bool) -> None:
    """Time the suite's methods into the database; without `again`, only where it was not done yet."""
    from bench.overhead import is_timed, time_suite
    from bench.progress import TerminalReporter

    with opened(db) as store:
        suite_id, device = store.suite(suite), engines.device()
        if not again and is_timed(store, suite_id, work.engine):
            return
        environment_id = this_environment(store, device)
        run_id = store.start_run(suite_id, work.engine, environment_id, this_command())
        records = time_suite(
            suite, spec, work.points, method_table.registry(), work.prompts, work.checkpoints,
            opener(work.engine, work, device), device, TerminalReporter().task,
        )  # fmt: skip
        store.add_overhead(suite_id, work.engine, records, environment_id, replace=True)
        store.finish_run(run_id)
    show_overhead(records, f"suite {suite.name} on {work.engine}")
    out.print(f"results: {db}")


def import_overhead(suite: Suite, db: Path, path: Path) -> None:
    """Put what pytest-benchmark timed into the suite's ledger."""
    from bench import environment
    from bench.overhead_import import read_benchmarks

    found, facts = read_benchmarks(path)
    with opened(db) as store:
        suite_id = store.suite(suite)
        environment_id = store.environment(facts, environment.digest(facts))
        for engine, records in found.items():
            store.add_overhead(suite_id, engine, records, environment_id, replace=False)
    count = sum(map(len, found.values()))
    out.print(f"{count} lines from {path} are in the ledger of suite {suite.name}: {db}")


def show_overhead(records: "Sequence[OverheadRecord]", title: str) -> None:
    from bench.overhead_report import cost_table, remarks

    cells = sorted({(r.new_tokens, r.batch_size) for r in records if r.batch_size})
    for new_tokens, batch_size in cells:
        out.print(cost_table(records, batch_size, new_tokens, f"{title}, batch {batch_size}, {new_tokens} new tokens"))
    for line in remarks(records):
        out.print(line, highlight=False)


def opener(name: str, work: "Work", device: str) -> "EngineFactory":
    """What opens the named engine on the work's checkpoints."""
    return lambda: engines.engine_class(name)(work.checkpoints, work.suite.dtype, device)


def this_environment(store: Store, device: str) -> int:
    """The id of what this process runs with."""
    import torch

    from bench import environment

    details = environment.describe(device_name(device), torch.get_num_threads())
    return store.environment(details, environment.digest(details))


def this_command() -> str:
    return " ".join(["lerpbench", *sys.argv[1:]])


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


@contextmanager
def opened(db: Path, *, create: bool = True) -> Iterator[Store]:
    store = Store.open(db, create=create)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def no_store() -> Iterator[None]:
    yield None


def require_folder(folder: Path) -> None:
    """Raise UserError unless the folder can be made and written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".lerpbench"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --site") from error


def quieten() -> None:
    """Keep the libraries' own notes and bars off the terminal."""
    import warnings

    import datasets
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


@app.command()
def parity(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
) -> None:
    """Do the transformers and the vLLM engine agree on a suite's points?  Exits with 1 where they do not."""
    from bench.parity import judged_by
    from bench.parity import parity as compared_engines
    from bench.progress import TerminalReporter
    from evaluators.base import TextEvaluator
    from evaluators.judges import Judges

    work = prepared(loaded(suite), "vllm", only, limit_prompts)
    device = engines.device()
    found = [item.evaluator for item in work.evaluators if isinstance(item.evaluator, TextEvaluator)]
    with opened(db) as store, TerminalReporter().task("Comparing engines", 2 * len(work.points)) as advance:
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


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="a setting such as 'g2(alpha=0.5)', or a method: its reach")],
    b: Annotated[str, typer.Argument(help="what it is compared with")],
    db: DbOption = Path("results.db"),
    suite: Annotated[str | None, typer.Option(help="only this suite's board")] = None,
    prompts: Annotated[str, typer.Option(help="only this prompt set")] = "",
) -> None:
    """Paired differences A - B on the same prompts, with intervals and Holm's correction."""
    from leaderboard.comparison import compare as compared
    from leaderboard.comparison import describe

    for comparison in compared([db], a, b, suite=suite, prompts=prompts):
        print("\n".join(describe(comparison)))


# ---------------------------------------------------------------------------------------------- looking around


@app.command()
def suites() -> None:
    """The packaged suites."""
    table = Table("suite", "title", "methods")
    for name in packaged_suites():
        suite = loaded(name)
        table.add_row(name, suite.title, ", ".join(dict.fromkeys(spec.name for spec in suite.methods)))
    out.print(table)


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="show one method's parameters")] = None) -> None:
    """The registered control methods."""
    describe_registry(method_table.registry(), name)


@app.command()
def evaluators(name: Annotated[str | None, typer.Argument(help="show one evaluator's fields")] = None) -> None:
    """The registered evaluators."""
    describe_registry(evaluator_table.registry(), name)


def describe_registry(registry: Any, name: str | None) -> None:
    """A table of all, or the fields of one.  A plugin that cannot be loaded is listed with the reason."""
    if name is not None:
        describe_class(name, registry.get(name))
        return
    table = Table(registry.kind, "what it is", "fields")
    for known in registry.names():
        try:
            cls = registry.get(known)
        except UserError as error:
            table.add_row(known, f"broken: {error}", "")
            continue
        table.add_row(known, summary_of(cls), ", ".join(cls.model_fields))
    out.print(table)


def describe_class(name: str, cls: Any) -> None:
    out.print(name, style="bold", highlight=False)
    out.print(cls.__doc__ or "", highlight=False)
    if getattr(cls, "source", ""):
        out.print(f"Source: {cls.source}", highlight=False)
    table = Table("field", "type", "default", "meaning")
    for field, info in cls.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        kind = getattr(info.annotation, "__name__", None) or str(info.annotation)
        table.add_row(field, kind, default, info.description or "")
    if cls.model_fields:
        out.print(table)
    if hasattr(cls, "metrics"):
        describe_metrics(cls)


def describe_metrics(cls: Any) -> None:
    """The metrics of an evaluator in its default configuration, where it has one."""
    try:
        metrics = cls().metrics()
    except ValueError:  # a required field: the metrics depend on it
        return
    table = Table("metric", "better", "unit", "definition")
    for metric in metrics:
        table.add_row(metric.name, metric.direction, metric.unit, metric.description)
    out.print(table)


def summary_of(cls: Any) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]


@app.command()
def doctor() -> None:
    """What this machine can do, and which engine `auto` takes here."""
    import torch

    from bench import environment
    from bench.checkpoints import MODELS

    device = engines.device()
    details = environment.describe(device_name(device), torch.get_num_threads())
    reason = engines.why_not_vllm()
    table = Table(show_header=False)
    packages = ", ".join(f"{key} {value}" for key, value in details["packages"].items())
    for label, value in (
        ("python", f"{details['python']} on {details['platform']}"),
        ("processor", f"{details['processor']}, {details['cores']} cores, {details['memory_gib']} GiB"),
        ("device", details["device"]),
        ("packages", packages),
        ("packaged models", ", ".join(sorted(p.name for p in MODELS.iterdir())) if MODELS.is_dir() else "none"),
        ("engine auto", f"{engines.choose('auto')}" + (f": {reason}" if reason else "")),
    ):
        table.add_row(label, value)
    out.print(table)


if __name__ == "__main__":
    main()
