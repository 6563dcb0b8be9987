"""Section 5.2, which the paper argues and does not measure: near the base the model is linear in its weights.

Then the attribute is linear in alpha and beta, and mixing weights gives the distributions that mixing logits gives.
"""

from dataclasses import replace

import numpy as np

from bench.stats import Floats, with_interval
from leaderboard.charts.panel import ALPHA, Panel, along, axis, upright
from leaderboard.measure.rank import Series, draws
from leaderboard.names import title
from leaderboard.numbers import number, shown
from leaderboard.paper.cast import Cast
from leaderboard.paper.figure import Claim, Figure, Finding, absent
from leaderboard.paper.plane import design, maps
from leaderboard.read.board import ALL, Board

RADIUS = 1.0  # trust radius: the largest |alpha| and |beta| that count as near the base
WITHIN = f"within |alpha|, |beta| \N{LESS-THAN OR EQUAL TO} {RADIUS:g}"
TWINS = ("kl_weights_logits", "nucleus_overlap")


CLAIM = Claim(
    "linearity",
    "Linear near the base (section 5.2)",
    "If fine-tuning moves the weights little, the attribute is a linear function of alpha and beta near the base, and "
    "mixing weights comes close to mixing outputs. The paper reasons so about figure 6 and does not test it.",
)


def linearity(board: Board, parts: Cast) -> Figure:
    """How far the linear picture holds."""
    plane = parts.plane
    findings = [] if plane is None else [*_fit(board, plane), *_twins(board, plane)]
    panels = _panels(board, parts)
    missing = absent("no results on a plane of two parameters")
    return Figure(CLAIM, findings or missing, {ALL: panels} if panels else {})


def _panels(board: Board, parts: Cast) -> list[Panel]:
    found = [] if parts.plane is None else maps(board, parts.plane, TWINS)
    if parts.push is not None:
        x, (shape, notes) = axis(f"{ALPHA} of {parts.push.name}"), upright(0, "θ⁰")
        drawn = [panel for m in TWINS for panel in along(board, [parts.push], m, ALL, x, shapes=[shape], notes=notes)]
        found += [replace(panel, title=f"{panel.title} along {parts.push.name}") for panel in drawn]
    return found


def near(board: Board, plane: Series, metric: str) -> list[int]:
    """The places within the trust radius that have a value."""
    return [
        i
        for i in plane.places
        if board.value(i, metric) is not None
        and max(abs(float(board.places[i].params[p])) for p in ("alpha", "beta")) <= RADIUS
    ]


def _fit(board: Board, plane: Series) -> list[Finding]:
    places = near(board, plane, board.goal.control)
    if len(places) < 5 or board.goal.control not in board.per_prompt:
        return []
    value, drawn = draws(board.per_prompt[board.goal.control], ALL, places)
    found = explained(np.vstack([value, drawn]), design(board, places))
    r2 = with_interval(found[0], found[1:], len(places))
    return [Finding(f"A linear function of alpha and beta explains {shown(r2)} of the variance of {board.goal.control} "
                    f"(R\N{SUPERSCRIPT TWO}) over {len(places)} settings {WITHIN}.")]  # fmt: skip


def explained(rows: Floats, x: Floats) -> Floats:
    """R^2 of the least-squares fit of each row (n,) by the columns of x (n, k); NaN for a constant row."""
    residual = rows - rows @ (x @ np.linalg.pinv(x)).T
    spread = ((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    left = np.divide((residual**2).sum(axis=1), spread, out=np.full(len(rows), np.nan), where=spread > 0)
    return np.asarray(1 - left)


def _twins(board: Board, plane: Series) -> list[Finding]:
    found = []
    for metric in TWINS:
        places = near(board, plane, metric)
        if metric in board.metrics and places:
            v = np.array([board.value(i, metric) for i in places], dtype=np.float64)
            worst = int(v.argmax() if metric == TWINS[0] else v.argmin())
            text = f"{title(metric)} {WITHIN}: median {number(float(np.median(v)))}, at worst {number(float(v[worst]))}"
            found.append(Finding(f"{text} at {board.places[places[worst]].label}."))
    return found
