"""Splice a table of results into a Markdown file between its markers, with the command and the machine that made it.

python -m leaderboard.show.readme results.db README.md
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.markdown import table
from bench.schema import UserError
from bench.store.read import Reader
from leaderboard.measure.rank import PRICE, Row, find_series, rank, steering
from leaderboard.numbers import number, plain, shown
from leaderboard.read.board import Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores


def main(arguments: list[str]) -> int:
    return splice_file("leaderboard.show.readme", arguments, results)


def splice_file(program: str, arguments: list[str], contents: Callable[[Reader, Path], Mapping[str, str]]) -> int:
    """Put what a database says (name of the markers -> content) into a document: a program's exit code."""
    database, document = map(Path, arguments)
    try:
        spliced = document.read_text(encoding="utf-8")
        with open_stores([database]) as (store,):
            for name, content in contents(store, database).items():
                spliced = splice(spliced, content, name)
    except (UserError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    document.write_text(spliced, encoding="utf-8")
    return 0


def results(store: Reader, database: Path) -> dict[str, str]:
    (board, *_) = load_boards([store], [database])
    return {"results": f"{by_method(board)}\n\n{provenance(board)}"}


def splice(document: str, content: str, name: str) -> str:
    """The document with `content` between the markers of this name.  Raises UserError where it has none."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"expected the markers {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


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


def provenance(board: Board) -> str:
    """Which command on which machine made the numbers."""
    if not board.runs:
        return ""
    run = board.runs[-1]
    facts = run.environment
    versions = facts.get("packages", {})
    return (
        f"`lerpbench run {board.suite}` on {facts.get('processor')}, {facts.get('cores')} cores, torch "
        f"{versions.get('torch')}, transformers {versions.get('transformers')}, engine {board.engine}, "
        f"{run.started_at[:10]}; spliced in by `make readme`."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
