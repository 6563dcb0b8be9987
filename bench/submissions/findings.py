"""What a check of a bundle finds: what is right, what was left out and why, and the rows that do not match."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.schema import UserError

MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, sqlite3.Error, UserError)


@dataclass(frozen=True)
class Mismatch:
    """A row that is not what follows from the others: its table, what tells it apart, and both values."""

    table: str
    row: Mapping[str, Any]
    column: str
    stored: Any
    expected: Any

    def __str__(self) -> str:
        where = ", ".join(f"{key} {shown(value)}" for key, value in self.row.items())
        return f"{self.table} ({where}): {self.column}: stored {shown(self.stored)}, expected {shown(self.expected)}"


def shown(value: Any) -> str:
    """A value of a bundle for a terminal: short, and no character of it can steer."""
    text = repr(value) if isinstance(value, float) else json.dumps(value, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."


@dataclass
class Report:
    """What was checked and found right, what was left out and why, and what does not match."""

    checked: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        return not self.mismatches

    def check(self, name: str, what: str, find: Callable[[], Iterable[Mismatch]]) -> bool:
        """Run one check; whether nothing was found.  What cannot even be read is a mismatch too."""
        before = len(self.mismatches)
        try:
            self.mismatches += find()
        except MALFORMED as error:
            reason = " ".join(str(error).split())[:200]
            self.mismatches.append(Mismatch(name, {}, type(error).__name__, reason, "readable rows"))
        passed = len(self.mismatches) == before
        if passed:
            self.checked.append((name, what))
        return passed
