"""The front page's picture: where marks stand, how large they are, and that it needs nothing but itself."""

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from leaderboard.measure.rank import find_series, rank, steering
from leaderboard.read.board import Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show.frontier import BOTTOM, picture
from leaderboard.show.still import LEFT, LINE, RIGHT, TOP, apart, round_values, scale

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def board(toy_database: Path) -> Board:
    with open_stores([toy_database]) as stores:
        (found,) = load_boards(stores, [toy_database])
    return found


def test_a_scale_leaves_a_twentieth_at_both_ends() -> None:
    """10 to 30 with a margin of 1: 9 at 0, 31 at 220, so 10 at 10 and 20 at 110."""
    at = scale([10, 30], 0, 220)
    assert (at(10), at(20), at(30)) == (10, 110, 210)
    assert scale([5], 0, 100)(5) == 50


@pytest.mark.parametrize("low", [-0.3, 0.0, 0.07, 12.0])
@pytest.mark.parametrize("span", [0.013, 0.35, 0.95, 1.0, 7.2, 950.0])
def test_ticks_are_few_and_cover_the_values(low: float, span: float) -> None:
    ticks = [t for t in round_values([low, low + span]) if low <= t <= low + span]
    assert 2 <= len(ticks) <= 9
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in pairwise(ticks)}
    assert steps == {1.0}


def test_names_stand_apart_and_keep_their_order() -> None:
    heights = [100.0, 101.0, 300.0, 99.0]
    found = apart(heights, TOP, BOTTOM)
    ordered = [found[k] for k in sorted(range(4), key=lambda k: heights[k])]
    assert all(b - a >= LINE - 1e-9 for a, b in pairwise(ordered))
    assert found[2] == 300.0


def test_many_names_stand_closer_and_all_inside_the_plane() -> None:
    for heights in ([300.0] * 24, [352.0, 352.0, 14.0, 352.0], [TOP + 14.0 * k for k in range(25)]):
        found = apart(heights, TOP, BOTTOM)
        ordered = [found[k] for k in sorted(range(len(heights)), key=lambda k: (heights[k], k))]
        assert ordered[0] >= TOP - 0.1 and ordered[-1] <= BOTTOM + 0.1
        assert all(b - a > 10 for a, b in pairwise(ordered))


def test_marks_stand_where_control_and_cost_say(board: Board) -> None:
    """Equal steps in the logarithm of cost are equal steps on the picture, and so for control."""
    shown = picture(board, rank(board, steering(find_series(board))))
    assert shown is not None
    at = {}
    for track in shown.tracks:
        for mark in track.marks:
            assert LEFT <= mark.x <= RIGHT and TOP <= mark.y <= BOTTOM
            at[mark.label.partition(":")[0]] = mark
    places = {place.label: i for i, place in enumerate(board.places)}
    known = [(math.log(board.value(places[name], "perplexity") or 1), board.value(places[name], "sentiment"), mark)
             for name, mark in at.items()]  # fmt: skip
    (x0, y0, a), (x1, y1, b) = min(known, key=lambda k: k[2].x), max(known, key=lambda k: k[2].x)
    assert y0 is not None and y1 is not None
    for x, y, mark in known:
        assert mark.x == pytest.approx(a.x + (x - x0) / (x1 - x0) * (b.x - a.x), abs=0.2)
        assert y is not None and mark.y == pytest.approx(a.y + (y - y0) / (y1 - y0) * (b.y - a.y), abs=1.0)
    models = {track.name: track.models for track in shown.tracks}
    assert models["dexperts"] == 3 and models["g2"] == 1


def test_the_file_needs_nothing_but_itself(toy_site: Path) -> None:
    text = (toy_site / "frontier.svg").read_text()
    root = ElementTree.fromstring(text)
    radii = {float(circle.attrib["r"]) for circle in root.iter(f"{SVG}circle")}
    assert radii == {3.0, 6.0}  # one and three models a token
    assert "href" not in text and text.count("var(--") == text.count(", #")  # each colour has one of its own
    assert text.strip() in (toy_site / "index.html").read_text()


def test_the_board_can_be_cited(toy_site: Path) -> None:
    text = (toy_site / "cite.bib").read_text()
    assert text.startswith("@misc{lerpbench-toy-transformers,\n") and text.endswith("}\n")
    assert text.count("{") == text.count("}") and "lerpbench 0.1.0" in text
