"""A metric over time as a still picture: a line a method, a whisker a day; its table has the same numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from leaderboard.measure.history import Course, Day, Step, courses, days, milestones
from leaderboard.measure.rank import Row
from leaderboard.numbers import shown
from leaderboard.read.board import Board
from leaderboard.show.still import LEFT, RIGHT, TOP, Still, apart, round_values, scale, ticks

HEIGHT, BOTTOM = 300, 262
NAMED_DAYS = 5  # on the axis, at most


@dataclass(frozen=True)
class Dot:
    """One day of one line: where, and its whisker's ends."""

    x: float
    y: float
    ends: tuple[float, float] | None
    label: str


@dataclass(frozen=True)
class Line:
    name: str
    slot: int
    dots: tuple[Dot, ...]
    name_y: float


@dataclass(frozen=True)
class Chart(Still):
    height, bottom = HEIGHT, BOTTOM
    metric: str
    lines: tuple[Line, ...]


def chart(metric: str, lines: Sequence[Course], measured: Sequence[Day]) -> Chart | None:
    """None where no point was measured on several days."""
    if not lines:
        return None
    numbers = [step.number for course in lines for step in course.steps]
    values = [v for n in numbers for v in (n.value, n.low, n.high) if v is not None]
    when = {day.day: date.fromisoformat(day.day).toordinal() for day in measured}
    x, y = scale(list(when.values()), LEFT, RIGHT), scale(values, BOTTOM, TOP)
    dots = [tuple(_dot(course, step, x(when[step.day]), y) for step in course.steps) for course in lines]
    named = list(when)[:: max(1, -(-len(when) // NAMED_DAYS))]
    heights = apart([line[-1].y for line in dots], TOP, BOTTOM)
    return Chart(
        metric,
        tuple(Line(c.name, c.slot, line, at) for c, line, at in zip(lines, dots, heights, strict=True)),
        x_ticks=tuple((x(when[day]), day) for day in named),
        y_ticks=ticks(round_values(values), y, TOP, BOTTOM),
    )


def _dot(course: Course, step: Step, x: float, y: Callable[[float], float]) -> Dot:
    low, high = step.number.low, step.number.high
    several = f", {step.n} times" if step.n > 1 else ""
    ends = None if low is None or high is None else (y(low), y(high))
    return Dot(x, y(step.value), ends, f"{course.name}, {step.day}{several}: {shown(step.number)}")


def over_time(board: Board, rows: Sequence[Row]) -> dict[str, Any]:
    """What the page shows: the days, each of the goal's metrics with its picture and courses, the milestones."""
    measured = days(board)
    found = [(metric, courses(board, rows, metric)) for metric in board.columns] if len(measured) > 1 else []
    metrics = [(metric, chart(metric, lines, measured), lines) for metric, lines in found]
    return {"days": measured, "metrics": metrics, "milestones": milestones(board)}
