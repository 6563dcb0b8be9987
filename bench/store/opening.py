"""A path -> a connection to our database; SQLite's complaints become one line, and nothing foreign is touched."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.schema import UserError
from bench.store.schema import APPLICATION_ID, FORMAT, create, objects

TRY_S = 5.0  # that SQLite itself waits for another process
TRIES = 12  # a minute in all
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
MEANING = {
    **dict.fromkeys(BUSY, f"busy: another process has used it for {TRY_S * TRIES:.0f} s; run again when that is over"),
    sqlite3.SQLITE_FULL: "no room is left on its disk; what was stored before is whole: make room and run again",
    sqlite3.SQLITE_READONLY: "not writable; what was stored before is whole; choose another place with --db",
    sqlite3.SQLITE_IOERR: "its disk fails or has no room; what was stored before is whole: mend that and run again",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened, or no file can be made beside it; what was stored before is whole",
    sqlite3.SQLITE_CORRUPT: "damaged; `lerpbench doctor --db FILE` says what is lost and what is not",
}
UNREADABLE = "cannot be used as a lerpbench database: it is none, or its first bytes or its schema are damaged"


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Also where neither file nor folder can be written.  Raises UserError for a missing, foreign or other file."""
    if not path.exists():
        raise UserError(f"{path}: no such database; `lerpbench run` makes one")
    _require_file(path)
    with explained(path, UNREADABLE):
        _finish_rollback(path)
        uri = f"{path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=TRY_S * TRIES, isolation_level=None)
        _require_ours(connection, path)
    return connection


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """Open, or create.  Raises UserError for a foreign, other or unwritable file; touches none of them."""
    _require_file(path)
    _require_writable(path)
    with explained(path, UNREADABLE):
        connection = sqlite3.connect(path, timeout=TRY_S, isolation_level=None)
        if path.stat().st_size == 0:
            patiently(connection, "BEGIN IMMEDIATE", path)  # of two processes that create it, one does
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                create(connection)
            patiently(connection, "COMMIT", path)
        _require_ours(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


def patiently(connection: sqlite3.Connection, sql: str, path: Path) -> None:
    """Run a statement that waits for other processes, and say so when it takes a while."""
    for left in reversed(range(TRIES)):
        try:
            connection.execute(sql)
        except sqlite3.OperationalError as error:
            if code_of(error) not in BUSY or not left:
                raise
            if left == TRIES - 1:
                print(f"{path}: another process is using it; waiting up to {TRY_S * left:.0f} s more", file=sys.stderr)
        else:
            return


@contextmanager
def explained(path: Path, otherwise: str | None = None) -> Iterator[None]:
    """What befalls a file as a user's one line; anything else, a mistake of ours in SQL, as `otherwise` or as it is."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        meaning = MEANING.get(code_of(error), otherwise)
        if meaning is None:
            raise
        raise UserError(f"{path}: {meaning.replace('FILE', str(path))}") from error


def code_of(error: Exception) -> int:
    """SQLite's primary result code, 0 for what Python says itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def foreign(connection: sqlite3.Connection) -> Iterator[tuple[str, str, object, object]]:
    """What keeps a file from being ours: (part, entry, stored, expected) of header and schema."""
    for pragma, right in (("application_id", APPLICATION_ID), ("user_version", FORMAT)):
        (stored,) = connection.execute(f"PRAGMA {pragma}").fetchone()
        if stored != right:
            yield "header", pragma, stored, right
            return
    with closing(sqlite3.connect(":memory:")) as ours:
        create(ours)
        has, wanted = dict(objects(connection)), dict(objects(ours))
    for name in sorted(has.keys() | wanted.keys()):
        if has.get(name) != wanted.get(name):
            yield "sqlite_master", name, has.get(name), wanted.get(name)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: expected a database file, got a folder")


def _finish_rollback(path: Path) -> None:
    """Let SQLite take back what a killed run left half written: a reader may not do so itself."""
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and os.access(path, os.W_OK):
        with closing(sqlite3.connect(path, timeout=TRY_S * TRIES)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _require_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if not target.exists():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(target, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: not writable; choose another place with --db")


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    for part, entry, stored, right in foreign(connection):
        if entry == "application_id":
            raise UserError(f"{path}: not a lerpbench database; choose another file with --db")
        if part == "header":
            raise UserError(f"{path}: made by another version of lerpbench (format {stored}, this one has {right}); "
                            "choose another file with --db")  # fmt: skip
        raise UserError(f"{path}: damaged or changed: its schema has another {entry}")
