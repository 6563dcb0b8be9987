"""The commands as functions: suite, engine, store and leaderboard meet here and nowhere else.

A suite is given by a packaged one's name, by the path of a YAML file, as the mapping that such a file holds, or as a
`Suite`.  Results come back as rows, a list of dicts, which pandas, polars and `datasets.Dataset.from_list` take.
A user's mistake raises `UserError`.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evaluators
import methods
from bench.collector import set_aside
from bench.progress import Advance, Task, Tracker, on_terminal, silent
from bench.schema import Estimate, Metric, OverheadSpec, Prompt, Recipe, Share, Suite, UserError
from bench.serving import ServedModel
from bench.stats import ratio_statistic
from bench.suite.load import combinations, load_suite
from bench.suite.loading import quieten
from evaluators.base import (
    CheckpointEvaluator,
    ContrastEvaluator,
    Judgement,
    ProbeEvaluator,
    Samples,
    TextEvaluator,
)
from evaluators.judges import Judges
from methods.base import FiniteFloat, Method, logits, weights

if TYPE_CHECKING:
    from bench.run.parity import ParityReport
    from bench.run.prepare import Work
    from bench.run.stages import Stage
    from bench.run.worker import EngineFactory
    from bench.schema import OverheadRecord
    from bench.store.write import Store
    from lerpbench.extent import Extent

__all__ = [
    "Advance", "CheckpointEvaluator", "ContrastEvaluator", "Estimate", "FiniteFloat", "Judgement", "Judges", "Method",
    "Metric", "Outcome", "OverheadSpec", "ProbeEvaluator", "Prompt", "Recipe", "Samples", "ServedModel", "Suite",
    "TextEvaluator", "UserError",
    "compare", "completions", "costs", "finetune", "load", "logits", "machine", "overhead", "parity", "plan", "prepare",
    "ratio_statistic", "render", "results", "run", "silent", "weights",
]  # fmt: skip

AnySuite = str | Path | Mapping[str, Any] | Suite
AnyPath = str | Path
Rows = list[dict[str, Any]]
STAGES: "tuple[Stage, ...]" = ("generate", "probe", "evaluate")


# ------------------------------------------------------------------------------------------------ before a run


def load(suite: AnySuite) -> Suite:
    """The suite, checked: every name is known, every parameter is valid."""
    given = _given(suite)
    return given if isinstance(given, Suite) else load_suite(given, methods.registry(), evaluators.registry())


def _given(suite: AnySuite) -> str | Mapping[str, Any] | Suite:
    return str(suite) if isinstance(suite, Path) else suite


def prepare(
    suite: AnySuite, engine: str = "auto", only: Sequence[str] | None = None, limit_prompts: int | None = None
) -> "Work":
    """Everything that a run depends on found and checked; nothing is written.

    `engine`: auto, transformers or vllm.  `only`: these methods of the suite.  `limit_prompts`: the first of each set.
    """
    from bench.experts.plan import require_made

    work = _checked(load(suite), engine, only, limit_prompts)
    require_made(work.suite, work.experts)
    return work


def plan(
    suite: AnySuite = "mini",
    db: AnyPath = "results.db",
    engine: str = "auto",
    only: Sequence[str] | None = None,
    limit_prompts: int | None = None,
    workers: int | str | None = None,
    ray: str | None = None,
) -> "Extent":
    """How much a run would do, what of it is stored, the room and the time it takes; see `lerpbench.extent`.

    `workers` and `ray` as in `run`: the time is that of so many at once.
    """
    from lerpbench.extent import measured

    return measured(load(suite), Path(db), lambda found: _checked(found, engine, only, limit_prompts), only or (),
                    limit_prompts, _number(workers, ray))  # fmt: skip


def machine() -> dict[str, Any]:
    """What this process runs with: packages, processor, memory, device, threads, commit; stored with every run."""
    from bench import engines

    return engines.machine()


# ------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Outcome:
    """What a run did: the suite's name and engine on the board, and what failed while all else was stored."""

    db: Path
    suite: str
    engine: str
    failed: Mapping[str, str]  # a point's label -> why its mixture cannot be used
    broken: Mapping[str, Sequence[str]]  # a plugin's evaluator -> what broke, point by point
    overhead: "Sequence[OverheadRecord]"  # timed by this run
    shares: "Sequence[Share]" = ()  # what each of several workers did

    @property
    def rows(self) -> Rows:
        """The suite's results, as `results` gives them."""
        return results(self.db, self.suite, self.engine)

    @property
    def problems(self) -> list[str]:
        """What failed and what broke, a line each."""
        broken = (
            f"evaluator {name!r} broke at {places[0]}" + (f", and at {len(places) - 1} more" if places[1:] else "")
            for name, places in self.broken.items()
        )
        return [*(f"{label} failed: {reason}" for label, reason in self.failed.items()), *broken]


