"""SQLite stores -> boards: everything the pages show, read once through the public views.

A board is one suite on one engine; suites and engines are never mixed.  Values come from the view `results`; the tables
behind it add what a reader may ask for next: recipes, reasons, units, per-prompt sums, environments.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.schema import Number, Recipe, UserError
from bench.stats import Transform
from bench.store.write import Store
from leaderboard.read.board import ALL, Board, MetricInfo, PerPrompt, Place, Protocol, Run

COLUMNS = ("suite", "engine", "method", "params", "prompts", "metric", "value", "low", "high", "n_scored", "n_total")


@contextmanager
def open_stores(paths: Sequence[Path]) -> Iterator[list[Store]]:
    """The databases, opened for reading; raises UserError for a missing or foreign file, or for none."""
    if not paths:
        raise UserError("no database given; expected the path of at least one results database")
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Store.read(path))) for path in paths]


def read_boards(store: Store, index: int, name: str) -> list[Board]:
    """Every suite and engine of one database."""
    found = store.db.execute(
        "SELECT suites.id, suites.name, suites.definition, points.engine FROM points "
        "JOIN suites ON suites.id = suite_id GROUP BY suites.id, points.engine ORDER BY suites.name, points.engine"
    ).fetchall()
    return [
        _read_board(store, index, name, suite_id=suite_id, suite=suite, definition=definition, engine=engine)
        for suite_id, suite, definition, engine in found
    ]


def _read_board(
    store: Store, index: int, name: str, *, suite_id: int, suite: str, definition: str, engine: str
) -> Board:
    places, mixtures = _places(store, index, suite_id, engine)
    results, rows = _results(store, places, suite, engine)
    metrics = _metrics(store, {key[1] for key in results})
    prompts, texts, samples = _prompts(store, places)
    defined = json.loads(definition)
    return Board(
        suite=suite,
        engine=engine,
        databases=(name,),
        definition=defined,
        protocol=replace(_protocol(store, defined, suite_id, engine, prompts), texts=texts),
        places=places,
        metrics=metrics,
        results=results,
        rows=rows,
        runs=_runs(store, name, suite_id, engine),
        overhead=_overhead(store, suite_id, engine),
        overhead_elsewhere={
            other: _overhead(store, suite_id, other) for other in _timed_on(store, suite_id) - {engine}
        },
        mixtures=mixtures,
        per_prompt=_per_prompt(store, places, suite_id, engine, metrics),
        n_completions=_count_completions(store, suite_id, engine),
        samples=samples,
        parity=_parity(store, suite_id),
    )


def _places(
    store: Store, index: int, suite_id: int, engine: str
) -> tuple[tuple[Place, ...], dict[int, dict[str, Any]]]:
    places: list[Place] = []
    mixtures: dict[int, dict[str, Any]] = {}
    for row in store.db.execute(
        "SELECT points.id, method, params, points.generation_id, recipe, dtype, checkpoints, survived_update, key "
        "FROM points JOIN mixtures ON mixtures.id = mixture_id WHERE suite_id = ? AND points.engine = ? "
        "ORDER BY position, points.id",
        [suite_id, engine],
    ):
        id_, method, params, generation_id, recipe_json, dtype, checkpoints, survived, key = row
        recipe = Recipe.model_validate_json(recipe_json)
        place = Place(id_, method, json.loads(params), params, recipe, generation_id, index)
        mixtures[len(places)] = {"dtype": dtype, "checkpoints": json.loads(checkpoints), "survived_update": survived,
                                 "key": key}  # fmt: skip
        places.append(place)
    return tuple(places), mixtures


def _results(
    store: Store, places: Sequence[Place], suite: str, engine: str
) -> tuple[dict[tuple[int, str, str], Number], tuple[tuple[Any, ...], ...]]:
    index = {place.identity: i for i, place in enumerate(places)}
    reasons = _reasons(store, places)
    results = {}
    rows = store.db.execute(
        f"SELECT {', '.join(COLUMNS)} FROM results WHERE suite = ? AND engine = ? ORDER BY metric, prompts",
        [suite, engine],
    ).fetchall()
    rows.sort(key=lambda row: index[row[2], row[3]])
    for row in rows:
        _, _, method, params, prompts, metric, value, low, high, n_scored, n_total = row
        key = (index[method, params], metric, prompts or ALL)
        results[key] = Number(value, low, high, n_scored, n_total, reasons.get(key))
    return results, tuple(tuple(row) for row in rows)


def _reasons(store: Store, places: Sequence[Place]) -> dict[tuple[int, str, str], str]:
    index = {place.id: i for i, place in enumerate(places)}
    found = store.db.execute(
        "SELECT point_id, metrics.name, prompts, reason FROM point_evaluations "
        "JOIN estimates USING (evaluation_id) JOIN metrics ON metrics.id = metric_id WHERE reason IS NOT NULL"
    )
    return {(index[p], metric, prompts or ALL): reason for p, metric, prompts, reason in found if p in index}


def _metrics(store: Store, names: set[str]) -> dict[str, MetricInfo]:
    """In the order in which evaluators declared them."""
    found = store.db.execute(
        "SELECT name, direction, unit, description, EXISTS (SELECT 1 FROM estimates JOIN evaluations "
        "ON evaluations.id = evaluation_id WHERE metric_id = metrics.id AND generation_id IS NOT NULL) "
        "FROM metrics ORDER BY id"
    )
    return {row[0]: MetricInfo(row[0], row[1], row[2], row[3], bool(row[4])) for row in found if row[0] in names}


def _prompts(store: Store, places: Sequence[Place]) -> tuple[dict[str, int], str, int]:
    """How many prompts of each set, a digest of all, and samples of each, from the first place with completions."""
    generation = next((place.generation_id for place in places if place.generation_id is not None), None)
    found = store.prompts_of(generation)
    listed = sorted((prompt.set, prompt.row, prompt.text) for _, prompt, _ in found)
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return dict(Counter(prompt.set for _, prompt, _ in found)), digest, max((n for _, _, n in found), default=0)


def _count_completions(store: Store, suite_id: int, engine: str) -> int:
    row = store.db.execute(
        "SELECT COALESCE(SUM(n_completions), 0) FROM (SELECT DISTINCT generations.id, n_completions FROM points "
        "JOIN generations ON generations.id = generation_id WHERE suite_id = ? AND points.engine = ?)",
        [suite_id, engine],
    ).fetchone()
    return int(row[0])


def _protocol(
    store: Store, definition: Mapping[str, Any], suite_id: int, engine: str, prompts: Mapping[str, int]
) -> Protocol:
    where = "WHERE points.suite_id = ? AND points.engine = ?"
    sampling = store.db.execute(
        f"SELECT DISTINCT sampling FROM points JOIN generations ON generations.id = generation_id {where} ORDER BY 1",
        [suite_id, engine],
    ).fetchall()
    evaluators = store.db.execute(
        "SELECT DISTINCT evaluator, version, options, data FROM points JOIN point_evaluations ON point_id = points.id "
        f"JOIN evaluations ON evaluations.id = evaluation_id {where} ORDER BY 1, 2, 3, 4",
        [suite_id, engine],
    ).fetchall()
    mixtures = store.db.execute(
        f"SELECT DISTINCT dtype, checkpoints FROM points JOIN mixtures ON mixtures.id = mixture_id {where}",
        [suite_id, engine],
    ).fetchall()
    hashes: dict[str, str] = {}
    for _, checkpoints in mixtures:
        hashes |= json.loads(checkpoints)
    judges: dict[str, list[str]] = {}
    data: dict[str, list[str | None]] = {}
    for evaluator, version, options, digests in evaluators:
        judges.setdefault(evaluator, []).append(f"version {version}, {options}")
        data.setdefault(evaluator, []).append(digests)
    return Protocol(
        sampling=" and ".join(row[0] for row in sampling),
        dtype=" and ".join(sorted({row[0] for row in mixtures})) or str(definition.get("dtype", "")),
        checkpoints=dict(sorted(hashes.items())),
        evaluators={name: "; ".join(dict.fromkeys(texts)) for name, texts in judges.items()},
        prompts=dict(prompts),
        verdicts=_verdicts(store, where, suite_id, engine),
        data={name: "; ".join(map(str, found)) for name, found in data.items() if None not in found},
    )


def _verdicts(store: Store, where: str, suite_id: int, engine: str) -> dict[tuple[str, ...], str]:
    """Equal subjects judged with equal settings have equal keys, unless the judge's bytes differ."""
    found = store.db.execute(
        "SELECT COALESCE(generations.key, mixtures.key), evaluator, evaluations.version, options, evaluations.key "
        "FROM points JOIN point_evaluations ON point_id = points.id JOIN evaluations ON evaluations.id = evaluation_id "
        "JOIN mixtures ON mixtures.id = evaluations.mixture_id "
        f"LEFT JOIN generations ON generations.id = evaluations.generation_id {where}",
        [suite_id, engine],
    )
    return {(subject, evaluator, str(version), options): key for subject, evaluator, version, options, key in found}


