"""The public views as files for other tools: CSV, JSON lines, Parquet; row by row, so that size does not matter.

`database` tells rows of several databases apart; the other columns are the view's.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from bench.schema import UserError
from bench.store.read import Reader
from leaderboard.read.merge import load_boards, short_names
from leaderboard.read.query import open_stores
from leaderboard.show import cells
from leaderboard.show.card import card

Format = Literal["csv", "json", "parquet", "markdown"]
View = Literal["results", "completions", "overhead"]
VIEWS: tuple[View, ...] = ("results", "completions", "overhead")
SUFFIXES = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet", "markdown": ".md"}
ROW_GROUP = 10_000  # rows held at once while Parquet is written
INTEGERS = {"row", "sample", "n_tokens", "n_scored", "n_total", "batch_size", "new_tokens", "n_rounds"}
REALS = {"value", "low", "high", "ratio_to_base", "ratio_low", "ratio_high"}
Rows = Iterator[tuple[Any, ...]]


def export(databases: Sequence[Path], form: Format, out: Path, view: View | None = None) -> list[Path]:
    """Write the views, or one of them, or a model card; the files written.

    `out` is a folder for a file of each view, or a file where one thing is written and the name ends in the format's
    suffix.  Raises UserError for a database that cannot be read and a place that cannot be written.
    """
    single = out.suffix == SUFFIXES[form]
    if single and form != "markdown" and view is None:
        raise UserError(f"{out}: a file holds one view; say which with --view, or give a folder for {', '.join(VIEWS)}")
    paths = [Path(path) for path in databases]
    with open_stores(paths) as stores:
        if form == "markdown":
            text = card(load_boards(stores, paths))
            return [_write(out if single else out / "README.md", lambda path: _text(path, text))]
        names = short_names(paths)
        return [_write(out if single else out / f"{name}{SUFFIXES[form]}", _writer(stores, names, name, form))
                for name in ([view] if view else VIEWS)]  # fmt: skip


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _writer(stores: Sequence[Reader], names: Sequence[str], view: View, form: Format) -> Callable[[Path], None]:
    columns = ["database", *stores[0].view_columns(view)]
    write = {"csv": write_csv, "json": write_json, "parquet": write_parquet}[form]
    return lambda path: write(path, columns, rows(stores, names, view))


def rows(stores: Sequence[Reader], names: Sequence[str], view: View) -> Rows:
    for store, name in zip(stores, names, strict=True):
        for row in store.view_rows(view):
            yield name, *row


def _write(path: Path, write: Callable[[Path], None]) -> Path:
    """Write beside the place and move it there when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def write_csv(path: Path, columns: Sequence[str], found: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        cells.write_csv(file, columns, found)


def write_json(path: Path, columns: Sequence[str], found: Rows) -> None:
    """One object a line; parameters as an object, not as text."""
    with path.open("w", encoding="utf-8") as file:
        for row in found:
            record = dict(zip(columns, row, strict=True))
            if "params" in record:
                record["params"] = json.loads(record["params"])
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")


def write_parquet(path: Path, columns: Sequence[str], found: Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = {**dict.fromkeys(INTEGERS, pa.int64()), **dict.fromkeys(REALS, pa.float64())}
    schema = pa.schema([(column, types.get(column, pa.string())) for column in columns])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(found, ROW_GROUP)):
            arrays = [
                pa.array(values, field.type) for field, values in zip(schema, zip(*group, strict=True), strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
