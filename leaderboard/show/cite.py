"""A board, or one of its points, as a BibTeX entry: what was measured, when, by which version, and of which bytes."""

import re

from leaderboard.numbers import shown
from leaderboard.read.board import Board

SPECIAL = re.compile(r"([#$%&_])")  # to LaTeX


def bibtex(board: Board, place: int | None = None, url: str = "") -> str:
    """The entry; `place` is a point's index, `url` where a reader finds it."""
    versions = {run.environment.get("packages", {}).get("lerpbench") for run in board.runs}
    version = ", ".join(sorted(str(v) for v in versions if v)) or "unknown"
    days = sorted(run.finished_at or run.started_at for run in board.runs)
    title, key = f"lerpbench: {board.title}", f"lerpbench-{board.suite}-{board.engine}"
    seen = f"suite {board.suite} on {board.engine}, {board.protocol.dtype}; prompts {board.protocol.texts[:16]}"
    if place is not None:
        label = board.places[place].label
        title, key = f"{title}: {label}", f"{key}-{label}"
        seen = f"{_numbers(board, place)}; {seen}"
    fields = {
        "title": f"{{{tex(title)}}}",
        "year": days[-1][:4] if days else "",
        "howpublished": rf"\url{{{url}}}" if url else "",
        "note": f"{tex(seen)}; lerpbench {version}",
    }
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@misc{{{re.sub(r'[^A-Za-z0-9.-]+', '-', key).strip('-')},\n{lines}}}\n"


def _numbers(board: Board, place: int) -> str:
    found = ((metric, board.get(place, metric)) for metric in board.columns)
    return "; ".join(f"{metric} {shown(number)}" for metric, number in found if number is not None)


def tex(text: str) -> str:
    """Plain ASCII that LaTeX sets as it stands."""
    plain = re.sub(r"[^ -~]|[{}\\^~]", " ", text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-"))
    return SPECIAL.sub(r"\\\1", plain)
