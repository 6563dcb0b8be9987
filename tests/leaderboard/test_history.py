"""A suite over time: days in order, medians by hand, milestones only where something went further."""

from dataclasses import replace
from pathlib import Path

import pytest
from toyboard import MakeDatabase, make_suite

from bench.schema import Number
from bench.store import write
from leaderboard.measure.history import Day, courses, days, milestones
from leaderboard.measure.rank import find_series, rank, steering
from leaderboard.read.board import Board, Repeat
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show.history import BOTTOM, chart, over_time
from leaderboard.show.render import render
from leaderboard.show.still import LEFT, RIGHT, TOP


@pytest.fixture(scope="module")
def dated(make_database: MakeDatabase) -> list[Path]:
    """ann and ben in March, cy in April, dan in June; dan's has the later methods alone."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for seed, (who, day) in enumerate(
            (("ann", "2026-03-01"), ("ben", "2026-03-01"), ("cy", "2026-04-11"), ("dan", "2026-06-30"))
        ):
            patch.setattr(write, "now", lambda day=day: f"{day}T12:00:00+00:00")
            suite = make_suite()
            if who != "dan":
                suite = suite.model_copy(update={"methods": tuple(m for m in suite.methods if m.name != "g2")})
            found.append(make_database(suite, name=f"{who}.toy.db", seed=seed))
    return found


@pytest.fixture(scope="module")
def board(dated: list[Path]) -> Board:
    with open_stores(dated) as stores:
        (found,) = load_boards(stores, dated)
    return found


def test_days_are_in_order_with_who_and_versions(board: Board) -> None:
    version = ("lerpbench 0.1.0, torch 2.12",)
    assert days(board) == [
        Day("2026-03-01", ("ann", "ben"), version), Day("2026-04-11", ("cy",), version),
        Day("2026-06-30", ("dan",), version),
    ]  # fmt: skip


def test_a_day_of_several_is_their_median_and_their_ends(board: Board) -> None:
    """ann 0.4, ben 0.7 and again ben 0.6 in March: 0.6, from 0.4 to 0.7; cy 0.5 with its own interval in April."""
    rows = rank(board, steering(find_series(board)))
    row = next(row for row in rows if row.series.name == "g1")
    place = row.series.places[0]
    april = Number(0.5, 0.45, 0.55, 9, 9)
    repeats = (
        Repeat(place, "ben.toy.db", {"sentiment": Number(0.7, n_scored=9, n_total=9)}),
        Repeat(place, "ben.toy.db", {"sentiment": Number(0.6, n_scored=9, n_total=9)}),
        Repeat(place, "cy.toy.db", {"sentiment": april}),
        Repeat(place, "dan.toy.db", {"sentiment": Number(None, reason="refused")}),
    )
    first = {(place, "sentiment", ""): Number(0.4, 0.3, 0.5, 9, 9)}
    changed = replace(board, results={**board.results, **first}, repeats=repeats)
    (course,) = courses(changed, [replace(row, best=None)], "sentiment")
    assert course.place == place and [step.day for step in course.steps] == ["2026-03-01", "2026-04-11"]
    march, later = course.steps
    assert (march.n, march.number) == (3, Number(0.6, 0.4, 0.7, 27, 27)) and later.number == april


def test_every_method_that_was_measured_again_has_its_course_at_its_reach(board: Board) -> None:
    rows = rank(board, steering(find_series(board)))
    found = {course.name: course for course in courses(board, rows, "sentiment")}
    best = {board.places[row.best].label: row.series.name for row in rows if row.best is not None}
    assert {best[name] for name in found} == {"base", "expert", "antiexpert", "g1", "dexperts", "g3"}  # g2 came once
    assert all([step.day for step in c.steps] == [d.day for d in days(board)] for c in found.values())


def test_milestones_are_where_the_best_went_further(board: Board) -> None:
    """March's best; then only a point of another day that beats it: dan's g2, or nothing."""
    found = milestones(board)
    assert found[0].day == "2026-03-01" and found[0].who == "ann"
    values = [board.value(one.place, "sentiment") or 0 for one in found]
    assert values == sorted(values) and len(set(values)) == len(values)
    g2 = next(i for i, place in enumerate(board.places) if place.label == "g2(alpha=0.5)")
    higher = {(g2, "sentiment", ""): Number(0.999), (g2, "perplexity", ""): Number(1.0)}
    changed = milestones(replace(board, results={**board.results, **higher}))
    assert (changed[-1].day, changed[-1].who, changed[-1].place) == ("2026-06-30", "dan", g2)


def test_a_picture_puts_days_in_their_distance(board: Board) -> None:
    """41 days from March to April and 80 from there to June."""
    lines = courses(board, rank(board, steering(find_series(board))), "sentiment")
    drawn = chart("sentiment", lines, days(board))
    assert drawn is not None and [day for _, day in drawn.x_ticks] == ["2026-03-01", "2026-04-11", "2026-06-30"]
    (a, b, c) = (x for x, _ in drawn.x_ticks)
    assert (c - b) / (b - a) == pytest.approx(80 / 41, rel=0.01)
    for line in drawn.lines:
        assert all(LEFT <= dot.x <= RIGHT and TOP <= dot.y <= BOTTOM for dot in line.dots) and len(line.dots) == 3
    assert chart("sentiment", [], days(board)) is None


def test_the_page_has_pictures_and_tables_of_all_goals(dated: list[Path], tmp_path: Path) -> None:
    render(dated, tmp_path)
    page = (tmp_path / "submissions.html").read_text()
    assert page.count("over time, picture") == page.count('over time"><table>') == 4
    assert "2026-04-11" in page and "The furthest so far" in page
    assert 'href="submissions.html#time"' in (tmp_path / "index.html").read_text()


def test_one_day_has_no_history(board: Board) -> None:
    same = replace(board, runs=tuple(replace(run, finished_at="2026-03-01T00:00:00") for run in board.runs))
    assert over_time(same, [])["metrics"] == [] and len(over_time(same, [])["days"]) == 1
