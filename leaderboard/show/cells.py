"""Rows as CSV that a spreadsheet shows and never runs."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the start of a formula


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Texts that begin like a formula get an apostrophe before them; numbers and all else stand as they are."""
    writer = csv.writer(file)  # lines end as RFC 4180 says, and a text with either character of it is quoted
    writer.writerow(columns)
    writer.writerows([harmless(cell) for cell in row] for row in rows)


def harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
