"""One suite of a database as a file that others can check: a zip with `results.db` and `manifest.json`, nothing else.

The database holds that suite's rows alone, under the ids that they have at home; the manifest says in advance what a
reader will find.  Equal databases make equal bytes.  Bundles from elsewhere are hostile: `unpack` believes no name and
no size.
"""

import hashlib
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from sqlite_utils import Database

from bench.registry import explain
from bench.schema import Suite, UserError, Value, canonical_json
from bench.store.write import Store

DATABASE, MANIFEST = "results.db", "manifest.json"
MAX_BYTES = {DATABASE: 64 * 2**30, MANIFEST: 4 * 2**20}
MAX_RATIO = 200  # bytes out for a byte in; real databases stay below 20
MAX_POINTS = 100_000
CHUNK = 2**20
BORN = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


class FileRecord(Value):
    sha256: str
    bytes: int


class Manifest(Value):
    """What a bundle claims to hold.  `checkpoints`: the suite's names -> SHA-256 of the bytes that were mixed."""

    format: Literal["lerpbench submission 1"] = "lerpbench submission 1"
    suite: str
    engines: tuple[str, ...]
    migrations: tuple[str, ...]
    commits: tuple[str, ...]
    environments: dict[str, Any]
    checkpoints: dict[str, str]
    counts: dict[str, int]
    files: dict[str, FileRecord] = {}


# ------------------------------------------------------------------------------------------------------ making one


def submit(database: Path, suite: str | None, bundle: Path) -> Manifest:
    """Bundle one suite of a database.  Raises UserError where it is unknown, ambiguous or not finished."""
    with closing(Store.read(database)) as home, tempfile.TemporaryDirectory() as folder:
        name = _chosen(home, suite, database)
        if bundle.is_dir() or bundle.resolve() == database.resolve():
            raise UserError(f"{bundle}: expected the name of a new file, for instance {name}.lerpbench.zip")
        path = Path(folder) / DATABASE
        Store.open(path).close()
        _copy_suite(home, name, path)
        with closing(Store.read(path)) as store:
            if gaps := missing(store):
                more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
                raise UserError(f"suite {name} is not finished: {gaps[0]}{more}; `lerpbench run` finishes it")
            manifest = facts(store)
        manifest = manifest.model_copy(update={"files": {DATABASE: record(path)}})
        pack(path, manifest, bundle)
    return manifest


def _chosen(store: Store, suite: str | None, database: Path) -> str:
    names = [str(row[0]) for row in store.db.execute("SELECT name FROM suites ORDER BY name")]
    if suite is None and len(names) == 1:
        return names[0]
    if suite is None or suite not in names:
        asked = "several suites; say which with --suite" if suite is None and names else f"no suite {suite or ''!r}"
        raise UserError(f"{database}: {asked}; it has {', '.join(names) or 'none'}")
    return suite


def _copy_suite(home: Store, suite: str, path: Path) -> None:
    """Copy the suite's rows into an empty database: what belongs to it, the work that its points stand for, and every
    row that these refer to.  Raises UserError where a reference leads nowhere."""
    db = home.db
    db.execute("ATTACH DATABASE ? AS copy", [str(path)])
    db.execute("PRAGMA copy.journal_mode = OFF")
    db.execute("PRAGMA copy.synchronous = OFF")
    db.execute("DELETE FROM copy._sqlite_migrations")  # the home's own, with their dates: equal databases, equal bytes
    db.execute("INSERT INTO copy._sqlite_migrations SELECT * FROM main._sqlite_migrations")
    for table, condition in _parts(db):
        columns = ", ".join(db.table(table).columns_dict)
        values = [suite] if table == "suites" else []
        db.execute(f"INSERT INTO copy.{table} ({columns}) SELECT {columns} FROM main.{table} WHERE {condition}", values)
    db.conn.commit()
    if broken := db.execute("PRAGMA copy.foreign_key_check").fetchall():
        raise UserError(f"suite {suite}: a row of {broken[0][0]} refers to one of {broken[0][2]} that is not there")
    db.execute("DETACH DATABASE copy")


def _parts(db: Database) -> list[tuple[str, str]]:
    """(table, which rows of it), each after the tables that its condition looks at in the copy."""
    references = {table: [(k.column, k.other_table) for k in db.table(table).foreign_keys] for table in tables(db)}
    parts = {
        "suites": "name = ?",
        "points": "suite_id IN (SELECT id FROM copy.suites)",
        "point_evaluations": "point_id IN (SELECT id FROM copy.points)",
        "generations": "id IN (SELECT generation_id FROM copy.points)",
        "evaluations": "id IN (SELECT evaluation_id FROM copy.point_evaluations)",
    }
    for table, keys in references.items():  # what a suite, a generation or an evaluation consists of
        for column, parent in keys:
            if parent in ("suites", "generations", "evaluations"):
                parts.setdefault(table, f"{column} IN (SELECT id FROM copy.{parent})")
    shared = [table for table in references if table not in parts]  # prompts, metrics, mixtures, environments
    for table in shared:
        users = [
            f"SELECT {column} FROM copy.{user}"
            for user, keys in references.items()
            for column, parent in keys
            if parent == table and user not in shared
        ]
        if users:
            parts[table] = f"id IN ({' UNION '.join(users)})"
    return list(parts.items())


def tables(db: Database) -> list[str]:
    return sorted(name for name in db.table_names() if not name.startswith(("sqlite_", "_sqlite_")))


