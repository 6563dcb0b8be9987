"""The database's schema, as one version of lerpbench knows it; a file of another format is not opened."""

import sqlite3
from collections.abc import Iterator

APPLICATION_ID = 0x6C657270  # "lerp" in SQLite's header: tells our files from others
FORMAT = 2  # in the header too; raised with every change of SCHEMA

SCHEMA = """
CREATE TABLE environments (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, details TEXT NOT NULL,
    created_at TEXT NOT NULL);
CREATE TABLE suites (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL,
    updated_at TEXT NOT NULL);
CREATE TABLE runs (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
    engine TEXT NOT NULL, environment_id INTEGER NOT NULL REFERENCES environments(id),
    command TEXT NOT NULL, started_at TEXT NOT NULL, finished_at TEXT);
CREATE TABLE workers (run_id INTEGER NOT NULL REFERENCES runs(id), name TEXT NOT NULL, node TEXT NOT NULL,
    device TEXT NOT NULL, n_generated INTEGER NOT NULL, n_judged INTEGER NOT NULL, generating_s REAL NOT NULL,
    judging_s REAL NOT NULL, present_s REAL NOT NULL, PRIMARY KEY (run_id, name)) WITHOUT ROWID;
CREATE TABLE inputs (id INTEGER PRIMARY KEY, set_name TEXT NOT NULL CHECK (set_name != ''),
    row INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (set_name, row, text));
CREATE TABLE metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, direction TEXT NOT NULL,
    unit TEXT NOT NULL, description TEXT NOT NULL);
CREATE TABLE mixtures (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, engine TEXT NOT NULL,
    dtype TEXT NOT NULL, recipe TEXT NOT NULL, checkpoints TEXT NOT NULL, survived_update REAL);
CREATE TABLE generations (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
    mixture_id INTEGER NOT NULL REFERENCES mixtures(id), sampling TEXT NOT NULL, n_prompts INTEGER NOT NULL,
    n_completions INTEGER NOT NULL, n_tokens INTEGER NOT NULL, duration_s REAL NOT NULL,
    environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
CREATE TABLE completion_texts (generation_id INTEGER NOT NULL REFERENCES generations(id),
    input_id INTEGER NOT NULL REFERENCES inputs(id), sample INTEGER NOT NULL, text TEXT NOT NULL,
    n_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, PRIMARY KEY (generation_id, input_id, sample))
    WITHOUT ROWID;
CREATE TABLE evaluations (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, evaluator TEXT NOT NULL,
    version INTEGER NOT NULL, options TEXT NOT NULL, data TEXT NOT NULL,
    mixture_id INTEGER NOT NULL REFERENCES mixtures(id), generation_id INTEGER REFERENCES generations(id),
    duration_s REAL NOT NULL, environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
CREATE TABLE prompt_scores (evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
    metric_id INTEGER NOT NULL REFERENCES metrics(id), input_id INTEGER NOT NULL REFERENCES inputs(id),
    by_sample TEXT NOT NULL, reasons TEXT, PRIMARY KEY (evaluation_id, metric_id, input_id)) WITHOUT ROWID;
CREATE TABLE statistics (evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
    metric_id INTEGER NOT NULL REFERENCES metrics(id), input_id INTEGER NOT NULL REFERENCES inputs(id),
    numerator REAL NOT NULL, denominator REAL NOT NULL, n_scored INTEGER NOT NULL, n_total INTEGER NOT NULL,
    PRIMARY KEY (evaluation_id, metric_id, input_id)) WITHOUT ROWID;
CREATE TABLE estimates (id INTEGER PRIMARY KEY, evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
    metric_id INTEGER NOT NULL REFERENCES metrics(id), prompts TEXT CHECK (prompts != ''), value REAL, low REAL,
    high REAL, n_scored INTEGER NOT NULL, n_total INTEGER NOT NULL, reason TEXT, transform TEXT);
CREATE INDEX estimates_by_evaluation ON estimates (evaluation_id);
CREATE TABLE weight_distances (id INTEGER PRIMARY KEY, evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
    pair TEXT NOT NULL, tensor TEXT NOT NULL, elements INTEGER NOT NULL, distance REAL NOT NULL,
    UNIQUE (evaluation_id, pair, tensor));
CREATE TABLE points (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
    engine TEXT NOT NULL, method TEXT NOT NULL, params TEXT NOT NULL, position INTEGER NOT NULL,
    mixture_id INTEGER NOT NULL REFERENCES mixtures(id), generation_id INTEGER REFERENCES generations(id),
    failed TEXT, UNIQUE (suite_id, engine, method, params));
CREATE TABLE point_evaluations (point_id INTEGER NOT NULL REFERENCES points(id) ON DELETE CASCADE,
    evaluation_id INTEGER NOT NULL REFERENCES evaluations(id), PRIMARY KEY (point_id, evaluation_id))
    WITHOUT ROWID;
CREATE TABLE overhead_records (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
    engine TEXT NOT NULL, method TEXT NOT NULL, role TEXT NOT NULL, members INTEGER NOT NULL,
    batch_size INTEGER NOT NULL, new_tokens INTEGER NOT NULL, metric TEXT NOT NULL, value REAL, low REAL, high REAL,
    n_rounds INTEGER NOT NULL, ratio_to_base REAL, ratio_low REAL, ratio_high REAL, details TEXT NOT NULL,
    environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL,
    UNIQUE (suite_id, engine, method, batch_size, new_tokens, metric));
CREATE TABLE parity_reports (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
    engine_a TEXT NOT NULL, engine_b TEXT NOT NULL, passed INTEGER NOT NULL, report TEXT NOT NULL,
    environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL,
    UNIQUE (suite_id, engine_a, engine_b));
CREATE TABLE trials (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, base_digest TEXT NOT NULL,
    learning_rate REAL NOT NULL, batch_size INTEGER NOT NULL, steps INTEGER NOT NULL, precision TEXT NOT NULL,
    seed INTEGER NOT NULL, lora_r INTEGER, lora_alpha REAL, n_train INTEGER NOT NULL, n_validation INTEGER NOT NULL,
    n_cut INTEGER NOT NULL, validation_perplexity REAL, duration_s REAL NOT NULL, checkpoint_digest TEXT,
    environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
CREATE TABLE trial_validations (trial_id INTEGER NOT NULL REFERENCES trials(id), step INTEGER NOT NULL,
    perplexity REAL, PRIMARY KEY (trial_id, step)) WITHOUT ROWID;
CREATE TABLE expert_trials (suite_id INTEGER NOT NULL REFERENCES suites(id), checkpoint TEXT NOT NULL,
    trial_id INTEGER NOT NULL REFERENCES trials(id), chosen INTEGER NOT NULL,
    PRIMARY KEY (suite_id, checkpoint, trial_id)) WITHOUT ROWID;
CREATE TABLE checksums (part TEXT NOT NULL, owner TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (part, owner)) WITHOUT ROWID;
CREATE VIEW results AS
    SELECT suites.name AS suite, points.engine, points.method, points.params, estimates.prompts,
        metrics.name AS metric, estimates.value, estimates.low, estimates.high, estimates.n_scored,
        estimates.n_total
    FROM points JOIN suites ON suites.id = points.suite_id
        JOIN point_evaluations ON point_evaluations.point_id = points.id
        JOIN estimates ON estimates.evaluation_id = point_evaluations.evaluation_id
        JOIN metrics ON metrics.id = estimates.metric_id;
CREATE VIEW completions AS
    SELECT suites.name AS suite, points.engine, points.method, points.params, inputs.set_name AS prompts,
        inputs.row, completion_texts.sample, inputs.text AS prompt, completion_texts.text,
        completion_texts.n_tokens, completion_texts.finish_reason
    FROM points JOIN suites ON suites.id = points.suite_id
        JOIN completion_texts ON completion_texts.generation_id = points.generation_id
        JOIN inputs ON inputs.id = completion_texts.input_id;
CREATE VIEW overhead AS
    SELECT suites.name AS suite, engine, method, batch_size, new_tokens, metric, value, low, high, n_rounds,
        ratio_to_base, ratio_low, ratio_high
    FROM overhead_records JOIN suites ON suites.id = overhead_records.suite_id;
CREATE VIEW scores AS
    SELECT evaluation_id, metric_id, input_id, each.key AS sample, each.value,
        json_extract(reasons, '$."' || each.key || '"') AS reason
    FROM prompt_scores, json_each(by_sample) AS each;
CREATE VIEW finetuning AS
    SELECT suites.name AS suite, expert_trials.checkpoint, trials.learning_rate, trials.batch_size,
        trials.steps, trials.precision, trials.seed, trials.lora_r, trials.lora_alpha, trials.n_train,
        trials.n_validation, trials.validation_perplexity, expert_trials.chosen, trials.duration_s, trials.created_at
    FROM expert_trials JOIN suites ON suites.id = expert_trials.suite_id
        JOIN trials ON trials.id = expert_trials.trial_id
"""


def create(connection: sqlite3.Connection) -> None:
    """Fill an empty database; inside the caller's transaction, if there is one."""
    for statement in SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def objects(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """(kind and name, SQL) of each table, index and view; white space does not count."""
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"):
        yield f"{kind} {name}", " ".join(str(sql).split())
