"""Splice a suite's table of results into a Markdown file between its markers, with the command and the machine that
made it.

python -m tools.readme results.db README.md
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.schema import UserError
from bench.store.read import Reader
from leaderboard.read.board import Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show.tables import by_method


def main(arguments: list[str]) -> int:
    return splice_file("tools.readme", arguments, results)


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
    return {f"results {board.suite}": f"{by_method(board)}\n\n{provenance(board)}"}


def splice(document: str, content: str, name: str) -> str:
    """The document with `content` between the markers of this name.  Raises UserError where it has none."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"expected the markers {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def provenance(board: Board) -> str:
    """Which command on which machine made the numbers."""
    if not board.runs:
        return ""
    run = board.runs[-1]
    asked = run.command.partition(" --")[0]
    facts = run.environment
    versions = facts.get("packages", {})
    return (
        f"`{asked}` on {facts.get('processor')}, {facts.get('cores')} cores, torch "
        f"{versions.get('torch')}, transformers {versions.get('transformers')}, engine {board.engine}, "
        f"{run.started_at[:10]}; spliced in by `make readme`."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