def run(
    suite: AnySuite = "mini",
    db: AnyPath = "results.db",
    *,
    site: AnyPath | None = None,
    live: bool = True,
    engine: str = "auto",
    only: Sequence[str] | None = None,
    limit_prompts: int | None = None,
    stages: "Collection[Stage]" = STAGES,
    workers: int | str | None = None,
    ray: str | None = None,
    task: Task = on_terminal,
    log: Tracker | None = None,
    command: str = "",
) -> Outcome:
    """Generate and judge a suite into a database, and write the leaderboard's pages where `site` is given.

    A first edition of the pages is there when a few points of a longer run are stored; `live=False` does without.
    What is stored already is not made again, so that a run that was stopped goes on.  Experts that the suite asks for
    and that are not fine-tuned yet are made first, as `finetune` does.  On a CPU with several threads a longer run is
    judged in a second process.  `stages`: some of generate, probe, evaluate.
    `workers`: so many processes or GPUs at once, or "auto"; `ray`: the address of a cluster that has them
    (docs/SCALE.md).  `task` shows progress (`bench.progress`); `command` goes on record.
    `log`: trackio or wandb are told each point's numbers when they are stored (`bench.run.tracking`).
    """
    from bench.run.second import begun

    every_stage, alone = set(STAGES) <= set(stages), workers is None and ray is None
    with ExitStack() as aside, ExitStack() as beside:
        n_points = combinations(_given(suite), only or ()) if every_stage and alone else 0
        second = beside.enter_context(begun(engine, n_points))  # before the imports below, which take seconds
        from bench import engines
        from bench.experts.plan import record
        from bench.run.stages import Run
        from bench.run.tracking import find, tracked

        tracker = find(log)
        if site is not None:
            require_folder(Path(site))
        found = load(suite)  # imports what it names
        aside.enter_context(set_aside())
        work = _with_experts(found, db, engine, only, limit_prompts, workers, ray, task)
        command = command or f"lerpbench.run({work.suite.name!r})"
        device = _device()
        with closing(_store(db)) as store:
            with tracked(tracker, work.suite, work.engine) as told:
                one_run = Run(work, store, _environment(store), task, command, told)
                record(work.experts, store, one_run.suite_id)
                shares: Sequence[Share] = ()
                if alone:
                    quick = live and engines.quick_to_open(work.engine)
                    early = partial(_first_pages, db, site, task) if site and quick else None
                    one_run.execute(_opener(work, device), Judges(device), stages, early, second)
                else:
                    from bench.cluster import nodes, points

                    quieten()
                    shares = points.execute(one_run, nodes.number(str(workers or "auto")), ray, stages)
            beside.close()  # timing has the machine for itself
            spec, whole = work.suite.overhead, work.complete and every_stage
            timed = _timed(work, work.suite, store, spec, task, command, again=False) if spec and whole else []
        if site is not None:
            render(db, site)
    return Outcome(Path(db), work.suite.name, work.engine, one_run.failed, one_run.broken, timed, shares)


def overhead(
    suite: AnySuite = "mini",
    db: AnyPath = "results.db",
    *,
    engine: str = "auto",
    spec: OverheadSpec | None = None,
    task: Task = on_terminal,
    command: str = "",
) -> "Sequence[OverheadRecord]":
    """Time what each method costs over the base, on a quiet machine; see docs/OVERHEAD.md.

    `spec` takes the place of the suite's `overhead` section.
    """
    found = load(suite)
    work = prepare(found.model_copy(update={"evaluators": ()}), engine)  # timing needs no judge
    command = command or f"lerpbench.overhead({found.name!r})"
    with closing(_store(db)) as store:
        return _timed(work, found, store, spec or found.overhead or OverheadSpec(), task, command, again=True)


def parity(
    suite: AnySuite = "mini",
    db: AnyPath = "results.db",
    *,
    only: Sequence[str] | None = None,
    limit_prompts: int | None = None,
    task: Task = on_terminal,
) -> "ParityReport":
    """Whether the transformers and the vLLM engine agree on a suite's points; the report is stored too."""
    from bench.run.parity import judged_by
    from bench.run.parity import parity as compared

    work = prepare(suite, "vllm", only, limit_prompts)
    device = _device()
    judge = judged_by([item.evaluator for item in work.looking_at("completions")], Judges(device))
    with closing(_store(db)) as store, task("Comparing engines", 2 * len(work.points)) as advance:
        report = compared(
            work.suite, work.points, work.prompts, _opener(work, device, "transformers"), _opener(work, device), judge,
            device, advance,
        )  # fmt: skip
        values = report.model_dump(mode="json")
        store.add_parity(store.suite(work.suite), ("transformers", "vllm"), report.passed, values, _environment(store))
    return report


