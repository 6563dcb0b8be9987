"""Is a file just what lerpbench writes?  Asked before any view is asked and any row is believed; all may be hostile."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.store.opening import foreign

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
Fault = tuple[str, dict[str, Any], str, Any, Any]  # table, what tells the row apart, column, stored, expected


def faults(path: Path) -> Iterator[Fault]:
    """Foreign or other format, a schema that is not ours, damaged pages; if none, wrong types, JSON and references."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        for part, entry, stored, right in (found := [*foreign(connection)]):
            yield part, {"entry": entry}, "content", stored, right
        if found:
            return
        if (damage := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            yield "results.db", {}, "integrity_check", damage, "ok"
            return
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            yield from _rows(connection, table)


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[Fault]:
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
            yield table, dict(zip(identity, row[:-1], strict=True)), name, row[-1], expected
