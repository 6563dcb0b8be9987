"""Exported files hold the views, row for row; the model card holds the board, and the hub's own reader reads it."""

import csv
import io
import json
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from pyarrow import parquet
from toyboard import HOSTILE, MakeDatabase, make_suite

from bench.schema import UserError
from leaderboard.show.cells import write_csv
from leaderboard.show.export import VIEWS, View, export, write_json, write_parquet


def stored(database: Path, view: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"SELECT * FROM {view}").fetchall()


@pytest.mark.parametrize("view", VIEWS)
def test_each_format_holds_the_view(toy_database: Path, tmp_path: Path, view: View) -> None:
    rows = [("toy.db", *row) for row in stored(toy_database, view)]
    assert rows or view == "overhead"
    for form, suffix in (("csv", ".csv"), ("json", ".jsonl"), ("parquet", ".parquet")):
        written = export([toy_database], form, tmp_path)  # type: ignore[arg-type]
        assert written == [tmp_path / f"{name}{suffix}" for name in VIEWS]
    with (tmp_path / f"{view}.csv").open(encoding="utf-8", newline="") as file:
        _, *found = csv.reader(file)
    assert found == [["" if value is None else str(value) for value in row] for row in rows]
    lines = (tmp_path / f"{view}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    records = [json.loads(line) for line in lines]
    for record in records:
        if "params" in record:
            assert isinstance(record["params"], dict)
            record["params"] = json.dumps(record["params"], separators=(",", ":"), sort_keys=True)
    assert [tuple(record.values()) for record in records] == rows
    table = parquet.read_table(tmp_path / f"{view}.parquet")
    assert [tuple(record.values()) for record in table.to_pylist()] == rows
    types = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
    assert types["database"] == "string" and types.get("value", "double") == "double"
    assert types.get("n_tokens", "int64") == "int64"


def test_hostile_texts_come_through(toy_database: Path, tmp_path: Path) -> None:
    export([toy_database], "parquet", tmp_path / "c.parquet", "completions")
    assert HOSTILE in parquet.read_table(tmp_path / "c.parquet")["text"].to_pylist()


def test_rows_of_several_databases_are_told_apart(make_database: MakeDatabase, tmp_path: Path) -> None:
    paths = [make_database(make_suite(), name=name) for name in ("a.db", "b.db")]
    export(paths, "csv", tmp_path / "results.csv", "results")
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        names = [row[0] for row in csv.reader(file)]
    assert names == [
        "database",
        *["a.db"] * len(stored(paths[0], "results")),
        *["b.db"] * len(stored(paths[1], "results")),
    ]


def test_a_place_that_does_not_fit_is_refused(toy_database: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a file holds one view; say which with --view"):
        export([toy_database], "csv", tmp_path / "all.csv")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        export([toy_database], "csv", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
    with pytest.raises(UserError, match="no such database"):
        export([tmp_path / "absent.db"], "csv", tmp_path)


@pytest.mark.parametrize("write", [write_json, write_parquet])
def test_rows_are_not_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    """10,000 texts of 1,000 characters are 10 MB; Python holds one row, or two groups of 500."""
    monkeypatch.setattr("leaderboard.show.export.ROW_GROUP", 500)
    rows = (("a.db", i, f"{i:1000d}") for i in range(10_000))
    tracemalloc.start()
    write(tmp_path / "rows", ["database", "row", "text"], rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6


def test_the_model_card_holds_the_board(toy_database: Path, tmp_path: Path) -> None:
    (path,) = export([toy_database], "markdown", tmp_path)
    assert path == tmp_path / "README.md"
    card = ModelCard(path.read_text(encoding="utf-8"))
    found = {(result.metric_type, result.metric_value) for result in card.data.eval_results}
    results = {(row[5], row[6]) for row in stored(toy_database, "results") if row[4] is None}
    assert found and found <= results
    assert card.data.library_name == "lerpbench" and "model-merging" in card.data.tags
    for text in ("### Every setting", "| g2(alpha=0.5) ", "Test CPU", "abc123", "    lerpbench run toy", "a" * 64,
                 "### Caveats", "of 36 scored"):  # fmt: skip
        assert text in path.read_text(encoding="utf-8"), text


def test_a_title_cannot_break_the_card(make_database: MakeDatabase, tmp_path: Path) -> None:
    title = "---\n# <b>x</b> | y `z`"
    (path,) = export([make_database(make_suite().model_copy(update={"title": title}))], "markdown", tmp_path / "c.md")
    text = path.read_text(encoding="utf-8")
    assert "## --- # &lt;b>x&lt;/b> \\| y \\`z\\`\n" in text
    assert ModelCard(text).data.eval_results


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    out = io.StringIO()
    write_csv(out, ["text", "value"], [(cell, -1.5), ("plain = text", None)])
    (head, first, second) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert (head, first, second) == (["text", "value"], [f"'{cell}", "-1.5"], ["plain = text", ""])