def finetune(
    suite: AnySuite = "mini-finetune",
    db: AnyPath = "results.db",
    *,
    workers: int | str | None = None,
    ray: str | None = None,
    task: Task = on_terminal,
) -> Rows:
    """Make the suite's experts from its base, each the best of a grid of trials; finished trials are not repeated.

    `workers` and `ray` as in `run`: so many trials at once.
    A row a trial, with the folder of its weights where they were kept.  See docs/FINETUNING.md.
    """
    from bench.experts.leaks import require_no_leak
    from bench.experts.plan import given_checkpoints, learned, plan_experts

    found = load(suite)
    if found.finetune is None:
        raise UserError(f"suite {found.name} has no finetune section, so it has no experts to make")
    experts = plan_experts(found, given_checkpoints(found))
    judging = {spec.name: evaluators.registry().create(spec.name, spec.options) for spec in found.evaluators}
    require_no_leak(learned(experts), {name: evaluator.held_out() for name, evaluator in judging.items()})
    quieten()
    from bench.experts.train import Workshop
    from bench.experts.train import finetune as train

    rows = found.finetune.device_batch_size
    elsewhere = None
    if workers is not None or ray is not None:
        from bench.cluster import nodes, trials

        number = nodes.number(str(workers or "auto"))
        elsewhere = partial(trials.train_elsewhere, experts, rows, task, number, ray)
    with closing(_store(db)) as store:
        train(experts, Workshop(_device(), rows, task, machine()), store, store.suite(found), elsewhere)
    return [
        {"expert": expert.name, **record.trial.model_dump(), "perplexity": record.perplexity,
         "perplexity_of_base": record.validations[0][1], "n_train": record.n_train,
         "n_validation": record.n_validation, "n_cut": record.n_cut, "duration_s": record.duration_s,
         "chosen": best is not None and record.key == best.key,
         "folder": str(trial.model) if trial.is_kept else None}
        for expert in experts
        for best in [expert.best()]
        for trial in expert.trials
        if (record := trial.record) is not None
    ]  # fmt: skip


def _checked(suite: Suite, engine: str, only: Sequence[str] | None, limit_prompts: int | None) -> "Work":
    """As `prepare`, also where experts are not made yet."""
    from bench import engines
    from bench.run.prepare import prepare as checked

    chosen = engines.choose(engine)
    version = engines.engine_version(chosen)
    return checked(suite, methods.registry(), evaluators.registry(), chosen, version, tuple(only or ()), limit_prompts)


def _with_experts(
    suite: Suite, db: AnyPath, engine: str, only: Sequence[str] | None, limit_prompts: int | None,
    workers: int | str | None, ray: str | None, task: Task,
) -> "Work":  # fmt: skip
    """As `prepare`, with experts made where they are missing: when all else is checked."""
    work = _checked(suite, engine, only, limit_prompts)
    if not work.unmade:
        return work
    finetune(suite, db, workers=workers, ray=ray, task=task)
    return prepare(suite, engine, only, limit_prompts)


def _first_pages(db: AnyPath, site: AnyPath, task: Task) -> None:
    """The pages of what is stored so far.  What is wrong with them is for the last rendering to say, after the work."""
    with task(f"Writing first pages: {Path(site) / 'index.html'}", 1) as advance, suppress(UserError):
        render(db, site, cards=False)
        advance(1)


def _timed(
    work: "Work", suite: Suite, store: "Store", spec: OverheadSpec, task: Task, command: str, *, again: bool
) -> "Sequence[OverheadRecord]":
    """Time the suite's methods into the store; without `again`, only where it was not done yet."""
    from bench.overhead.stopwatch import is_timed, time_suite

    suite_id = store.suite(suite)
    if not again and is_timed(store, suite_id, work.engine):
        return []
    device, environment_id = _device(), _environment(store)
    run_id = store.start_run(suite_id, work.engine, environment_id, command)
    records = time_suite(
        suite, spec, work.points, methods.registry(), work.prompts, work.checkpoints, _opener(work, device), device,
        task,
    )  # fmt: skip
    store.add_overhead(suite_id, work.engine, records, environment_id, replace=True)
    store.finish_run(run_id)
    return records


