"""What every query stands on: one connection, rows as tuples, a file's troubles as one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bench.store.opening import explained


class Queries:
    """Answers from one open database."""

    def __init__(self, db: Database, path: Path) -> None:
        self.db = db
        self.path = path

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with explained(self.path):
            return self.db.execute(sql, list(values)).fetchall()

    def _each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Row by row, where there may be too many to hold."""
        with explained(self.path):
            yield from self.db.execute(sql, list(values))

    def _column(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row[0] for row in self._rows(sql, values)]

    def _find(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row, None where there is none."""
        with explained(self.path):
            row = self.db.execute(sql, list(values)).fetchone()
        return None if row is None else row[0]
