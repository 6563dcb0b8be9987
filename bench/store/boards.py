"""What the leaderboard asks: a suite on an engine with its points, results, sums, runs, ledgers and texts."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.schema import Metric, OverheadRecord, Prompt, Recipe, Share, TensorDistance, UserError
from bench.stats import Transform
from bench.store.checksums import digest_of_sums
from bench.store.queries import Queries
from bench.store.values import (
    ResultRow,
    ShownCompletion,
    StoredEvaluation,
    StoredMixture,
    StoredPoint,
    StoredRun,
    StoredSuite,
    TimedSuite,
)

OF_BOARD = "WHERE points.suite_id = ? AND points.engine = ?"
JUDGED = "points JOIN point_evaluations ON point_id = points.id JOIN evaluations ON evaluations.id = evaluation_id"
MIXTURE = "mixtures.id, key, mixtures.engine, dtype, recipe, checkpoints, survived_update"
EVALUATION = ("evaluations.id, evaluations.key, evaluator, version, options, data, evaluations.mixture_id, "
              "evaluations.generation_id")  # fmt: skip


class BoardQueries(Queries):
    def suites(self) -> list[StoredSuite]:
        """Every suite on every engine that has points of it, by name."""
        rows = self._rows(
            "SELECT suites.id, suites.name, suites.definition, points.engine FROM points "
            "JOIN suites ON suites.id = suite_id GROUP BY suites.id, points.engine ORDER BY suites.name, points.engine"
        )
        return [StoredSuite(id_, name, json.loads(definition), engine) for id_, name, definition, engine in rows]

    def points(self, suite_id: int, engine: str) -> list[StoredPoint]:
        """In the suite's order."""
        rows = self._rows(
            f"SELECT points.id, points.engine, method, params, points.generation_id, failed, {MIXTURE} FROM points "
            f"JOIN mixtures ON mixtures.id = mixture_id {OF_BOARD} ORDER BY position, points.id",
            [suite_id, engine],
        )
        return [
            StoredPoint(id_, on, method, params, json.loads(params), generation, failed, mixture_of(mixture))
            for id_, on, method, params, generation, failed, *mixture in rows
        ]

    def results(self, suite_id: int, engine: str) -> Iterator[tuple[int, ResultRow, str | None]]:
        """(point id, its row of the view `results`, why it has no value), point by point, by metric and prompt set."""
        rows = self._rows(
            "SELECT points.id, reason, suites.name, points.engine, method, params, prompts, metrics.name, value, low, "
            "high, n_scored, n_total FROM points JOIN suites ON suites.id = suite_id "
            "JOIN point_evaluations ON point_id = points.id JOIN estimates USING (evaluation_id) "
            f"JOIN metrics ON metrics.id = metric_id {OF_BOARD} ORDER BY position, points.id, metrics.name, prompts",
            [suite_id, engine],
        )
        return ((point, ResultRow(*row), reason) for point, reason, *row in rows)

    def metrics(self) -> list[tuple[Metric, bool]]:
        """As evaluators declared them, in that order, and whether completions were judged."""
        rows = self._rows(
            "SELECT name, direction, unit, description, EXISTS (SELECT 1 FROM estimates JOIN evaluations "
            "ON evaluations.id = evaluation_id WHERE metric_id = metrics.id AND generation_id IS NOT NULL) "
            "FROM metrics ORDER BY id"
        )
        return [
            (Metric(name=name, direction=direction, unit=unit, description=description), bool(of_text))
            for name, direction, unit, description, of_text in rows
        ]

    def samplings(self, suite_id: int, engine: str) -> list[str]:
        """As canonical JSON, each once."""
        return self._column(
            "SELECT DISTINCT sampling FROM points JOIN generations ON generations.id = generation_id "
            f"{OF_BOARD} ORDER BY 1",
            [suite_id, engine],
        )

    def evaluations_of(self, suite_id: int, engine: str) -> list[StoredEvaluation]:
        """The evaluations at some point of it, by evaluator, version, options and data."""
        rows = self._rows(
            f"SELECT DISTINCT {EVALUATION} FROM {JUDGED} {OF_BOARD} "
            "ORDER BY evaluator, version, options, data, evaluations.id",
            [suite_id, engine],
        )
        return [evaluation_of(row) for row in rows]

    def n_completions(self, suite_id: int, engine: str) -> int:
        """Of its distinct generations."""
        return int(
            self._find(
                "SELECT COALESCE(SUM(n_completions), 0) FROM (SELECT DISTINCT generations.id, n_completions "
                f"FROM points JOIN generations ON generations.id = generation_id {OF_BOARD})",
                [suite_id, engine],
            )
        )

    def distances(self, suite_id: int, engine: str) -> list[TensorDistance]:
        rows = self._rows(
            "SELECT DISTINCT weight_distances.id, pair, tensor, elements, distance FROM points "
            "JOIN point_evaluations ON point_id = points.id JOIN weight_distances USING (evaluation_id) "
            f"{OF_BOARD} ORDER BY 1",
            [suite_id, engine],
        )
        return [TensorDistance(pair=p, tensor=t, elements=n, distance=d) for _, p, t, n, d in rows]

    def runs(self, suite_id: int, engine: str) -> list[StoredRun]:
        rows = self._rows(
            "SELECT runs.id, command, started_at, finished_at, details, digest FROM runs "
            "JOIN environments ON environments.id = environment_id WHERE suite_id = ? AND engine = ? ORDER BY runs.id",
            [suite_id, engine],
        )
        return [
            StoredRun(command, started, finished, json.loads(details), digest, tuple(self.shares(id_)))
            for id_, command, started, finished, details, digest in rows
        ]

    def shares(self, run_id: int) -> list[Share]:
        """Who did what of a run."""
        columns = ", ".join(Share.model_fields)
        rows = self._rows(f"SELECT {columns} FROM workers WHERE run_id = ?", [run_id])
        shares = [Share(**dict(zip(Share.model_fields, row, strict=True))) for row in rows]
        return sorted(shares, key=lambda share: (len(share.name), share.name))

    def parity_reports(self, suite_id: int) -> list[tuple[bool, dict[str, Any]]]:
        """(whether they passed, the reports) that compare engines on a suite."""
        rows = self._rows("SELECT passed, report FROM parity_reports WHERE suite_id = ? ORDER BY id", [suite_id])
        return [(bool(passed), json.loads(report)) for passed, report in rows]

    # ------------------------------------------------------------------------------------------ per-prompt sums

    def sums(self, suite_id: int, engine: str, metric: str) -> NDArray[np.float64]:
        """(rows, 4): point id, input id, numerator, denominator."""
        metric_id = self._find("SELECT id FROM metrics WHERE name = ?", [metric])
        judged = self._rows(
            "SELECT points.id, evaluation_id FROM points JOIN point_evaluations ON point_id = points.id "
            f"{OF_BOARD} AND EXISTS (SELECT 1 FROM statistics WHERE statistics.evaluation_id = "
            "point_evaluations.evaluation_id AND metric_id = ?) ORDER BY position, points.id",
            [suite_id, engine, metric_id],
        )
        tables = [np.empty((0, 4))]
        for point, evaluation in judged:
            table = self._sums_of(evaluation, metric_id)  # evaluation, metric, input, sums, counts
            tables.append(np.column_stack([np.full(len(table), float(point)), table[:, 2:5]]))
        return np.concatenate(tables)

    def _sums_of(self, evaluation_id: int, metric_id: int) -> NDArray[np.float64]:
        """(rows, 7), as stored.  Raises UserError where they are not what was stored."""
        rows = self._each(
            "SELECT * FROM statistics WHERE evaluation_id = ? AND metric_id = ? ORDER BY input_id",
            [evaluation_id, metric_id],
        )
        table = np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 7)
        owner = f"{evaluation_id} {metric_id}"
        stored = self._find("SELECT digest FROM checksums WHERE part = 'statistics' AND owner = ?", [owner])
        if stored != digest_of_sums(table):
            raise UserError(f"{self.path}: damaged: per-prompt sums of evaluation {evaluation_id}; "
                            f"`lerpbench doctor --db {self.path}` says what else is lost and what is not")  # fmt: skip
        return table

    def prompts_by_id(self, input_ids: Sequence[int]) -> dict[int, Prompt]:
        rows = self._rows(
            "SELECT id, set_name, row, text FROM inputs WHERE id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(input_ids))],
        )
        return {id_: Prompt(set=name, row=row, text=text) for id_, name, row, text in rows}

    def transform(self, metric: str) -> Transform:
        """How a metric follows from its sums' ratio."""
        found = self._find(
            "SELECT transform FROM estimates JOIN metrics ON metrics.id = metric_id "
            "WHERE metrics.name = ? AND transform IS NOT NULL LIMIT 1",
            [metric],
        )
        return "exp" if found == "exp" else "identity"

    # ------------------------------------------------------------------------------------------ ledgers

    def overhead_records(self, suite_id: int, engine: str) -> list[OverheadRecord]:
        """The stored ledger of a suite on an engine, in the order it was written."""
        columns = list(OverheadRecord.model_fields)
        rows = self._rows(
            f"SELECT {', '.join(columns)} FROM overhead_records WHERE suite_id = ? AND engine = ? ORDER BY id",
            [suite_id, engine],
        )
        found = (dict(zip(columns, row, strict=True)) for row in rows)
        return [OverheadRecord(**{**row, "details": json.loads(row["details"])}) for row in found]

    def timed_suites(self) -> list[TimedSuite]:
        """Every suite and engine whose base's time a token is known."""
        rows = self._rows(
            "SELECT suite_id, engine, MAX(overhead_records.created_at), details, (SELECT command FROM runs "
            "WHERE runs.suite_id = overhead_records.suite_id AND runs.engine = overhead_records.engine "
            "AND started_at <= overhead_records.created_at ORDER BY started_at DESC LIMIT 1) FROM "
            "(SELECT suite_id, engine, created_at, environment_id FROM overhead_records WHERE role = 'base' "
            "AND metric = 'time_per_output_token_s') AS overhead_records "
            "JOIN environments ON environments.id = environment_id GROUP BY suite_id, engine ORDER BY suite_id, engine"
        )
        return [
            TimedSuite(id_, engine, at, json.loads(details), command or "")
            for id_, engine, at, details, command in rows
        ]

    # ------------------------------------------------------------------------------------------ texts

    def n_prompts(self, generation_id: int) -> int:
        return int(self._find("SELECT n_prompts FROM generations WHERE id = ?", [generation_id]))

    def mean_text_bytes(self, generation_id: int) -> float:
        """Of a completion, in UTF-8."""
        sql = "SELECT AVG(LENGTH(CAST(text AS BLOB))) FROM completion_texts WHERE generation_id = ?"
        return float(self._find(sql, [generation_id]) or 0)

    def shown_completions(
        self, point_id: int, generation_id: int, prompts: Sequence[Prompt], samples: int, metric: str
    ) -> Iterator[ShownCompletion]:
        """The first `samples` completions of some prompts with their scores, sought one by one: of maybe 250,000."""
        judged = self._rows(
            "SELECT evaluation_id, metrics.id FROM point_evaluations JOIN estimates USING (evaluation_id) "
            "JOIN metrics ON metrics.id = metric_id WHERE point_id = ? AND metrics.name = ? LIMIT 1",
            [point_id, metric],
        )
        wanted = json.dumps([[prompt.set, prompt.row, prompt.text] for prompt in prompts])
        rows = self._each(
            "SELECT wanted.key, sample, completion_texts.text, n_tokens, finish_reason, "
            "json_extract(by_sample, '$[' || sample || ']') FROM json_each(?) AS wanted "
            "CROSS JOIN inputs ON set_name = json_extract(wanted.value, '$[0]') "  # a CROSS JOIN keeps this order
            "AND row = json_extract(wanted.value, '$[1]') AND inputs.text = json_extract(wanted.value, '$[2]') "
            "CROSS JOIN completion_texts ON generation_id = ? AND completion_texts.input_id = inputs.id AND sample < ? "
            "LEFT JOIN prompt_scores ON evaluation_id = ? AND metric_id = ? AND prompt_scores.input_id = inputs.id",
            [wanted, generation_id, samples, *(judged[0] if judged else (None, None))],
        )
        return (ShownCompletion(*row) for row in rows)

    # ------------------------------------------------------------------------------------------ views

    def view_columns(self, view: str) -> list[str]:
        """`view` is a name of `bench.store.schema`, not of a user's."""
        return [column[0] for column in self.db.execute(f"SELECT * FROM {view} LIMIT 0").description]

    def view_rows(self, view: str) -> Iterator[tuple[Any, ...]]:
        return self._each(f"SELECT * FROM {view}")


def mixture_of(row: Sequence[Any]) -> StoredMixture:
    id_, key, engine, dtype, recipe, checkpoints, survived = row
    return StoredMixture(id_, key, engine, dtype, Recipe.model_validate_json(recipe), json.loads(checkpoints), survived)


def evaluation_of(row: Sequence[Any]) -> StoredEvaluation:
    id_, key, evaluator, version, options, data, *ids = row
    return StoredEvaluation(id_, key, evaluator, version, options, tuple(json.loads(data)), *ids)
