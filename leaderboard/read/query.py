"""SQLite stores -> boards: everything the pages show, read once.

A board is one suite on one engine; suites and engines are never mixed.  Values are those of the view `results`; beside
them stands what a reader may ask for next: recipes, reasons, units, per-prompt sums, environments.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.schema import Goal, Number, UserError
from bench.store.read import Reader
from bench.store.values import StoredPoint, StoredSuite
from bench.submissions.bundle import SUFFIX, readable
from evaluators.protocols import PROTOCOLS
from leaderboard.read.board import ALL, Board, MetricInfo, PerPrompt, Place, Protocol, Run


@contextmanager
def open_stores(paths: Sequence[Path]) -> Iterator[list[Reader]]:
    """The databases and the databases of bundles, opened for reading.

    Raises UserError for a missing or foreign file, for what is no bundle though it is called .zip, or for none.
    """
    if not paths:
        raise UserError("no database given; expected the path of at least one results database")
    with ExitStack() as stack:
        found = []
        for path in paths:
            if path.suffix == SUFFIX:
                path = readable(path, Path(stack.enter_context(TemporaryDirectory())))  # noqa: PLW2901
            found.append(stack.enter_context(closing(Reader.open(path))))
        yield found


def read_boards(store: Reader, index: int, name: str) -> list[Board]:
    """Every suite and engine of one database."""
    return [_read_board(store, index, name, suite) for suite in store.suites()]


def _read_board(store: Reader, index: int, name: str, suite: StoredSuite) -> Board:
    points = store.points(suite.id, suite.engine)
    places = tuple(_place(point, index, name) for point in points)
    at = {place.id: i for i, place in enumerate(places)}
    stored = list(store.results(suite.id, suite.engine))
    results = {
        (at[point], row.metric, row.prompts or ALL): Number(
            row.value, row.low, row.high, row.n_scored, row.n_total, reason
        )
        for point, row, reason in stored
    }
    metrics = _metrics(store, {metric for _, metric, _ in results})
    prompts, texts, samples = _prompts(store, places)
    return Board(
        suite=suite.name,
        engine=suite.engine,
        databases=(name,),
        definition=suite.definition,
        protocol=_protocol(store, suite, points, prompts, texts),
        places=places,
        metrics=metrics,
        results=results,
        rows=tuple(tuple(row) for _, row, _ in stored),
        runs=tuple(Run(**vars(run), database=name) for run in store.runs(suite.id, suite.engine)),
        overhead=_overhead(store, suite.id, suite.engine),
        overhead_elsewhere={
            timed.engine: _overhead(store, suite.id, timed.engine)
            for timed in store.timed_suites()
            if timed.suite_id == suite.id and timed.engine != suite.engine
        },
        mixtures={i: point.mixture for i, point in enumerate(points)},
        per_prompt=_per_prompt(store, at, suite, metrics),
        n_completions=store.n_completions(suite.id, suite.engine),
        samples=samples,
        parity=tuple({"passed": passed, **report} for passed, report in store.parity_reports(suite.id)),
        distances=tuple(store.distances(suite.id, suite.engine)),
        notes=tuple(
            f"{at_.label} failed: {point.failed}." for at_, point in zip(places, points, strict=True) if point.failed
        ),
    )


def _place(point: StoredPoint, index: int, name: str) -> Place:
    return Place(point.id, point.method, point.params, point.params_json, point.mixture.recipe, point.generation_id,
                 index, name)  # fmt: skip


def _metrics(store: Reader, names: set[str]) -> dict[str, MetricInfo]:
    """In the order in which evaluators declared them."""
    return {
        m.name: MetricInfo(m.name, m.direction, m.unit, m.description, of_text)
        for m, of_text in store.metrics()
        if m.name in names
    }


def _prompts(store: Reader, places: Sequence[Place]) -> tuple[dict[str, int], str, int]:
    """How many prompts of each set, a digest of all, and samples of each, from the first place with completions."""
    generation = next((place.generation_id for place in places if place.generation_id is not None), None)
    found = store.prompts_of(generation)
    listed = sorted((prompt.set, prompt.row, prompt.text) for _, prompt, _ in found)
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return dict(Counter(prompt.set for _, prompt, _ in found)), digest, max((n for _, _, n in found), default=0)


def _protocol(
    store: Reader, suite: StoredSuite, points: Sequence[StoredPoint], prompts: Mapping[str, int], texts: str
) -> Protocol:
    mixtures = [point.mixture for point in points]
    judges: dict[str, list[str]] = {}
    data: dict[str, list[str]] = {}
    for one in store.evaluations_of(suite.id, suite.engine):
        judges.setdefault(one.evaluator, []).append(f"version {one.version}, {one.options}")
        data.setdefault(one.evaluator, []).append(json.dumps(one.data))
    return Protocol(
        sampling=" and ".join(store.samplings(suite.id, suite.engine)),
        dtype=" and ".join(sorted({m.dtype for m in mixtures})) or str(suite.definition.get("dtype", "")),
        checkpoints=dict(sorted({name: digest for m in mixtures for name, digest in m.checkpoints.items()}.items())),
        evaluators={name: "; ".join(dict.fromkeys(told)) for name, told in judges.items()},
        prompts=dict(prompts),
        data={name: "; ".join(dict.fromkeys(digests)) for name, digests in data.items()},
        texts=texts,
    )


DETAILS = ("busy", "load_average", "others_cores", "within_floor", "floor", "recipe", "made_by", "currency", "per_hour",
           "power", "reason", "k", "against", "predicted")  # fmt: skip


def _overhead(store: Reader, suite_id: int, engine: str) -> tuple[dict[str, Any], ...]:
    """The records in the order they were timed, each with some of its details."""
    return tuple(
        record.model_dump(exclude={"details"}) | {key: record.details.get(key) for key in DETAILS}
        for record in store.overhead_records(suite_id, engine)
    )


def _core(goals: Sequence[Goal]) -> set[str]:
    """What suites steer and pay, and every protocol's metrics."""
    return {name for goal in goals for name in goal.metrics} | {
        n for p in PROTOCOLS.values() for n in p.metrics.values()
    }


def _per_prompt(
    store: Reader, at: Mapping[int, int], suite: StoredSuite, metrics: Mapping[str, MetricInfo]
) -> dict[str, PerPrompt]:
    """The sums of the metrics that derived numbers (rank correlation, barrier, comparisons) are bootstrapped from."""
    goals = [Goal.model_validate(goal) for goal in suite.definition.get("goal") or [{}]]
    wanted = [name for name in metrics if name in _core(goals) or name.startswith("nll_")]
    found = {name: _sums(store, at, suite, name) for name in wanted}
    return {name: sums for name, sums in found.items() if sums is not None}


def _sums(store: Reader, at: Mapping[int, int], suite: StoredSuite, metric: str) -> PerPrompt | None:
    """`at`: point id -> the index of its place."""
    table = store.sums(suite.id, suite.engine, metric)
    if not len(table):
        return None
    inputs, column = np.unique(table[:, 1].astype(np.int64), return_inverse=True)
    row = np.array([at[int(id_)] for id_ in table[:, 0]])
    above = np.full((len(at), len(inputs)), np.nan)
    below = above.copy()
    above[row, column], below[row, column] = table[:, 2], table[:, 3]
    prompts = store.prompts_by_id(inputs.tolist())
    named = tuple((prompts[i].set, prompts[i].row, prompts[i].text) for i in inputs.tolist())
    sets = np.array([name for name, _, _ in named], dtype=np.str_)
    return PerPrompt(sets, above, below, store.transform(metric), named)
