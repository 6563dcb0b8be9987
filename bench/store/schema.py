"""The database's schema, one migration after another: a database made by any earlier version becomes today's."""

from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x6C657270  # "lerp" in SQLite's header: tells our files from others

migrations = Migrations("lerpbench")


@migrations()
def m001_initial(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE environments (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, details TEXT NOT NULL,
            created_at TEXT NOT NULL);
        CREATE TABLE suites (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL,
            updated_at TEXT NOT NULL);
        CREATE TABLE runs (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
            engine TEXT NOT NULL, environment_id INTEGER NOT NULL REFERENCES environments(id),
            command TEXT NOT NULL, started_at TEXT NOT NULL, finished_at TEXT);
        CREATE TABLE inputs (id INTEGER PRIMARY KEY, set_name TEXT NOT NULL, row INTEGER NOT NULL, text TEXT NOT NULL,
            UNIQUE (set_name, row, text));
        CREATE TABLE metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, direction TEXT NOT NULL,
            unit TEXT NOT NULL, description TEXT NOT NULL);
        CREATE TABLE mixtures (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, engine TEXT NOT NULL,
            dtype TEXT NOT NULL, recipe TEXT NOT NULL, checkpoints TEXT NOT NULL, survived_update REAL);
        CREATE TABLE generations (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
            mixture_id INTEGER NOT NULL REFERENCES mixtures(id), sampling TEXT NOT NULL, n_prompts INTEGER NOT NULL,
            n_completions INTEGER NOT NULL, n_tokens INTEGER NOT NULL, duration_s REAL NOT NULL,
            environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
        CREATE TABLE completion_texts (id INTEGER PRIMARY KEY,
            generation_id INTEGER NOT NULL REFERENCES generations(id), input_id INTEGER NOT NULL REFERENCES inputs(id),
            sample INTEGER NOT NULL, text TEXT NOT NULL, n_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL);
        CREATE INDEX completion_texts_by_generation ON completion_texts (generation_id);
        CREATE TABLE evaluations (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, evaluator TEXT NOT NULL,
            version INTEGER NOT NULL, options TEXT NOT NULL, mixture_id INTEGER NOT NULL REFERENCES mixtures(id),
            generation_id INTEGER REFERENCES generations(id), duration_s REAL NOT NULL,
            environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
        CREATE TABLE scores (evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
            metric_id INTEGER NOT NULL REFERENCES metrics(id),
            completion_id INTEGER NOT NULL REFERENCES completion_texts(id), value REAL, reason TEXT,
            PRIMARY KEY (evaluation_id, metric_id, completion_id)) WITHOUT ROWID;
        CREATE TABLE statistics (evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
            metric_id INTEGER NOT NULL REFERENCES metrics(id), input_id INTEGER NOT NULL REFERENCES inputs(id),
            numerator REAL NOT NULL, denominator REAL NOT NULL, n_scored INTEGER NOT NULL, n_total INTEGER NOT NULL,
            PRIMARY KEY (evaluation_id, metric_id, input_id)) WITHOUT ROWID;
        CREATE TABLE estimates (id INTEGER PRIMARY KEY, evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
            metric_id INTEGER NOT NULL REFERENCES metrics(id), prompts TEXT, value REAL, low REAL, high REAL,
            n_scored INTEGER NOT NULL, n_total INTEGER NOT NULL, reason TEXT, transform TEXT);
        CREATE INDEX estimates_by_evaluation ON estimates (evaluation_id);
        CREATE TABLE points (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
            engine TEXT NOT NULL, method TEXT NOT NULL, params TEXT NOT NULL, position INTEGER NOT NULL,
            mixture_id INTEGER NOT NULL REFERENCES mixtures(id), generation_id INTEGER REFERENCES generations(id),
            UNIQUE (suite_id, engine, method, params));
        CREATE TABLE point_evaluations (point_id INTEGER NOT NULL REFERENCES points(id) ON DELETE CASCADE,
            evaluation_id INTEGER NOT NULL REFERENCES evaluations(id), PRIMARY KEY (point_id, evaluation_id))
            WITHOUT ROWID;
        CREATE TABLE overhead_records (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
            engine TEXT NOT NULL, method TEXT NOT NULL, batch_size INTEGER NOT NULL, new_tokens INTEGER NOT NULL,
            metric TEXT NOT NULL, value REAL, low REAL, high REAL, n_rounds INTEGER NOT NULL, ratio_to_base REAL,
            ratio_low REAL, ratio_high REAL, details TEXT NOT NULL,
            environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL,
            UNIQUE (suite_id, engine, method, batch_size, new_tokens, metric));
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
        """
    )


@migrations()
def m002_parity(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE parity_reports (id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites(id),
            engine_a TEXT NOT NULL, engine_b TEXT NOT NULL, passed INTEGER NOT NULL, report TEXT NOT NULL,
            environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL,
            UNIQUE (suite_id, engine_a, engine_b));
        """
    )


@migrations()
def m003_compact(db: Database) -> None:
    """Completions lie in the order of generation and prompt, so that one prompt's are found without an index of their
    own; scores are one JSON list a prompt, which takes half the room of one row each.  `scores` stays, as a view.

    A score keeps nine significant digits: any float32 and the integers below a billion are exact.
    """
    db.executescript(
        """
        DROP VIEW completions;
        ALTER TABLE completion_texts RENAME TO old_texts;
        ALTER TABLE scores RENAME TO old_scores;
        CREATE TABLE completion_texts (generation_id INTEGER NOT NULL REFERENCES generations(id),
            input_id INTEGER NOT NULL REFERENCES inputs(id), sample INTEGER NOT NULL, text TEXT NOT NULL,
            n_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, PRIMARY KEY (generation_id, input_id, sample))
            WITHOUT ROWID;
        INSERT INTO completion_texts
            SELECT generation_id, input_id, sample, text, n_tokens, finish_reason FROM old_texts ORDER BY 1, 2, 3;
        CREATE TABLE prompt_scores (evaluation_id INTEGER NOT NULL REFERENCES evaluations(id),
            metric_id INTEGER NOT NULL REFERENCES metrics(id), input_id INTEGER NOT NULL REFERENCES inputs(id),
            by_sample TEXT NOT NULL, reasons TEXT, PRIMARY KEY (evaluation_id, metric_id, input_id)) WITHOUT ROWID;
        INSERT INTO prompt_scores
            SELECT evaluation_id, metric_id, input_id,
                '[' || group_concat(CASE WHEN value IS NULL THEN 'null' ELSE printf('%.9g', value) END) || ']',
                NULLIF(json_group_object(sample, reason) FILTER (WHERE reason IS NOT NULL), '{}')
            FROM (SELECT evaluation_id, metric_id, input_id, sample, value, reason FROM old_scores
                    JOIN old_texts ON old_texts.id = completion_id ORDER BY 1, 2, 3, 4)
            GROUP BY 1, 2, 3;
        DROP TABLE old_scores;
        DROP TABLE old_texts;
        ALTER TABLE evaluations ADD COLUMN data TEXT;
        CREATE VIEW completions AS
            SELECT suites.name AS suite, points.engine, points.method, points.params, inputs.set_name AS prompts,
                inputs.row, completion_texts.sample, inputs.text AS prompt, completion_texts.text,
                completion_texts.n_tokens, completion_texts.finish_reason
            FROM points JOIN suites ON suites.id = points.suite_id
                JOIN completion_texts ON completion_texts.generation_id = points.generation_id
                JOIN inputs ON inputs.id = completion_texts.input_id;
        CREATE VIEW scores AS
            SELECT evaluation_id, metric_id, input_id, each.key AS sample, each.value,
                json_extract(reasons, '$."' || each.key || '"') AS reason
            FROM prompt_scores, json_each(by_sample) AS each;
        """
    )


@migrations()
def m004_finetuning(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE trials (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, base_digest TEXT NOT NULL,
            learning_rate REAL NOT NULL, batch_size INTEGER NOT NULL, steps INTEGER NOT NULL, precision TEXT NOT NULL,
            seed INTEGER NOT NULL, n_train INTEGER NOT NULL, n_validation INTEGER NOT NULL, n_cut INTEGER NOT NULL,
            validation_perplexity REAL, duration_s REAL NOT NULL, checkpoint_digest TEXT,
            environment_id INTEGER NOT NULL REFERENCES environments(id), created_at TEXT NOT NULL);
        CREATE TABLE trial_validations (trial_id INTEGER NOT NULL REFERENCES trials(id), step INTEGER NOT NULL,
            perplexity REAL, PRIMARY KEY (trial_id, step)) WITHOUT ROWID;
        CREATE TABLE expert_trials (suite_id INTEGER NOT NULL REFERENCES suites(id), checkpoint TEXT NOT NULL,
            trial_id INTEGER NOT NULL REFERENCES trials(id), chosen INTEGER NOT NULL,
            PRIMARY KEY (suite_id, checkpoint, trial_id)) WITHOUT ROWID;
        CREATE VIEW finetuning AS
            SELECT suites.name AS suite, expert_trials.checkpoint, trials.learning_rate, trials.batch_size,
                trials.steps, trials.precision, trials.seed, trials.n_train, trials.n_validation,
                trials.validation_perplexity, expert_trials.chosen, trials.duration_s, trials.created_at
            FROM expert_trials JOIN suites ON suites.id = expert_trials.suite_id
                JOIN trials ON trials.id = expert_trials.trial_id;
        """
    )
