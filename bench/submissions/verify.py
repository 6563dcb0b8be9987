"""Does a submitted bundle hold what it says, and do its scores follow from its completions?

Container and schema first, since all that comes later reads the database; then the facts that follow from stored rows
alone; then `recompute`, which judges again.  Every text of a bundle is hostile: it names no code to import and no
model to fetch, and is shown quoted.
"""

import json
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bench import engines, environment
from bench.progress import Task
from bench.schema import Recipe, Sampling, UserError
from bench.store.schema import APPLICATION_ID, migrations
from bench.store.write import Store
from bench.submissions import bundle as bundles
from bench.submissions.bundle import Manifest
from bench.submissions.findings import Mismatch, Report, shown, stored_suite
from bench.submissions.recompute import recompute
from bench.suite import keys

JSON_COLUMNS = {
    "environments": ("details",),
    "suites": ("definition",),
    "mixtures": ("recipe", "checkpoints"),
    "generations": ("sampling",),
    "evaluations": ("options", "data"),
    "prompt_scores": ("by_sample", "reasons"),
    "points": ("params",),
    "overhead_records": ("details",),
    "parity_reports": ("report",),
}
TYPES = {"INTEGER": "('integer')", "REAL": "('real', 'integer')", "TEXT": "('text')", "BLOB": "('blob')"}


def verify(bundle: Path, sample: int, seed: int | None, device: str, task: Task, extract: Path | None = None) -> Report:
    """Check a bundle.  `sample`: how many prompts of each generation are judged again, drawn by `seed` (None: afresh).

    With `extract`, a database that passes is written there.  Raises UserError for what is no bundle.
    """
    if extract is not None and extract.exists():
        raise UserError(f"{extract}: exists already; give the name of a new file")
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        path, manifest = bundles.unpack(bundle, Path(folder))
        claimed, found = manifest.files, {bundles.DATABASE: bundles.record(path)}
        report.check("manifest", f"the SHA-256 of {bundles.DATABASE}", lambda: differences("files", claimed, found))
        if report.check("schema", "tables, views, types, JSON and references are lerpbench's", lambda: schema(path)):
            with closing(Store.read(path)) as store:
                facts(store, manifest, report)
                recompute(store, report, sample, secrets.randbits(32) if seed is None else seed, device, task)
        if extract is not None and report.verified:
            try:
                extract.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, extract)
            except OSError as error:
                raise UserError(f"{extract}: cannot be written: {error.strerror or error}") from error
    return report


def facts(store: Store, manifest: Manifest, report: Report) -> None:
    """What follows from stored rows alone."""
    n = manifest.counts
    bare = manifest.model_copy(update={"files": {}})
    report.check("manifest", "suite, commit, environments, checkpoints and counts are the database's",
                 lambda: differences("manifest", bare.model_dump(), bundles.facts(store).model_dump()))  # fmt: skip
    report.check("environments", f"{n.get('environments')} digests", lambda: environments(store))
    report.check("completeness", "every point, completion and verdict that the suite asks for is there",
                 lambda: completeness(store))  # fmt: skip
    report.check("points", f"{n.get('points')} points stand for their method's recipe, served as the suite says",
                 lambda: points(store, report))  # fmt: skip
    report.check("mixtures", f"{n.get('mixtures')} keys follow from recipe, checkpoint bytes and engine",
                 lambda: mixtures(store))  # fmt: skip
    report.check("overhead", f"{n.get('overhead_records')} lines lie in their own intervals", lambda: overhead(store))
    report.skipped += [
        ("overhead", "a timing cannot be made again from what is stored"),
        ("completions", "whether these checkpoints wrote them: `lerpbench run` on a like machine makes them again"),
    ]


def differences(table: str, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Mismatch]:
    for key in sorted(stored.keys() | expected.keys()):
        if stored.get(key) != expected.get(key):
            yield Mismatch(table, {"entry": key}, "content", stored.get(key), expected.get(key))


# ------------------------------------------------------------------------------------------------------ schema


def schema(path: Path) -> Iterator[Mismatch]:
    """Nothing but what lerpbench makes, before any view is asked and any row is believed."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            yield Mismatch("results.db", {}, "application_id", application, APPLICATION_ID)
            return
        stored = dict(_objects(connection))
        listed = [row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
        expected = dict(_objects(_made_by(listed)))
        if found := [*differences("sqlite_master", stored, expected)]:
            yield from found
            return
        if (damage := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            yield Mismatch("results.db", {}, "integrity_check", damage, "ok")
            return
        for table in bundles.tables(Database(connection)):
            yield from _rows(connection, table)


def _objects(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        yield f"{kind} {name}", " ".join(str(sql).split())


def _made_by(names: list[str]) -> sqlite3.Connection:
    """An empty database after exactly these migrations.  Raises UserError where they are not a start of ours."""
    db = Database(memory=True)
    known = [migration.name for migration in migrations.pending(db)]
    if names != known[: len(names)]:
        raise UserError(f"made by another or a newer lerpbench, with the migrations {shown(names)}")
    migrations.apply(db, stop_before=known[len(names) :])
    return db.conn


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[Mismatch]:
    """For each column the first row whose value is not of the declared type, is no JSON where JSON belongs, or refers
    to a row that is not there."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    identity = [column[1] for column in columns if column[5]] or ["rowid"]
    wrong = {}
    for _, name, declared, *_ in columns:
        right = [f"typeof({name}) IN {TYPES[declared]}"]
        right += [f"json_valid({name})"] if name in JSON_COLUMNS.get(table, ()) else []
        right += [f"abs({name}) < 9e999"] if declared == "REAL" else []
        wrong[name] = f"NOT ({' AND '.join(right)})", declared + (" of JSON" if "json" in right[-1] else "")
    for _, _, parent, name, other, *_ in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
        condition, declared = wrong[name]
        absent = f"{name} NOT IN (SELECT {other} FROM {parent})"
        wrong[name] = f"({condition} OR {absent})", f"{declared}, of a row of {parent}"
    for name, (condition, expected) in wrong.items():
        row = connection.execute(
            f"SELECT {', '.join(identity)}, {name} FROM {table} WHERE {name} IS NOT NULL AND {condition} LIMIT 1"
        ).fetchone()
        if row is not None:
            yield Mismatch(table, dict(zip(identity, row[:-1], strict=True)), name, row[-1], expected)


