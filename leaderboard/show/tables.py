"""A board's tables in Markdown, for a README and a model card."""

from bench.markdown import table
from leaderboard.measure.rank import PRICE, Row, find_series, rank, steering
from leaderboard.numbers import number, plain, shown
from leaderboard.read.board import Board


def by_method(board: Board) -> str:
    """The table of methods: each at its reach."""
    goal = board.goal
    head = ["method", "at", *goal.metrics, f"Spearman of {goal.control} with alpha"]
    most = "largest" if goal.sign > 0 else "smallest"
    rows = [_line(board, row) for row in rank(board, steering(find_series(board)))]
    return (
        f"Each method where its {goal.control} is {most} at no more than {PRICE:g} times the base's {goal.price},\n"
        f"with 95 % intervals that resample prompts.\n\n{table(head, rows)}"
    )


def settings(board: Board) -> str:
    """The same columns for every place of the board."""
    rows = [
        [place.label, *(_cell(board, i, metric) for metric in board.goal.metrics)]
        for i, place in enumerate(board.places)
    ]
    return table(["setting", *board.goal.metrics], rows)


def _line(board: Board, row: Row) -> list[str]:
    if row.best is None:
        return [row.series.name, row.reason or "", *[""] * (len(board.goal.metrics) + 1)]
    at = ", ".join(f"{key} = {plain(value)}" for key, value in board.places[row.best].params.items())
    cells = [_cell(board, row.best, metric) for metric in board.goal.metrics]
    return [row.series.name, at, *cells, number(row.spearman.value)]


def _cell(board: Board, place: int, metric: str) -> str:
    found = board.get(place, metric)
    if found is None or found.value is None:
        return "not scored"
    return shown(found)
