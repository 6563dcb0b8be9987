"""Damage never shows as other numbers: a digest of the rows of each generation, evaluation, point and small table.

Digests are stored in the transaction that writes the rows.  What pages' numbers come from is checked whenever a file
is opened or read; the texts and scores of a large file only by `lerpbench doctor --db FILE`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

# part -> the columns that say whose rows they are; without any, a table is one whole
CORE: dict[str, tuple[str, ...]] = {
    "environments": (),
    "suites": (),
    "runs": (),
    "workers": (),
    "inputs": (),
    "metrics": (),
    "overhead_records": (),
    "parity_reports": (),
    "trials": (),
    "trial_validations": (),
    "expert_trials": (),
    "mixtures": ("id",),
    "generations": ("id",),
    "evaluations": ("id",),
    "estimates": ("evaluation_id",),
    "weight_distances": ("evaluation_id",),
    "points": ("id",),
    "point_evaluations": ("point_id",),
}
BULK: dict[str, tuple[str, ...]] = {
    "completion_texts": ("generation_id",),
    "prompt_scores": ("evaluation_id",),
    "statistics": ("evaluation_id", "metric_id"),
}
PARTS = CORE | BULK
ORDER = {"completion_texts": "generation_id, input_id, sample", "point_evaluations": "point_id, evaluation_id",
         "prompt_scores": "evaluation_id, metric_id, input_id", "statistics": "evaluation_id, metric_id, input_id",
         "estimates": "evaluation_id, id", "weight_distances": "evaluation_id, id",
         "workers": "run_id, name", "trial_validations": "trial_id, step",
         "expert_trials": "suite_id, checkpoint, trial_id"}  # fmt: skip
CHUNK = 10_000  # rows that are one text at a time


@dataclass(frozen=True)
class Damage:
    """A part of a file where rows are not those that were stored; `owners` of `n`, or why none can be read."""

    part: str
    owners: tuple[str, ...] = ()
    n: int = 0
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.part}: {' '.join(self.why.split())}"
        shown = ", ".join(owner for owner in self.owners[:5] if owner)
        more = ", ..." if len(self.owners) > 5 else ""
        whose = " and ".join(column.removesuffix("_id") for column in PARTS[self.part])
        return f"{self.part}: {len(self.owners)} of {self.n} damaged" + (f" ({whose} {shown}{more})" if shown else "")


def digest_of(part: str, rows: Iterable[Sequence[Any]]) -> str:
    """Of rows in their order; numbers as SQLite gives them back, so that 0.0 and -0.0 are one."""
    if part == "statistics":
        return digest_of_sums(np.fromiter(chain.from_iterable(rows), dtype=np.float64))
    found = hashlib.blake2b(digest_size=16)
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        found.update(json.dumps(chunk).encode())
    return found.hexdigest()


def digest_of_sums(rows: NDArray[np.float64]) -> str:
    """Of rows of `statistics`: millions at full scale, so as one array."""
    return hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()


def record(connection: sqlite3.Connection, part: str, *owner: int) -> None:
    """Store the digest of what a part holds now: of one owner, or of all where the part is one whole."""
    condition = " AND ".join(f"{column} = ?" for column in PARTS[part]) or "1"
    sql = f"SELECT * FROM {part} WHERE {condition} ORDER BY {ORDER.get(part, 'id')}"
    name = " ".join(map(str, owner))
    rows = connection.execute(sql, owner)
    first = rows.fetchone()
    if first is None:
        connection.execute("DELETE FROM checksums WHERE part = ? AND owner = ?", [part, name])
    else:
        digest = digest_of(part, chain([first], rows))
        connection.execute("INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)", [part, name, digest])


def record_all(connection: sqlite3.Connection) -> None:
    """Digests of a file whose rows came from elsewhere."""
    connection.execute("DELETE FROM checksums")
    for part in PARTS:
        found = ((part, owner, digest) for owner, digest in _digests(connection, part))
        connection.executemany("INSERT INTO checksums VALUES (?, ?, ?)", list(found))


def damages(connection: sqlite3.Connection, whole: bool) -> list[Damage]:
    """Where rows are not those that were stored: in all parts, or in those that pages' numbers come from."""
    connection.execute("BEGIN")  # one moment of the file, though another process writes to it
    try:
        return list(_damages(connection, whole))
    finally:
        connection.execute("ROLLBACK")


def _damages(connection: sqlite3.Connection, whole: bool) -> Iterator[Damage]:
    try:
        if whole and (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            yield Damage("file", why=found)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        yield Damage("file", why=str(error))
    for part in PARTS if whole else CORE:
        try:
            rows = connection.execute("SELECT owner, digest FROM checksums WHERE part = ?", [part])
            stored = {str(owner): digest for owner, digest in rows}
            check = f"PRAGMA integrity_check({part})"
            if not whole and (found := connection.execute(check).fetchone()[0]) != "ok":
                yield Damage(part, why=found)
                continue
            has = dict(_digests(connection, part))
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            yield Damage(part, why=f"cannot be read ({error})")
            continue
        owners = tuple(sorted(owner for owner in stored.keys() | has.keys() if stored.get(owner) != has.get(owner)))
        if owners:
            yield Damage(part, owners, len(stored.keys() | has.keys()))


def _digests(connection: sqlite3.Connection, part: str) -> Iterator[tuple[str, str]]:
    """(owner, digest) of all rows of a part."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({part})")]
    places = [columns.index(column) for column in PARTS[part]]
    rows = connection.execute(f"SELECT * FROM {part} ORDER BY {ORDER.get(part, 'id')}")
    for owner, group in groupby(rows, key=lambda row: " ".join(str(row[place]) for place in places)):
        yield owner, digest_of(part, group)