def _runs(store: Store, name: str, suite_id: int, engine: str) -> tuple[Run, ...]:
    found = store.db.execute(
        "SELECT command, started_at, finished_at, details, digest FROM runs "
        "JOIN environments ON environments.id = environment_id WHERE suite_id = ? AND engine = ? ORDER BY runs.id",
        [suite_id, engine],
    )
    return tuple(Run(c, s, f, json.loads(details), digest, name) for c, s, f, details, digest in found)


def _parity(store: Store, suite_id: int) -> tuple[dict[str, Any], ...]:
    found = store.db.execute("SELECT passed, report FROM parity_reports WHERE suite_id = ?", [suite_id])
    return tuple({"passed": bool(passed), **json.loads(report)} for passed, report in found)


DETAILS = ("busy", "load_average", "others_cores", "within_floor", "floor", "role", "recipe")


def _timed_on(store: Store, suite_id: int) -> set[str]:
    """Engines with a ledger of their own; what was only imported has no time a token."""
    found = store.db.execute(
        "SELECT engine FROM overhead_records WHERE suite_id = ? AND metric = 'time_per_output_token_s'", [suite_id]
    )
    return {row[0] for row in found}


def _overhead(store: Store, suite_id: int, engine: str) -> tuple[dict[str, Any], ...]:
    """The view's columns in the order they were timed, each line with some of its details."""
    return tuple(
        record.model_dump(exclude={"details"}) | {key: record.details.get(key) for key in DETAILS}
        for record in store.overhead_records(suite_id, engine)
    )


