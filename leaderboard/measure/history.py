"""Pure: a suite over time: the same points on several days, and how far the best has come.

A database's day is that of its last run.  Several of one day are one step: their median, from the least to the largest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.schema import Number
from leaderboard.measure.rank import Row, affordable
from leaderboard.measure.submissions import Submission, handed_in
from leaderboard.read.board import ALL, Board


@dataclass(frozen=True)
class Day:
    """Who measured on it, and with which versions."""

    day: str
    who: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A metric on one day: one database's number with its interval, or the median of several and their ends.

    `value`: the number's, which is there.
    """

    day: str
    n: int
    value: float
    number: Number


@dataclass(frozen=True)
class Course:
    """One metric of one point, a step a day."""

    name: str
    slot: int
    place: int
    steps: tuple[Step, ...]

    @property
    def by_day(self) -> Mapping[str, Step]:
        return {step.day: step for step in self.steps}


@dataclass(frozen=True)
class Milestone:
    """A day on which the control went further than on any before, within the price."""

    day: str
    who: str
    place: int


def days(board: Board) -> list[Day]:
    """The days on which the board's databases were measured, the first one first."""
    dated: dict[str, list[Submission]] = {}
    for one in handed_in(board):
        if one.measured:
            dated.setdefault(one.measured, []).append(one)
    listed = sorted(dated.items())
    return [Day(day, _each(s.who for s in found), _each(s.versions for s in found)) for day, found in listed]


def _each(texts: Iterable[str]) -> tuple[str, ...]:
    """Those that are there, each once."""
    return tuple(dict.fromkeys(filter(None, texts)))


def courses(board: Board, rows: Sequence[Row], metric: str) -> list[Course]:
    """For each method the point of its reach, or else the first that was measured on several days."""
    measured_on = {one.database: one.measured for one in handed_in(board)}
    again: dict[int, list[tuple[str, Number | None]]] = {}
    for repeat in board.repeats:
        again.setdefault(repeat.place, []).append((repeat.database, repeat.results.get(metric)))
    found = []
    for row in rows:
        wanted = [*([] if row.best is None else [row.best]), *row.series.places]
        every = (
            (i, _steps([(board.places[i].database, board.get(i, metric)), *again.get(i, ())], measured_on))
            for i in wanted
        )
        several = next(((place, steps) for place, steps in every if len(steps) > 1), None)
        if several is not None:
            found.append(Course(board.places[several[0]].label, row.series.slot, *several))
    return found


def _steps(measured: Sequence[tuple[str, Number | None]], measured_on: Mapping[str, str]) -> tuple[Step, ...]:
    """`measured`: database and number."""
    by_day: dict[str, list[tuple[float, Number]]] = {}
    for database, number in measured:
        day = measured_on.get(database)
        if day and number is not None and number.value is not None:
            by_day.setdefault(day, []).append((number.value, number))
    return tuple(_step(day, found) for day, found in sorted(by_day.items()))


def _step(day: str, found: Sequence[tuple[float, Number]]) -> Step:
    values, numbers = zip(*found, strict=True)
    if len(found) == 1:
        return Step(day, 1, values[0], numbers[0])
    middle = median(values)
    scored, total = sum(n.n_scored for n in numbers), sum(n.n_total for n in numbers)
    return Step(day, len(found), middle, Number(middle, min(values), max(values), scored, total))


def milestones(board: Board) -> list[Milestone]:
    """Whenever a point came that steers further than all before it, at no more than the board's price."""
    by_database = {one.database: one for one in handed_in(board) if one.measured}
    within, _ = affordable(board, range(len(board.places)), ALL)
    dated = [(by_database[d].measured, by_database[d].who, i) for i in within
             if (d := board.places[i].database) in by_database]  # fmt: skip
    found: list[Milestone] = []
    best = None
    for day in sorted({day for day, _, _ in dated}):
        came = [(board.value(i, board.goal.control), who, i) for when, who, i in dated if when == day]
        furthest = max(((v * board.goal.sign, who, i) for v, who, i in came if v is not None), default=None)
        if furthest is not None and (best is None or furthest[0] > best):
            best = furthest[0]
            found.append(Milestone(day, furthest[1], furthest[2]))
    return found
