"""What is shared of a board: for each point a page with a social card and a BibTeX entry, and the board's badge."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from bench.schema import Number
from leaderboard import names
from leaderboard.measure.rank import Row, Series
from leaderboard.numbers import between, number, plain
from leaderboard.paper.static import palette
from leaderboard.read.board import ALL, Board, Place
from leaderboard.show import social
from leaderboard.show.cite import bibtex

FOLDER = "points/"
LETTER, GAP = 6.6, 10  # of a badge: a letter's width, the room beside a text


def address(place: Place) -> str:
    """The point's page in its board's folder: the same in every rendering, whatever else is on the board."""
    told = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in place.label).strip("-.")
    digest = hashlib.sha256("\0".join(place.identity).encode()).hexdigest()
    return f"{FOLDER}{told[:48].rstrip('-.')}-{digest[:8]}.html"


@dataclass(frozen=True)
class Said:
    """A metric of a point: over all prompts, then over each set."""

    metric: str
    results: tuple[Number | None, ...]


def pages(
    env: jinja2.Environment, board: Board, series: Sequence[Series], common: Mapping[str, Any], url: str, cards: bool
) -> dict[str, str | bytes]:
    """Each point's page and card, by their paths in the board's folder.  `url`: of that folder, or nothing."""
    template, slots = env.get_template("point.html"), {i: s.slot for s in series for i in s.places}
    around = {**common, "root": f"../{common['root']}", "up": "../", "page": "point", "cards": cards}
    colours, found = palette(), dict[str, str | bytes]()
    hands = Counter(repeat.place for repeat in board.repeats)
    for i, place in enumerate(board.places):
        page = address(place)
        picture = page.removesuffix(".html") + ".png"
        if cards:
            found[picture] = _card(board, i, colours[f"--s{slots.get(i, 0) % 10}"])
        found[page] = template.render(
            **around, place=place, index=i, about=_about(place), said=_said(board, i), told=_told(board, i),
            hands=hands[i], bib=bibtex(board, i, url and url + page),
            address=url + page if url else "", picture=(url or "../") + picture,
        )  # fmt: skip
    return found


def _about(place: Place) -> str:
    mixed = ", ".join(f"{name} {plain(value)}" for name, value in place.recipe.coefficients.items())
    n = place.recipe.models_per_token
    return f"{place.recipe.space}: {mixed}; {n} model{'s' if n != 1 else ''} per token"


def _said(board: Board, i: int) -> list[Said]:
    """The goal's metrics first; without those that have an item each."""
    whole = [metric for metric in board.metrics if names.family(metric) == metric]
    ordered = dict.fromkeys([*board.columns, *whole])
    rows = [Said(metric, tuple(board.get(i, metric, prompts) for prompts in (ALL, *board.sets))) for metric in ordered]
    return [row for row in rows if any(row.results)]


def _told(board: Board, i: int) -> str:
    """The goal's numbers in a sentence, for a link's description."""
    found = [(metric, board.get(i, metric)) for metric in board.columns]
    return "; ".join(
        f"{metric} {number(n.value)}{f' [{between(n)}]' if between(n) else ''}" for metric, n in found if n is not None
    )


def _card(board: Board, i: int, colour: str) -> bytes:
    found = [(metric, board.get(i, metric)) for metric in board.columns]
    shown = [
        social.Figure(metric, number(n.value), between(n) or (n.reason or "")) for metric, n in found if n is not None
    ]
    total = sum(board.protocol.prompts.values())
    days = sorted(run.finished_at or run.started_at for run in board.runs)
    foot = f"{total} prompts, {board.samples} completions each; 95 % intervals resample prompts"
    head = f"suite {board.suite} on {board.engine}, {board.protocol.dtype}"
    day = f"; {days[-1][:10]}" if days else ""
    return social.draw(head, board.places[i].label, _about(board.places[i]), shown, foot + day, colour)


def badge(env: jinja2.Environment, board: Board, rows: Sequence[Row]) -> str:
    """An SVG of one line: the suite, and how far the best method steers it."""
    best = next((row.best for row in rows if row.best is not None), None)
    left, right = f"lerpbench {board.suite}", f"{len(board.places)} points"
    if best is not None:
        right = f"{board.goal.control} {number(board.value(best, board.goal.control))} by {board.places[best].label}"
    widths = [round(len(text) * LETTER + 2 * GAP) for text in (left, right)]
    template, colour = env.get_template("badge.svg"), palette()["--s0"]
    return template.render(left=left, right=right, widths=widths, gap=GAP, colour=colour)
