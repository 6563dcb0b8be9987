"""Boards say what the views say."""

import sqlite3
from pathlib import Path

import pytest
from toyboard import MakeDatabase, make_suite

from bench.schema import UserError
from leaderboard.read.board import ALL, Board
from leaderboard.read.query import open_stores, read_boards


def boards_of(path: Path) -> list[Board]:
    with open_stores([path]) as (store,):
        return read_boards(store, 0, path.name)


def test_boards_are_read_from_databases_that_cannot_be_written(toy_database: Path) -> None:
    with open_stores([toy_database]) as (store,), pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.db.execute("DELETE FROM suites")


def test_every_row_of_the_view_is_a_result(toy_database: Path) -> None:
    (board,) = boards_of(toy_database)
    with sqlite3.connect(toy_database) as db:
        rows = db.execute("SELECT method, params, metric, prompts, value, low, high, n_scored, n_total FROM results")
        expected = {row[:4]: row[4:] for row in rows}
    found = {
        (*board.places[i].identity, metric, prompts or None): (r.value, r.low, r.high, r.n_scored, r.n_total)
        for (i, metric, prompts), r in board.results.items()
    }
    assert found == expected


def test_sums_behind_a_metric_give_the_views_value(toy_database: Path) -> None:
    import numpy as np

    (board,) = boards_of(toy_database)
    for metric in ("sentiment", "perplexity"):
        for prompts in (ALL, *board.sets):
            sums = board.per_prompt[metric]
            values = sums.values(sums.rows(prompts).astype(float)[None, :])[0]
            stored = [board.value(i, metric, prompts) for i in range(len(board.places))]
            assert np.allclose(values, np.array(stored, dtype=float))


def test_missing_value_keeps_its_reason(toy_database: Path) -> None:
    (board,) = boards_of(toy_database)
    result = board.get(0, "missing")
    assert result is not None
    assert result.value is None
    assert result.reason == "the judge refused"
    assert (result.n_scored, result.n_total) == (0, 36)


def test_suites_and_engines_are_separate_boards(make_database: MakeDatabase) -> None:
    path = make_database(make_suite("one"), make_suite("two"))
    assert [(b.suite, b.engine) for b in boards_of(path)] == [("one", "transformers"), ("two", "transformers")]


def test_displacement_is_on_one_scale(toy_database: Path) -> None:
    """g1 at alpha has moved as far along theta+ - theta- as g2 at alpha - 1/2."""
    (board,) = boards_of(toy_database)
    at = {place.label: place.displacement for place in board.places}
    assert at["g1(alpha=1)"] == at["g2(alpha=0.5)"] == at["dexperts(alpha=0.5)"] == at["expert"] == 0.5
    assert at["g1(alpha=0)"] == at["antiexpert"] == -0.5
    assert at["base"] == at["g1(alpha=0.5)"] == at["g3(alpha=1, beta=1)"] == 0


def test_missing_database_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such database"), open_stores([tmp_path / "none.db"]):
        pass
    with pytest.raises(UserError, match="no database given"), open_stores([]):
        pass
