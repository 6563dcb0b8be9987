"""Who handed in what, and the spread of one point in several hands, by hand-computed values."""

from dataclasses import replace
from pathlib import Path

import pytest
from toyboard import MakeDatabase, make_suite

from bench.schema import Number
from leaderboard.measure.submissions import handed_in, spreads
from leaderboard.read.board import Board, Repeat
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show.render import render


@pytest.fixture(scope="module")
def three(make_database: MakeDatabase) -> list[Path]:
    return [
        make_database(make_suite(), name=f"{who}.toy.db", seed=seed) for seed, who in enumerate(("ann", "ben", "cy"))
    ]


@pytest.fixture(scope="module")
def board(three: list[Path]) -> Board:
    with open_stores(three) as stores:
        (found,) = load_boards(stores, three)
    return found


def test_who_when_and_on_what(board: Board) -> None:
    n = len(board.places)
    found = handed_in(board)
    assert [(s.who, s.first, s.again) for s in found] == [("ann", n, 0), ("ben", 0, n), ("cy", 0, n)]
    assert {s.hardware for s in found} == {"cpu, Test CPU"}
    assert {s.versions for s in found} == {"lerpbench 0.1.0, torch 2.12"}
    assert all(len(s.measured) == 10 for s in found)


def test_a_spread_is_over_all_hands(board: Board) -> None:
    """0.5 [0.4, 0.6] first, then 0.3 and 0.55: spread 0.25, one outside; a missing value is nobody's."""
    first = Number(0.5, 0.4, 0.6, 9, 9)
    results = {(0, "sentiment", ""): first, (1, "sentiment", ""): first}
    repeats = [
        Repeat(0, "b", {"sentiment": Number(0.3)}), Repeat(0, "c", {"sentiment": Number(0.55)}),
        Repeat(1, "b", {"sentiment": Number(None, reason="refused")}), Repeat(1, "c", {}),
    ]  # fmt: skip
    (spread,) = spreads(replace(board, results=results, repeats=tuple(repeats)), "sentiment")
    assert (spread.place, spread.n, spread.first, spread.outside) == (0, 3, first, 1)
    assert spread.width == pytest.approx(0.25)


def test_every_point_of_three_databases_has_its_spread(board: Board, three: list[Path], tmp_path: Path) -> None:
    found = spreads(board, "sentiment")
    assert len(found) == len(board.places) and {s.n for s in found} == {3}
    assert all(s.low <= (s.first.value or 0) <= s.high and s.width > 0 for s in found)
    render(three, tmp_path)
    page = (tmp_path / "submissions.html").read_text()
    assert page.count("<tr data-choice") == 3 and "45 points" in page
    assert "From 3 <a" in (tmp_path / "index.html").read_text()


def test_one_database_has_no_such_page(toy_site: Path) -> None:
    assert not (toy_site / "submissions.html").exists()
    assert "submissions.html" not in (toy_site / "index.html").read_text()