def record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def pack(database: Path, manifest: Manifest, bundle: Path) -> None:
    """Write the bundle beside its place and move it there when it is whole.  Raises UserError."""
    partial = bundle.with_name(f".{bundle.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(MANIFEST), json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
            with database.open("rb") as source, archive.open(_entry(DATABASE), "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
        os.replace(partial, bundle)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{bundle}: cannot be written: {error.strerror or error}") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, BORN)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    return entry


# ------------------------------------------------------------------------------------------------------ reading one


def unpack(bundle: Path, folder: Path) -> tuple[Path, Manifest]:
    """Write the bundle's database into a folder; its manifest, as claimed.  Raises UserError for what is no bundle."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            if sorted(archive.namelist()) != [MANIFEST, DATABASE]:
                raise UserError(f"{bundle}: not a lerpbench bundle: expected just {MANIFEST} and {DATABASE} in it")
            for entry in archive.infolist():
                _extract(archive, entry, folder / entry.filename)
    except FileNotFoundError as error:
        raise UserError(f"{bundle}: no such bundle; `lerpbench submit` makes one") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{bundle}: cannot be read as a bundle: {' '.join(str(error).split())}") from error
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise explain(error, f"{bundle}: {MANIFEST}", Manifest.model_fields) from error
    return folder / DATABASE, manifest


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one file, no further than it says it reaches.  Raises UserError where that is implausibly far."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{archive.filename}: {target.name} is packed in a way that `lerpbench submit` never uses")
    if entry.file_size > min(MAX_BYTES[target.name], MAX_RATIO * entry.compress_size):
        raise UserError(f"{archive.filename}: {target.name} would unpack to {entry.file_size:,} bytes; refused")
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise UserError(f"{archive.filename}: {target.name} is larger than it says; refused")
            file.write(chunk)


# ------------------------------------------------------------------------------------------------------ both sides


def facts(store: Store) -> Manifest:
    """The manifest, without files, that follows from a database of one suite."""

    def column(sql: str) -> list[Any]:
        return [row[0] for row in store.db.execute(sql)]

    environments = dict(store.db.execute("SELECT digest, details FROM environments ORDER BY id").fetchall())
    environments = {digest: json.loads(details) for digest, details in environments.items()}
    return Manifest(
        suite=", ".join(column("SELECT name FROM suites")),
        engines=tuple(column("SELECT DISTINCT engine FROM points ORDER BY engine")),
        migrations=tuple(column("SELECT name FROM _sqlite_migrations ORDER BY id")),
        commits=tuple(sorted({str(details.get("commit")) for details in environments.values()})),
        environments=environments,
        checkpoints=checkpoints(store),
        counts={table: column(f"SELECT count(*) FROM {table}")[0] for table in tables(store.db)},
    )


def checkpoints(store: Store) -> dict[str, str]:
    """Name -> SHA-256 of the checkpoints that some point mixes."""
    found: dict[str, str] = {}
    for (members,) in store.db.execute("SELECT checkpoints FROM mixtures ORDER BY id"):
        found |= json.loads(members)
    return dict(sorted(found.items()))


def missing(store: Store) -> list[str]:
    """What the suite's definition asks for and a database of one suite lacks, or holds beyond it."""
    definition, engines = (
        store.db.execute(sql).fetchall()
        for sql in ("SELECT definition FROM suites", "SELECT DISTINCT engine FROM points ORDER BY engine")
    )
    suite = Suite.model_validate_json(definition[0][0])
    asked = asked_points(suite)
    found = [] if engines else ["no point was run"]
    for (engine,) in engines:
        rows = store.db.execute("SELECT method, params, generation_id, id FROM points WHERE engine = ?", [engine])
        points = {(method, params): (generation, id_) for method, params, generation, id_ in rows}
        found += [f"{place(key)} was not run on {engine}" for key in asked if key not in points]
        found += [f"{place(key)} on {engine} is not in its definition" for key in points if key not in asked]
        found += [f"{place(key)} has no completions" for key, (generation, _) in points.items() if generation is None]
        found += _unjudged(store, suite, {id_: place(key) for key, (_, id_) in points.items()})
    return found


def place(point: tuple[str, str]) -> str:
    """A point's method and parameters as one name."""
    return point[0] if point[1] == "{}" else f"{point[0]} {point[1]}"


def asked_points(suite: Suite) -> list[tuple[str, str]]:
    """(method, parameters) of each point that the definition spans, in its order.  Raises UserError for too many."""
    asked: dict[tuple[str, str], None] = {}
    for spec in suite.methods:
        if (n := math.prod(map(len, spec.params.values()))) > MAX_POINTS:
            raise UserError(f"suite {suite.name}: {spec.name} spans {n:,} points, more than {MAX_POINTS:,}")
        for values in product(*spec.params.values()):
            asked[spec.name, canonical_json(dict(zip(spec.params, values, strict=True)))] = None
    return list(asked)


def _unjudged(store: Store, suite: Suite, points: dict[int, str]) -> Iterator[str]:
    """Points without a verdict of each of the suite's evaluators.  One that has a single verdict that is on no text
    looks at the checkpoints, once for all points."""
    listed = Counter(spec.name for spec in suite.evaluators)
    judged: dict[str, Counter[int]] = {name: Counter() for name in listed}
    verdicts: dict[str, set[tuple[int, bool]]] = {name: set() for name in listed}
    for name, point, evaluation, of_text in store.db.execute(
        "SELECT evaluator, point_id, evaluations.id, generation_id IS NOT NULL FROM point_evaluations "
        "JOIN evaluations ON evaluations.id = evaluation_id"
    ):
        if name in listed and point in points:
            judged[name][point] += 1
            verdicts[name].add((evaluation, bool(of_text)))
    for name, times in listed.items():
        of_checkpoints = len(verdicts[name]) == times and not any(of_text for _, of_text in verdicts[name])
        if not of_checkpoints:
            yield from (f"{name} did not judge {label}" for id_, label in points.items() if judged[name][id_] < times)
