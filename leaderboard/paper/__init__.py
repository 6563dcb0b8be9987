"""The paper's figures from a board: what the paper claims, what this board shows in numbers, and the panels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from leaderboard.charts.layout import on_page
from leaderboard.measure.rank import Series
from leaderboard.numbers import RULE
from leaderboard.paper.bridge import between_basins
from leaderboard.paper.cast import cast
from leaderboard.paper.figure import Figure
from leaderboard.paper.linearity import linearity
from leaderboard.paper.next_word import next_word
from leaderboard.paper.plane import control_and_price, held_out_loss
from leaderboard.paper.sweeps import along_the_line, line_against_push, push_against_ensemble
from leaderboard.paper.weight_distance import weight_distance
from leaderboard.read.board import Board


def paper_figures(board: Board, series: Sequence[Series]) -> list[Figure]:
    """Figures 3 to 10 in the paper's order; one whose method or metric is not stored says so."""
    parts = cast(board, series)
    found = [
        along_the_line(board, parts),
        next_word(board, parts),
        line_against_push(board, parts),
        push_against_ensemble(board, parts),
        control_and_price(board, parts),
        held_out_loss(board, parts),
        linearity(board, parts),
        weight_distance(board),
        between_basins(board, parts),
    ]
    return [replace(figure, claim=figure.claim.about(board.goal)) for figure in found]


def page_data(board: Board, figures: Sequence[Figure]) -> dict[str, Any]:
    """What the page's script draws: figure -> prompt set -> panels, each with the rows of its table."""
    drawn = {f.claim.key: {p: [on_page(panel) for panel in panels] for p, panels in f.panels.items()} for f in figures}
    return {"rule": RULE, "places": [{"label": place.label} for place in board.places], "figures": drawn}
