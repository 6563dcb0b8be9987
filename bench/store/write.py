"""Everything measured, in one SQLite file: completions, scores, per-prompt statistics, estimates, provenance.

The public face, stable, is three views: `results`, `completions`, `overhead`.  Work is keyed by content, so what is
stored is never made again; `points` says which stored work stands for which place of which suite.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    Suite,
    TrialRecord,
    UserError,
    canonical_json,
)
from bench.stats import RatioStatistic, ScoreColumn
from bench.store.schema import APPLICATION_ID, migrations


class Store:
    """One results database, opened by one writing process at a time."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @classmethod
    def open(cls, path: Path | str) -> "Store":
        """Open for writing, or create.  Raises UserError for a foreign, newer or unwritable file; touches none of them.

        A database of an earlier version is brought up to date.
        """
        path = Path(path)
        _require_file(path)
        _require_writable(path)
        fresh = not path.exists() or path.stat().st_size == 0
        with _explained(path):
            connection = sqlite3.connect(path, timeout=10)
            db = Database(connection)
            if fresh:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            else:
                _require_ours(db, path)
            if migrations.pending(db):
                migrations.apply(db)
            connection.execute("PRAGMA foreign_keys = ON")
        return cls(db)

    @classmethod
    def read(cls, path: Path | str) -> "Store":
        """Open for reading alone, also where neither file nor folder can be written.  Raises UserError as `open` does.

        A database of an earlier version is read from a private copy that is brought up to date.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: no such database; `lerpbench run` makes one")
        _require_file(path)
        with _explained(path):
            _finish_rollback(path)
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
            db = Database(connection)
            _require_ours(db, path)
            if migrations.pending(db):
                db = Database(sqlite3.connect(""))  # a file in SQLite's temporary folder, gone when it is closed
                connection.backup(db.conn)
                connection.close()
                migrations.apply(db)
        return cls(db)

    def close(self) -> None:
        self.db.close()

    # ------------------------------------------------------------------------------------------ writing

    def environment(self, details: Mapping[str, Any], digest: str) -> int:
        """The id of these environment facts, stored once."""
        with self.db.atomic():
            self.db.execute(
                "INSERT OR IGNORE INTO environments (digest, details, created_at) VALUES (?, ?, ?)",
                [digest, canonical_json(details), now()],
            )
        return self._id("SELECT id FROM environments WHERE digest = ?", [digest])

    def suite(self, suite: Suite) -> int:
        """The id of the suite's name; its definition becomes the given one."""
        with self.db.atomic():
            self.db.execute(
                "INSERT INTO suites (name, definition, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET definition = excluded.definition, updated_at = excluded.updated_at",
                [suite.name, canonical_json(suite.model_dump(mode="json")), now()],
            )
        return self._id("SELECT id FROM suites WHERE name = ?", [suite.name])

    def start_run(self, suite_id: int, engine: str, environment_id: int, command: str) -> int:
        with self.db.atomic():
            row = self.db.execute(
                "INSERT INTO runs (suite_id, engine, environment_id, command, started_at) VALUES (?, ?, ?, ?, ?)",
                [suite_id, engine, environment_id, command, now()],
            )
        return int(row.lastrowid or 0)

    def finish_run(self, run_id: int) -> None:
        with self.db.atomic():
            self.db.execute("UPDATE runs SET finished_at = ? WHERE id = ?", [now(), run_id])

    def mixture(self, key: str, engine: str, dtype: str, recipe: Recipe, digests: Mapping[str, str]) -> int:
        """The id of a mixture of checkpoint bytes on an engine."""
        with self.db.atomic():
            self.db.execute(
                "INSERT OR IGNORE INTO mixtures (key, engine, dtype, recipe, checkpoints) VALUES (?, ?, ?, ?, ?)",
                [key, engine, dtype, canonical_json(recipe.model_dump(mode="json")), canonical_json(dict(digests))],
            )
        return self._id("SELECT id FROM mixtures WHERE key = ?", [key])

    def set_survived_update(self, mixture_id: int, share: float) -> None:
        """The share of the update to the weights that is left after rounding to the served dtype."""
        with self.db.atomic():
            self.db.execute("UPDATE mixtures SET survived_update = ? WHERE id = ?", [share, mixture_id])

    def place(self, suite_id: int, engine: str, position: int, point: Point, mixture_id: int) -> int:
        """The id of a suite's point, now standing for this mixture; links to other work than this mixture's fall."""
        params = canonical_json(point.params)
        where = [suite_id, engine, point.method, params]
        with self.db.atomic():
            self.db.execute(
                "INSERT INTO points (suite_id, engine, method, params, position, mixture_id) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (suite_id, engine, method, params) DO UPDATE SET position = excluded.position, "
                "generation_id = CASE WHEN mixture_id = excluded.mixture_id THEN generation_id END, "
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
        return point_id

    def keep_points(self, suite_id: int, engine: str, point_ids: Sequence[int]) -> None:
        """Take every other point of this suite and engine off the views; their work stays stored."""
        kept = json.dumps(list(point_ids))
        with self.db.atomic():
            self.db.execute(
                "DELETE FROM points WHERE suite_id = ? AND engine = ? AND id NOT IN (SELECT value FROM json_each(?))",
                [suite_id, engine, kept],
            )

    def link(self, point_id: int, generation_id: int | None, evaluation_ids: Sequence[int]) -> None:
        """What stands for a point from now on: its generation, and exactly these evaluations."""
        with self.db.atomic():
            self.db.execute("UPDATE points SET generation_id = ? WHERE id = ?", [generation_id, point_id])
            self.db.execute("DELETE FROM point_evaluations WHERE point_id = ?", [point_id])
            self.db.conn.executemany(
                "INSERT OR IGNORE INTO point_evaluations (point_id, evaluation_id) VALUES (?, ?)",
                [(point_id, evaluation_id) for evaluation_id in evaluation_ids],
            )

    def inputs(self, prompts: Sequence[Prompt]) -> list[int]:
        """The ids of prompts or sentences, stored once."""
        rows = [(p.set, p.row, p.text) for p in prompts]
        with self.db.atomic():
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
        with self.db.atomic():
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
        data: Sequence[str] = (),
    ) -> int:
        """Store one evaluator's scores, per-item statistics and estimates in one transaction; the evaluation's id.

        Scores are in the order of `generated`.  `data`: digests of the models and files behind the verdict.
        """
        input_ids = self.inputs(items)
        transforms = {s.metric: s.transform for s in statistics}
        judged = self.prompts_of(generation_id) if scores else []
        with self.db.atomic():
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
        return evaluation_id

    def add_overhead(
        self, suite_id: int, engine: str, records: Sequence[OverheadRecord], environment_id: int, *, replace: bool
    ) -> None:
        """Store ledger lines in one transaction.  With `replace`, nothing older stays at their batch sizes and lengths,
        so that all lines of a cell come from the same rounds."""
        with self.db.atomic():
            if replace:
                self.db.conn.executemany(
                    "DELETE FROM overhead_records WHERE suite_id = ? AND engine = ? AND batch_size = ? "
                    "AND new_tokens = ?",
                    sorted({(suite_id, engine, r.batch_size, r.new_tokens) for r in records}),
                )
            self.db.conn.executemany(
                "INSERT OR REPLACE INTO overhead_records (suite_id, engine, method, batch_size, new_tokens, metric, "
                "value, low, high, n_rounds, ratio_to_base, ratio_low, ratio_high, details, environment_id, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (suite_id, engine, r.method, r.batch_size, r.new_tokens, r.metric, r.value, r.low, r.high,
                     r.n_rounds, r.ratio_to_base, r.ratio_low, r.ratio_high, canonical_json(r.details),
                     environment_id, now())
                    for r in records
                ),
            )  # fmt: skip

    def add_parity(
        self, suite_id: int, engines: tuple[str, str], passed: bool, report: Mapping[str, Any], environment_id: int
    ) -> None:
        """Keep the latest comparison of two engines on a suite."""
        with self.db.atomic():
            self.db.execute(
                "INSERT OR REPLACE INTO parity_reports (suite_id, engine_a, engine_b, passed, report, environment_id, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [suite_id, *engines, passed, canonical_json(report), environment_id, now()],
            )

    def put_trials(self, suite_id: int, checkpoint: str, records: Iterable[TrialRecord], chosen: str | None) -> None:
        """Let exactly these trials stand for an expert of a suite; `chosen` is the best's key, once known."""
        with self.db.atomic():
            self.db.execute("DELETE FROM expert_trials WHERE suite_id = ? AND checkpoint = ?", [suite_id, checkpoint])
            for record in records:
                self.db.execute(
                    "INSERT INTO expert_trials (suite_id, checkpoint, trial_id, chosen) VALUES (?, ?, ?, ?)",
                    [suite_id, checkpoint, self._put_trial(record), record.key == chosen],
                )

    def keep_experts(self, suite_id: int, checkpoints: Sequence[str]) -> None:
        """Take the experts that a suite no longer has off its view; their trials stay stored."""
        with self.db.atomic():
            self.db.execute(
                "DELETE FROM expert_trials WHERE suite_id = ? AND checkpoint NOT IN (SELECT value FROM json_each(?))",
                [suite_id, json.dumps(list(checkpoints))],
            )

    def _put_trial(self, record: TrialRecord) -> int:
        """The id of a trial; one that was trained again takes the place of its older record."""
        trial = record.trial
        environment_id = self.environment(record.environment, environment.digest(record.environment))
        self.db.execute(
            "INSERT INTO trials (key, base_digest, learning_rate, batch_size, steps, precision, seed, n_train, "
            "n_validation, n_cut, validation_perplexity, duration_s, checkpoint_digest, environment_id, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "validation_perplexity = excluded.validation_perplexity, duration_s = excluded.duration_s, "
            "checkpoint_digest = excluded.checkpoint_digest, environment_id = excluded.environment_id, "
            "created_at = excluded.created_at",
            [record.key, record.base_digest, trial.learning_rate, trial.batch_size, trial.steps, trial.precision,
             trial.seed, record.n_train, record.n_validation, record.n_cut, record.perplexity, record.duration_s,
             record.checkpoint_digest, environment_id, record.created_at],
        )  # fmt: skip
        trial_id = self._id("SELECT id FROM trials WHERE key = ?", [record.key])
        self.db.execute("DELETE FROM trial_validations WHERE trial_id = ?", [trial_id])
        self.db.conn.executemany(
            "INSERT INTO trial_validations (trial_id, step, perplexity) VALUES (?, ?, ?)",
            [(trial_id, step, perplexity) for step, perplexity in record.validations],
        )
        return trial_id

    # ------------------------------------------------------------------------------------------ reading

    def overhead_records(self, suite_id: int, engine: str) -> list[OverheadRecord]:
        """The stored ledger of a suite on an engine, in the order it was written."""
        columns = list(OverheadRecord.model_fields)
        rows = self.db.execute(
            f"SELECT {', '.join(columns)} FROM overhead_records WHERE suite_id = ? AND engine = ? ORDER BY id",
            [suite_id, engine],
        )
        found = (dict(zip(columns, row, strict=True)) for row in rows)
        return [OverheadRecord(**{**row, "details": json.loads(row["details"])}) for row in found]

    def generation_id(self, key: str) -> int | None:
        return self._find("SELECT id FROM generations WHERE key = ?", [key])

    def evaluation_id(self, key: str) -> int | None:
        return self._find("SELECT id FROM evaluations WHERE key = ?", [key])

    def prompts_of(self, generation_id: int | None) -> list[tuple[int, Prompt, int]]:
        """A generation's prompts as (input id, prompt, number of samples): set by set as first stored, by row."""
        rows = self.db.execute(
            "SELECT input_id, set_name, row, inputs.text, COUNT(*) FROM completion_texts "
            "JOIN inputs ON inputs.id = input_id WHERE generation_id = ? GROUP BY input_id ORDER BY input_id",
            [generation_id],
        ).fetchall()
        sets = {name: i for i, name in enumerate(dict.fromkeys(row[1] for row in rows))}
        rows.sort(key=lambda row: (sets[row[1]], row[2]))
        return [(id_, Prompt(set=name, row=row, text=text), n) for id_, name, row, text, n in rows]

    def generated(self, generation_id: int) -> tuple[list[Prompt], list[Completion]]:
        """The prompts of a generation and its completions, ordered by prompt, then sample."""
        prompts = self.prompts_of(generation_id)
        place = {input_id: i for i, (input_id, _, _) in enumerate(prompts)}
        found: list[list[Completion]] = [[] for _ in prompts]
        for input_id, *completion in self.db.execute(
            "SELECT input_id, sample, text, n_tokens, finish_reason FROM completion_texts WHERE generation_id = ? "
            "ORDER BY input_id, sample",
            [generation_id],
        ):
            found[place[input_id]].append(Completion(place[input_id], *completion))
        return [prompt for _, prompt, _ in prompts], [completion for group in found for completion in group]

    # ------------------------------------------------------------------------------------------ inside

    def _metric(self, metric: Metric) -> int:
        self.db.execute(
            "INSERT INTO metrics (name, direction, unit, description) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET direction = excluded.direction, unit = excluded.unit, description = excluded.description",
            [metric.name, metric.direction, metric.unit, metric.description],
        )
        return self._id("SELECT id FROM metrics WHERE name = ?", [metric.name])

    def _find(self, sql: str, values: Sequence[Any]) -> int | None:
        row = self.db.execute(sql, list(values)).fetchone()
        return None if row is None else int(row[0])

    def _id(self, sql: str, values: Sequence[Any]) -> int:
        found = self._find(sql, values)
        if found is None:
            raise LookupError(f"{sql} {values!r}")
        return found


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


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's complaints about a file as a user's mistake."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: cannot be used as a lerpbench database: {error}") from error


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: expected a database file, got a folder")


def _finish_rollback(path: Path) -> None:
    """Let SQLite take back what a killed run left half written: a reader may not do so itself."""
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and os.access(path, os.W_OK):
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _require_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if not target.exists():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(target, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: not writable; choose another place with --db")


def _require_ours(db: Database, path: Path) -> None:
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise UserError(f"{path}: not a lerpbench database; choose another file with --db")
    known = {migration.name for migration in migrations.pending(db)}
    known |= {migration.name for migration in migrations._migrations}
    newer = [m.name for m in migrations.applied(db) if m.name not in known]
    if newer:
        raise UserError(f"{path}: made by a newer lerpbench (it has {newer[-1]}); update lerpbench to open it")
