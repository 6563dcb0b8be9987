"""A path -> a connection to our database; SQLite's complaints become one line, and nothing foreign is touched."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.schema import UserError
from bench.store.schema import APPLICATION_ID, FORMAT, create

TIMEOUT_S = 10.0


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Also where neither file nor folder can be written.  Raises UserError for a missing, foreign or other file."""
    if not path.exists():
        raise UserError(f"{path}: no such database; `lerpbench run` makes one")
    _require_file(path)
    with explained(path):
        _finish_rollback(path)
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)
        _require_ours(connection, path)
    return connection


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """Open, or create.  Raises UserError for a foreign, other or unwritable file; touches none of them."""
    _require_file(path)
    _require_writable(path)
    with explained(path):
        connection = sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None)
        if path.stat().st_size == 0:
            connection.execute("BEGIN IMMEDIATE")  # of two processes that create it, one does
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                create(connection)
            connection.execute("COMMIT")
        _require_ours(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
        with closing(sqlite3.connect(path, timeout=TIMEOUT_S)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _require_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if not target.exists():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(target, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: not writable; choose another place with --db")


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise UserError(f"{path}: not a lerpbench database; choose another file with --db")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found != FORMAT:
        raise UserError(f"{path}: made by another version of lerpbench (format {found}, this one has {FORMAT}); "
                        "choose another file with --db")  # fmt: skip