def _number(workers: int | str | None, ray: str | None) -> int:
    """Of workers that a run would have."""
    if workers is None and ray is None:
        return 1
    from bench.cluster import nodes

    given = nodes.number(str(workers or "auto"))
    if given != "auto":
        return given
    if ray is None:
        return nodes.places([nodes.this_machine()], given).workers
    with nodes.connected(ray) as connection:
        return nodes.places(nodes.nodes(connection), given).workers


def _device() -> str:
    from bench import engines

    return engines.device()


def _opener(work: "Work", device: str, engine: str | None = None) -> "EngineFactory":
    """What opens an engine, by default the work's own, on the work's checkpoints."""
    from bench import engines

    quieten()
    return lambda: engines.engine_class(engine or work.engine)(work.checkpoints, work.suite.dtype, device)


def _store(db: AnyPath) -> "Store":
    from bench.store.write import Store

    return Store.open(db)


def _environment(store: "Store") -> int:
    from bench import environment

    facts = machine()
    return store.environment(facts, environment.digest(facts))


def require_folder(folder: Path, option: str = "site") -> None:
    """Raise UserError unless the folder, which the option names, can be made and written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".lerpbench"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with {option}"
        ) from error


# ------------------------------------------------------------------------------------------------ what was measured


def results(db: AnyPath = "results.db", suite: str | None = None, engine: str | None = None) -> Rows:
    """The view `results`: an estimate a row, with its 95 % interval, for every point, metric and prompt set.

    `prompts` is None for all prompts together.  `params` is the point's parameters as text, and each parameter has a
    column of its own besides, None where a method lacks it.
    """
    return _with_parameters(list(_view("results", db, suite, engine)))


def completions(db: AnyPath = "results.db", suite: str | None = None, engine: str | None = None) -> Rows:
    """The view `completions`: a text a row, with its prompt; parameters as in `results`."""
    return _with_parameters(list(_view("completions", db, suite, engine)))


def costs(db: AnyPath = "results.db", suite: str | None = None, engine: str | None = None) -> Rows:
    """The view `overhead`: what was timed, a metric a row, and its ratio to the base's."""
    return list(_view("overhead", db, suite, engine))


def _view(view: str, db: AnyPath, suite: str | None, engine: str | None) -> Iterator[dict[str, Any]]:
    from leaderboard.read.query import open_stores

    with open_stores([Path(db)]) as (store,):
        columns = store.view_columns(view)
        for values in store.view_rows(view):
            row = dict(zip(columns, values, strict=True))
            if suite in (None, row["suite"]) and engine in (None, row["engine"]):
                yield row


def _with_parameters(rows: Rows) -> Rows:
    read = {text: json.loads(text) for text in dict.fromkeys(row["params"] for row in rows)}
    columns = [name for name in dict.fromkeys(key for params in read.values() for key in params)]
    return [{**{name: read[row["params"]].get(name) for name in columns}, **row} for row in rows]


def compare(
    a: str, b: str, db: AnyPath | Sequence[AnyPath] = "results.db", *, suite: str | None = None, prompts: str = ""
) -> Rows:
    """Paired differences a - b on the same prompts: a row a board and metric, with interval, p and Holm's correction.

    a and b are settings such as `g2(alpha=0.5)`, or methods, which stand for where they reach furthest.
    """
    from leaderboard.measure.comparison import compare as compared

    return [
        {"suite": found.suite, "engine": found.engine, "a": found.a, "b": found.b, "metric": d.metric,
         "value_a": d.a, "value_b": d.b, "difference": d.difference.value, "low": d.difference.low,
         "high": d.difference.high, "n": d.difference.n_total, "p": d.p, "p_holm": d.p_holm}
        for found in compared(_paths(db), a, b, suite=suite, prompts=prompts)
        for d in found.differences
    ]  # fmt: skip


def render(
    db: AnyPath | Sequence[AnyPath] = "results.db", site: AnyPath = "site", *, url: str = "", cards: bool = True
) -> Path:
    """Write the leaderboard's pages of one or several databases; the path of the first page.

    `url`: where the site will be read, for links that are shared; `cards`: draw a picture for each point's.
    """
    from leaderboard.show.render import render as rendered

    require_folder(Path(site))
    rendered(_paths(db), Path(site), url, cards)
    return Path(site) / "index.html"


def _paths(db: AnyPath | Sequence[AnyPath]) -> list[Path]:
    return [Path(db)] if isinstance(db, str | Path) else [Path(path) for path in db]