# ------------------------------------------------------------------------------------------------------ stored rows


def environments(store: Store) -> Iterator[Mismatch]:
    for digest, details in store.db.execute("SELECT digest, details FROM environments"):
        expected = environment.digest(json.loads(details))
        if digest != expected:
            yield Mismatch("environments", {"details": details}, "digest", digest, expected)


def completeness(store: Store) -> Iterator[Mismatch]:
    if (n := store.db.execute("SELECT count(*) FROM suites").fetchone()[0]) != 1:
        yield Mismatch("suites", {}, "rows", n, 1)
        return
    for gap in bundles.missing(store):
        yield Mismatch("points", {"suite": stored_suite(store).name}, "gap", gap, "what the suite asks for, no more")
    for method, params, prompts, metric, n in store.db.execute(
        "SELECT method, params, prompts, metric, count(*) FROM results GROUP BY engine, 1, 2, 3, 4 HAVING count(*) > 1"
    ):
        row = {"point": bundles.place((method, params)), "metric": metric, "prompts": prompts or "all"}
        yield Mismatch("estimates", row, "rows", n, 1)


def points(store: Store, report: Report) -> Iterator[Mismatch]:
    """Each point's recipe is its method's at its parameters; what stands for it is of its mixture and of the suite."""
    import methods

    suite = stored_suite(store)
    registry = methods.registry()
    unknown: set[str] = set()
    digests: dict[str, str] = {}
    for method, params, engine, mixture_id, recipe, served, dtype, members, sampling, generated in store.db.execute(
        "SELECT method, params, points.engine, points.mixture_id, recipe, mixtures.engine, dtype, checkpoints, "
        "sampling, generations.mixture_id FROM points JOIN mixtures ON mixtures.id = points.mixture_id "
        "LEFT JOIN generations ON generations.id = generation_id"
    ):
        row = {"point": bundles.place((method, params)), "engine": engine}
        if method in methods.TABLE:
            made = registry.create(method, json.loads(params)).recipe()
            if Recipe.model_validate_json(recipe) != made:
                yield Mismatch("points", row, "recipe", json.loads(recipe), made.model_dump())
        else:
            unknown.add(method)
        expected = suite.sampling if generated is not None else None
        for column, stored, wanted in (
            ("engine", served, engine),
            ("dtype", dtype, suite.dtype),
            ("sampling", None if sampling is None else Sampling.model_validate_json(sampling), expected),
            ("generation's mixture", generated, mixture_id if generated is not None else None),
            *((f"checkpoint {name}", digest, digests.setdefault(name, digest))
              for name, digest in json.loads(members).items()),
        ):  # fmt: skip
            if stored != wanted:
                yield Mismatch("points", row, column, stored, wanted)
    yield from _strangers(store)
    for name in sorted(unknown):
        report.skipped.append((f"method {shown(name)}", "not built in: its recipes are taken as stored"))


def _strangers(store: Store) -> Iterator[Mismatch]:
    """Verdicts at a point that are about another point's mixture or completions."""
    for method, params, key in store.db.execute(
        "SELECT method, params, key FROM point_evaluations JOIN points ON points.id = point_id JOIN evaluations "
        "ON evaluations.id = evaluation_id WHERE evaluations.mixture_id != points.mixture_id "
        "OR evaluations.generation_id IS NOT NULL AND evaluations.generation_id IS NOT points.generation_id"
    ):
        row = {"point": bundles.place((method, params))}
        yield Mismatch("point_evaluations", row, "evaluation", key, "one of this point's own mixture and completions")


def mixtures(store: Store) -> Iterator[Mismatch]:
    for key, engine, dtype, recipe_json, members in store.db.execute(
        "SELECT key, engine, dtype, recipe, checkpoints FROM mixtures"
    ):
        recipe = Recipe.model_validate_json(recipe_json)
        versions = range(engines.engine_version(engine), 0, -1)  # which one it was is not stored
        known = [keys.mixture_key(engine, v, dtype, recipe, json.loads(members)) for v in versions]
        if key not in known:
            yield Mismatch("mixtures", {"recipe": json.loads(recipe_json)}, "key", key, known[0])


def overhead(store: Store) -> Iterator[Mismatch]:
    for suite, engine in store.db.execute("SELECT DISTINCT suite_id, engine FROM overhead_records").fetchall():
        for line in store.overhead_records(suite, engine):
            row = {name: getattr(line, name) for name in ("method", "batch_size", "new_tokens", "metric")}
            spans = {
                "value": (line.low, line.value, line.high),
                "ratio_to_base": (line.ratio_low, line.ratio_to_base, line.ratio_high),
            }
            for column, (low, value, high) in spans.items():
                if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
                    yield Mismatch("overhead_records", row, column, value, f"between {low!r} and {high!r}")
