"""The writing half of the store: everything measured, in one SQLite file.

Work is keyed by content, so what is stored is never made again; `points` says which stored work stands for which place
of which suite.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlite_utils import Database

from bench import environment
from bench.schema import (
    Completion,
    Estimate,
    Metric,
    OverheadRecord,
    Point,
    Prompt,
    Recipe,
    Share,
    Suite,
    TensorDistance,
    TrialRecord,
    canonical_json,
)
from bench.stats import RatioStatistic, ScoreColumn
from bench.store.checksums import record, record_all
from bench.store.opening import connect_for_writing, explained, patiently
from bench.store.read import Reader


class Store(Reader):
    """One results database; several processes may write to it, one transaction after another."""

    _altered: set[tuple[str, tuple[int, ...]]]

    @classmethod
    def open(cls, path: Path | str, *, checked: bool = True) -> Self:
        """Open for writing, or create.  Raises UserError for a foreign, damaged or unwritable file; touches none."""
        path = Path(path)
        store = cls(Database(connect_for_writing(path)), path)
        if checked:
            store.require_whole(everything=False)
        return store

    def seal(self) -> None:
        """Store the digests of rows that were copied from elsewhere."""
        with self._writing():
            record_all(self.db.conn)

    def together(self) -> AbstractContextManager[None]:
        """One transaction for all that is written within."""
        return self._writing()

    def environment(self, details: Mapping[str, Any], digest: str) -> int:
        """The id of these environment facts, stored once."""
        with self._writing("environments"):
            self.db.execute(
                "INSERT OR IGNORE INTO environments (digest, details, created_at) VALUES (?, ?, ?)",
                [digest, canonical_json(details), now()],
            )
        return self._id("SELECT id FROM environments WHERE digest = ?", [digest])

    def suite(self, suite: Suite) -> int:
        """The id of the suite's name; its definition becomes the given one."""
        with self._writing("suites"):
            self.db.execute(
                "INSERT INTO suites (name, definition, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET definition = excluded.definition, updated_at = excluded.updated_at",
                [suite.name, canonical_json(suite.model_dump(mode="json")), now()],
            )
        return self._id("SELECT id FROM suites WHERE name = ?", [suite.name])

    def start_run(self, suite_id: int, engine: str, environment_id: int, command: str) -> int:
        with self._writing("runs"):
            row = self.db.execute(
                "INSERT INTO runs (suite_id, engine, environment_id, command, started_at) VALUES (?, ?, ?, ?, ?)",
                [suite_id, engine, environment_id, command, now()],
            )
        return int(row.lastrowid or 0)

    def finish_run(self, run_id: int) -> None:
        with self._writing("runs"):
            self.db.execute("UPDATE runs SET finished_at = ? WHERE id = ?", [now(), run_id])

    def put_shares(self, run_id: int, shares: Sequence[Share]) -> None:
        """Who did what of a run."""
        with self._writing("workers"):
            self.db.conn.executemany(
                "INSERT INTO workers (run_id, name, node, device, n_generated, n_judged, generating_s, judging_s, "
                "present_s) VALUES (:run, :name, :node, :device, :n_generated, :n_judged, :generating_s, :judging_s, "
                ":present_s)",
                [{"run": run_id, **share.model_dump()} for share in shares],
            )

    def mixture(self, key: str, engine: str, dtype: str, recipe: Recipe, digests: Mapping[str, str]) -> int:
        """The id of a mixture of checkpoint bytes on an engine."""
        with self._writing():
            self.db.execute(
                "INSERT OR IGNORE INTO mixtures (key, engine, dtype, recipe, checkpoints) VALUES (?, ?, ?, ?, ?)",
                [key, engine, dtype, canonical_json(recipe.model_dump(mode="json")), canonical_json(dict(digests))],
            )
            mixture_id = self._id("SELECT id FROM mixtures WHERE key = ?", [key])
            self._changed("mixtures", mixture_id)
        return mixture_id

    def set_survived_update(self, mixture_id: int, share: float) -> None:
        """The share of the update to the weights that is left after rounding to the served dtype."""
        with self._writing():
            self.db.execute("UPDATE mixtures SET survived_update = ? WHERE id = ?", [share, mixture_id])
            self._changed("mixtures", mixture_id)

    def place(self, suite_id: int, engine: str, position: int, point: Point, mixture_id: int) -> int:
        """The id of a suite's point, now standing for this mixture; links to other work than this mixture's fall."""
        params = canonical_json(point.params)
        where = [suite_id, engine, point.method, params]
        with self._writing():
            self.db.execute(
                "INSERT INTO points (suite_id, engine, method, params, position, mixture_id) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (suite_id, engine, method, params) DO UPDATE SET position = excluded.position, "
                "generation_id = CASE WHEN mixture_id = excluded.mixture_id THEN generation_id END, "
                "failed = CASE WHEN mixture_id = excluded.mixture_id THEN failed END, "
                "mixture_id = excluded.mixture_id",
                [*where, position, mixture_id],
            )
            point_id = self._id(
                "SELECT id FROM points WHERE suite_id = ? AND engine = ? AND method = ? AND params = ?", where
            )
            self.db.execute(
                "DELETE FROM point_evaluations WHERE point_id = ? AND evaluation_id IN "
                "(SELECT id FROM evaluations WHERE mixture_id != ?)",
                [point_id, mixture_id],
            )
            self._changed("points", point_id)
            self._changed("point_evaluations", point_id)
        return point_id

    def keep_points(self, suite_id: int, engine: str, point_ids: Sequence[int]) -> None:
        """Take every other point of this suite and engine off the views; their work stays stored."""
        kept = json.dumps(list(point_ids))
        with self._writing():
            self.db.execute(
                "DELETE FROM points WHERE suite_id = ? AND engine = ? AND id NOT IN (SELECT value FROM json_each(?))",
                [suite_id, engine, kept],
            )
            self.db.execute(
                "DELETE FROM checksums WHERE part IN ('points', 'point_evaluations') "
                "AND CAST(owner AS INTEGER) NOT IN (SELECT id FROM points)"
            )

    def fail(self, point_id: int, reason: str) -> None:
        """Why a point has no completions; stands until it has some, or stands for another mixture."""
        with self._writing():
            self.db.execute("UPDATE points SET failed = ? WHERE id = ?", [reason, point_id])
            self._changed("points", point_id)

    def link(self, point_id: int, generation_id: int | None, evaluation_ids: Sequence[int]) -> None:
        """What stands for a point from now on: its generation, and exactly these evaluations.

        With a generation, an older reason why it failed falls.
        """
        with self._writing():
            self.db.execute(
                "UPDATE points SET generation_id = ?, failed = CASE WHEN ? THEN failed END WHERE id = ?",
                [generation_id, generation_id is None, point_id],
            )
            self.db.execute("DELETE FROM point_evaluations WHERE point_id = ?", [point_id])
            self.db.conn.executemany(
                "INSERT OR IGNORE INTO point_evaluations (point_id, evaluation_id) VALUES (?, ?)",
                [(point_id, evaluation_id) for evaluation_id in evaluation_ids],
            )
            self._changed("points", point_id)
            self._changed("point_evaluations", point_id)

    def inputs(self, prompts: Sequence[Prompt]) -> list[int]:
        """The ids of prompts or sentences, stored once."""
        rows = [(p.set, p.row, p.text) for p in prompts]
        with self._writing("inputs"):
            self.db.conn.executemany("INSERT OR IGNORE INTO inputs (set_name, row, text) VALUES (?, ?, ?)", rows)
            find = "SELECT id FROM inputs WHERE set_name = ? AND row = ? AND text = ?"
            return [self._id(find, row) for row in rows]

    def add_generation(
        self,
        key: str,
        mixture_id: int,
        sampling: Mapping[str, Any],
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        duration_s: float,
        environment_id: int,
    ) -> int:
        """Store one point's completions in one transaction; the id of the generation."""
        input_ids = self.inputs(prompts)
        n_tokens = sum(c.n_tokens for c in completions)
        with self._writing():
            if (stored := self.generation_id(key)) is not None:  # by another process, meanwhile
                return stored
            row = self.db.execute(
                "INSERT INTO generations (key, mixture_id, sampling, n_prompts, n_completions, n_tokens, duration_s, "
                "environment_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [key, mixture_id, canonical_json(sampling), len(prompts), len(completions), n_tokens, duration_s,
                 environment_id, now()],
            )  # fmt: skip
            generation_id = int(row.lastrowid or 0)
            self.db.conn.executemany(
                "INSERT INTO completion_texts (generation_id, input_id, sample, text, n_tokens, finish_reason) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (generation_id, input_ids[c.prompt], c.sample, c.text, c.n_tokens, c.finish_reason)
                    for c in completions
                ),
            )
            self._changed("generations", generation_id)
            self._changed("completion_texts", generation_id)
        return generation_id

    def add_evaluation(
        self,
        key: str,
        evaluator: str,
        version: int,
        options: Mapping[str, Any],
        mixture_id: int,
        generation_id: int | None,
        duration_s: float,
        environment_id: int,
        *,
        metrics: Sequence[Metric],
        scores: Mapping[str, ScoreColumn],
        statistics: Sequence[RatioStatistic],
        items: Sequence[Prompt],
        estimates: Sequence[Estimate],
        distances: Sequence[TensorDistance] = (),
        data: Sequence[str] = (),
    ) -> int:
        """Store all of one evaluator's verdict in one transaction; the evaluation's id.

        Scores are in the order of `generated`.  `data`: digests of the models and files behind the verdict.
        """
        input_ids = self.inputs(items)
        transforms = {s.metric: s.transform for s in statistics}
        judged = self.prompts_of(generation_id) if scores else []
        with self._writing("metrics"):
            if (stored := self.evaluation_id(key)) is not None:
                return stored
            metric_ids = {m.name: self._metric(m) for m in metrics}
            row = self.db.execute(
                "INSERT INTO evaluations (key, evaluator, version, options, mixture_id, generation_id, duration_s, "
                "environment_id, created_at, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [key, evaluator, version, canonical_json(options), mixture_id, generation_id, duration_s,
                 environment_id, now(), canonical_json(list(data))],
            )  # fmt: skip
            evaluation_id = int(row.lastrowid or 0)
            for name, column in scores.items():
                self.db.conn.executemany(
                    "INSERT INTO prompt_scores (evaluation_id, metric_id, input_id, by_sample, reasons) "
                    "VALUES (?, ?, ?, ?, ?)",
                    ((evaluation_id, metric_ids[name], *row) for row in _scores_by_prompt(column, judged)),
                )
            for s in statistics:
                columns = (s.numerators, s.denominators, s.n_scored, s.n_total)
                rows = zip(input_ids, *(column.tolist() for column in columns), strict=True)
                self.db.conn.executemany(
                    "INSERT INTO statistics (evaluation_id, metric_id, input_id, numerator, denominator, n_scored, "
                    "n_total) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    ((evaluation_id, metric_ids[s.metric], *row) for row in rows),
                )
            self.db.conn.executemany(
                "INSERT INTO estimates (evaluation_id, metric_id, prompts, value, low, high, n_scored, n_total, "
                "reason, transform) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (evaluation_id, metric_ids[e.metric], e.prompts, e.value, e.low, e.high, e.n_scored, e.n_total,
                     e.reason, transforms.get(e.metric))
                    for e in estimates
                ),
            )  # fmt: skip
            self.db.conn.executemany(
                "INSERT INTO weight_distances (evaluation_id, pair, tensor, elements, distance) VALUES (?, ?, ?, ?, ?)",
                ((evaluation_id, d.pair, d.tensor, d.elements, d.distance) for d in distances),
            )
            for part in ("evaluations", "estimates", "weight_distances", "prompt_scores"):
                self._changed(part, evaluation_id)
            for s in statistics:
                self._changed("statistics", evaluation_id, metric_ids[s.metric])
        return evaluation_id

    def add_overhead(
        self, suite_id: int, engine: str, records: Sequence[OverheadRecord], environment_id: int, *, replace: bool
    ) -> None:
        """Store ledger lines in one transaction.  With `replace`, nothing older stays at their batch sizes and lengths,
        so that all lines of a cell come from the same rounds."""
        with self._writing("overhead_records"):
            if replace:
                self.db.conn.executemany(
                    "DELETE FROM overhead_records WHERE suite_id = ? AND engine = ? AND batch_size = ? "
                    "AND new_tokens = ?",
                    sorted({(suite_id, engine, r.batch_size, r.new_tokens) for r in records}),
                )
            self.db.conn.executemany(
                "INSERT OR REPLACE INTO overhead_records (suite_id, engine, method, role, members, batch_size, "
                "new_tokens, metric, value, low, high, n_rounds, ratio_to_base, ratio_low, ratio_high, details, "
                "environment_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (suite_id, engine, r.method, r.role, r.members, r.batch_size, r.new_tokens, r.metric, r.value,
                     r.low, r.high, r.n_rounds, r.ratio_to_base, r.ratio_low, r.ratio_high, canonical_json(r.details),
                     environment_id, now())
                    for r in records
                ),
            )  # fmt: skip

    def add_parity(
        self, suite_id: int, engines: tuple[str, str], passed: bool, report: Mapping[str, Any], environment_id: int
    ) -> None:
        """Keep the latest comparison of two engines on a suite."""
        with self._writing("parity_reports"):
            self.db.execute(
                "INSERT OR REPLACE INTO parity_reports (suite_id, engine_a, engine_b, passed, report, environment_id, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [suite_id, *engines, passed, canonical_json(report), environment_id, now()],
            )

    def put_trials(self, suite_id: int, checkpoint: str, records: Iterable[TrialRecord], chosen: str | None) -> None:
        """Let exactly these trials stand for an expert of a suite; `chosen` is the best's key, once known."""
        with self._writing("trials", "trial_validations", "expert_trials"):
            self.db.execute("DELETE FROM expert_trials WHERE suite_id = ? AND checkpoint = ?", [suite_id, checkpoint])
            for record in records:
                self.db.execute(
                    "INSERT INTO expert_trials (suite_id, checkpoint, trial_id, chosen) VALUES (?, ?, ?, ?)",
                    [suite_id, checkpoint, self._put_trial(record), record.key == chosen],
                )

    def keep_experts(self, suite_id: int, checkpoints: Sequence[str]) -> None:
        """Take the experts that a suite no longer has off its view; their trials stay stored."""
        with self._writing("expert_trials"):
            self.db.execute(
                "DELETE FROM expert_trials WHERE suite_id = ? AND checkpoint NOT IN (SELECT value FROM json_each(?))",
                [suite_id, json.dumps(list(checkpoints))],
            )

    def _put_trial(self, record: TrialRecord) -> int:
        """The id of a trial; one that was trained again takes the place of its older record."""
        trial = record.trial
        environment_id = self.environment(record.environment, environment.digest(record.environment))
        self.db.execute(
            "INSERT INTO trials (key, base_digest, learning_rate, batch_size, steps, precision, seed, lora_r, "
            "lora_alpha, n_train, n_validation, n_cut, validation_perplexity, duration_s, checkpoint_digest, "
            "environment_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET "
            "validation_perplexity = excluded.validation_perplexity, duration_s = excluded.duration_s, "
            "checkpoint_digest = excluded.checkpoint_digest, environment_id = excluded.environment_id, "
            "created_at = excluded.created_at",
            [record.key, record.base_digest, trial.learning_rate, trial.batch_size, trial.steps, trial.precision,
             trial.seed, trial.lora and trial.lora.r, trial.lora and trial.lora.scale, record.n_train,
             record.n_validation, record.n_cut, record.perplexity, record.duration_s, record.checkpoint_digest,
             environment_id, record.created_at],
        )  # fmt: skip
        trial_id = self._id("SELECT id FROM trials WHERE key = ?", [record.key])
        self.db.execute("DELETE FROM trial_validations WHERE trial_id = ?", [trial_id])
        self.db.conn.executemany(
            "INSERT INTO trial_validations (trial_id, step, perplexity) VALUES (?, ?, ?)",
            [(trial_id, step, perplexity) for step, perplexity in record.validations],
        )
        return trial_id

    # ------------------------------------------------------------------------------------------ inside

    @contextmanager
    def _writing(self, *tables: str) -> Iterator[None]:
        """One transaction, which nothing of another process comes into; within one, that one goes on.

        `tables`: what changes and has one digest for all its rows; others say what changed by `_changed`.
        """
        connection = self.db.conn
        if connection.in_transaction:
            self._altered.update((table, ()) for table in tables)
            yield
            return
        with explained(self.path):
            patiently(connection, "BEGIN IMMEDIATE", self.path)
            before = connection.total_changes
            self._altered = {(table, ()) for table in tables}
            try:
                yield
                if connection.total_changes != before:
                    for part, owner in sorted(self._altered):
                        record(connection, part, *owner)
                patiently(connection, "COMMIT", self.path)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _changed(self, part: str, *owner: int) -> None:
        self._altered.add((part, owner))

    def _metric(self, metric: Metric) -> int:
        self.db.execute(
            "INSERT INTO metrics (name, direction, unit, description) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET direction = excluded.direction, unit = excluded.unit, description = excluded.description",
            [metric.name, metric.direction, metric.unit, metric.description],
        )
        return self._id("SELECT id FROM metrics WHERE name = ?", [metric.name])

    def _id(self, sql: str, values: Sequence[Any]) -> int:
        found = self._find(sql, values)
        if found is None:
            raise LookupError(f"{sql} {values!r}")
        return int(found)


def _scores_by_prompt(
    column: ScoreColumn, prompts: Sequence[tuple[int, Prompt, int]]
) -> Iterator[tuple[int, str, str | None]]:
    """(input id, its samples' scores as JSON, reasons by sample as JSON or None) of each prompt."""
    if len(column.values) != sum(n for _, _, n in prompts):
        raise ValueError(f"{len(column.values)} scores for {sum(n for _, _, n in prompts)} completions")
    start = 0
    for input_id, _, n in prompts:
        values = [None if v is None else float(f"{v:.9g}") for v in column.values[start : start + n]]
        reasons = {str(i): column.reasons[start + i] for i in range(n) if start + i in column.reasons}
        yield input_id, canonical_json(values), canonical_json(reasons) if reasons else None
        start += n


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
