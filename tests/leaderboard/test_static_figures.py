"""`lerpbench figures`: files from a real browser, and clear words where it cannot be."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.schema import UserError
from leaderboard.paper import static
from leaderboard.read.board import Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def board(toy_database: Path) -> Board:
    with open_stores([toy_database]) as stores:
        return load_boards(stores, [toy_database])[0]


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium or Chrome on the path")
def test_a_figure_is_drawn_as_svg(board: Board, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    (figure,) = [f for f in static.paper_figures(board, static.find_series(board)) if f.claim.key == "6"]
    jobs = [(tmp_path / f"{name}.svg", drawn) for name, drawn in static.printed(figure)]
    static.draw(jobs, "svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure-6.svg", "figure-6a.svg", "figure-6b.svg"]
    text = (tmp_path / "figure-6.svg").read_text(encoding="utf-8")
    assert "Sentiment" in text and "dexperts" in text and "<image" not in text


def test_without_kaleido_it_says_what_to_install(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UserError, match=r"pip install 'lerpbench\[figures\]'"):
        static.write_figures({tmp_path / "out": board}, "svg")


def test_bad_requests_are_refused(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of svg, pdf, png, got 'gif'"):
        static.write_figures({tmp_path: board}, "gif")
    with pytest.raises(UserError, match="expected one of negative, neutral, positive, got 'other'"):
        static.write_figures({tmp_path: board}, "svg", "other")


def test_nothing_to_draw_is_said(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hold nothing that the paper's figures show"):
        static.write_figures({tmp_path: replace(board, places=(), results={}, per_prompt={})}, "svg")
