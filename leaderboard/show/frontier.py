"""The front page's picture: how much control at what cost, and how many models a token takes; drawn before any script.

One vector image of plain values: the page has it in the reader's colours, `frontier.svg` in the light ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.charts.panel import logarithmic
from leaderboard.measure.rank import Row, price_limit
from leaderboard.numbers import number
from leaderboard.read.board import ALL, Board
from leaderboard.show.still import LEFT, RIGHT, TOP, Still, apart, round_values, scale, ticks

HEIGHT, BOTTOM = 400, 352


@dataclass(frozen=True)
class Mark:
    """One setting."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Track:
    """One method: its settings, joined where one parameter leads through them, and its name.  `models`: per token."""

    name: str
    slot: int
    models: int
    joined: bool
    marks: tuple[Mark, ...]
    end: Mark  # what the name points to: the method's reach, or its first setting
    name_y: float


@dataclass(frozen=True)
class Picture(Still):
    height, bottom = HEIGHT, BOTTOM
    control: str
    cost: str
    tracks: tuple[Track, ...]
    limit: float | None  # where the price limit is, if in the plane


def picture(board: Board, rows: Sequence[Row]) -> Picture | None:
    """The picture over all prompts; None where nothing has both control and a positive cost."""
    control, cost = board.goal.control, board.goal.price
    at = {}
    for i in (i for row in rows for i in row.series.places):
        strength, price = board.value(i, control), board.value(i, cost)
        if strength is not None and price is not None and price > 0:
            at[i] = (math.log(price), strength)
    if not at:
        return None
    x, y = scale([p for p, _ in at.values()], LEFT, RIGHT), scale([s for _, s in at.values()], BOTTOM, TOP)
    drawn = [(row, {i: Mark(x(at[i][0]), y(at[i][1]), _label(board, i)) for i in row.series.places if i in at})
             for row in rows]  # fmt: skip
    drawn = [(row, marks) for row, marks in drawn if marks]
    ends = [marks[row.best] if row.best in marks else next(iter(marks.values())) for row, marks in drawn]
    limit = price_limit(board, ALL, cost)
    limit_x = x(math.log(limit)) if limit else None
    prices = logarithmic([math.exp(p) for p, _ in at.values()])["tickvals"]
    return Picture(
        control, cost,
        tuple(
            Track(row.series.name, row.series.slot, row.models_per_token, row.series.kind == "curve",
                  tuple(marks.values()), end, name_y)
            for (row, marks), end, name_y in zip(drawn, ends, apart([end.y for end in ends], TOP, BOTTOM), strict=True)
        ),
        limit_x if limit_x is not None and LEFT <= limit_x <= RIGHT else None,
        x_ticks=ticks(prices, lambda v: x(math.log(v)), LEFT, RIGHT),
        y_ticks=ticks(round_values([s for _, s in at.values()]), y, TOP, BOTTOM),
    )  # fmt: skip


def _label(board: Board, i: int) -> str:
    values = (board.value(i, metric) for metric in (board.goal.control, board.goal.price))
    strength, price = map(number, values)
    return f"{board.places[i].label}: {board.goal.control} {strength}, {board.goal.price} {price}"
