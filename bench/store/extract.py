"""One suite's rows -> a database of their own, under the ids that they have at home."""

from pathlib import Path

from sqlite_utils import Database

from bench.schema import UserError
from bench.store.checksums import PARTS
from bench.store.read import Reader
from bench.store.write import Store


def copy_suite(home: Reader, suite: str, path: Path) -> None:
    """Write a new database with what belongs to a suite, the work that its points stand for, and every row that these
    refer to.  Raises UserError where a reference leads nowhere or a row is damaged.  Equal rows make equal bytes."""
    copy = Store.open(path)
    db = home.db
    db.execute("ATTACH DATABASE ? AS copy", [str(path)])
    db.execute("PRAGMA copy.journal_mode = OFF")
    db.execute("PRAGMA copy.synchronous = OFF")
    for table, condition in _parts(db, [table for table in home.tables() if table in PARTS]):
        columns = ", ".join(db.table(table).columns_dict)
        values = [suite] if table == "suites" else []
        db.execute(f"INSERT INTO copy.{table} ({columns}) SELECT {columns} FROM main.{table} WHERE {condition}", values)
    if broken := db.execute("PRAGMA copy.foreign_key_check").fetchall():
        raise UserError(f"suite {suite}: a row of {broken[0][0]} refers to one of {broken[0][2]} that is not there")
    db.execute("DETACH DATABASE copy")
    copy.seal()
    kept = "SELECT part, owner, digest FROM checksums"
    of_home = {tuple(row) for row in db.execute(kept)}
    odd = sorted({row[0] for row in copy.db.execute(kept) if PARTS[row[0]] and tuple(row) not in of_home})
    copy.close()
    if odd:  # what opening a large file does not check
        raise UserError(
            f"{home.path}: damaged: {', '.join(odd)}; `lerpbench doctor --db {home.path}` says what is lost"
        )


def _parts(db: Database, tables: list[str]) -> list[tuple[str, str]]:
    """(table, which rows of it), each after the tables that its condition looks at in the copy."""
    references = {table: [(k.column, k.other_table) for k in db.table(table).foreign_keys] for table in tables}
    parts = {
        "suites": "name = ?",
        "points": "suite_id IN (SELECT id FROM copy.suites)",
        "point_evaluations": "point_id IN (SELECT id FROM copy.points)",
        "generations": "id IN (SELECT generation_id FROM copy.points)",
        "evaluations": "id IN (SELECT evaluation_id FROM copy.point_evaluations)",
    }
    for table, keys in references.items():  # what a suite, a run, a generation or an evaluation consists of
        for column, parent in keys:
            if parent in ("suites", "runs", "generations", "evaluations"):
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