CORE = ("sentiment", "fraction_positive", "perplexity", "perplexity_dexperts", "acceptability", "distinct_1_dexperts",
        "distinct_2_dexperts", "distinct_3_dexperts", "nll_positive", "nll_negative")  # fmt: skip


def _per_prompt(
    store: Store, places: Sequence[Place], suite_id: int, engine: str, metrics: Mapping[str, MetricInfo]
) -> dict[str, PerPrompt]:
    """The sums of the metrics that derived numbers (rank correlation, barrier, comparisons) are bootstrapped from."""
    wanted = [name for name in metrics if name in CORE]
    found = {name: _sums(store, places, suite_id, engine, name) for name in wanted}
    return {name: sums for name, sums in found.items() if sums is not None}


def _sums(store: Store, places: Sequence[Place], suite_id: int, engine: str, metric: str) -> PerPrompt | None:
    rows = store.db.execute(
        "SELECT points.id, input_id, numerator, denominator FROM points "
        "JOIN point_evaluations ON point_id = points.id "
        "JOIN statistics ON statistics.evaluation_id = point_evaluations.evaluation_id "
        "AND metric_id = (SELECT id FROM metrics WHERE name = ?) WHERE suite_id = ? AND engine = ?",
        [metric, suite_id, engine],
    )
    table = np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 4)  # millions of rows at full scale
    if not len(table):
        return None
    inputs, column = np.unique(table[:, 1].astype(np.int64), return_inverse=True)
    place_of = {place.id: i for i, place in enumerate(places)}
    row = np.array([place_of[int(id_)] for id_ in table[:, 0]])
    above = np.full((len(places), len(inputs)), np.nan)
    below = above.copy()
    above[row, column], below[row, column] = table[:, 2], table[:, 3]
    named = _inputs(store, inputs)
    sets = np.array([name for name, _, _ in named], dtype=np.str_)
    return PerPrompt(sets, above, below, _transform(store, metric), named)


def _inputs(store: Store, ids: NDArray[np.int64]) -> tuple[tuple[str, int, str], ...]:
    found = store.db.execute(
        "SELECT id, set_name, row, text FROM inputs WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps(ids.tolist())],
    ).fetchall()
    named = {row[0]: (row[1], row[2], row[3]) for row in found}
    return tuple(named[i] for i in ids.tolist())


def _transform(store: Store, metric: str) -> Transform:
    row = store.db.execute(
        "SELECT transform FROM estimates JOIN metrics ON metrics.id = metric_id "
        "WHERE metrics.name = ? AND transform IS NOT NULL LIMIT 1",
        [metric],
    ).fetchone()
    return "exp" if row and row[0] == "exp" else "identity"
