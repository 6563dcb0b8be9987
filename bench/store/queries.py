"""What every query stands on: one connection, rows as tuples."""

from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database


class Queries:
    """Answers from one open database."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self.db.execute(sql, list(values)).fetchall()

    def _column(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row[0] for row in self._rows(sql, values)]

    def _find(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row, None where there is none."""
        row = self.db.execute(sql, list(values)).fetchone()
        return None if row is None else row[0]
